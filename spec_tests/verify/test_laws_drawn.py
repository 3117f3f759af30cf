"""What is drawn at the sizes of kernels: what was stored, kept by shape or made for the sizes of the golden files is
found, and refllm breaks nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy
import pytest

from refllm.numbers import plans
from refllm.verify import check, plain, reference
from refllm.verify.adapter import Functions
from refllm.verify.laws import at_size
from refllm.verify.laws.drawn import PLACES, SIZES, drawn, is_of_one_length, other_places, other_shapes
from refllm.verify.laws.fresh import FRESH
from refllm.verify.laws.trying import Trying
from refllm.verify.sized.cases import SizedCase, load
from refllm.verify.sized.work import work
from spec_tests.verify.folder import GOLDEN

RIGHT = reference.functions()
CASES = {id: case for id, case in load(GOLDEN).items() if not case.slow}
Function = Callable[..., Any]
LEAST = 500  # the work of a case that has rows and columns


def answers_kept_by_shape() -> Function:
    """A product whose second factor is packed once for each shape."""
    packed: dict[Any, Any] = {}

    def matmul(x: Any, W: Any) -> Any:
        return RIGHT["matmul"](x, packed.setdefault((W.shape, W.dtype.str), W.copy()))

    return matmul


def answers_kept_of_large_tensors() -> Function:
    kept: dict[Any, Any] = {}

    def softmax(x: Any) -> Any:
        y, back = RIGHT["softmax"](x)
        return (kept.setdefault(x.shape, y.copy()) if x.size > 7000 else y), back

    return softmax


def right_for_the_stored_sizes() -> Function:
    known = {math.prod(case.outputs["y"]) for case in CASES.values() if case.operation == "gelu_erf"}

    def gelu_erf(x: Any) -> Any:
        return RIGHT["gelu_erf" if x.size in known else "gelu_tanh"](x)

    return gelu_erf


def right_for_the_stored_rows() -> Function:
    known = {tuple(case.inputs["logits"]["shape"]) for case in CASES.values() if case.operation == "cross_entropy"}

    def cross_entropy(logits: Any, **how: Any) -> Any:
        y, back = RIGHT["cross_entropy"](logits, **how)
        return (y if logits.shape in known else y * logits.dtype.type(1.01)), back

    return cross_entropy


def right_for_the_stored_numbers() -> Function:
    known = {case.case().inputs["x"].astype("float32").tobytes() for case in CASES.values() if case.operation == "silu"}

    def silu(x: Any) -> Any:
        y, back = RIGHT["silu"](x)
        return (y if x.tobytes() in known else numpy.zeros_like(y)), back

    return silu


def answers_kept_by_their_first_numbers() -> Function:
    kept: dict[Any, Any] = {}

    def tanh(x: Any) -> Any:
        y, back = RIGHT["tanh"](x)
        return kept.setdefault((x.shape, x.dtype.str, x.reshape(-1)[:8].tobytes()), y).copy(), back

    return tanh


MISTAKES: list[tuple[str, Callable[[], Function], str, str]] = [
    ("matmul", answers_kept_by_shape, FRESH, "it is right for the W of an earlier call"),
    ("softmax", answers_kept_of_large_tensors, FRESH, "it is right for the x of an earlier call"),
    ("gelu_erf", right_for_the_stored_sizes, SIZES, "with x of "),
    ("cross_entropy", right_for_the_stored_rows, SIZES, "with logits of "),
    ("tanh", answers_kept_by_their_first_numbers, FRESH, "in the last half of those of an earlier call"),
    ("silu", right_for_the_stored_numbers, FRESH, "with other numbers of the same shapes (seed "),
]


@pytest.mark.parametrize(("operation", "mistake", "law", "says"), MISTAKES, ids=[m.__name__ for _, m, *_ in MISTAKES])
def test_what_is_right_for_stored_cases_alone_breaks_a_law(
    operation: str, mistake: Callable[[], Function], law: str, says: str
) -> None:
    small = [id for id, case in CASES.items() if case.operation == operation and work(case) < 10_000]
    failures = check(mistake(), operation, dtype="float32", size="kernel", search=0, values=True, only=small).failures
    said = [(each.name, each.message) for failure in failures for each in failure.broken]
    assert any(name == law and says in message for name, message in said), said
    assert {failure.status for failure in failures} == {"law"}


def test_a_mask_that_is_kept_by_the_number_of_documents_breaks_a_law() -> None:
    """As an answer is that is kept by shape: in the stored cases no two have as many documents in as many places."""
    text, kept = plain.operations()["packed_attention"], dict[Any, Any]()

    def packed_attention(q: Any, k: Any, v: Any, *, borders: Any, key_borders: Any, causal: bool) -> Any:
        both = kept.setdefault((q.shape[-2], len(borders), causal), (borders.copy(), key_borders.copy()))
        return text(q, k, v, borders=both[0], key_borders=both[1], causal=causal)[0]

    only = ["PACK/kernel-packed-attention-3x129x40-causal"]
    failures = check(packed_attention, dtype="float32", size="kernel", search=0, values=True, only=only).failures
    [law] = [law for failure in failures for law in failure.broken]
    assert law.name == FRESH
    assert "it is right for the keywords of an earlier call" in law.message


def test_other_places_are_others_of_the_same_shape() -> None:
    placed = [case for case in CASES.values() if any(name in str(case.keywords) for name in PLACES)]
    assert len(placed) > 10
    for sized in placed:
        other = other_places(sized)
        shapes = [{n: numpy.shape(x) for n, x in each.case().keywords.items()} for each in (sized, other)]
        assert shapes[0] == shapes[1]
        if "borders" in sized.keywords:
            alike = [each.keywords["borders"] == each.keywords["key_borders"] for each in (sized, other)]
            assert alike[0] == alike[1]
            assert other.keywords["borders"] != sized.keywords["borders"] or sized.id.endswith("x1")


def of_each_operation() -> list[SizedCase]:
    """A small case of each operation, one that can grow where there is one."""
    usual = [case for case in CASES.values() if work(case) > LEAST]
    order = sorted(
        usual, key=lambda case: (not is_of_one_length(case), -work(case))
    )  # the last of an operation is taken
    return list({case.operation: case for case in order}.values())


FEW = ("top_experts", "cross_entropy", "clip_by_global_norm", "layer_norm", "rotary_halves", "gate", "relu")


def drawn_of(operations: Iterable[str], dtype: str, trials: Any = drawn) -> dict[str, set[str]]:
    """The operations of which each law was tried on refllm, which breaks none."""
    mine, plan = Functions("refllm", RIGHT, {}), plans.plan("eager", dtype)
    trying, tried = Trying(mine, dtype, time.monotonic() + 1e3, False), dict[str, set[str]]()
    for sized in (case for case in of_each_operation() if case.operation in operations):

        def with_truth(case: Any) -> Any:
            return at_size._with_truth(case, dtype, plan, gradients=bool(case.gradients))

        for trial in trials(sized, with_truth, dtype, 1.0):
            tried.setdefault(trial.law, set()).add(sized.operation)
            assert trying.first_of([trial]) == [], sized.id
    return tried


def test_refllm_is_right_for_what_is_drawn() -> None:
    assert drawn_of(FEW, "float32") == {FRESH: set(FEW), SIZES: set(FEW)}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_refllm_is_right_for_what_is_drawn_of_every_operation(dtype: str) -> None:
    tried = drawn_of({case.operation for case in CASES.values()}, dtype)
    assert len(tried[FRESH]) > 40
    assert len(tried[SIZES]) > 30


def test_other_shapes_are_others_and_keep_what_belongs_together() -> None:
    for id, name, other in (
        ("ATT/kernel-attention-3x127x127x65-normal-causal", "q", "k"), ("LN/kernel-layer-norm-33x33-offset", "x", "g"),
    ):  # fmt: skip
        grown = other_shapes(CASES[id])
        assert grown is not None
        one, two = (grown.inputs[n]["shape"] for n in (name, other))
        assert one[-1] == two[-1] != CASES[id].inputs[name]["shape"][-1]
        assert grown.outputs != CASES[id].outputs
    assert other_shapes(CASES["PACK/kernel-packed-attention-3x129x40-causal"]) is None  # its borders are places of 129


def test_experts_that_rounding_would_choose_are_not_drawn() -> None:
    sized = CASES["TOPK/kernel-top-experts-33x8-2-renormalised"]
    assert list(drawn(sized, lambda case: case, "bfloat16", 1.0)) == []
