"""Kernels that compute the right thing of the wrong numbers: a tail that is not read, padding that is, an index that
wraps around. Whatever the operation is, its plain text is asked for other inputs, and what it says is put in place.

    for reading in readings("matmul"): reading.answer(case, "float64")      None where it changes nothing of the case
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.kernels import axes, other_numbers
from refllm.verify.kernels.machine import UNWRITTEN
from refllm.verify.kernels.parts import MOVED, PADDED, PARTS, RINGS, Part, in_parts

Tensors = dict[str, Array]


@dataclass(frozen=True)
class Changed:
    """A case with other tensors, and what becomes of the answer to it; NaN in it is memory that nobody has written.
    `alone`: the tensors that it speaks of."""

    case: Case
    after: Callable[[Tensors], Tensors] | None = None
    alone: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    id: str
    about: str
    change: Callable[[Case], Changed | None]
    issue: str | None = None
    gradients_alone: bool = False
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        changed = self.change(case)
        if changed is None:
            return None
        found = plain.answer(changed.case, dtype, {}, traced=False, values=not changed.case.cotangents)
        if found is None:
            return None
        outputs, gradients = dict(found.outputs), dict(found.gradients or {})
        tensors = {f"outputs.{n}": x for n, x in outputs.items()} | {f"gradients.{n}": x for n, x in gradients.items()}
        with numpy.errstate(all="ignore"):
            tensors = changed.after(tensors) if changed.after else tensors
        if changed.alone is not None:
            alone = {n: x for n, x in tensors.items() if n in changed.alone}
            return Response({}, {n.removeprefix("gradients."): x for n, x in alone.items()})
        for name, x in tensors.items():
            group, _, rest = name.partition(".")
            (outputs if group == "outputs" else gradients)[rest] = x
        return Response(outputs, gradients or None)


@cache
def readings(operation: str) -> tuple[Reading | Chunks, ...]:
    """Those of an operation, the usual ones first."""
    return tuple(_all(operation))


@cache
def shares(operation: str) -> tuple[Reading, ...]:
    """Gradients that are those of one share alone of what they are added up over."""
    return tuple(_of_one_index(operation, what, last=last) for last in (True, False) for what in OF_WHAT)


def _all(operation: str) -> Iterator[Reading | Chunks]:
    held, _ = axes._declared(operation)
    named = dict.fromkeys(d for dims in held.values() for d in dims if d.isalpha())
    yield from _of_other_numbers(operation)
    for part in PARTS:
        yield from (_taking(operation, letter, part) for letter in named)
        yield _of_rows(operation, None, part)
        yield from (_of_rows(operation, letter, part) for letter in named if letter == "T")
    yield from (_of_rows(operation, None, part) for part in RINGS)
    for padded in PADDED:
        yield from (_padding(operation, letter, padded) for letter in named)
    for part in MOVED:
        yield from (_taking(operation, letter, part) for letter in named)
        yield from (_of_rows(operation, letter, part) for letter in (None, *(x for x in named if x == "T")))
    if "T" in named and "h" in held:
        for size in (64, 32, 16, 128, 8, 4, 256, 512):
            for kept in (False, True):
                yield Chunks(f"{operation}/chunks-begin-anew", size, kept)


def _of_other_numbers(operation: str) -> Iterator[Reading]:
    for name, about, change in other_numbers.changes():
        yield Reading(f"{operation}/{name}", f"{operation} {about}", _changing(change))
    for name, about, change in other_numbers.changes():
        words = f"{operation} {about}, in the gradient alone"
        yield Reading(f"{operation}/gradient-{name}", words, _changing(change, in_gradient=True), gradients_alone=True)


def _changing(change: Callable[[Case], Any], *, in_gradient: bool = False) -> Callable[[Case], Changed | None]:
    def changed(case: Case) -> Changed | None:
        made = change(case) if case.cotangents or not in_gradient else None
        if made is None:
            return None
        other, after = made if isinstance(made, tuple) else (made, None)
        return Changed(other, after, tuple(f"gradients.{n}" for n in case.inputs) if in_gradient else None)

    return changed


# --- parts of an axis -------------------------------------------------------------------------------------------------


def _taking(operation: str, letter: str, part: Part) -> Reading:
    """The operation of these places of an axis alone; the others are not read, nor written."""

    def change(case: Case) -> Changed | None:
        n = axes.sizes(case).get(letter, 0)
        kept = part.places(n)
        return None if len(kept) in (0, n) or _has_derived(case, letter, n) else _taken(case, letter, n, kept)

    return Reading(f"{operation}/{part.id}-{letter.lower()}", f"{operation} over {part.words(letter)}", change)


def _has_derived(case: Case, letter: str, n: int) -> bool:
    """Whether the length of an axis stands in a keyword, or decides what another is aligned with."""
    return case.keywords.get("causal") is True and letter in "TS"


def _taken(case: Case, letter: str, n: int, kept: Array) -> Changed:
    names = axes.letters(case)

    def cut(x: Any, name: str) -> Any:
        if not isinstance(x, numpy.ndarray):
            return x
        for axis, own in enumerate(names.get(name, ())):
            x = x.take(kept, axis=axis) if own == letter and x.shape[axis] == n else x
        return x

    def put_back(tensors: Tensors) -> Tensors:
        found = {}
        for name, x in tensors.items():
            group, _, rest = name.partition(".")
            own = names.get(name if group == "outputs" else f"inputs.{rest}", ())
            for axis, each in enumerate(own):
                if each == letter and x.shape[axis] == len(kept) and n != x.shape[axis]:
                    x = _spread(x, axis, kept, n, float(UNWRITTEN) if group == "outputs" else 0.0)
            found[name] = x
        return found

    return Changed(_with(case, cut), put_back)


def _spread(x: Array, axis: int, kept: Array, n: int, fill: float) -> Array:
    made = numpy.full((*x.shape[:axis], n, *x.shape[axis + 1 :]), fill, x.dtype)
    if fill == 0.0:  # what is taken twice gets both gradients
        numpy.add.at(numpy.moveaxis(made, axis, 0), kept, numpy.moveaxis(x, axis, 0))
    else:
        made[(slice(None),) * axis + (kept,)] = x
    return made


def _with(case: Case, change: Callable[[Any, str], Any]) -> Case:
    """The case with every tensor changed."""
    inputs = {n: change(x, f"inputs.{n}") for n, x in case.inputs.items()}
    keywords = {n: change(x, f"keywords.{n}") for n, x in case.keywords.items()}
    cotangents = {n: change(x, f"outputs.{n}") for n, x in case.cotangents.items()}
    return replace(case, inputs=inputs, keywords=keywords, cotangents=cotangents)


def _of_rows(operation: str, letter: str | None, part: Part) -> Reading:
    """Gradients that are added up over some of the rows alone: those of what has no rows of its own."""

    def change(case: Case) -> Changed | None:
        names = axes.letters(case)
        cotangents = dict[str, Array]()
        for name, dy in case.cotangents.items():
            made = _kept_rows(dy, names.get(f"outputs.{name}", ()), letter, part)
            cotangents |= {name: made} if made is not None else {}
        summed = [n for n, x in case.inputs.items() if _is_summed(names[f"inputs.{n}"], x, letter)]
        if not cotangents or not summed:
            return None
        made_case = replace(case, inputs=dict(case.inputs), cotangents={**case.cotangents, **cotangents})
        return Changed(made_case, alone=tuple(f"gradients.{n}" for n in summed))

    where = part.words(letter or "rows")
    id = f"{operation}/gradient-{part.id}-{(letter or 'rows').lower()}"
    return Reading(id, f"{operation} whose gradients are added up over {where}", change, gradients_alone=True)


OF_WHAT: dict[str, Callable[[Array, axes.Letters], tuple[int, ...]]] = {  # over which axes a gradient is to be added up
    "matrix of rows": lambda dy, _: tuple(range(dy.ndim - 2)),
    "index of the first axis": lambda dy, _: (0,),
    "index of the second axis": lambda dy, _: (1,) if dy.ndim > 3 else (),
    "entry of the batch": lambda _, own: tuple(a for a, letter in enumerate(own) if letter == ""),
}


def _of_one_index(operation: str, what: str, *, last: bool) -> Reading:
    """Gradients of one matrix of rows, or of one index of an axis, where several are to be added up: each of them
    overwrites the one before, or finds that there is one."""

    def change(case: Case) -> Changed | None:
        names, cotangents = axes.letters(case), dict[str, Array]()
        for name, dy in case.cotangents.items():
            axis_of = OF_WHAT[what](dy, names.get(f"outputs.{name}", ())) if dy.ndim > 2 else ()
            over = [a for a in axis_of if dy.shape[a] > 1]
            if dy.size and over:
                kept: Any = tuple((-1 if last else 0) if a in over else slice(None) for a in range(dy.ndim))
                cotangents[name] = made = numpy.zeros_like(dy)
                made[kept] = dy[kept]
        summed = [n for n, x in case.inputs.items() if _is_summed(names[f"inputs.{n}"], x, None)]
        if not cotangents or not summed:
            return None
        made_case = replace(case, inputs=dict(case.inputs), cotangents={**case.cotangents, **cotangents})
        return Changed(made_case, alone=tuple(f"gradients.{n}" for n in summed))

    which, name = "last" if last else "first", what.partition(" ")[0]
    about = f"{operation} whose gradients are those of the {which} {what} alone"
    return Reading(f"{operation}/gradient-{which}-{name}-alone", about, change, gradients_alone=True)


def _is_summed(own: axes.Letters, x: Array, letter: str | None) -> bool:
    """Whether a gradient is a sum over the leading axes, or over the axis of this letter."""
    return x.dtype.kind == "f" and (letter not in own if letter else "" not in own)


def _kept_rows(dy: Array, own: axes.Letters, letter: str | None, part: Part) -> Array | None:
    if dy.ndim < 1 or not dy.size:
        return None
    axis = own.index(letter) if letter in own else -1
    if letter is None:
        leading = dy.ndim - 1 if dy.ndim > 1 else 1
        rows = math.prod(dy.shape[:leading])
        n, shape = rows, (*dy.shape[:leading], *[1] * (dy.ndim - leading))
    elif axis < 0:
        return None
    else:
        n, shape = dy.shape[axis], tuple(-1 if a == axis else 1 for a in range(dy.ndim))
    kept = part.places(n)
    if len(kept) in (0, n):
        return None
    times = numpy.bincount(kept, minlength=n).astype(dy.dtype)
    made: Array = numpy.where(times.reshape(shape) > 0, dy * times.reshape(shape), 0)
    return made


def _padding(operation: str, letter: str, padded: Part) -> Reading:
    """The operation with zeros behind the end of an axis, which it takes for numbers."""

    def change(case: Case) -> Changed | None:
        n = axes.sizes(case).get(letter, 0)
        more = padded.size(n) - n
        if more <= 0 or n == 0 or more > max(4 * n, 2048) or _has_derived(case, letter, n):
            return None
        names = axes.letters(case)

        def longer(x: Any, name: str) -> Any:
            if not isinstance(x, numpy.ndarray):
                return x
            by = [(0, more if own == letter and x.shape[a] == n else 0) for a, own in enumerate(names.get(name, ()))]
            return numpy.pad(x, by, constant_values=x.dtype.kind == "b") if by else x

        def cut(tensors: Tensors) -> Tensors:
            found = {}
            for name, x in tensors.items():
                group, _, rest = name.partition(".")
                own = names.get(name if group == "outputs" else f"inputs.{rest}", ())
                for axis, each in enumerate(own):
                    x = x.take(numpy.arange(n), axis=axis) if each == letter and x.shape[axis] == n + more else x
                found[name] = x
            return found

        return Changed(_with(case, longer), cut)

    id = f"{operation}/{padded.id}-{letter.lower()}-counted"
    about = f"{operation} in which the zeros count that pad {letter} to {padded.text}"
    return Reading(id, about, change)


# --- a sequence in chunks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Chunks:
    """A recurrence in chunks of so many steps, each of which begins with the first state or with zeros."""

    id: str
    size: int
    kept: bool
    issue: str | None = None
    gradients_alone: bool = False
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def about(self) -> str:
        state = "the first state" if self.kept else "a state of zeros"
        return f"{self.id.partition('/')[0]} in chunks of {self.size:,} steps, each of which begins with {state}"

    def answer(self, case: Case, dtype: str) -> Response | None:
        T, names = axes.sizes(case).get("T", 0), axes.letters(case)
        found: list[Response] = []
        for first in range(0, T if T > self.size else 0, self.size):
            part = in_parts(case, names, T, first, min(first + self.size, T), kept=self.kept or first == 0)
            answer = plain.answer(part, dtype, {}, traced=False, values=not case.cotangents)
            if answer is None:
                return None
            found.append(answer)
        return _joined(found, names, self.kept) if found else None


def _joined(found: list[Response], names: Mapping[str, axes.Letters], kept: bool) -> Response:
    outputs, gradients = dict[str, Array](), dict[str, Array]()
    for name in found[0].outputs:
        own = names.get(f"outputs.{name}", ())
        all_parts = [each.outputs[name] for each in found]
        outputs[name] = numpy.concatenate(all_parts, axis=own.index("T")) if "T" in own else all_parts[-1]
    for name in found[0].gradients or {}:
        own = names.get(f"inputs.{name}", ())
        all_parts = [(each.gradients or {})[name] for each in found]
        if "T" in own:
            gradients[name] = numpy.concatenate(all_parts, axis=own.index("T"))
        else:
            gradients[name] = all_parts[0] if name in ("h", "c") and not kept else sum(all_parts)
    return Response(outputs, gradients or None)
