"""Whether a mistake of attention may explain a wrong answer: asked of one head, at a few wrong places, before it is
asked of the whole case.

screen = Screen(case, given, wrong)
screen.may(mistake, sizes)          False where its numbers there are not those of the answer
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case
from refllm.verify.kernels import attention_kinds, flash, loops, machine, matching
from refllm.verify.kernels.attention_kinds import Asked
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.loops import Sizes
from refllm.verify.kernels.matching import NEAR, Given
from refllm.verify.kernels.mistakes.attention import CAUSAL, MASK
from refllm.verify.sized import judge
from refllm.verify.sized.evaluate import Expected

SHARE = 0.25  # of the wrong numbers that are looked at, those that a mistake must give
PLACES = 3  # queries that are looked at
ACROSS = re.compile(r"reshape|\.ndim|shape\[:-2\]|axis=0|numpy\.stack")  # what one head alone does not show
WHOLE = ("top = numpy.full(", "shift, Z, sums =", "for rows in")  # lines of which all tiles of queries are asked
NAMES = {"dq": "gradients.q", "dk": "gradients.k", "dv": "gradients.v"}
OF_MASK = {MASK, "if allowed is not None:"}
OF_CAUSAL = {CAUSAL, "if causal:"}
OF_TILES = tuple(f for f in loops.FUNCTIONS if f.__module__ == flash.__name__)
SAME = (*loops.OWN, "packed_attention")  # whose gradients are those of attention


@dataclass(frozen=True)
class Head:
    """What attention is asked of one head, and where the answer is wrong."""

    arrays: tuple[Array, Array, Array]
    how: Asked
    index: tuple[int, ...]


class Screen:
    def __init__(self, case: Case, given: Given, wrong: Mapping[str, Array]) -> None:
        self.case, self.given, self.wrong = case, given, wrong

    @cached_property
    def name(self) -> str:
        return next((n for n in self.given.tensors if n.startswith("outputs.")), "")

    @cached_property
    def asked(self) -> tuple[Any, ...] | None:
        """What attention is called with: q, k and v, and what else."""
        case, found = self.case, list[tuple[Any, ...]]()
        if case.operation in loops.OWN:
            q, k, v, *more = case.arguments("float64")
            how = attention_kinds.asked(
                case.operation,
                more,
                q.shape[-2],
                case.keyword_arguments(),
                case.pull("float64") if case.cotangents else [],
            )
            return q, k, v, *how

        def attention(q: Any, k: Any, v: Any, *, causal: bool, attention_mask: Any) -> Any:
            found.append((q, k, v, *Asked(causal, attention_mask)))
            return original(q, k, v, causal=causal, attention_mask=attention_mask)

        original: Any = loops.OF_THE_TEXT["attention"]
        plain.answer(case, "float64", {original: attention}, traced=False, values=True)
        of_own = found and found[0][0].shape[:-1] == self.given.tensors[self.name].shape[:-1]
        return found[0] if len(found) == 1 and of_own and case.operation in (*SAME, "normed_attention") else None

    def may(self, mistake: Mistake, sizes: Sizes) -> bool:
        if not loops.has(self.case.operation) or not mistake.is_of(OF_TILES) or self.asked is None:
            return True
        if not self._reaches(mistake):
            return False
        if self.case.operation == "attention_with_lse" and mistake.edits_lse:
            return True
        if any(map(ACROSS.search, _new(mistake))) and not _splits(mistake):
            return True
        try:
            with numpy.errstate(all="ignore"):
                return self._may(mistake, sizes)
        except Exception:  # whatever an edit makes of the text: the whole case is asked
            return True

    def _reaches(self, mistake: Mistake) -> bool:
        """Whether the case has the mask that is edited."""
        assert self.asked is not None
        olds = {old for each in mistake.rewritten for old in each.lines[::2]}
        causal, allowed = self.asked[3:5]
        return not ((olds <= OF_MASK and allowed is None) or (olds <= OF_CAUSAL and not causal))

    def _may(self, mistake: Mistake, sizes: Sizes) -> bool:
        of_attention = self.case.operation in SAME
        if mistake.gradients_alone:
            return not of_attention or self._may_in_gradients(mistake, sizes)
        if not self._may_in_values(mistake, sizes):
            return False
        known = self.name in self.wrong or not self.wrong or not of_attention
        return known or self._may_in_gradients(mistake, sizes)

    # --- values

    def _may_in_values(self, mistake: Mistake, sizes: Sizes) -> bool:
        head, places = self.of_values
        if _splits(mistake):
            how, attended = head.how, loops.attended(mistake, sizes)
            return self._may_be(attended(*head.arrays, how.causal, how.allowed, how.kind)[0], head, places)
        whole = any(old.startswith(WHOLE) for each in mistake.rewritten for old in each.lines[::2])
        forward, _ = loops.passes(mistake, sizes, None if whole else _tiles_of(places))
        y = forward(*head.arrays, *head.how)[0]
        if self._has_nan_elsewhere(y, head, places):  # it may be one that overflows in float32
            rough = forward(*(x.astype("float32") for x in head.arrays), *head.how)[0]
            y = numpy.where(numpy.isfinite(y) & ~numpy.isfinite(rough), rough.astype(y.dtype), y)
            if self._has_nan_elsewhere(y, head, places):
                return False
        return self._may_be(y, head, places)

    def _has_nan_elsewhere(self, y: Array, head: Head, places: tuple[int, ...]) -> bool:
        """Whether most of what is no number in the answer is one here, and was written."""
        if self.name not in self.wrong:
            return False
        at: Any = (*head.index, list(places))
        made = y[list(places)]
        off = self.wrong[self.name][at] & ~numpy.isfinite(self.given.tensors[self.name][at])
        return bool(off.any()) and 2 * int((off & numpy.isfinite(made)).sum()) > int(off.sum())

    def _may_be(self, y: Array, head: Head, places: tuple[int, ...]) -> bool:
        at: Any = (*head.index, list(places))
        x, truth = self.given.tensors[self.name][at], self._truth(self.name, at)
        if self.name not in self.wrong:
            off = judge.deviations(y[list(places)], truth, self.given.dtype, self.given.plan) > 1
            return not off.any()
        return self._is_near(self.name, x, y[list(places)], truth, self.wrong[self.name][at])

    @cached_property
    def of_values(self) -> tuple[Head, tuple[int, ...]]:
        """The head with most wrong numbers, and the first, the middle and the last of its wrong queries."""
        off = self.wrong.get(self.name)
        if off is None:
            T = self.given.tensors[self.name].shape[-2]
            return self._head((0,) * (self.given.tensors[self.name].ndim - 2)), tuple(sorted({0, T // 2, T - 1}))
        counts = off.sum(axis=(-2, -1))
        index = tuple(int(i) for i in numpy.unravel_index(int(counts.argmax()), counts.shape))
        rows = numpy.flatnonzero(off[index].any(axis=-1))
        return self._head(index), tuple(sorted({int(rows[n * (len(rows) - 1) // (PLACES - 1)]) for n in range(PLACES)}))

    # --- gradients

    def _may_in_gradients(self, mistake: Mistake, sizes: Sizes) -> bool:
        head, names = self.of_gradients
        if not names:  # what is wrong is the gradient of something else
            return True
        forward, backward = loops.passes(mistake, sizes)
        y, L = forward(*head.arrays, *head.how) if _edits_forward(mistake) else self._plainly
        dy = next(iter(self.case.cotangents.values()))[head.index].astype("float64")
        found = dict(zip(NAMES.values(), backward(*head.arrays, y, L, dy, *head.how)[: len(NAMES)], strict=True))
        at, given = head.index, self.given.tensors
        return any(self._is_near(n, given[n][at], found[n], self._truth(n, at), self.wrong[n][at]) for n in names)

    @cached_property
    def of_gradients(self) -> tuple[Head, list[str]]:
        names = [n for n in NAMES.values() if n in self.wrong]
        if not names:
            return self._head((0,) * (self.given.tensors[self.name].ndim - 2)), names
        counts = sum(self.wrong[n].sum(axis=(-2, -1)) for n in names)
        index = tuple(int(i) for i in numpy.unravel_index(int(numpy.argmax(counts)), numpy.shape(counts)))
        return self._head(index), names

    @cached_property
    def _plainly(self) -> tuple[Array, Array]:
        head, _ = self.of_gradients
        how = head.how
        return flash.forward(*head.arrays, how.causal, how.allowed, how.window, how.kind)

    # --- both

    def _head(self, index: tuple[int, ...]) -> Head:
        assert self.asked is not None
        q, k, v, causal, allowed, window, kind = self.asked
        if allowed is not None:
            shape = (*q.shape[:-1], k.shape[-2])
            allowed = numpy.broadcast_to(allowed, shape)[index]
        how = Asked(bool(causal), allowed, window, kind.head(index))
        return Head((q[index], k[index], v[index]), how, index)

    def _truth(self, name: str, at: Any) -> Expected:
        truth = self.given.truth(name)
        return Expected(truth.value[at], numpy.broadcast_to(truth.deviation, truth.value.shape)[at])

    def _is_near(self, name: str, x: Array, exact: Array, truth: Expected, wrong: Array) -> bool:
        """Whether enough of the wrong numbers are far nearer to the mistake than to the truth, or may be for its lost
        digits, or for what it leaves unwritten."""
        x, exact, value = x[wrong].astype("float64"), exact[wrong], truth.value[wrong]
        if not x.size:
            return True
        near = ~numpy.isfinite(x) | machine.is_unwritten(exact) | (abs(x - exact) <= NEAR * abs(x - value))
        if self._loses[name]:
            near |= abs(exact - value) <= NEAR * abs(x - value)
        return bool(near.sum() >= SHARE * near.size)

    @cached_property
    def _loses(self) -> dict[str, bool]:
        return {n: matching.is_small_error(self.given, n) for n in self.wrong}


def _new(mistake: Mistake) -> list[str]:
    return [new for each in mistake.rewritten for new in each.lines[1::2]]


def _splits(mistake: Mistake) -> bool:
    """Whether it is one of keys in parts, which the axes of one head show."""
    return any("in_parts(" in new for new in _new(mistake))


def _edits_forward(mistake: Mistake) -> bool:
    return mistake.within != "backward" and any(each.original is not flash.backward for each in mistake.rewritten)


def _tiles_of(places: Iterable[int]) -> Callable[[int, int], Iterator[slice]]:
    """The tiles of queries, which are the outer ones, that have one of these places; and all tiles of keys."""
    depth = 0

    def tiles(n: int, size: int) -> Iterator[slice]:
        nonlocal depth
        outer = depth == 0
        depth += 1
        try:
            for part in machine.tiles(n, size):
                if not outer or any(part.start <= place < part.stop for place in places):
                    yield part
        finally:
            depth -= 1

    return tiles
