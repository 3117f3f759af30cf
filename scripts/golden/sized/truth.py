"""The truth of sized cases: the text in double-double numbers, at probes and in sums, with the spread of float64.

A stored value is settled: all that the proven bound allows rounds to it, or is nearer to it than a thousandth of its
deviation, as where the truth is 0 or lies on the border of two doubles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from refllm.numbers import double_double as dd
from refllm.numbers import plans
from refllm.numbers.formats import FORMATS
from refllm.verify import plain
from refllm.verify.case import Case, roots, tree
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.evaluate import Expected, expected, implementation
from refllm.verify.sized.probes import COUNT, probes, signs

PLAN, DTYPE = "fused", "float64"
NEAR = 2.0**-10  # of the spread
SMALL = 2.0**-76  # of the largest value of a tensor: nothing beside its rounding
NOTHING = 2.0**-1030  # far below what may be flushed to zero

Rows = dict[str, list[Any]]


def found(case: Case, numbers: ModuleType) -> dict[str, Any]:
    """The text on these numbers, which have a `lift`: its outputs and gradients, by "outputs.y" and "gradients.x"."""
    function = implementation(case.operation, plain.text())
    returned = function(
        *(numbers.lift(tree(n, case.inputs)) for n in case.order), **numbers.lift(dict(case.keywords))
    )  # fmt: skip
    with_back = isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])
    y, back = returned if with_back else (returned, None)
    outputs = {f"outputs.{name}": x for name, x in case.flat_outputs(y).items()}
    if back is None or not case.cotangents:
        return outputs
    dx = back(*(numbers.lift(tree(n, case.cotangents)) for n in roots(case.cotangents)))
    return outputs | {f"gradients.{name}": x for name, x in case.flat_gradients(dx).items()}


def doubles(case: Case) -> dict[str, dd.Double]:
    """By double-double numbers, with their proven bound."""
    with dd.plain_numbers(), np.errstate(all="ignore"):
        return {key: dd.lifted(x) for key, x in found(case, dd).items()}


def rows(sized: SizedCase) -> Rows:
    """A row for every tensor of the case, in the order of its outputs and then of its inputs."""
    case, table = sized.case(), Rows(values=[], deviations=[], sums=[], sum_deviations=[], not_finite=[])
    spread = expected(case, plans.plan(PLAN, DTYPE), gradients=True)
    for key, truth in doubles(case).items():
        deviation = _deviation(f"{sized.id}, {key}", truth, spread[key])
        for part, entry in _row(truth, deviation, sized.seed, key).items():
            table[part].append(entry)
    return table


def _row(truth: dd.Double, deviation: np.ndarray, seed: int, key: str) -> Mapping[str, Any]:
    place, u = probes(truth.shape, seed, key), FORMATS[DTYPE].unit
    hi, lo, far = (x.reshape(-1) for x in (truth.hi, truth.lo, deviation))
    finite, sign = np.isfinite(hi), signs(hi.size, seed, key)
    total = math.fsum([*(sign * hi)[finite].tolist(), *(sign * lo)[finite].tolist()])
    spread = math.sqrt(math.fsum((far[finite] ** 2).tolist())) / u
    return {
        "values": hi[place] if len(place) else np.zeros(COUNT),
        "deviations": np.array([rounded_up(x) for x in far[place] / u]) if len(place) else np.zeros(COUNT),
        "sums": total,
        "sum_deviations": rounded_up(spread),
        "not_finite": [int(np.isnan(hi).sum()), int(np.isposinf(hi).sum()), int(np.isneginf(hi).sum())],
    }


def _deviation(what: str, truth: dd.Double, text: Expected) -> np.ndarray:
    """The spread of float64, and at least what the text itself is off by there: it is right. Where the bound leaves a
    value open that is nothing beside the largest of the tensor, as in a tail, at least a thousand times the bound."""
    with np.errstate(invalid="ignore"):  # -∞ from -∞ is not looked at
        off = abs(np.where(np.isfinite(truth.hi), (truth.hi - text.value) + truth.lo, 0))
    deviation = np.maximum(text.deviation, off)
    settled = truth.settled() | (truth.radius <= NEAR * deviation) | (truth.radius <= NOTHING)
    largest = abs(np.where(np.isfinite(truth.hi), truth.hi, 0)).max(initial=0.0)
    if not (settled | (truth.radius <= SMALL * largest)).all():
        at = tuple(int(i) for i in np.argwhere(~settled)[0])
        raise ArithmeticError(f"{what}: {truth.hi[at]:.17g} at {list(at)} is known to {truth.radius[at]:.3g} only")
    widened: np.ndarray = np.where(settled, deviation, np.maximum(deviation, truth.radius / NEAR))
    return widened


def rounded_up(x: float) -> float:
    """A bfloat16, never less than x, and of what is above 0 no subnormal one."""
    if x == 0 or not math.isfinite(x):
        return float(x)
    x = max(x, 2.0**-126)
    mantissa, exponent = math.frexp(x)
    return math.ldexp(math.ceil(math.ldexp(mantissa, 8)), exponent - 8)


def tables(found: list[Rows]) -> dict[str, tuple[str, np.ndarray]]:
    """The rows of all cases of a file, as its tensors, with their dtypes."""
    dtypes = {"values": "float64", "sums": "float64", "not_finite": "int32"}
    shapes = {"values": (-1, COUNT), "deviations": (-1, COUNT), "not_finite": (-1, 3)}
    parts = {part: [entry for each in found for entry in each[part]] for part in found[0]}
    made = {}
    for part, entries in parts.items():
        array = np.array(entries, dtypes.get(part, "float32")).reshape(shapes.get(part, -1))
        made[part] = (dtypes.get(part, "bfloat16"), array)
    return made
