"""What the mutants answer to a case: computed once, and only for those that the case can tell from the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from types import FunctionType
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import mutants, plain, reference
from refllm.verify.adapter import Functions
from refllm.verify.case import CARRIERS, Answers, Case, FaultError, Response, Truth, UnsupportedError
from refllm.verify.mutants import Edited, Mutant, Patch, Site, planted, traced
from refllm.verify.runner import respond as answer
from refllm.verify.tolerance import UNIT, condition

NEAR = 1e-4  # how near answers must be, as a share of the largest number, for their rounding to be looked at
MANY = 4  # tensors of an answer from which on they are compared in one go
LATELY = 64  # answers whose tensors are kept in one piece
SLACK = 32  # how many roundings of the largest number two equal answers may differ by
_SITES: frozenset[Site] = frozenset((m.original, m.within) for m in mutants.MUTANTS if isinstance(m, Patch))
_LINES = frozenset(f for m in mutants.MUTANTS if isinstance(m, Edited) for f in m.originals)  # of the text


class Mistaken:
    """An implementation (see `runner`) with a mutant in it."""

    def __init__(self, mutant: Mutant, conventions: Mapping[str, str]) -> None:
        self.name, self.mutant, self.conventions = mutant.id, mutant, conventions

    def respond(self, case: Case, dtype: str) -> Response:
        found = respond(self.mutant, case, dtype)
        if found is None:
            raise FaultError(f"{self.name} raised")
        return found


class Imitations:
    """Answers of mutants to cases, remembered."""

    def __init__(self) -> None:
        self._responses: dict[tuple[str, str, str], tuple[Case, Response | None]] = {}
        self._relevant: dict[str, tuple[Case, list[Mutant]]] = {}

    def relevant(self, case: Case) -> list[Mutant]:
        """The mutants of the functions that refllm, or the text, calls for this case."""
        known = self._relevant.get(case.id)
        if known is None or known[0] is not case:
            called, lines = _called(case), plain.reached(case, _LINES)
            own = [mutant for mutant in mutants.MUTANTS if _is_called(mutant, called, lines)]
            known = self._relevant[case.id] = (case, own)
        return known[1]

    def of_caches(self, case: Case) -> tuple[Case, list[Mutant]]:
        """The case as it is asked with a cache, and the mutants that change its answer then alone: an implementation
        may keep keys and values where nobody asks for it."""
        if case.keywords.get("cache") is not False:
            return case, []
        asked = replace(case, id=f"{case.id} with a cache", keywords={**case.keywords, "cache": True})
        known = self._relevant.get(asked.id)
        asked = asked if known is None or known[0].inputs is not case.inputs else known[0]
        own, truth = self.relevant(case), Answers(case.outputs, case.gradients).response()
        return asked, [
            mutant
            for mutant in self.relevant(asked)
            if isinstance(mutant, Patch) and (mutant not in own or self.distance(case, truth, mutant, "float64")[1])
        ]

    def response(self, mutant: Mutant, case: Case, dtype: str) -> Response | None:
        """What the mutant answers; None if it raises."""
        key = (mutant.id, case.id, dtype)
        known = self._responses.get(key)
        if known is None or known[0] is not case:
            known = self._responses[key] = (case, respond(mutant, case, dtype))
        return known[1]

    def distance(self, case: Case, got: Response, mutant: Mutant, dtype: str) -> tuple[float, bool]:
        """How far an answer in `dtype` is from the mutant's, and whether that is rounding."""
        return distance(case, got, self.response(mutant, case, _own(mutant, dtype)), dtype)

    def overflows_alike(self, case: Case, got: Response, mutant: Mutant, dtype: str) -> bool:
        """Whether an answer that is not finite is the mutant's in `dtype`, which overflows where float64 may not."""
        return not is_finite(got) and equal(case, got, self.response(mutant, case, CARRIERS[dtype]), dtype)


KNOWN = Imitations()  # what is remembered of the cases of a run


def _own(mutant: Mutant, dtype: str) -> str:
    """The precision in which a mutant is asked."""
    return "float64" if dtype == "float64" else mutant.dtype


def is_finite(response: Response) -> bool:
    found = [*response.outputs.values(), *(response.gradients or {}).values()]
    return all(numpy.isfinite(x).all() for x in found if isinstance(x, numpy.ndarray) and x.dtype.kind in "fiub")


def _is_called(mutant: Mutant, called: frozenset[Site], lines: frozenset[FunctionType]) -> bool:
    if isinstance(mutant, Patch):
        return (mutant.original, mutant.within) in called
    return not lines.isdisjoint(mutant.originals)


def respond(mutant: Mutant, case: Case, dtype: str) -> Response | None:
    """What the edited text answers, or refllm with a patch in it; None if it raises.

    Where a cache is asked for, which the text has not, refllm answers with the edited operations in it, if it has them.
    """
    patches = [mutant] if isinstance(mutant, Patch) else mutant.patches if _has_cache(case) else []
    if isinstance(mutant, Edited) and not patches:
        return plain.answer(case, dtype, mutant.functions, traced=mutant.traced, values=not case.gradients)
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(planted(patch))
        try:
            return answer(Functions(mutant.id, reference.functions(), {}), case, dtype)
        except FaultError:
            return None


def _has_cache(case: Case) -> bool:
    """Whether refllm keeps keys, values or states while it answers."""
    return bool(case.keywords.get("cache")) or case.operation == "beam_search"


def _called(case: Case) -> frozenset[Site]:
    """The functions of the bank that the reference calls when it answers the case."""
    with traced(_SITES) as called:
        try:
            answer(Functions("traced", reference.functions(), {}), case, "float64")
        except (FaultError, UnsupportedError):  # what refllm lacks, the text alone answers
            called |= {site for site in _SITES if site[0].__name__ == case.operation}
    return frozenset(called)


def distance(case: Case, got: Response, other: Response | None, dtype: str) -> tuple[float, bool]:
    """How far two answers are from each other, as a share of the largest number of a tensor, and whether that is
    rounding of the dtype. Tensors that cannot be compared, as one of another shape, are infinitely far."""
    if other is None:
        return numpy.inf, False
    apart = list(_tensors(case, got, other, dtype))
    far = max((_share(*each, dtype) for each in apart), default=0.0)
    return far, all(error <= allowed for error, _, allowed in apart)


def _share(error: float, size: float, allowed: float, dtype: str) -> float:
    """A difference as a share of the largest number; where that is no more than rounding itself, as one of zeros, of
    what the rounding comes from."""
    return error / size if size > allowed else error * SLACK * UNIT[dtype] / allowed


def equal(case: Case, got: Response, other: Response | None, dtype: str) -> bool:
    """Whether two answers differ by no more than rounding."""
    return other is not None and all(error <= allowed for error, _, allowed in _tensors(case, got, other, dtype))


def equal_as_far_as_it_reaches(
    case: Case, got: Response, other: Response | None, in_single: Callable[[], Response | None], dtype: str
) -> bool:
    """Whether two answers differ by no more than rounding, of which a mistaken formula may make more than the right
    one: how much is seen from its answer in float32, asked for where the two are near."""
    if other is None:
        return False
    apart, same, far = list[tuple[float, float, float]](), True, False
    for error, size, allowed in _tensors(case, got, other, dtype):
        same, far = same and error <= allowed, far or error > NEAR * size
        if far and not same:
            return False
        apart.append((error, size, allowed))
    if same:
        return True
    single = in_single()
    if single is None:
        return False
    spread = [error for error, *_ in _tensors(case, single, other, dtype)]
    share = SLACK * UNIT[dtype] / UNIT["float32"]
    return len(spread) == len(apart) and all(
        error <= allowed + share * more for (error, _, allowed), more in zip(apart, spread, strict=True)
    )


def nearness(case: Case, got: Response, other: Response, dtype: str) -> float:
    """How far two answers are from each other: the share of tensors that differ, and of those the largest difference
    as a share of the largest number."""
    apart = [(error / size, error > allowed) for error, size, allowed in _tensors(case, got, other, dtype)]
    off = [min(far, 1.0) for far, differs in apart if differs]
    return len(off) / len(apart) + max(off, default=0.0) if apart else math.inf


def wrong_in_numbers(case: Case, got: Response, dtype: str) -> bool:
    """Whether an answer is wrong in more than what is not finite."""
    truth = Answers(case.outputs, case.gradients).response()
    return any(error > allowed for error, _, allowed in _tensors(case, _where_finite(got, truth), truth, dtype))


def _where_finite(got: Response, truth: Response) -> Response:
    """An answer with the truth in the place of what is not finite."""

    def mended(values: dict[str, Any], truths: dict[str, Any]) -> dict[str, Any]:
        return {n: _mended(x, truths[n]) if n in truths else x for n, x in values.items()}

    gradients = None if got.gradients is None else mended(got.gradients, truth.gradients or {})
    return Response(mended(got.outputs, truth.outputs), gradients)


def _mended(x: Any, t: Array) -> Any:
    if not isinstance(x, numpy.ndarray) or x.shape != t.shape or x.dtype.kind != "f":
        return x
    return numpy.where(numpy.isfinite(x), x, t)


def _tensors(case: Case, got: Response, other: Response, dtype: str) -> Iterator[tuple[float, float, float]]:
    """For every tensor that both give: the largest difference, the largest number (of zeros alone, their
    condition), and the difference allowed."""
    for given, values, truths in (
        (got.outputs, other.outputs, case.outputs),
        (got.gradients or {}, other.gradients or {}, case.gradients),
    ):
        names = [name for name in given if name in truths and name in values]
        found = _all_apart(given, values, names) if len(names) >= MANY else None
        for n, name in enumerate(names):
            error, size = _apart(given[name], values[name]) if found is None else found[n]
            hard = _hard(truths[name], dtype)
            yield error, size or hard or 1e-300, SLACK * UNIT[dtype] * (hard + 2 * size)


def _all_apart(given: dict[str, Any], values: dict[str, Any], names: list[str]) -> list[tuple[float, float]] | None:
    """The same as `_apart` of every tensor, in one go; None where one of them is no array of finite numbers."""
    known = _together.get(id(given))
    if known is None or known[0] is not given or known[1] != names:
        if len(_together) > LATELY:
            _together.clear()
        arrays = [given[name] for name in names]
        plain = all(isinstance(x, numpy.ndarray) and x.dtype.kind == "f" and x.size for x in arrays)
        joint = numpy.concatenate([x.reshape(-1) for x in arrays], dtype="float64") if plain else None
        first = numpy.cumsum([0, *(x.size for x in arrays[:-1])]) if plain else None
        known = _together[id(given)] = (given, names, joint, first, [x.shape for x in arrays] if plain else [])
    _, _, joint, first, shapes = known
    if joint is None or first is None:
        return None
    others = [values[name] for name in names]
    for x, shape in zip(others, shapes, strict=True):
        if not isinstance(x, numpy.ndarray) or x.shape != shape or x.dtype.kind != "f":
            return None
    whole = numpy.concatenate([x.reshape(-1) for x in others], dtype="float64")
    with numpy.errstate(all="ignore"):
        errors = numpy.maximum.reduceat(abs(joint - whole), first)
    if not numpy.isfinite(errors).all():
        return None
    return list(zip(errors.tolist(), numpy.maximum.reduceat(abs(whole), first).tolist(), strict=True))


_together: dict[int, tuple[dict[str, Any], list[str], Array | None, Array | None, list[Any]]] = {}


_conditions: dict[tuple[int, str], tuple[Truth, float]] = {}


def _hard(truth: Truth, dtype: str) -> float:
    """The largest condition of a truth, which is asked for at every comparison."""
    known = _conditions.get((id(truth), dtype))
    if known is None or known[0] is not truth:
        known = _conditions[id(truth), dtype] = (truth, float(condition(truth, dtype).max(initial=0)))
    return known[1]


def _apart(a: Any, b: Any) -> tuple[float, float]:
    """The largest difference, and the largest number of b. What is not finite must be so in the same places."""
    arrays = isinstance(a, numpy.ndarray) and isinstance(b, numpy.ndarray)
    if not arrays or a.shape != b.shape or not {a.dtype.kind, b.dtype.kind} <= set("fiub"):
        return numpy.inf, 1.0
    x, y = a.astype("float64", copy=False), b.astype("float64", copy=False)
    with numpy.errstate(all="ignore"):
        apart = float(abs(x - y).max(initial=0))
    if math.isfinite(apart):  # so are all of both
        return apart, float(abs(y).max(initial=0))
    both = numpy.isfinite(x) & numpy.isfinite(y)
    if not both.all():
        if not _same_kind(x[~both], y[~both]):
            return numpy.inf, 1.0
        x, y = x[both], y[both]
    return float(abs(x - y).max(initial=0)), float(abs(y).max(initial=0))


def _same_kind(x: Array, y: Array) -> bool:
    return bool(((x == y) | (numpy.isnan(x) & numpy.isnan(y))).all())
