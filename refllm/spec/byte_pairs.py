"""Byte-pair encoding: which pairs of tokens become one, and how a word is written with them."""

from collections.abc import Sequence
from itertools import pairwise

from refllm.spec.array import Array, integers

BYTES = 256
NOTHING = -1  # stands where there is no token

Pair = tuple[int, int]


def learn_merges(*, words: Array, counts: Array, most: int) -> Array:
    """DATA, byte pairs: the most frequent pair of neighbours becomes one token, over and over, at most `most` times

    Words are written in bytes, 0 ... 255; merge number m makes token 256 + m. A pair is counted at every place in every
    word, as often as the word occurs; of equally frequent pairs the one with the smaller ids comes first. A pair that
    occurs once is not merged.
    Source:  Sennrich et al. 2016 (arXiv:1508.07909) sec. 3.2, on bytes as in Radford et al. 2019 sec. 2.2; documents
             001 ch. 3 sec. 2.2.
    Shapes:  words (N, L), -1 after the end; counts (N,) -> merges (most, 2), -1 after the last

    >>> learn_merges(words=integers([[7, 8, 7, 8], [8, 7, -1, -1]]), counts=integers([2, 3]), most=3)
    array([[  8,   7],
           [  7, 256],
           [257,   8]])
    """
    texts = [[int(i) for i in word if i != NOTHING] for word in words]
    merges: list[Pair] = []
    while len(merges) < most:
        times: dict[Pair, int] = {}
        for text, count in zip(texts, counts, strict=True):
            for pair in pairwise(text):
                times[pair] = times.get(pair, 0) + int(count)
        best = min(times, key=lambda pair: (-times[pair], pair), default=None)
        if best is None or times[best] < 2:
            break
        texts = [merged(text, best, BYTES + len(merges)) for text in texts]
        merges.append(best)
    return integers([*merges, *[(NOTHING, NOTHING)] * (most - len(merges))]).reshape(most, 2)


def encode_word(*, ids: Array, merges: Array) -> Array:
    """DATA, byte pairs: of all pairs in the word the one that was learnt first becomes one token, until none is left

    Source:  Sennrich et al. 2016 (arXiv:1508.07909) sec. 3.2.
    Shapes:  ids (L,), bytes; merges (M, 2) -> ids (L,), -1 after the last

    >>> encode_word(ids=integers([7, 8, 7]), merges=integers([[8, 7], [7, 8]]))
    array([  7, 256,  -1])
    """
    text = [int(i) for i in ids]
    rank = {(int(a), int(b)): m for m, (a, b) in enumerate(merges)}
    while known := [pair for pair in pairwise(text) if pair in rank]:
        first = min(known, key=lambda pair: rank[pair])
        text = merged(text, first, BYTES + rank[first])
    return integers([*text, *[NOTHING] * (len(ids) - len(text))])


def merged(text: Sequence[int], pair: Pair, token: int) -> list[int]:
    """The text with every such pair replaced by the token, from the left; in 7 7 7 the pair 7 7 stands once."""
    found, t = list[int](), 0
    while t < len(text):
        here = tuple(text[t : t + 2]) == pair
        found.append(token if here else text[t])
        t += 2 if here else 1
    return found
