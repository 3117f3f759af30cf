"""Sized cases put to an implementation, and its answers judged.

In float32 and below every element is held to the plain text in float64, which is evaluated here: it is right within so
many standard deviations of the spread of its plan. An answer in float64 is as fine as that text. It is held to what is
stored: to probes, and to the sum of all elements with random signs. Where these fail, the text says which elements.

    for result in run(implementation, sized, "float32", plan):      a Result, as for a tiny case
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify import runner
from refllm.verify.case import Case, FaultError, Response, UnsupportedError
from refllm.verify.runner import Implementation, Result
from refllm.verify.sized.cases import Known, SizedCase
from refllm.verify.sized.evaluate import Expected, expected
from refllm.verify.sized.pattern import in_words
from refllm.verify.sized.probes import probes, signs
from refllm.verify.tolerance import TINY, UNIT, Worst, ulp
from refllm.verify.verdict import Verdict, form, other_dtype

EXACT = ("float64",)  # dtypes that are judged by what is stored
LOST = 2.0**-511  # a deviation below it is lost, as its square is
LEAST_LOOKED_UP, NEARLY_ALL = 16, 0.75  # elements that are right, and the share of the others that is wrong
_C = 1.0  # no margin of a sized case depends on the factor of the tiny ones


def run(
    implementation: Implementation, cases: Iterable[SizedCase], dtype: str, plan: Plan, *, casts: bool = False,
    values: bool = False, seen: Seen | None = None,
) -> Iterator[Result]:  # fmt: skip
    """A result for each case, as soon as it is known. Its tensors are made for it and dropped with it; `seen` is shown
    each answer with them."""
    for sized in cases:
        yield _result(implementation, sized, dtype, plan, casts=casts, values=values, seen=seen)


def _met(case: Case, declared: Mapping[str, str]) -> list[str]:
    """The conventions that are declared otherwise than the case has them, and that its numbers meet."""
    other = [name for name, own in case.conventions.items() if declared.get(name, own) != own]
    if "empty_softmax" in other and not any(map(_has_empty_row, case.inputs.values())):
        other.remove("empty_softmax")
    return [f"{name}={declared[name]}" for name in other]


def _has_empty_row(x: Array) -> bool:
    return bool(x.ndim and x.dtype.kind == "f" and (x == -numpy.inf).all(axis=-1).any())


def _result(
    implementation: Implementation, sized: SizedCase, dtype: str, plan: Plan, *, casts: bool, values: bool,
    seen: Seen | None,
) -> Result:  # fmt: skip
    bare, case = sized.without_tensors(), sized.case()
    case = case.values_alone() if values else case
    if own := ", ".join(_met(case, implementation.conventions)):
        return Result(bare, "skip", f"the sized cases have no truth under {own}")
    if unfit := runner.unfit_for(case, dtype, _C):
        return Result(bare, "skip", unfit)
    try:
        response, noted = runner.respond(implementation, case, dtype), list[str]()
        if casts:
            response, noted = runner.in_dtype(case, response, dtype)
        text = Text(case, plan, gradients=response.gradients is not None)
        result = judged(sized, case, response, dtype, plan, text)
        if seen is not None:
            seen(sized, case, response, result, text)
        return replace(result, cast=noted).under_laws(response.laws)
    except UnsupportedError as error:
        return Result(bare, "skip", str(error))
    except FaultError as error:
        return Result(bare, "fault", str(error))


def judged(
    sized: SizedCase, case: Case, response: Response, dtype: str, plan: Plan, asked: Text | None = None
) -> Result:
    """The result of an answer to the case with its tensors; `asked` is the text, where it is asked more than once."""
    asked = asked or Text(case, plan, gradients=response.gradients is not None)
    bare, found = sized.without_tensors(), list(_verdicts(sized, case, response, dtype, plan, asked))
    if any(v.wrong not in ("", "dtype") for v in found):
        return Result(bare, "fail", "", found)
    if any(v.wrong for v in found):
        return Result(bare, "dtype", "", found)
    if case.gradients and response.gradients is None:
        reason = f"value passed, gradient not given: {case.operation} returned a value without a pullback"
        return Result(bare, "value", reason, found)
    return Result(bare, "pass", "", found)


def _verdicts(
    sized: SizedCase, case: Case, response: Response, dtype: str, plan: Plan, asked: Text
) -> Iterator[Verdict]:
    groups: list[tuple[str, str, Any, dict[str, Any]]] = [("outputs", "output", case.outputs, response.outputs)]
    if response.gradients is not None:
        groups.append(("gradients", "gradient of", case.gradients, response.gradients))
    for group, words, truths, given in groups:
        for name, truth in truths.items():
            said = f"{words} {name}"
            value: Any = given.get(name)
            if (misformed := form(said, value, truth.value.shape)) is not None:
                yield misformed
                continue
            key = f"{group}.{name}"
            if value.dtype.kind not in "fiu":
                verdict = Verdict(said, "", "")
            elif dtype in EXACT and key in sized.known:
                verdict = _by_what_is_stored(said, value, sized, key, dtype, plan, asked)
            else:
                verdict = _by_the_text(said, value, asked.of(key), dtype, plan, axes_of(case, value.shape))
            if verdict.wrong and key in sized.known and (right := _looked_up(value, asked.of(key), sized, key, plan)):
                line = f"the {right} elements whose truth is stored are right: as if they were looked up"
                verdict = replace(verdict, message=f"{verdict.message}; {line}")
            if expected_dtype := other_dtype(value, truth, case, dtype):
                verdict = _of_other_dtype(verdict, expected_dtype)
            yield verdict


def _of_other_dtype(verdict: Verdict, text: str) -> Verdict:
    if verdict.wrong:
        return replace(verdict, message=f"{verdict.message}; its dtype is another too: {text}")
    return Verdict(verdict.name, "dtype", f"{verdict.name} has the wrong dtype: {text}")


class Seen(Protocol):
    """Who looks at the answers to cases while their tensors are there."""

    def __call__(self, sized: SizedCase, case: Case, response: Response, result: Result, text: Text) -> None: ...


class Text:
    """What the text says of a case, evaluated once, when it is asked for."""

    def __init__(self, case: Case, plan: Plan, *, gradients: bool) -> None:
        self._how, self._gradients = (case, plan), gradients
        self._found: dict[str, Expected] | None = None

    def of(self, key: str) -> Expected:
        if self._found is None:
            self._found = expected(*self._how, gradients=self._gradients)
        return self._found[key]


def axes_of(case: Case, shape: tuple[int, ...]) -> list[str]:
    """What the axes of a tensor are called: the last two are rows and columns."""
    heads = "attention" in case.operation or case.operation in ("repeat_heads", "rotary_halves", "rotary_interleaved")
    before = ["head" if heads and axis == -3 else f"axis {axis + len(shape)}, index" for axis in range(-len(shape), -2)]
    last = ["row", "column"] if len(shape) > 1 else ["element"]
    return [*before, *last[-len(shape) :]] if shape else []


# --- every element ----------------------------------------------------------------------------------------------------


def deviations(y: Array, truth: Expected, dtype: str, plan: Plan) -> Array:
    """Of each element, its error over what is allowed: `plan.limit` deviations and what may be flushed to zero."""
    got = y.astype("float64", copy=False)
    with numpy.errstate(all="ignore"):
        allowed = plan.limit * truth.deviation + TINY[dtype] + LOST
        ratio = numpy.abs(got - truth.value) / allowed
    same = (got == truth.value) | (numpy.isnan(got) & numpy.isnan(truth.value)) | numpy.isposinf(truth.deviation)
    return numpy.where(same, 0.0, numpy.where(numpy.isnan(ratio), numpy.inf, ratio))


def _by_the_text(name: str, y: Array, truth: Expected, dtype: str, plan: Plan, axes: list[str]) -> Verdict:
    ratio = deviations(y, truth, dtype, plan)
    if not ratio.size:
        return Verdict(name, "", "")
    at = tuple(int(i) for i in numpy.unravel_index(int(ratio.argmax()), ratio.shape))
    worst = _worst(at, float(y[at]), float(truth.value[at]), float(truth.deviation[at]), dtype, plan)
    if worst.ratio <= 1:
        return Verdict(name, "", "", worst)
    kind, words = _kind(name, y, truth.value)
    wrong = ratio > 1
    clause = in_words(wrong, axes)
    share = f"; wrong in {int(wrong.sum()):,} of {wrong.size:,} elements{', ' + clause if clause else ''}"
    return Verdict(name, kind, f"{words}{_measured(worst, plan)}{share}", worst)


def _worst(at: tuple[int, ...], got: float, truth: float, deviation: float, dtype: str, plan: Plan) -> Worst:
    allowed = plan.limit * deviation + TINY[dtype] + LOST
    equal = got == truth or (math.isnan(got) and math.isnan(truth)) or deviation == math.inf
    error = abs(got - truth)
    ratio = 0.0 if equal else math.inf if math.isnan(error) else error / allowed
    return Worst(at, got, truth, allowed, ratio, ulp(got, truth, dtype))


def _kind(name: str, y: Array, truth: Array) -> tuple[str, str]:
    """Which mistake it is, and the beginning of its sentence."""
    bad = ~numpy.isfinite(y) & numpy.isfinite(truth)
    if bad.any():
        kind = "NaN" if numpy.isnan(y[bad]).any() else "infinite"
        return "not finite", f"{name} is {kind} where the truth is finite"
    if not y.any() and truth.any():
        return "zeros", f"{name} is all zeros"
    return "values", f"{name} is wrong"


def _measured(worst: Worst, plan: Plan) -> str:
    at = f" at {list(worst.index)}" if worst.index else ""
    digits = 17 if plan.dtype in EXACT else 9
    said = f"{at}: got {worst.got:.{digits}g}, truth {worst.truth:.{digits}g}"
    if not math.isfinite(worst.ratio):
        return said
    z = worst.ratio * plan.limit
    far = f"{z:.3g} standard deviations" if z < 1e9 else "more than a billion standard deviations"
    return f"{said}, error {abs(worst.got - worst.truth):.3g} = {far} (at most {plan.limit:g})"


# --- what is stored ---------------------------------------------------------------------------------------------------


def _by_what_is_stored(name: str, y: Array, sized: SizedCase, key: str, dtype: str, plan: Plan, text: Text) -> Verdict:
    known, places, flat = sized.known[key], probes(y.shape, sized.seed, key), y.reshape(-1)
    if not len(places):
        return Verdict(name, "", "")
    finite = not_finite(flat) == known.not_finite
    worst, total = _of_probes(flat, places, y.shape, known, dtype, plan), _of_sum(flat, sized, key, dtype, plan)
    if worst.ratio <= 1 and total.ratio <= 1 and finite:
        return Verdict(name, "", "", max(worst, total, key=lambda w: w.ratio))
    truth = text.of(key)  # of which the plan in hand says how far it may be, as that of the stored ones may not be
    worst = _of_probes(flat, places, y.shape, known, dtype, plan, truth.deviation)
    total = _of_sum(flat, sized, key, dtype, plan, truth.deviation)
    if worst.ratio <= 1 and total.ratio <= 1 and finite:
        return Verdict(name, "", "", max(worst, total, key=lambda w: w.ratio))
    located = _by_the_text(name, y, truth, dtype, plan, axes_of(sized.without_tensors(), y.shape))
    if located.wrong:
        return located
    words = f"{name} is wrong{_measured(worst, plan)}"
    if worst.ratio <= 1:
        words = f"{name}: the sum of its elements with the signs of the generator is wrong{_measured(total, plan)}"
    return Verdict(name, "values", words, max(worst, total, key=lambda w: w.ratio))


def _looked_up(y: Array, truth: Expected, sized: SizedCase, key: str, plan: Plan) -> int:
    """How many elements have a stored truth, if all of these are right and nearly all others wrong; 0 otherwise."""
    wrong = deviations(y, truth, plan.dtype, plan).reshape(-1) > 1
    places = numpy.unique(probes(y.shape, sized.seed, key))
    others = wrong.size - len(places)
    if len(places) < LEAST_LOOKED_UP or wrong[places].any() or int(wrong.sum()) <= NEARLY_ALL * others:
        return 0
    return len(places)


def _of_probes(
    flat: Array, places: Array, shape: tuple[int, ...], known: Known, dtype: str, plan: Plan, far: Array | None = None
) -> Worst:
    """The worst of the probes. `far`: deviations of all elements, of which those of the probes count if larger."""
    allowed = known.deviations * UNIT[dtype]
    if far is not None:
        allowed = numpy.maximum(allowed, numpy.reshape(far, -1)[places])
    n = int(deviations(flat[places], Expected(known.values, allowed), dtype, plan).argmax())
    at = tuple(int(i) for i in numpy.unravel_index(int(places[n]), shape))
    return _worst(at, float(flat[places[n]]), float(known.values[n]), float(allowed[n]), dtype, plan)


def _of_sum(flat: Array, sized: SizedCase, key: str, dtype: str, plan: Plan, far: Array | None = None) -> Worst:
    """The signed sum. Random signs make the errors of a row independent, whatever they have in common."""
    known = sized.known[key]
    allowed = known.sum_deviation * UNIT[dtype]
    if far is not None:
        allowed = max(allowed, math.sqrt(math.fsum((numpy.reshape(far, -1)[numpy.isfinite(flat)] ** 2).tolist())))
    return _worst((), signed_sum(flat, sized.seed, key), known.sum, allowed, dtype, plan)


def signed_sum(flat: Array, seed: int, key: str) -> float:
    """Σ ± y of the elements that are finite, without a rounding of its own."""
    terms = numpy.where(numpy.isfinite(flat), flat, 0) * signs(flat.size, seed, key)
    return math.fsum(terms.tolist())


def not_finite(flat: Array) -> tuple[int, int, int]:
    return int(numpy.isnan(flat).sum()), int(numpy.isposinf(flat).sum()), int(numpy.isneginf(flat).sum())
