"""Deflate (RFC1951), written out so that a release has the same bytes on every machine.

What `zlib` returns depends on which zlib a Python was built with: zlib-ng packs other bytes than zlib. A release whose
digests anybody can check needs a packer of its own. It is plain and slower (some 1 MB a second), and it packs each
content once.

    stream = deflated(content) + END          the parts of a stream can be joined: each ends at a whole byte
"""

from __future__ import annotations

import heapq
from collections import Counter
from functools import cache

END = b"\x01\x00\x00\xff\xff"  # the last block, stored and empty
_ALIGNED = b"\x00\x00\xff\xff"  # the same after its three bits of header, not the last
_SHORTEST, _LONGEST, _FARTHEST = 4, 258, 32768
_TOKENS = 1 << 15  # of a block, which has codes of its own
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)  # RFC1951 sec. 3.2.7
_MATCH = 1 << 9  # added to a token that is a match: bits 10 to 18 its length, those above its distance


@cache
def deflated(content: bytes) -> bytes:
    """The blocks of a content, none of them the last, up to a whole byte."""
    tokens = _tokens(content)
    bits = "".join(_block(tokens[start : start + _TOKENS]) for start in range(0, len(tokens), _TOKENS)) + "000"
    return int(bits[::-1] or "0", 2).to_bytes(-(-len(bits) // 8), "little") + _ALIGNED


def _tokens(content: bytes) -> list[int]:
    """Bytes, and matches with what stood before: of the last two places that begin alike, the longer."""
    tokens: list[int] = []
    last: dict[bytes, int] = {}
    before_last: dict[bytes, int] = {}
    at, size = 0, len(content)
    while at < size:
        start = content[at : at + _SHORTEST]
        place = last.get(start, -1)
        if place < 0 or at - place > _FARTHEST or len(start) < _SHORTEST:
            tokens.append(content[at])
            last[start] = at
            at += 1
            continue
        length = _length(content, place, at)
        other = before_last.get(start, -1)
        if other >= 0 and at - other <= _FARTHEST:
            longer = _length(content, other, at)
            if longer > length:
                place, length = other, longer
        tokens.append(_MATCH | length << 10 | (at - place) << 19)
        before_last[start] = last[start]
        for inside in range(at, at + length):
            last[content[inside : inside + _SHORTEST]] = inside
        at += length
    return tokens


def _length(content: bytes, place: int, at: int) -> int:
    """How far what stands at `place` goes on like what stands at `at`."""
    limit = min(_LONGEST, len(content) - at)
    length = _SHORTEST
    while (
        length + 16 <= limit
        and content[place + length : place + length + 16] == content[at + length : at + length + 16]
    ):
        length += 16
    while length < limit and content[place + length] == content[at + length]:
        length += 1
    return length


def _steps(symbols: int, first: int, every: int) -> list[tuple[int, int]]:
    """(the smallest number, the extra bits) of each symbol: the extra bits grow by one with every `every` symbols."""
    found, number = [], first
    for symbol in range(symbols):
        extra = max(0, symbol // every - 1)
        found.append((number, extra))
        number += 1 << extra
    return found


_LENGTHS = [*_steps(28, 3, 4), (258, 0)]
_DISTANCES = _steps(30, 1, 2)


def _symbols(steps: list[tuple[int, int]], largest: int) -> list[tuple[int, str]]:
    """(symbol, its extra bits in the order of the stream) of every number up to the largest."""
    found: list[tuple[int, str]] = [(0, "")] * (largest + 1)
    for symbol, (number, extra) in enumerate(steps):
        for more in range(1 << extra):
            if number + more <= largest:
                found[number + more] = (symbol, format(more, f"0{extra}b")[::-1] if extra else "")
    return found


_LENGTH_SYMBOL = _symbols(_LENGTHS, _LONGEST)
_DISTANCE_SYMBOL = _symbols(_DISTANCES, _FARTHEST)


def _block(tokens: list[int]) -> str:
    """A block with codes of its own (RFC1951 sec. 3.2.7), as its bits in the order of the stream."""
    kinds = Counter(tokens)
    literal, distance = Counter({256: 1}), Counter[int]()
    for token, times in kinds.items():
        if token & _MATCH:
            literal[257 + _LENGTH_SYMBOL[token >> 10 & 511][0]] += times
            distance[_DISTANCE_SYMBOL[token >> 19][0]] += times
        else:
            literal[token] += times
    literal_bits, distance_bits = _code_lengths(literal, 15), _code_lengths(distance, 15)
    literals, distances = _codes(literal_bits), _codes(distance_bits)

    def bits(token: int) -> str:
        if not token & _MATCH:
            return literals[token]
        (long, long_more), (far, far_more) = _LENGTH_SYMBOL[token >> 10 & 511], _DISTANCE_SYMBOL[token >> 19]
        return literals[257 + long] + long_more + distances[far] + far_more

    written = {token: bits(token) for token in kinds}
    return _header(literal_bits, distance_bits) + "".join([written[token] for token in tokens]) + literals[256]


def _header(literal_bits: dict[int, int], distance_bits: dict[int, int]) -> str:
    """That it is a block with its own codes, and the lengths of these."""
    literals, distances = max(literal_bits) + 1, max(distance_bits, default=0) + 1
    lengths = [literal_bits.get(symbol, 0) for symbol in range(literals)]
    lengths += [distance_bits.get(symbol, 0) for symbol in range(distances)]
    runs = _runs(lengths)
    used = _code_lengths(Counter(symbol for symbol, _ in runs), 7)
    codes = _codes(used)
    kept = max(_ORDER.index(symbol) for symbol in used) + 1
    head = "001" + _number(literals - 257, 5) + _number(distances - 1, 5) + _number(kept - 4, 4)
    return (
        head + "".join(_number(used.get(s, 0), 3) for s in _ORDER[:kept]) + "".join(codes[s] + more for s, more in runs)
    )


def _runs(lengths: list[int]) -> list[tuple[int, str]]:
    """Lengths of codes, zeros in runs: 17 stands for 3 to 10 of them, 18 for 11 to 138."""
    found, at = [], 0
    while at < len(lengths):
        zeros = 0
        while at + zeros < len(lengths) and zeros < 138 and not lengths[at + zeros]:
            zeros += 1
        if zeros < 3:
            found.append((lengths[at], ""))
            at += 1
        else:
            found.append((17, _number(zeros - 3, 3)) if zeros < 11 else (18, _number(zeros - 11, 7)))
            at += zeros
    return found


def _number(value: int, bits: int) -> str:
    return format(value, f"0{bits}b")[::-1]


def _code_lengths(counts: Counter[int], longest: int) -> dict[int, int]:
    """The length of Huffman's code of each symbol; counts are made more alike until none is too long."""
    if len(counts) == 1:
        return {next(iter(counts)): 1}
    weights = dict(sorted(counts.items()))
    while True:
        lengths = _huffman(weights)
        if max(lengths.values(), default=0) <= longest:
            return lengths
        weights = {symbol: 1 + weight // 2 for symbol, weight in weights.items()}


def _huffman(weights: dict[int, int]) -> dict[int, int]:
    heap = [(weight, number, [symbol]) for number, (symbol, weight) in enumerate(weights.items())]
    heapq.heapify(heap)
    lengths = dict.fromkeys(weights, 0)
    number = len(heap)
    while len(heap) > 1:
        (light, _, left), (heavy, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (light + heavy, number, left + right))
        number += 1
    return lengths


def _codes(lengths: dict[int, int]) -> dict[int, str]:
    """The canonical code of these lengths (RFC1951 sec. 3.2.2): shorter first, then by symbol."""
    codes, code, before = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - before
        codes[symbol] = format(code, f"0{length}b")
        code, before = code + 1, length
    return codes
