"""The diagnosis says what a wrong answer is equal to, and says nothing where it knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import pytest

from refllm.ops.attention import attention
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import linear
from refllm.verify import corpus, diagnosis, hints, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, Response


@pytest.fixture(scope="module")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


def _answer(case: Case, function: Callable[..., Any], dtype: str = "float64") -> Response:
    return runner.respond(Functions("mine", {case.operation: function}, {}), case, dtype)


def _truth(case: Case) -> Response:
    return Response({n: t.value for n, t in case.outputs.items()}, {n: t.value for n, t in case.gradients.items()})


def _without_scale(q: Any, k: Any, v: Any, **how: Any) -> Any:
    root = q.dtype.type(q.shape[-1] ** 0.5)
    y, back = attention(q * root, k, v, **how)

    def scaled(dy: Any) -> Any:
        dq, dk, dv = back(dy)
        return dq * root, dk, dv

    return y, scaled


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_attention_without_its_scale_is_recognised(dtype: str, golden: corpus.Corpus) -> None:
    case = golden.cases["ATT/square"]
    lines = diagnosis.diagnose(case, _answer(case, _without_scale, dtype), dtype)
    assert lines[0].startswith("equal to attention without the 1/√d_k scale, ")
    assert "ATT/no-scale" in lines[0]


def test_a_mistake_is_recognised_by_its_value_alone(golden: corpus.Corpus) -> None:
    case = golden.cases["LN/large-eps"]

    def outside(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * g + b

    lines = diagnosis.diagnose(case, _answer(case, outside), "float64")
    assert "eps added to the deviation, outside the root" in lines[0]


def test_a_mistake_of_the_gradient_alone_is_recognised(golden: corpus.Corpus) -> None:
    case = golden.cases["FFN/linear-rows"]

    def averaged(x: Any, W: Any, b: Any) -> Any:
        y, back = linear(x, W, b)
        return y, lambda dy: (*back(dy)[:2], back(dy)[2] / len(x))

    assert "db averaged over the rows" in diagnosis.diagnose(case, _answer(case, averaged), "float64")[0]


def test_another_convention_is_named_before_a_mistake(golden: corpus.Corpus) -> None:
    case = golden.cases["PE-SIN/width-eight"]
    other = case.alternatives["sinusoidal_layout=halves"]
    response = _truth(replace(case, outputs=other.outputs, gradients=other.gradients))
    lines = diagnosis.diagnose(case, response, "float64")
    assert lines[0].startswith("matches the convention sinusoidal_layout=halves, exactly; the case is under ")
    assert 'CONVENTIONS = {"sinusoidal_layout": "halves"}' in lines[0]


def test_the_truth_is_equal_to_no_mistake(golden: corpus.Corpus) -> None:
    for case in golden.cases.values():
        if case.level == 1:
            assert diagnosis.suspects(case, _truth(case), "float64") == []


def test_a_worse_rounding_is_no_mistake(golden: corpus.Corpus) -> None:
    """float32 arithmetic in a run of float64 fails and is equal to no mutant."""
    case = golden.cases["LN/rows"]

    def single(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        y, back = layer_norm(*(z.astype("float32") for z in (x, g, b)), eps=eps)
        return y.astype("float64"), lambda dy: tuple(d.astype("float64") for d in back(dy.astype("float32")))

    assert not any(line.startswith("equal") for line in diagnosis.diagnose(case, _answer(case, single), "float64"))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda t: -t, "is the truth with its sign turned"),
        (lambda t: 2 * t, "is 2 times the truth"),
        (lambda t: 0.5 * t, "is 0.5 times the truth: 1/√4; 4 is the number of rows of x"),
        (lambda t: t + 0.25, "is the truth plus 0.25 in every element"),
        (lambda t: t[::-1].copy(), "has the truth's numbers in another order"),
        (lambda t: numpy.where(numpy.arange(t.size).reshape(t.shape) < 2, 0, t), "is wrong in 2 of"),
        (lambda t: t + 0.01 * t**2, "correlates with the truth by"),
    ],
)
def test_a_hint_says_what_an_answer_has_in_common_with_the_truth(
    changed: Callable[[Any], Any], words: str, golden: corpus.Corpus
) -> None:
    case = golden.cases["FFN/linear-rows"]
    right = _truth(case)
    response = replace(right, outputs={"y": changed(right.outputs["y"])})
    found = hints.hints(case, response, "float64")
    assert len(found) == 1
    assert found[0].startswith(f"output y {words}")


def test_a_transposed_answer_is_recognised(golden: corpus.Corpus) -> None:
    case = golden.cases["LN/square"]
    right = _truth(case)
    response = replace(right, outputs={"y": right.outputs["y"].T.copy()})
    assert hints.hints(case, response, "float64") == ["output y is the truth transposed"]


@pytest.mark.parametrize("value", [None, "text", numpy.zeros((9, 9)), numpy.array(["a"]), float("nan")])
def test_an_answer_that_is_no_tensor_of_the_case_has_no_diagnosis(value: Any, golden: corpus.Corpus) -> None:
    case = golden.cases["ATT/square"]
    assert diagnosis.diagnose(case, Response({"y": value}, None), "float64") == []


def test_the_summary_ranks_mistakes_by_the_answers_that_they_explain(golden: corpus.Corpus) -> None:
    cases = [golden.cases[name] for name in ("ATT/square", "ATT/wide-key", "ATT-MASK/causal-square")]
    diagnoses = [diagnosis.diagnose(case, _answer(case, _without_scale), "float64") for case in cases]
    assert diagnosis.summary([*diagnoses, ["near to nothing"]])[0] == (
        "3 of 4 wrong answers are equal to attention without the 1/√d_k scale (ATT/no-scale)"
    )
    assert diagnosis.summary([]) == []
