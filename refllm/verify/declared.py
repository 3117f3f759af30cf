"""What the plain text declares of an operation: which axes are a batch, and what it may change in place.

batch(case)                    the arrays of a case that have a row for each member of its batch; None without one
updates_in_place("adamw")      whether it gives new values of what it was given, as optimisers do
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache

import numpy

from refllm import spec
from refllm.shapes import sections
from refllm.verify.case import Case
from refllm.verify.keywords import KEYWORDS, own_name

_ARRAY = re.compile(
    r"(?P<names>\w+'?(?:\[\w+\])?(?:, \w+'?)*) (?:(?:bool|int|real) )?\((?P<dimensions>[^()]*)\)"
    r'(?: or, for "(?P<value>\w+)", \((?P<other>[^()]*)\))?'
)


@dataclass(frozen=True)
class Batch:
    """The leading axes that the arrays of a case share, and which of them have these axes."""

    lead: tuple[int, ...]
    inputs: tuple[str, ...]
    keywords: tuple[str, ...]

    @property
    def size(self) -> int:
        return math.prod(self.lead)


@cache
def _declared(operation: str) -> tuple[dict[str, tuple[str, ...]], list[tuple[str, tuple[str, ...], str, str]]]:
    """Dimensions of the inputs by name, and of the outputs in their order, with those for another keyword."""
    function = spec.operations().get(own_name(operation))
    line = sections(function.__doc__ or "").get("Shapes", "") if function is not None else ""
    before, _, after = line.partition("->")
    inputs = {
        name.strip(): _split(found["dimensions"])
        for found in _ARRAY.finditer(before)
        for name in found["names"].split(",")
    }
    outputs = [
        (name.strip(), _split(found["dimensions"]), found["value"] or "", found["other"] or "")
        for found in _ARRAY.finditer(after)
        for name in found["names"].split(",")
    ]
    return inputs, outputs


def _split(dimensions: str) -> tuple[str, ...]:
    return tuple(d.strip() for d in dimensions.split(",") if d.strip())


def updates_in_place(operation: str) -> bool:
    """Whether it gives new values of its arguments (p'), which an optimiser may write where the old ones were."""
    return any(name.endswith("'") for name, *_ in _declared(operation)[1])


def batch(case: Case) -> Batch | None:
    """The batch of a case, if every output has a row of numbers for each of its members. Whole numbers are left out:
    where words are hidden, how many places a row has depends on the others."""
    if any(truth.value.dtype.kind != "f" for truth in case.outputs.values()):
        return None
    inputs, outputs = _declared(case.operation)
    leads = set()
    for name, dimensions in _output_dimensions(case, outputs):
        lead = _lead(case.outputs[name].value.shape, dimensions)
        if lead is None:
            return None
        leads.add(lead)
    if len(leads) != 1:
        return None
    [lead] = leads
    if math.prod(lead) < 2:
        return None
    own = {golden: KEYWORDS.get(golden, golden) for golden in case.keywords}
    given = {n: x for n, x in case.keywords.items() if isinstance(x, numpy.ndarray)}
    of_batch = [
        tuple(n for n, x in arrays.items() if _lead(x.shape, inputs.get(names(n), ())) == lead)
        for arrays, names in ((case.inputs, str), (given, own.__getitem__))
    ]
    return Batch(lead, of_batch[0], of_batch[1]) if of_batch[0] or of_batch[1] else None


def _output_dimensions(
    case: Case, outputs: list[tuple[str, tuple[str, ...], str, str]]
) -> list[tuple[str, tuple[str, ...]]]:
    """The dimensions of each output of the case; several outputs may share one entry, `y[parts]`."""
    names = list(case.outputs)
    if len(outputs) == 1:
        outputs = outputs * len(names)
    if len(outputs) != len(names):
        return [(name, ()) for name in names]
    texts = {x for x in case.keywords.values() if isinstance(x, str)}
    return [
        (name, _split(other) if value in texts else dimensions)
        for name, (_, dimensions, value, other) in zip(names, outputs, strict=True)
    ]


def _lead(shape: tuple[int, ...], dimensions: tuple[str, ...]) -> tuple[int, ...] | None:
    """The axes of the batch: those that `...` stands for, or the one that is called B. None without any."""
    if dimensions[:1] == ("...",) and len(shape) >= len(dimensions) - 1:
        return shape[: len(shape) - (len(dimensions) - 1)]
    return shape[:1] if dimensions[:1] == ("B",) and len(shape) == len(dimensions) else None
