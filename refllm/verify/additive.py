"""Which two edits together come near an answer: what each changes by itself is known, and two small changes add up.

    effects = Effects(case, got, text_answer);  effects.add(edits, answer) ...
    for one, other in effects.pairs(): ...          the two whose changes add up to the answer first

A pair is only proposed here; whether it gives the answer is found out by evaluating it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, Response
from refllm.verify.found import Edits

MOST = 3000  # different changes whose pairs are looked at: 4.5 million
NUMBERS = 160  # of an answer that are looked at
PAIRS = 500  # that are proposed at a time
ALIKE = 3  # edits that change the same, of which pairs are made
ROWS = 250  # changes whose sums with all others are formed at a time
LARGE = 30.0  # times what is wrong: such a change is part of no explanation
SMALL = 1e-9  # of the largest number, what a tensor that is right may be off by


class Effects:
    """What edits change by themselves in the answer to one case, beside what is wrong there."""

    def __init__(self, case: Case, got: Response, text: Response) -> None:
        self.case, self.text, self.gradients = case, text, text.gradients is not None
        tensors, answered = dict(self._tensors(text)), dict(self._tensors(got))
        self.shapes = {
            name: x.shape for name, x in tensors.items()
            if name in answered and answered[name].shape == x.shape
            and numpy.isfinite(x).all() and numpy.isfinite(answered[name]).all()
        }  # fmt: skip
        self.before, after = _joined(tensors, self.shapes), _joined(answered, self.shapes)
        scales = [_scale(tensors[name], answered[name]) for name in self.shapes]
        sizes = [tensors[name].size for name in self.shapes]
        self.scales = numpy.repeat(scales, sizes) if sizes else numpy.zeros(0)
        self.chosen = self._chosen(sum(sizes))
        self.wrong = self._vector(after)
        self.vectors, self.edits = list[Array](), list[Edits]()
        self.listed = list[int]()  # which of them are known mistakes
        self.times, self.tried = dict[bytes, int](), set[tuple[int, int]]()

    @property
    def is_useful(self) -> bool:
        """Whether there are numbers enough to tell pairs from each other."""
        return len(self.wrong) > 0 and bool(self.wrong.any())

    def add(self, edits: Edits, answer: Response, *, listed: bool = False) -> None:
        """An edit, or a known mistake, that gives this answer by itself."""
        if not self.is_useful or (len(self.edits) >= MOST and not listed):
            return
        answered = dict(self._tensors(answer))
        if any(name not in answered or answered[name].shape != shape for name, shape in self.shapes.items()):
            return
        vector = self._vector(_joined(answered, self.shapes))
        if not numpy.isfinite(vector).all() or not vector.any() or abs(vector).max() > LARGE:
            return
        key = numpy.round(vector, 9).tobytes()
        self.times[key] = self.times.get(key, 0) + 1
        if self.times[key] <= ALIKE or listed:
            self.listed += [len(self.edits)] if listed else []
            self.vectors.append(vector)
            self.edits.append(edits)

    def pairs(self) -> Iterator[tuple[Edits, Edits]]:
        """Those two whose changes add up to what is wrong, the nearest first; none a second time."""
        yield from self._pairs(range(len(self.edits)))

    def pairs_of_listed(self) -> Iterator[tuple[Edits, Edits]]:
        """The same of known mistakes."""
        yield from self._pairs(self.listed)

    def _pairs(self, among: Sequence[int]) -> Iterator[tuple[Edits, Edits]]:
        if len(among) < 2:
            return
        D = numpy.stack([self.vectors[n] for n in among])
        R = self.wrong - D  # what each leaves
        left, size = (R * R).sum(axis=1), (D * D).sum(axis=1)
        found = list[tuple[float, int, int]]()
        for first in range(0, len(D), ROWS):
            far = left[first : first + ROWS, None] + size - 2 * R[first : first + ROWS] @ D.T
            i, j = numpy.nonzero(numpy.triu(numpy.ones(far.shape, bool), first + 1))
            values = far[i, j]
            if len(values) > PAIRS:
                kept = numpy.argpartition(values, PAIRS)[:PAIRS]
                i, j, values = i[kept], j[kept], values[kept]
            found += zip(values.tolist(), (i + first).tolist(), j.tolist(), strict=True)
        for _, a, b in sorted(found)[:PAIRS]:
            pair = (among[a], among[b])
            if pair not in self.tried:
                self.tried.add(pair)
                yield self.edits[pair[0]], self.edits[pair[1]]

    def _tensors(self, answer: Response) -> Iterator[tuple[str, Array]]:
        held: dict[str, Any] = answer.outputs
        if self.gradients:
            held = {**held, **{f"d{name}": x for name, x in (answer.gradients or {}).items()}}
        for name, x in held.items():
            if isinstance(x, numpy.ndarray) and x.dtype.kind in "fiub":
                yield name, x.astype("float64", copy=False)

    def _chosen(self, size: int) -> Array | None:
        """Which numbers are looked at, if not all: a fixed choice."""
        if size <= NUMBERS:
            return None
        return numpy.sort(numpy.random.default_rng(size).permutation(size)[:NUMBERS])

    def _vector(self, tensors: Array) -> Array:
        """By how much this is beside the text, in units of what is wrong."""
        with numpy.errstate(all="ignore"):
            changed = (tensors - self.before) / self.scales
        return changed if self.chosen is None else changed[self.chosen]


def _joined(tensors: dict[str, Array], names: Iterable[str]) -> Array:
    """The numbers of these tensors, one after the other."""
    parts = [tensors[name].reshape(-1) for name in names]
    return numpy.concatenate(parts) if parts else numpy.zeros(0)


def _scale(text: Array, answered: Array) -> float:
    """What is wrong of a tensor at most; of one that is right hardly anything."""
    wrong, largest = float(abs(answered - text).max(initial=0)), float(abs(text).max(initial=0))
    return max(wrong, SMALL * largest, 1e-300)
