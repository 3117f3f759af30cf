"""Laws at the sizes of kernels: a mistake that shows beyond one tile alone is found, and right functions break none."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.numbers import plans
from refllm.verify import check, corpus, reference
from refllm.verify.adapter import Functions
from refllm.verify.laws.at_size import LEAST, _with_truth, held_at_size
from refllm.verify.laws.calls import AGAIN
from refllm.verify.runner import Result
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase, load
from refllm.verify.sized.evaluate import expected
from refllm.verify.sized.probes import probes, signs
from refllm.verify.tolerance import tolerance
from spec_tests.verify.folder import GOLDEN

RIGHT = reference.functions()["softmax"]
RMS = [name for name, case in load(GOLDEN).items() if case.operation == "rms_norm" and not case.slow]
Function = Callable[..., Any]


@pytest.fixture(scope="module")
def cases() -> list[SizedCase]:
    """The smallest cases of softmax that are of a size."""
    found = [case for case in load(GOLDEN).values() if case.operation == "softmax" and not case.slow]
    found = [
        case for case in found if LEAST <= numpy.prod(next(iter(case.outputs.values()))) and len(case.outputs) == 1
    ]
    return sorted(found, key=lambda case: int(numpy.prod(next(iter(case.outputs.values())))))[:3]


def verified(function: Function, cases: list[SizedCase]) -> list[Result]:
    mine, plan = Functions("mine", {"softmax": function}, {}), plans.plan("eager", "float32")
    results = list(judge.run(mine, cases, "float32", plan))
    return list(held_at_size(mine, cases, results, "float32", plan, 1e3))


def second_call() -> Function:
    seen = set[bytes]()

    def softmax(x: Any) -> Any:
        y, back = RIGHT(x)
        known = x.tobytes() in seen
        seen.add(x.tobytes())
        y.reshape(-1)[900:] *= 1.25 if known else 1
        return y, back

    return softmax


def input_changed() -> Function:
    def softmax(x: Any) -> Any:
        found = RIGHT(x.copy())
        x.reshape(-1)[900:] = 0
        return found

    return softmax


def strides_beyond_a_tile() -> Function:
    def softmax(x: Any) -> Any:
        if not x.flags["C_CONTIGUOUS"] and x.size > 900:
            return RIGHT(numpy.zeros_like(x))
        return RIGHT(x)

    return softmax


def unwritten() -> Function:
    """What nobody wrote changes the answer where it is poisoned, and nowhere else: its case is right before."""

    def softmax(x: Any) -> Any:
        y, back = RIGHT(x)
        scratch = numpy.empty_like(y)
        is_poison = (scratch.reshape(-1).view("uint8") >= 0xFE).all()
        return (y + scratch if is_poison else y), back

    return softmax


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        (second_call, "a second call"), (input_changed, "inputs unchanged"),
        (strides_beyond_a_tile, "layout of memory"), (unwritten, "memory that was never written"),
    ],
)  # fmt: skip
def test_a_mistake_at_size_breaks_a_law(mistake: Callable[[], Function], law: str, cases: list[SizedCase]) -> None:
    results = verified(mistake(), cases)
    assert law in [each.name for result in results for each in result.broken]
    assert any(result.status == "law" for result in results)


def test_a_right_function_breaks_none_at_size(cases: list[SizedCase]) -> None:
    results = verified(RIGHT, cases)
    assert {result.status for result in results} == {"pass"}
    assert not any(result.broken for result in results)


def test_the_golden_files_are_those_of_the_tests(golden: corpus.Corpus, cases: list[SizedCase]) -> None:
    assert len(cases) == 3
    assert golden.folder == GOLDEN


# ---- answers that change from call to call


def calls_counted(wrong_in: Callable[[int], bool]) -> Callable[[Any], Any]:
    """A ReLU that is wrong in those calls of which the numbers, from 1 on, are told."""
    count = itertools.count(1)

    def relu(x: Any) -> Any:
        return numpy.maximum(x, 0) + wrong_in(next(count))

    return relu


HOW: dict[str, Any] = {"dtype": "float32", "values": True, "size": "kernel", "search": 0}


def test_an_answer_that_is_right_when_it_is_called_again_is_said_to_depend_on_calls() -> None:
    found = check(calls_counted(lambda n: n == 2), "relu", **HOW)
    [failure] = found.failures
    assert [law.name for law in failure.broken] == [AGAIN]
    assert "called again with the same inputs rightly" in failure.broken[0].message
    assert failure.alone


def test_a_wrong_answer_that_changes_is_said_to_change() -> None:
    total = numpy.zeros((), "float32")

    def relu(x: Any) -> Any:
        total[...] += 1  # a workspace that is never cleared
        return (numpy.maximum(x, 0) + total).astype(x.dtype)

    failures = check(relu, "relu", **HOW).failures
    assert [law.name for law in failures[0].broken] == [AGAIN]
    assert "called a second time with the same inputs" in failures[0].broken[0].message


@pytest.mark.parametrize("off", [1, 1e-22])  # the latter is nothing beside the row, and all beside 0
def test_an_answer_that_is_wrong_in_the_same_way_breaks_no_law(off: float) -> None:
    def relu(x: Any) -> Any:
        return numpy.maximum(x, 0) + numpy.float32(off)

    assert check(relu, "relu", **HOW).failures
    assert [law for failure in check(relu, "relu", **HOW).failures for law in failure.broken] == []


def test_an_answer_in_float64_is_not_wrong_between_the_probes_either() -> None:
    """Two elements that nobody looks at are off, so that the sum with signs stays what it is."""
    name = "FFN/kernel-relu-3x1023-wide"
    seed = load(GOLDEN)[name].seed
    looked_at, sign = set(probes((3, 1023), seed, "outputs.y").tolist()), signs(3 * 1023, seed, "outputs.y")
    one, other, *_ = (i for i in range(3 * 1023) if i not in looked_at)

    def relu(x: Any) -> Any:
        y = numpy.maximum(x, 0)
        y.reshape(-1)[[one, other]] += [sign[one], -sign[other]]
        return y

    [failure] = check(relu, "relu", **{**HOW, "dtype": "float64", "only": name}).failures
    assert failure.status == "law"
    assert "what is stored of the answer is right, but elsewhere" in failure.broken[0].message


def test_an_answer_that_is_wrong_in_every_call_is_not_said_to_depend_on_earlier_ones() -> None:
    """A masked key that weighs 1e-22, where the truth is exactly 0: the tiny cases' tolerance would allow it."""
    cases = [case for case in load(GOLDEN).values() if case.operation == "capped_attention" and not case.slow][:1]

    def capped_attention(q: Any, k: Any, v: Any, **how: Any) -> Any:
        y, back = reference.functions()["capped_attention"](q, k, v, **how)
        return numpy.where(y == 0, 1e-22, y).astype(y.dtype), back

    mine, plan = Functions("mine", {"capped_attention": capped_attention}, {}), plans.plan("eager", "float32")
    results = list(held_at_size(mine, cases, list(judge.run(mine, cases, "float32", plan)), "float32", plan, 1e3))
    assert any(result.status == "fail" for result in results)
    assert [law for result in results for law in result.broken] == []
    assert not any(result.alone for result in results)


def test_gradients_that_are_added_to_what_earlier_calls_left_are_said_to_be() -> None:
    total = numpy.zeros(1 << 16)

    def rms_norm(x: Any, g: Any, *, eps: float) -> Any:
        y, back = reference.functions()["rms_norm"](x, g, eps=eps)

        def rms_norm_back(dy: Any) -> Any:
            dx, dg = back(dy)
            total[: dg.size] += dg
            return dx, total[: dg.size].astype(dg.dtype)

        return y, rms_norm_back

    found = check(rms_norm, dtype="float32", size="kernel", only=RMS[:2])
    lines = [result.diagnosis[0] for result in found.failures if result.diagnosis]
    assert any(line.startswith("depends on what earlier calls left: called a second time") for line in lines), lines
    assert any("each call adds the gradient of g to what the call before left" in line for line in lines), lines
    assert "no known mistake" not in repr(found)


def test_an_answer_that_other_shapes_change_depends_on_memory_that_was_not_written() -> None:
    """Of eight partial sums those alone are written that have a row, in a workspace that is kept."""
    kept = numpy.zeros(8 << 16)

    def relu(x: Any) -> Any:
        y = numpy.maximum(x, 0)
        rows = y.reshape(-1, y.shape[-1])
        partial = kept[: 8 * rows.shape[1]].reshape(8, -1)
        partial[: len(rows)] = rows[:8]
        return (y + partial.sum(axis=0)).astype(x.dtype)

    found = check(relu, "relu", **HOW)
    said = [law.message for failure in found.failures for law in failure.broken if law.name == AGAIN]
    assert any("after another call" in line and "memory that the call did not write" in line for line in said), said


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_law_allows_what_the_plan_does_in_every_dtype(dtype: str, cases: list[SizedCase]) -> None:
    plan, case = plans.plan("eager", dtype), cases[0].case()
    deviation = expected(case, plan, gradients=True)["outputs.y"].deviation
    allowed = tolerance(_with_truth(case, dtype, plan, gradients=True).outputs["y"], dtype, 1.0)
    assert (allowed >= plan.limit * deviation * (1 - 1e-12)).all()
