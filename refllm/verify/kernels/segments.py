"""Attention within documents by borders that are read wrongly: documents that begin a place too late, two that are one,
lengths for borders, and causal masks by the borders of others.

    for cause in segments("packed_attention"):      … in which the first query of a document belongs to the one before

Each is a rule for the borders of queries and of keys, for who sees whom and, causal, for up to which key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response

Parts = tuple[Array, Array]  # where documents begin and where they end
Rule = Callable[[Array, int], Array | Parts]  # of the borders and of how many places there are
SIDES = {"queries": (True, False), "keys": (False, True), "queries and keys": (True, True)}


def _inner(by: int) -> Rule:
    """The borders between documents moved."""

    def rule(borders: Array, n: int) -> Array:
        moved = borders.copy()
        moved[1:-1] = numpy.clip(borders[1:-1] + by, 0, n)
        return moved

    return rule


def _ends(by: int) -> Rule:
    """All ends moved, the last one too; documents begin where they do."""
    return lambda borders, n: (borders[:-1], numpy.clip(borders[1:] + by, 0, n))


def _begins(by: int) -> Rule:
    return lambda borders, _: (numpy.maximum(borders[:-1] + by, 0), borders[1:])


def _without(chosen: Callable[[Array], Array]) -> Rule:
    """Without some of the borders between documents."""

    def rule(borders: Array, _: int) -> Array:
        place = numpy.arange(len(borders))
        lost = chosen(place) & (place > 0) & (place < len(borders) - 1)
        return borders[~lost]

    return rule


def _rounded(size: int, up: bool) -> Rule:
    """Each document padded to whole tiles, or cut to them."""

    def rule(borders: Array, n: int) -> Array:
        lengths = -(-numpy.diff(borders) // size) * size if up else numpy.diff(borders) // size * size
        return numpy.minimum(numpy.concatenate([[0], lengths.cumsum()]), n)

    return rule


def _of_lengths(of: Callable[[Array], Array]) -> Rule:
    """The sums of other lengths."""
    return lambda borders, n: numpy.minimum(numpy.concatenate([[0], of(numpy.diff(borders)).cumsum()]), n)


def _aligned(size: int, up: bool) -> Rule:
    """Borders between documents moved to those of tiles."""

    def rule(borders: Array, n: int) -> Array:
        moved = borders.copy()
        inner = borders[1:-1]
        moved[1:-1] = numpy.minimum(-(-inner // size) * size if up else inner // size * size, n)
        return moved

    return rule


RULES: tuple[tuple[str, str, Rule], ...] = (
    ("border-late", "the first of the {who} of a document belongs to the one before", _inner(1)),
    ("border-early", "the last of the {who} of a document belongs to the next one", _inner(-1)),
    ("end-late", "a document has the first of the {who} of the next one as well, the last document one more", _ends(1)),
    ("end-early", "a document has its {who} without the last one", _ends(-1)),
    ("begin-late", "a document has its {who} without the first one", _begins(1)),
    ("begin-early", "a document has the last of the {who} of the one before as well", _begins(-1)),
    ("merged", "all documents are one for the {who}", _without(lambda n: n > 0)),
    ("first-merged", "the first two documents are one for the {who}", _without(lambda n: n == 1)),
    ("last-merged", "the last two documents are one for the {who}", _without(lambda n: n == n[-1] - 1)),
    ("pairs-merged", "each two documents are one for the {who}", _without(lambda n: n % 2 == 1)),
    ("last-lost", "the last document is left out for the {who}", lambda borders, _: borders[:-1]),
    ("to-the-end", "the last document reaches to the end of the {who}",
     lambda borders, n: numpy.append(borders[:-1], n)),
    ("equal-lengths", "all documents have as many of the {who} as the first one",
     _of_lengths(lambda lengths: 0 * lengths + lengths[:1])),
    ("mean-lengths", "all documents have as many of the {who} as they have in the mean",
     _of_lengths(lambda lengths: 0 * lengths + lengths.sum() // max(1, len(lengths)))),
    ("lengths-sorted", "documents have the lengths of the {who} from the longest on",
     _of_lengths(lambda lengths: numpy.sort(lengths)[::-1])),
    ("lengths-turned", "documents have the lengths of the {who} in the reverse order",
     _of_lengths(lambda lengths: lengths[::-1])),
    ("lengths-next", "each document has the length of the {who} of the next one",
     _of_lengths(lambda lengths: numpy.roll(lengths, -1))),
    *((f"{id}-to-tiles", f"the {{who}} of a document are {words} to a multiple of {size}", _rounded(size, up))
      for size in (8, 16, 32, 64, 128) for id, words, up in (("padded", "padded", True), ("cut", "cut", False))),
    *(("border-aligned", f"a document's {{who}} begin at a tile of {size}, {words}", _aligned(size, up))
      for size in (8, 16, 32, 64, 128) for words, up in (("before its border", False), ("after its border", True))),
)  # fmt: skip
LIMITS = {  # up to which key a query sees those of its document, where it is causal
    "": "",
    "own": ", and whose causal masks are by the right borders",
    "rows": ", and whose causal masks are by the places in the row",
    "rows-from-end": ", and whose causal masks are by the places in the row, counted from its end",
}


@dataclass(frozen=True, eq=False)
class Segments:
    id: str
    about: str
    rule: Rule
    sides: tuple[bool, bool]
    limit: str
    gradients_alone: bool = False
    issue: str | None = None
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        function = plain.text()["packed_attention"]
        if not self._rows(case).any():
            return None
        return plain.answer(case, dtype, {function: self._attention}, traced=False, values=not case.cotangents)

    def may(self, case: Case, wrong: dict[str, Array]) -> bool:
        """Whether the queries of which something is wrong are those that would attend other keys."""
        off = wrong.get("gradients.q" if self.gradients_alone else "outputs.y")
        if off is None:
            return True
        here, there = numpy.asarray(off.any(axis=(*range(off.ndim - 2), off.ndim - 1))), self._rows(case)
        return not (here & ~there).any() and bool(there.sum() <= 2 * here.sum() + 2)

    def _rows(self, case: Case) -> Array:
        """The queries that attend other keys than they should."""
        how, shape = case.keywords, (case.inputs["q"].shape[-2], case.inputs["k"].shape[-2])
        borders, key_borders, causal = how["borders"], how["key_borders"], how["causal"]
        right = _seen(borders, key_borders, borders, key_borders, shape, causal, "")
        found: Array = (self._mask(borders, key_borders, causal, shape) != right).any(axis=1)
        return found

    def _attention(self, q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool) -> Any:
        shape, right = (q.shape[-2], k.shape[-2]), plain.text()["attention"]
        y, back = right(q, k, v, causal=False, attention_mask=self._mask(borders, key_borders, causal, shape))
        if not self.gradients_alone:
            return y, back
        true = _seen(borders, key_borders, borders, key_borders, shape, causal, "")
        return right(q, k, v, causal=False, attention_mask=true)[0], back

    def _mask(self, borders: Array, key_borders: Array, causal: bool, shape: tuple[int, int]) -> Array:
        given = zip(self.sides, (borders, key_borders), shape, strict=True)
        of_queries, of_keys = (self.rule(x, n) if wrong else x for wrong, x, n in given)
        return _seen(of_queries, of_keys, borders, key_borders, shape, causal, self.limit)


def _seen(
    borders: Array | Parts, key_borders: Array | Parts, own: Array, own_keys: Array,
    shape: tuple[int, int], causal: bool, limit: str,
) -> Array:  # fmt: skip
    """Which key each query may attend: those of its document, up to the limit."""
    T, S = shape
    t, s = numpy.arange(T)[:, None], numpy.arange(S)
    seen, of_rows = numpy.zeros(shape, bool), s <= t + (S - T if limit == "rows-from-end" else 0)
    for n, ((begin, end), (key_begin, key_end)) in enumerate(zip(_parts(borders), _parts(key_borders), strict=False)):
        here = (begin <= t) & (t < end) & (key_begin <= s) & (s < key_end)
        if causal and limit.startswith("rows"):
            here &= of_rows
        elif causal:
            right = limit == "own" and n + 1 < len(own)
            here &= s <= t + (own_keys[n + 1] - own[n + 1] if right else key_end - end)
        seen |= here
    return seen


def _parts(borders: Array | Parts) -> list[tuple[int, int]]:
    begins, ends = borders if isinstance(borders, tuple) else (borders[:-1], borders[1:])
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def segments(operation: str) -> Iterator[Segments]:
    if operation != "packed_attention":
        return
    for in_gradient in (False, True):
        for limit, (id, words, rule), (who, sides) in product(LIMITS, RULES, SIDES.items()):
            where = ", in the gradient alone" if in_gradient else ""
            about = f"packed_attention in which {words.format(who=who)}{LIMITS[limit]}{where}"
            name = f"packed_attention/{'gradient-' if in_gradient else ''}{id}"
            yield Segments(name, about, rule, sides, limit, in_gradient)
