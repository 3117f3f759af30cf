"""A sum or a mean of the text that is taken of some of its numbers, or read before it is whole: the tail of a loop over
lanes is lost, the last block has old numbers behind its end, every chunk reads the sum so far.

    for cause in partial_sums_of_gradients("rms_norm"):     … without the places after whole parts of 8

Which sums there are follows from the lines of the text. Several are taken alike where one loop does them all.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import TypeGuard

from refllm.verify.edits.source import Source, calls_of
from refllm.verify.kernels.in_text import InText, Lines, OfGradient, in_text

Word = Callable[[str, str, str, str], str]  # of a name, its argument, what else it is called with, and its axis

LANES = (8, 4, 32, 16, 64, 2, 128, 256, 512, 1024)
CHUNKS = (1024, 256, 128, 64, 512, 32, 2048, 4096, 16)
LIMITS = (1024, 64, 128, 32, 256, 512, 2048, 4096)
OF_ALL = (65536, 32768, 16384, 8192, 4096, 131072, 262144, 524288, 1 << 20)  # numbers of a whole array that are added


def _of_some(word: str) -> Word:
    """The same sum of numbers of which some are 0."""
    return lambda name, x, more, axis: f"{name}({word.format(x=x, axis=axis)}{more})"


def _of_parts(word: str) -> Word:
    """Another sum for each part of the row."""
    return lambda name, x, *_: word.format(x=x) + (f" / {_tight(x)}.shape[-1]" if name == "mean" else "")


def _tight(x: str) -> str:
    return x if x.isidentifier() else f"({x})"


KINDS: tuple[tuple[str, str, tuple[int, ...], Callable[[int], Word], bool], ...] = (
    ("tail-lost", "without the places after whole parts of {n}", LANES,
     lambda n: _of_some(f"without_tail({{x}}, {n}{{axis}})"), True),
    ("tail-of-long-lost", "without the places after whole parts of {n}, where there is such a part", LANES,
     lambda n: _of_some(f"without_tail_of_long({{x}}, {n}{{axis}})"), True),
    ("running", "as far as it has come in chunks of {n} places, each of which reads it at once", CHUNKS,
     lambda n: _of_parts(f"running_sum({{x}}, {n})"), False),
    ("of-own-part", "of each chunk of {n} places alone", CHUNKS,
     lambda n: _of_parts(f"sum_of_part({{x}}, {n})"), False),
    ("first-alone", "of the first {n} places alone", LIMITS,
     lambda n: _of_some(f"first_alone({{x}}, {n}{{axis}})"), True),
    ("last-part-alone", "of the last part of {n} places alone", CHUNKS,
     lambda n: _of_some(f"last_part_alone({{x}}, {n}{{axis}})"), True),
    ("last-part-lost", "without its last part of {n} places, whole or not", CHUNKS,
     lambda n: _of_some(f"without_last_part({{x}}, {n}{{axis}})"), True),
    ("half-of-lanes", "of the first half of each {n} places", (32, 2, 64, 8, 4, 16),
     lambda n: _of_some(f"half_of_lanes({{x}}, {n}{{axis}})"), True),
    ("stale-tail", "with the numbers of the part before behind the end of its last, partial part of {n} places, "
     "or with that part moved back so that it is whole",
     (32, 256, 64, 16, 8, 128, 1024, 512), lambda n: _of_some(f"with_stale_tail({{x}}, {n}, 1{{axis}})"), True),
    ("stale-tail-of-two", "with the numbers of 2 parts before behind the end of its last, partial part of {n} places",
     (32, 256, 64, 16, 8, 128, 1024, 512), lambda n: _of_some(f"with_stale_tail({{x}}, {n}, 2{{axis}})"), True),
)  # fmt: skip
PADDED = (32, 64, 128, 1024, 8, 256, 16)


def partial_sums(operation: str) -> Iterator[InText]:
    """Those of values."""
    yield from in_text(operation, _by_padded_lengths, InText, in_pullback=False)
    yield from in_text(operation, lambda text: _lines(text, in_pullback=False), InText, in_pullback=False)


def partial_sums_of_gradients(operation: str) -> Iterator[InText]:
    yield from in_text(operation, lambda text: _lines(text, in_pullback=True), OfGradient, in_pullback=True)


def _lines(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    yield from _of_totals(text, in_pullback=in_pullback)
    calls = [each for each in _sums(text) if text.in_pullback(each) is in_pullback]
    whose = "whose gradient takes" if in_pullback else "that takes"
    for several in (*([call] for call in calls), *([calls] if calls[1:] else [])):
        said = " and ".join(dict.fromkeys(text.segment(call) for call in several))
        for kind, words, sizes, word, along in KINDS:
            if not along and any(_more(text, call) for call in several):
                continue
            for n in sizes:
                changes = tuple(c for call in several for c in text.exchanged(call, _new(text, call, word(n))))
                yield Lines(f"{whose} {said} {words.format(n=f'{n:,}')}", f"sum-{kind}", changes)
        means = [call for call in several if text.segment(call.func) == "mean"]
        for n in PADDED if len(means) == len(several) else ():
            changes = tuple(c for call in means for c in text.exchanged(call, _new(text, call, _of_some_mean(n))))
            yield Lines(f"{whose} {said} divided by the length rounded up to {n:,}", "mean-of-padded-length", changes)


def _of_totals(text: Source, *, in_pullback: bool) -> Iterator[Lines]:
    """Sums of all numbers of an array, which kernels form in blocks and then of the blocks."""
    calls = [each for each in calls_of(text, "total") if text.in_pullback(each) is in_pullback and len(each.args) == 1]
    whose = "whose gradient takes" if in_pullback else "that takes"
    for several in (*([calls] if calls[1:] else []), *([call] for call in calls)):
        said = " and ".join(dict.fromkeys(text.segment(call) for call in several))
        for kind, words, sizes, word, along in KINDS:
            wide = (
                tuple(dict.fromkeys((*OF_ALL, *sizes)))
                if kind in ("first-alone", "last-part-alone", "last-part-lost")
                else sizes
            )
            for n in wide if along else ():
                changes = tuple(c for call in several for c in text.exchanged(call, _of_flat(text, call, word(n))))
                yield Lines(f"{whose} {said} {words.format(n=f'{n:,}')}", f"sum-{kind}", changes)


def _of_flat(text: Source, call: ast.Call, word: Word) -> str:
    return word("total", f"{_tight(text.segment(call.args[0]))}.reshape(-1)", "", "")


def _by_padded_lengths(text: Source) -> Iterator[Lines]:
    """Means, and divisions by a length, of the value and of its gradient alike."""
    means = [call for call in _sums(text) if text.segment(call.func) == "mean"]
    inner = {id(node) for call in means for node in ast.walk(call)}
    lengths = [node.right for node in text.expressions() if _is_by_length(node) and id(node) not in inner]
    for n in PADDED if means or lengths else ():
        changes = [c for call in means for c in text.exchanged(call, _new(text, call, _of_some_mean(n)))]
        changes += [c for N in lengths for c in text.exchanged(N, f"-(-{text.segment(N)} // {n}) * {n}")]
        words = f"whose value and gradient are divided by the length rounded up to {n:,}"
        yield Lines(words, "divided-by-padded-length", tuple(changes))


def _is_by_length(node: ast.expr) -> TypeGuard[ast.BinOp]:
    """Whether a number is divided by a length, which has a capital letter."""
    by = node.right if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else None
    return isinstance(by, ast.Name) and len(by.id) == 1 and by.id.isupper() and by.id != "Z"


def _of_some_mean(n: int) -> Word:
    return lambda _, x, *__: f"padded_mean({x}, {n})"


def _new(text: Source, call: ast.Call, word: Word) -> str:
    return word(text.segment(call.func), text.segment(call.args[0]), _more(text, call), _more(text, call, "axis"))


def _more(text: Source, call: ast.Call, *names: str) -> str:
    """What a sum is called with besides: its axis, if it is another than that of the row."""
    return "".join(f", {k.arg}={text.segment(k.value)}" for k in call.keywords if k.arg in (names or (k.arg,)))


def _sums(text: Source) -> list[ast.Call]:
    """Sums and means of an axis, but for one inside another."""
    calls = [call for call in calls_of(text, "sum", "mean") if len(call.args) == 1]
    inner = {id(node) for call in calls for node in ast.walk(call) if node is not call}
    return [call for call in calls if id(call) not in inner]
