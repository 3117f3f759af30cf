"""Lost digits that are more from one index of an axis to the next: those of a recurrence, of a running sum, of a number
that grows with the index and has few digits.

growth("output y", x, truth, unit)     "… the error grows with the row: from 6e-08 to 2.1e-06 of the truth …"
"""

from __future__ import annotations

import itertools

import numpy

from refllm.backend import Array

GROUPS = 8  # of neighbouring indices, whose errors are compared
LEAST = 4 * GROUPS  # indices of an axis along which that is looked at
TIMES, FALLS, JUMP = 6.0, 1, 12.0  # how much larger the last error is; how often it may fall; and rise at once
LOST = 0.1  # the share of the truth that errors may be which are lost digits


def growth(words: str, x: Array, truth: Array, unit: float) -> str:
    if not numpy.isfinite(x).all() or not numpy.isfinite(truth).all():
        return ""
    for axis, name in ((-2, "row"), (-1, "column")):
        if x.ndim < 2 or x.shape[axis] < LEAST:
            continue
        errors = _by_index(x - truth, truth, axis)
        if errors is not None and _grows(errors, unit):
            return (
                f"{words}: the error grows with the {name}: from {errors[0]:.1g} to {errors[-1]:.1g} of the truth: "
                "digits that are lost in a recurrence or a running sum, or in a number that grows with it"
            )
    return ""


def _by_index(error: Array, truth: Array, axis: int) -> list[float] | None:
    """The errors of groups of indices as shares of the truth; None if it is 0 in one."""
    found = []
    for off, right in zip(*(numpy.array_split(a, GROUPS, axis=axis) for a in (error, truth)), strict=True):
        size = float((right**2).mean())
        if not size:
            return None
        found.append(float((off**2).mean() / size) ** 0.5)
    return found


def _grows(errors: list[float], unit: float) -> bool:
    floor = [max(e, unit) for e in errors]
    steps = [b / a for a, b in itertools.pairwise(floor)]
    falls = sum(step < 1 for step in steps)
    return errors[-1] <= LOST and floor[-1] >= TIMES * floor[0] and falls <= FALLS and max(steps) <= JUMP
