"""What a case has numbers of: lengths of axes, targets that count, true places of a mask, experts that are chosen,
keywords.

of(case)                {"V": 65, "targets that count": 19, "all targets": 21, …}
counted(case)           the pairs of these of which a mean may take the wrong one
"""

from __future__ import annotations

from typing import NamedTuple

import numpy

from refllm.verify.case import Case
from refllm.verify.kernels import axes


class Counted(NamedTuple):
    """Two quantities by name: those that count, and all."""

    part: str
    whole: str
    what: str  # "targets"


def of(case: Case) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in case.keywords.items():
        if isinstance(value, numpy.ndarray) and value.dtype.kind == "b":
            found |= {f"places where {name} is true": int(value.sum()), f"all places of {name}": value.size}
        elif isinstance(value, numpy.ndarray) and name == "targets":
            ignore = case.keywords.get("ignore")
            found |= {"targets that count": int((value != ignore).sum()) if ignore is not None else value.size}
            found |= {"all targets": value.size}
        elif isinstance(value, numpy.ndarray) and value.dtype.kind in "iu" and value.size:
            found |= {f"numbers in {name}": value.size, f"different numbers in {name}": len(numpy.unique(value))}
        elif isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            found[name] = value
    found |= axes.sizes(case)
    first = next(iter(case.inputs.values()), None)
    if first is not None and first.ndim > 1 and first.size:
        found["rows"] = first.size // first.shape[-1]
    return {name: value for name, value in found.items() if value > 0} | _slope(case)


def _slope(case: Case) -> dict[str, float]:
    """What a pullback is called with, where that is one number: of either sign."""
    given = [float(x) for x in case.cotangents.values() if x.size == 1]
    return {"dy": given[0]} if len(given) == 1 and given[0] else {}


def counted(names: dict[str, float]) -> list[Counted]:
    found = [Counted("targets that count", "all targets", "targets")] if "all targets" in names else []
    whole = [name for name in names if name.startswith("all places of ")]
    masks = [name.removeprefix("all places of ") for name in whole]
    return found + [Counted(f"places where {m} is true", f"all places of {m}", "places") for m in masks]
