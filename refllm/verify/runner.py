"""Runs cases on an implementation and judges what it answers.

An implementation is anything with

    name: str
    conventions: Mapping[str, str]                     what it declares, {"causal_alignment": "top-left"}
    respond(case: Case, dtype: str) -> Response        raises UnsupportedError or FaultError

`adapter.Functions(name, {"attention": f, ...}, conventions)` makes one of Python functions; refllm itself is
`Functions("refllm", reference.functions(), {})`.

    respond(implementation, case, dtype) -> Response      (Case and Response: refllm.verify.case)
    judge(case, response, dtype, C) -> list[Verdict]      one for every output, gradient and given intermediate
    is_wrong(case, response, dtype, C) -> bool            whether one of them is against it
    run(implementation, cases, dtype, C) -> Iterator[Result]
    settled(results, dtype, C) -> list[Result]   where all is known: who follows a convention here must do so there
                                                 (`diagnosis.diagnosed` says what the wrong ones are)
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy

from refllm.backend import Array
from refllm.verify import intermediates, resume
from refllm.verify.by_plan import narrowed
from refllm.verify.case import CARRIERS, Case, FaultError, Response, Truth, UnsupportedError, cast
from refllm.verify.law import Law
from refllm.verify.tolerance import LARGEST, SHARE, UNIT, tolerance
from refllm.verify.verdict import Verdict, as_array, converted, verdicts

_INNER = "intermediate "  # with which the names of verdicts on intermediate values begin


class Implementation(Protocol):
    """What is under test."""

    @property
    def name(self) -> str: ...

    @property
    def conventions(self) -> Mapping[str, str]: ...

    def respond(self, case: Case, dtype: str) -> Response:
        """The answer to a case. Raises UnsupportedError (the case is skipped) or FaultError (it is an error)."""
        ...


@dataclass(frozen=True)
class Result:
    """What became of a case. Its status is one of

    pass        all that the case asks for is right
    value       the value is right, and no gradient was given
    convention  right under a convention that is not declared, and wrong under the one that is
    dtype       the numbers are right, as far as the dtype holds them, and it is another than asked for
    fail        wrong
    law         the numbers are right, and the call broke a law: it changed an input, read memory that nobody wrote …
    fault       no answer that could be judged: it raised, crashed, hung, or gave garbage
    skip        not there, or not for this precision
    """

    case: Case
    status: str
    reason: str  # why it was skipped, what the fault was, or the convention
    verdicts: list[Verdict] = field(default_factory=list)
    tap: str | None = None  # where the error begins
    diagnosis: list[str] = field(default_factory=list)  # what the answer is equal to, best first
    response: Response | None = field(default=None, repr=False)  # what was judged
    cast: list[str] = field(default_factory=list)  # what was converted before it was judged: "output y: float64"
    seconds: float = field(default=0.0, compare=False)  # that the answer and its judgement took
    alone: bool | None = None  # whether the case passes if it is the only one; None if that was not tried
    after: str = ""  # of one that passes alone: an earlier case after which it fails
    laws: list[Law] = field(default_factory=list)  # those that were broken, and notes on others

    @property
    def ratio(self) -> float | None:
        """The worst error / tolerance; None if nothing was judged."""
        return max((v.ratio for v in self.verdicts), default=None)

    @property
    def failed(self) -> bool:
        """Whether it differs from what is asked for."""
        return self.status in ("fail", "fault", "law", "dtype", "convention")

    @property
    def wrong(self) -> bool:
        """Whether it differs in more than the dtype or a convention."""
        return self.status in ("fail", "fault", "law")

    @property
    def right(self) -> bool:
        """Whether the numbers that were given are right."""
        return self.status in ("pass", "value", "law")

    @property
    def broken(self) -> list[Law]:
        """The laws that were broken."""
        return [law for law in self.laws if law.broken]

    def under_laws(self, laws: Iterable[Law]) -> Result:
        """The result with what more is known of laws: one that is broken fails a case whose numbers are right."""
        known = [*self.laws, *laws]
        fails = any(law.broken for law in known) and self.status in ("pass", "value")
        return replace(self, laws=known, status="law" if fails else self.status, reason="" if fails else self.reason)

    @property
    def absent(self) -> str:
        """The function for want of which it was skipped; "" if that is not the reason."""
        return self.reason.partition(" has no function ")[2] if self.status == "skip" else ""


def run(
    implementation: Implementation, cases: Iterable[Case], dtype: str, C: float, *, casts: bool = False
) -> Iterator[Result]:
    """A result for each case, as soon as it is known. With `casts` another dtype is converted before it is judged."""
    for case in cases:
        start = time.monotonic()
        result = _result(implementation, case, dtype, C, casts)
        yield replace(result, seconds=time.monotonic() - start)


def settled(results: Iterable[Result], dtype: str, C: float) -> list[Result]:
    """The results, but that a convention which another right answer to the operation contradicts is a mistake."""
    found = list(results)
    right = [r for r in found if r.right and r.response is not None]

    def contradicted(result: Result) -> bool:
        peers = (r for r in right if r.case.operation == result.case.operation)
        return any(r.response and _right_under(r.case, r.response, dtype, C, result.reason) is False for r in peers)

    return [replace(r, status="fail", reason="") if r.status == "convention" and contradicted(r) else r for r in found]


def _right_under(case: Case, response: Response, dtype: str, C: float, key: str) -> bool | None:
    """Whether an answer is right under an alternative convention; None if the case knows no such alternative."""
    if key not in case.alternatives:
        return None
    other = case.under(dict(pair.split("=", 1) for pair in key.split(",")))
    return other is not None and not is_wrong(other, response, dtype, C)


def respond(implementation: Implementation, case: Case, dtype: str) -> Response:
    """The answer of an implementation, numbers as arrays. Raises UnsupportedError or FaultError."""
    response = implementation.respond(case, dtype)

    def arrays(given: Mapping[str, Any], truths: Mapping[str, Truth]) -> dict[str, Any]:
        return {n: as_array(x, truths[n].value, dtype) if n in truths else x for n, x in given.items()}

    gradients = None if response.gradients is None else arrays(response.gradients, case.gradients)
    return replace(
        response, outputs=arrays(response.outputs, case.outputs), gradients=gradients,
        taps=arrays(response.taps, case.taps),
    )  # fmt: skip


def judge(case: Case, response: Response, dtype: str, C: float) -> list[Verdict]:
    """A verdict on every output, on every gradient if any was given, and on every intermediate value that was given."""
    return list(verdicts(case, response, dtype, C))


def is_wrong(case: Case, response: Response, dtype: str, C: float) -> bool:
    """Whether any of these verdicts is against the answer; the rest is left at the first that is."""
    return any(verdict.wrong for verdict in verdicts(case, response, dtype, C))


def _result(implementation: Implementation, case: Case, dtype: str, C: float, casts: bool) -> Result:
    chosen = case.under(implementation.conventions)
    if reason := _why_not(implementation, case, chosen, dtype, C):
        return Result(case, "skip", reason)
    assert chosen is not None
    try:
        if case.operation == "resume":
            found = resume.verdicts(implementation, case, dtype)
            return Result(case, "fail" if any(v.wrong for v in found) else "pass", "", found)
        response, noted = respond(implementation, chosen, dtype), list[str]()
        if chosen.outputs is case.outputs:  # under its own conventions, which are those of the text
            chosen = narrowed(chosen, dtype)
        if casts and case.level:
            response, noted = in_dtype(chosen, response, dtype)
        return replace(judged(chosen, response, dtype, C), cast=noted)
    except UnsupportedError as error:
        return Result(case, "skip", str(error))
    except FaultError as error:
        return Result(case, "fault", str(error))


def _why_not(implementation: Implementation, case: Case, chosen: Case | None, dtype: str, C: float) -> str | None:
    """Why a case is not put to an implementation; None if it is. That it has no such function comes first."""
    needed = "train" if case.operation == "resume" else case.operation
    if needed not in getattr(implementation, "operations", (needed,)):
        return f"{implementation.name} has no function {case.operation}"
    if chosen is None:
        declared = ", ".join(f"{k}={v}" for k, v in implementation.conventions.items() if k in case.conventions)
        return f"the golden files have no truth under {declared}"
    return unfit_for(chosen, dtype, C)


def in_dtype(case: Case, response: Response, dtype: str) -> tuple[Response, list[str]]:
    """The answer in the dtype of the run, and what had another one."""
    noted = list[str]()

    def over(given: Mapping[str, Any], truths: Mapping[str, Truth], kind: str) -> dict[str, Any]:
        found = {}
        for name, x in given.items():
            found[name], was = converted(x, truths[name].value, dtype) if name in truths else (x, "")
            noted.extend([f"{kind} {name}: {was}"] if was else [])
        return found

    outputs = over(response.outputs, case.outputs, "output")
    gradients = response.gradients
    gradients = None if gradients is None else over(gradients, case.gradients, "gradient of")
    taps_given = over(response.taps, case.taps, "intermediate")
    return replace(response, outputs=outputs, gradients=gradients, taps=taps_given), noted


def judged(case: Case, response: Response, dtype: str, C: float) -> Result:
    """The result of an answer."""
    return _judged(case, response, dtype, C).under_laws(response.laws)


def _judged(case: Case, response: Response, dtype: str, C: float) -> Result:
    found = judge(case, response, dtype, C)
    if all(v.wrong in ("", "dtype") for v in found) and any(v.wrong for v in found):
        return Result(case, "dtype", "", found, response=response)
    if any(v.wrong for v in found):
        for key in case.alternatives:
            if _right_under(case, response, dtype, C, key):
                return Result(case, "convention", key, found, response=response)
        wrong = [v.name.removeprefix(_INNER) for v in found if v.wrong and v.name.startswith(_INNER)]
        comparable = all(v.comparable for v in found)
        where = intermediates.located(case, response.taps, wrong, dtype, C) if comparable else None
        return Result(case, "fail", "", found, where, response=response)
    if case.gradients and response.gradients is None:
        reason = f"value passed, gradient not given: {case.operation} returned a value without a pullback"
        return Result(case, "value", reason, found, response=response)
    return Result(case, "pass", "", found, response=response)


def declare(case: Case, key: str, near: str = "") -> str:
    """That an answer is right under another convention, and how to say so."""
    pairs = [pair.split("=", 1) for pair in key.split(",")]
    own = ", ".join(f"{name}={case.conventions[name]}" for name, _ in pairs)
    said = ", ".join(f'"{name}": "{value}"' for name, value in pairs)
    return (
        f"matches the convention {key}{near}; the case is under {own}: "
        f"declare CONVENTIONS = {{{said}}} if that is meant"
    )


def unfit_for(case: Case, dtype: str, C: float) -> str | None:
    """Why a case cannot be put to arithmetic of this dtype; None if it can."""
    if case.level == 0:
        return None
    for name, x in [*case.inputs.items(), *case.cotangents.items()]:
        if not _representable(x, dtype):
            return f"{name} holds numbers beyond the range of {dtype}"
    truths = () if dtype == "float64" else (*case.outputs.items(), *case.gradients.items())
    for name, truth in truths:
        finite = numpy.abs(truth.value[numpy.isfinite(truth.value)]) if truth.value.dtype.kind == "f" else truth.value
        if finite.dtype.kind == "f" and finite.size and float(finite.max()) > LARGEST[dtype]:
            return f"the truth of {name} is beyond the range of {dtype}"
    if case.margin is not None and _noise(case, dtype, C) >= case.margin:
        return f"a decision is nearer to a tie than {dtype} can tell"
    return None


def _representable(x: Array, dtype: str) -> bool:
    if x.dtype.kind != "f" or x.dtype == CARRIERS[dtype] == dtype:
        return True
    near = cast(x, dtype).astype("float64")
    with numpy.errstate(invalid="ignore"):  # infinities are equal or not, which the first comparison settles
        return bool(((near == x) | numpy.isnan(x) | (numpy.abs(near - x) <= UNIT[dtype] * numpy.abs(x))).all())


def _noise(case: Case, dtype: str, C: float) -> float:
    """How far a correct implementation's logits, or its cumulative probabilities, may be from the truth."""
    logits = case.outputs.get("logits")
    if logits is None:
        return C * UNIT[dtype] * math.sqrt(sum(x.shape[-1] if x.ndim else 1 for x in case.inputs.values()))
    return float(tolerance(logits, dtype, C / SHARE[dtype]).max())  # no nearer to a tie than in any other dtype
