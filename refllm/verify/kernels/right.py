"""Right answers, of which a mistake is asked whether it would have got them right too: if not, it is not the one.

right = Right(case, "float32", plan)
right.is_right(cause, gradients=False, digits=False)
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan
from refllm.verify import plain
from refllm.verify.case import Case
from refllm.verify.kernels.causes import Cause, OfBank
from refllm.verify.kernels.matching import tensors
from refllm.verify.sized import judge

MARGIN = 16.0  # times what is allowed that a mistake that loses digits must be off to be contradicted


class Right:
    """A case whose answer is right, of which mistakes are asked whether they get it right."""

    def __init__(self, case: Case, dtype: str, plan: Plan) -> None:
        self.case, self.values, self.dtype, self.plan = case, case.values_alone(), dtype, plan

    def is_right(self, cause: Cause, *, gradients: bool, digits: bool) -> bool:
        """Its value, and where it is a mistake of gradients these too."""
        case = self.case if gradients else self.values
        found = cause.answer(case, "float32" if digits and self.dtype != "float64" else "float64")
        if found is None:  # a reading says nothing of what it does not change
            return not isinstance(cause, OfBank)
        plainly, text = (self._plain, self._text) if gradients else (self._plain_values, self._text_of_values)
        if plainly is not None and _alike(tensors(found), plainly):
            return True
        margin = MARGIN if digits else 1.0
        return not any(
            (judge.deviations(x, text.of(n), self.dtype, self.plan) > margin).any() for n, x in tensors(found).items()
        )

    @cached_property
    def _plain(self) -> dict[str, Array] | None:
        return _plainly(self.case)

    @cached_property
    def _plain_values(self) -> dict[str, Array] | None:
        return _plainly(self.values)

    @cached_property
    def _text(self) -> judge.Text:
        return judge.Text(self.case, self.plan, gradients=True)

    @cached_property
    def _text_of_values(self) -> judge.Text:
        return judge.Text(self.values, self.plan, gradients=False)


def _plainly(case: Case) -> dict[str, Array] | None:
    response = plain.answer(replace(case, inputs=dict(case.inputs)), "float64", {}, traced=False)
    return tensors(response) if response else None


def _alike(one: dict[str, Array], other: dict[str, Array]) -> bool:
    """Whether two answers are the same but for roundings of float64."""
    return all(
        n in other and x.shape == other[n].shape
        and numpy.allclose(x, other[n], rtol=1e-9, atol=1e-9 * _largest(other[n]), equal_nan=True)
        for n, x in one.items()
    )  # fmt: skip


def _largest(x: Array) -> float:
    finite = x[numpy.isfinite(x)]
    return float(abs(finite).max(initial=0))
