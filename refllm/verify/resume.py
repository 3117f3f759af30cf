"""L6, the law of resuming: training that was stopped, written to a file, read and continued equals training in one go.

No number is given: the two must agree bit for bit, and an implementation that does nothing must not pass.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, FaultError, Response, Truth
from refllm.verify.tensors import from_safetensors, same_bits, to_safetensors
from refllm.verify.verdict import Verdict, as_array


class Trains(Protocol):
    def respond(self, case: Case, dtype: str) -> Response: ...


def verdicts(implementation: Trains, case: Case, dtype: str) -> list[Verdict]:
    """Runs `train` over all batches, and in two parts, and compares the ends."""
    stop, count = case.keywords["stop"], len(case.keywords["ids"])
    whole, first = _trained(implementation, part(case, case.inputs, 0, count), dtype)
    half, second = _trained(implementation, part(case, case.inputs, 0, stop), dtype)
    state = {name: x for name, x in half.items() if name in case.inputs}
    rest, third = _trained(implementation, part(case, _through_a_file(state), stop, count), dtype)
    for series in ("loss", "norm"):
        rest[series] = numpy.concatenate([half[series], rest[series]])
    lost = {*first, *second, *third}
    return [_verdict(n, end, rest[n], state.get(n), case.inputs.get(n), lost) for n, end in whole.items()]


def part(case: Case, inputs: dict[str, Array], start: int, stop: int) -> Case:
    """Training on the batches `start` to `stop` from a state, as a case of `train` without its truth."""
    keywords = {name: x for name, x in case.keywords.items() if name != "stop"}
    for name in ("ids", "targets"):
        keywords[name] = keywords[name][start:stop]
    keywords["first"] = case.keywords["first"] + start
    unknown = Truth(numpy.zeros(stop - start), None)
    outputs = {"loss": unknown, "norm": unknown, **{name: Truth(x, None) for name, x in inputs.items()}}
    return replace(case, operation="train", inputs=inputs, keywords=keywords, outputs=outputs)


def _trained(implementation: Trains, case: Case, dtype: str) -> tuple[dict[str, Array], tuple[str, ...]]:
    """What a training returned, and what of earlier ones it overwrote."""
    response = implementation.respond(case, dtype)
    given: dict[str, Any] = response.outputs
    outputs = {name: as_array(given.get(name), truth.value, dtype) for name, truth in case.outputs.items()}
    for name, truth in case.outputs.items():
        x = outputs[name]
        if not isinstance(x, numpy.ndarray) or x.shape != truth.value.shape or x.dtype.kind != "f":
            kind = f"{x.dtype} {x.shape}" if isinstance(x, numpy.ndarray) else type(x).__name__
            raise FaultError(f"train returned {kind} as {name}, it must be floating-point {truth.value.shape}")
        if not numpy.isfinite(x).all():
            raise FaultError(f"train returned a {name} that is not finite (NaN or infinity)")
    if not outputs["loss"].all():
        raise FaultError("train returned a loss of zero")
    return {name: x.copy() for name, x in outputs.items()}, response.overwritten


def _through_a_file(state: dict[str, Array]) -> dict[str, Array]:
    content = to_safetensors({name: (str(x.dtype), x) for name, x in state.items()})
    return {name: x for name, (_, x) in from_safetensors(content, "the state").items()}


def _verdict(
    name: str, whole: Array, resumed: Array, half: Array | None, start: Array | None, overwritten: set[str]
) -> Verdict:
    """The two ends must agree; each part of the state must change in both halves, or agreeing would say nothing."""
    what = f"output {name}"
    if name in overwritten:
        again = "a later call of train changes what an earlier one returned (a buffer that is used again)"
        return Verdict(what, "overwritten", f"{what}: {again}; return a copy")
    if half is not None:
        if not whole.any():
            return Verdict(what, "zeros", f"{what} is all zeros")
        if start is None or numpy.array_equal(whole, start) or numpy.array_equal(whole, half):
            return Verdict(what, "values", f"{what} is not trained")
    if same_bits(resumed, whole):
        return Verdict(what, "", "")
    where = f"{int((resumed != whole).sum())} of {whole.size} elements differ"
    return Verdict(what, "values", f"{what} after resuming is not that of one go: {where}")
