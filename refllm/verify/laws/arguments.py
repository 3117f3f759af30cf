"""Other arguments than the stored ones, with tensors of the same shapes: another step, base, eps, another mask, and
rows whose largest number is the last or the first.

Tables that are kept by shape, or that were made for the first arguments, are right for these alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from refllm.backend import Array
from refllm.verify.case import Case, Response
from refllm.verify.laws.drawn import Known, fitting, judging
from refllm.verify.laws.fresh import FRESH
from refllm.verify.laws.trial import Trial
from refllm.verify.sized.cases import SizedCase

ARGUMENTS = "arguments that nobody has stored"
COUNTS = ("step", "window")  # whole numbers of which one more asks for the same shapes
OF_ROWS = {
    "softmax": "x", "log_softmax": "x", "log_sum_exp": "x", "cross_entropy": "logits", "soft_cross_entropy": "logits",
    "smoothed_cross_entropy": "logits",
}  # fmt: skip
PEAK = 120.0  # further above the rest than an exponential of float32 reaches
LEAST = 0.125  # in the place of 0


def other_arguments(sized: SizedCase, with_truth: Known, dtype: str, C: float) -> Iterator[Trial]:
    """Trials with one keyword that is another each, and with peaks at the ends of rows."""
    made = fitting(sized, dtype, C)
    if made is None:
        return
    seed, case = made
    for name, x in (*_other_numbers(case), *_other_choices(case)):
        other = with_truth(replace(case, keywords={**case.keywords, name: x}))
        done = f"with other numbers and {name} = {x!r} for {case.keywords[name]!r} (seed {seed})"
        judge = judging(other, ARGUMENTS, done, dtype, C, _OfEarlier(case, other, name, with_truth, dtype, C))
        yield Trial(ARGUMENTS, other, done, judge, refusable=True)
    if (peaked := _with_peaks(case)) is not None:
        done = f"with the largest number of each row at its end or at its beginning (seed {seed})"
        peaked = with_truth(peaked)
        yield Trial(FRESH, peaked, done, judging(peaked, FRESH, done, dtype, C))


def _other_numbers(case: Case) -> Iterator[tuple[str, Any]]:
    """Half of every real number, a later step, and one more key in a window."""
    for name, x in case.keywords.items():
        if isinstance(x, float):
            yield name, x / 2 if x else LEAST
        elif name in COUNTS and isinstance(x, int):
            yield name, 2 * x + 1 if name == "step" else x + 1


def _other_choices(case: Case) -> Iterator[tuple[str, Any]]:
    """Choices the other way round, where every row still has something that it sees."""
    for name, x in case.keywords.items():
        if name == "renormalise" or (name == "causal" and (x or _may_be_causal(case))):
            yield name, not x
        elif name == "reduction" and x in ("mean", "sum"):
            yield name, "sum" if x == "mean" else "mean"


def _may_be_causal(case: Case) -> bool:
    q, k = case.inputs.get("q"), case.inputs.get("k")
    masked = any(case.keywords.get(name) is not None for name in ("allowed", "borders"))
    return q is not None and k is not None and not masked and q.shape[-2] <= k.shape[-2]


def _with_peaks(case: Case) -> Case | None:
    """Every second row of a softmax with its largest number last, the others with theirs first."""
    x = case.inputs.get(OF_ROWS.get(case.operation, ""))
    if x is None or x.shape[-1] < 2 or not x.size:
        return None
    rows: Array = x.reshape(-1, x.shape[-1]).copy()
    rows[::2, -1] = rows[1::2, 0] = PEAK
    inputs = {**case.inputs, OF_ROWS[case.operation]: rows.reshape(x.shape)}
    return replace(case, inputs=inputs)


class _OfEarlier:
    """Says of a wrong answer whether it is right for the keyword of an earlier call, beside the new numbers."""

    def __init__(self, case: Case, other: Case, name: str, with_truth: Known, dtype: str, C: float) -> None:
        self.other, self.name, self.was = other, name, case.keywords[name]
        self.with_truth, self.dtype, self.C = with_truth, dtype, C

    def __call__(self, response: Response) -> str:
        from refllm.verify.runner import is_wrong

        earlier = replace(self.other, keywords={**self.other.keywords, self.name: self.was})
        values = replace(response, gradients=None)
        if is_wrong(self.with_truth(earlier.values_alone()), values, self.dtype, self.C):
            return ""
        return f"; it is right for {self.name} = {self.was!r}, as in an earlier call: what that call made is used again"
