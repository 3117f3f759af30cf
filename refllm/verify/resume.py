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
    whole = _trained(implementation, part(case, case.inputs, 0, count), dtype)
    half = _trained(implementation, part(case, case.inputs, 0, stop), dtype)
    state = {name: x for name, x in half.items() if name in case.inputs}
    rest = _trained(implementation, part(case, _through_a_file(state), stop, count), dtype)
    for series in ("loss", "norm"):
        rest[series] = numpy.concatenate([half[series], rest[series]])
    return [_moved(name, whole[name], x, state[name]) for name, x in case.inputs.items()] + [
        _same(name, rest[name], whole[name]) for name in whole
    ]


def part(case: Case, inputs: dict[str, Array], start: int, stop: int) -> Case:
    """Training on the batches `start` to `stop` from a state, as a case of `train` without its truth."""
    keywords = {name: x for name, x in case.keywords.items() if name != "stop"}
    for name in ("ids", "targets"):
        keywords[name] = keywords[name][start:stop]
    keywords["first"] = case.keywords["first"] + start
    unknown = Truth(numpy.zeros(stop - start), None)
    outputs = {"loss": unknown, "norm": unknown, **{name: Truth(x, None) for name, x in inputs.items()}}
    return replace(case, operation="train", inputs=inputs, keywords=keywords, outputs=outputs)


def _trained(implementation: Trains, case: Case, dtype: str) -> dict[str, Array]:
    given: dict[str, Any] = implementation.respond(case, dtype).outputs
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
    return outputs


def _through_a_file(state: dict[str, Array]) -> dict[str, Array]:
    content = to_safetensors({name: (str(x.dtype), x) for name, x in state.items()})
    return {name: x for name, (_, x) in from_safetensors(content, "the state").items()}


def _moved(name: str, end: Array, start: Array, half: Array) -> Verdict:
    """Each part of the state must change in both halves, or agreeing would say nothing."""
    if numpy.array_equal(end, start) or numpy.array_equal(end, half) or not end.any():
        kind = "zeros" if not end.any() else "values"
        return Verdict(f"output {name}", kind, f"output {name} is {'all zeros' if not end.any() else 'not trained'}")
    return Verdict(f"output {name}", "", "")


def _same(name: str, resumed: Array, whole: Array) -> Verdict:
    if same_bits(resumed, whole):
        return Verdict(f"output {name}", "", "")
    differing = int((resumed != whole).sum())
    where = f"{differing} of {whole.size} elements differ"
    return Verdict(f"output {name}", "values", f"output {name} after resuming is not that of one go: {where}")
