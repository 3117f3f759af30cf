"""Tables that are kept for the first arguments, a pullback that adds to its last answer and a maximum that leaves out
the end of a row are found, whatever the stored cases ask; refllm breaks nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.verify import check, reference
from refllm.verify.laws.arguments import ARGUMENTS, other_arguments
from refllm.verify.laws.calls import TWICE
from refllm.verify.laws.fresh import FRESH
from refllm.verify.sized.work import work
from spec_tests.verify.test_laws_drawn import CASES, drawn_of

RIGHT = reference.functions()
Function = Callable[..., Any]


def moments_corrected_as_in_the_first_call() -> Function:
    steps: dict[Any, int] = {}

    def adamw(p: Any, g: Any, m: Any, v: Any, **how: Any) -> Any:
        step = steps.setdefault((p.shape, how["beta1"], how["beta2"], how["lr"]), how["step"])
        return RIGHT["adamw"](p, g, m, v, **{**how, "step": step})

    return adamw


def angles_of_the_first_base() -> Function:
    bases: dict[Any, float] = {}

    def rotary_halves(x: Any, *, positions: Any, base: float) -> Any:
        first = bases.setdefault((x.shape, positions.tobytes()), base)
        return RIGHT["rotary_halves"](x, positions=positions, base=first)

    return rotary_halves


def eps_of_the_first_call() -> Function:
    kept: dict[Any, float] = {}

    def layer_norm(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        return RIGHT["layer_norm"](x, g, b, eps=kept.setdefault(x.shape, eps))

    return layer_norm


def pullback_that_adds_to_its_last_answer() -> Function:
    def gelu_tanh(x: Any) -> Any:
        y, back = RIGHT["gelu_tanh"](x)
        dx = numpy.zeros_like(x)

        def adding(dy: Any) -> Any:
            nonlocal dx
            dx = dx + back(dy)
            return dx

        return y, adding

    return gelu_tanh


def largest_of_whole_parts_of_16() -> Function:
    def log_sum_exp(x: Any) -> Any:
        _, back = RIGHT["log_sum_exp"](x)
        most = x[..., : x.shape[-1] // 16 * 16 or None].max(-1, keepdims=True)
        with numpy.errstate(all="ignore"):
            return (most + numpy.log(numpy.exp(x - most).sum(-1, keepdims=True)))[..., 0], back

    return log_sum_exp


KEPT = "as in an earlier call: what that call made is used again"
MISTAKES: list[tuple[str, Callable[[], Function], str, str]] = [
    ("adamw", moments_corrected_as_in_the_first_call, ARGUMENTS, KEPT),
    ("rotary_halves", angles_of_the_first_base, ARGUMENTS, KEPT),
    ("layer_norm", eps_of_the_first_call, ARGUMENTS, KEPT),
    ("gelu_tanh", pullback_that_adds_to_its_last_answer, TWICE, "called a second time for the same upstream gradient"),
    ("log_sum_exp", largest_of_whole_parts_of_16, FRESH, "with the largest number of each row at its end"),
]


@pytest.mark.parametrize(("operation", "mistake", "law", "says"), MISTAKES, ids=[m.__name__ for _, m, *_ in MISTAKES])
def test_what_an_earlier_call_has_left_breaks_a_law(
    operation: str, mistake: Callable[[], Function], law: str, says: str
) -> None:
    small = [id for id, case in CASES.items() if case.operation == operation and work(case) < 10_000]
    failures = check(mistake(), operation, dtype="float32", size="kernel", search=0, only=small).failures
    said = [(each.name, each.message) for failure in failures for each in failure.broken]
    assert any(name == law and says in message for name, message in said), said


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_refllm_is_right_for_other_arguments(dtype: str) -> None:
    of_arguments = {"adamw", "rotary_halves", "rms_norm", "top_experts", "dropout"}
    of_rows = {"softmax", "cross_entropy"}
    tried = drawn_of(of_arguments | of_rows, dtype, other_arguments)
    assert of_arguments <= tried[ARGUMENTS]
    assert tried[FRESH] == of_rows


@pytest.mark.slow
def test_refllm_is_right_for_other_arguments_of_every_operation() -> None:
    tried = drawn_of({case.operation for case in CASES.values()}, "float32", other_arguments)
    assert len(tried[ARGUMENTS]) > 15
