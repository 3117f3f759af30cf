"""The diagnosis says what a wrong answer is equal to, and says nothing where it knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import pytest

from refllm.numbers.traced import differentiated
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import linear
from refllm.verify import candidates, corpus, diagnosis, hints, imitations, mutants, plain, reference, runner, summary
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, Response
from refllm.verify.explanation import Explanation
from refllm.verify.runner import Result

attention = reference.functions()["attention"]


@pytest.fixture(scope="module")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


def _answer(case: Case, function: Callable[..., Any], dtype: str = "float64") -> Response:
    return runner.respond(Functions("mine", {case.operation: function}, {}), case, dtype)


def _diagnose(case: Case, response: Response, dtype: str = "float64") -> list[str]:
    """The diagnosis of one answer, all that is known."""
    [result] = diagnosis.diagnosed([runner.judged(case, response, dtype, 8.0)], dtype)
    return result.diagnosis


def _diagnosed(
    golden: corpus.Corpus, operation: str, function: Callable[..., Any], dtype: str = "float64"
) -> dict[str, Result]:
    """The failures of a function under the name of an operation, diagnosed from all its answers."""
    cases = [case for case in golden.cases.values() if case.operation == operation]
    results = runner.run(Functions("mine", {operation: function}, {}), cases, dtype, golden.C)
    return {result.case.id: result for result in diagnosis.diagnosed(results, dtype) if result.failed}


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
    lines = _diagnose(case, _answer(case, _without_scale, dtype), dtype)
    assert lines[0].startswith("equal to attention without the 1/√d_k scale, ")
    assert "ATT/no-scale" in lines[0]


def test_a_mistake_is_recognised_by_its_value_alone(golden: corpus.Corpus) -> None:
    case = golden.cases["LN/large-eps"]

    def outside(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + eps) * g + b

    lines = _diagnose(case, _answer(case, outside))
    assert "eps added to the deviation, outside the root" in lines[0]


def test_a_mistake_of_the_gradient_alone_is_recognised(golden: corpus.Corpus) -> None:
    case = golden.cases["FFN/linear-rows"]

    def averaged(x: Any, W: Any, b: Any) -> Any:
        y, back = linear(x, W, b)
        return y, lambda dy: (*back(dy)[:2], back(dy)[2] / len(x))

    assert "db averaged over the rows" in _diagnose(case, _answer(case, averaged))[0]


def test_another_convention_is_named_before_a_mistake(golden: corpus.Corpus) -> None:
    case = golden.cases["PE-SIN/width-eight"]
    other = case.alternatives["sinusoidal_layout=halves"]
    response = _truth(replace(case, outputs=other.outputs, gradients=other.gradients))
    lines = _diagnose(case, response)
    assert lines[0].startswith("matches the convention sinusoidal_layout=halves, exactly; the case is under ")
    assert 'CONVENTIONS = {"sinusoidal_layout": "halves"}' in lines[0]


@pytest.mark.every
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)], ids="every {}".format)
def test_the_truth_is_equal_to_no_mistake(golden: corpus.Corpus, every: int) -> None:
    """Of every operation."""
    known, own = imitations.Imitations(), dict[str, list[Case]]()
    for case in golden.cases.values():
        if case.level == 1:
            own.setdefault(case.operation, []).append(case)
    for cases in own.values():
        for case in cases[::every]:
            assert candidates.candidates(case, _truth(case), "float64", known) == []


def test_rounding_of_a_gradient_that_is_zero_is_not_said_to_be_far(golden: corpus.Corpus) -> None:
    """Nothing but rounding stands in it: a share of its largest number would be about a half."""
    case = golden.cases["TASKS/span-loss"]
    one, other = (plain.answer(case, "float64", {}, traced=traced) for traced in (True, False))
    assert one is not None
    far, same = imitations.distance(case, one, other, "float64")
    assert same
    assert far < 1e-12


def test_a_worse_rounding_is_no_mistake(golden: corpus.Corpus) -> None:
    """float32 arithmetic in a run of float64 fails and is equal to no mutant."""
    case = golden.cases["LN/rows"]

    def single(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        y, back = layer_norm(*(z.astype("float32") for z in (x, g, b)), eps=eps)
        return y.astype("float64"), lambda dy: tuple(d.astype("float64") for d in back(dy.astype("float32")))

    assert not any(line.startswith("equal") for line in _diagnose(case, _answer(case, single)))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda t: -t, "is the truth with its sign turned"),
        (lambda t: 2 * t, "is 2 times the truth"),
        (lambda t: 0.5 * t, "is 0.5 times the truth: 1/√4; 4 is the number of rows of x"),
        (lambda t: t + 0.25, "is the truth plus 0.25 in every element"),
        (lambda t: t[::-1].copy(), "has the truth's numbers in another order"),
        (lambda t: numpy.where(numpy.arange(t.size).reshape(t.shape) < 2, 0, t), "is wrong in 2 of"),
        (lambda t: t + 0.1 * t**2, "correlates with the truth by"),
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
    assert _diagnose(case, Response({"y": value}, None)) == []


def _attention(bottom_right: bool) -> Callable[..., Any]:
    """Attention with the causal mask aligned one way or the other, and NaN for a row with no key left."""

    def attend(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        T, S = q.shape[-2], k.shape[-2]
        s = q @ k.swapaxes(-1, -2) / q.dtype.type(q.shape[-1] ** 0.5)
        if causal:
            s = numpy.where(numpy.tri(T, S, S - T if bottom_right else 0, dtype=bool), s, s.dtype.type(-numpy.inf))
        s = s if allowed is None else numpy.where(allowed, s, s.dtype.type(-numpy.inf))
        e = numpy.exp(s - s.max(axis=-1, keepdims=True))
        return (e / e.sum(axis=-1, keepdims=True)) @ v

    return attend


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_mistake_that_a_right_answer_rules_out_is_not_offered(dtype: str, golden: corpus.Corpus) -> None:
    """NaN for a row of only -inf is also what comes without the shift; but then large scores would have failed."""

    def softmax(x: Any) -> Any:
        e = numpy.exp(x - x.max(axis=-1, keepdims=True))
        y = e / e.sum(axis=-1, keepdims=True)
        return y, lambda dy: y * (dy - (dy * y).sum(-1, keepdims=True))

    [failure] = _diagnosed(golden, "softmax", softmax, dtype).values()
    causes = [line.cause for line in failure.diagnosis if isinstance(line, Explanation)]
    assert [cause.id for cause in causes if isinstance(cause, mutants.Mutant)] == ["SMX/nan-if-nothing"]
    for failure in _diagnosed(golden, "attention", _attention(bottom_right=True), dtype).values():
        assert failure.diagnosis[0].startswith("matches the convention empty_row=nan, ")
        assert not any("ATT/no-shift" in line for line in failure.diagnosis)


def test_a_mistake_in_one_branch_is_said_to_be_none_in_the_other(golden: corpus.Corpus) -> None:
    def attend(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        return (_without_scale if causal else attention)(q, k, v, causal=causal, allowed=allowed)

    found = _diagnosed(golden, "attention", attend)["ATT-MASK/causal-square"].diagnosis
    assert found[0].startswith("here equal to attention without the 1/√d_k scale (ATT/no-scale), ")
    assert found[0].endswith(", but ATT/square is right, which that gets wrong")


def test_the_mistake_that_explains_most_wrong_answers_is_named_first(golden: corpus.Corpus) -> None:
    """On one case, ignoring the mask is the same as inverting it."""

    def inverted(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        return attention(q, k, v, causal=causal, allowed=None if allowed is None else ~allowed)

    found = _diagnosed(golden, "attention", inverted)
    lines = found["ATT-MASK/large-forbidden"].diagnosis
    assert f"exactly, as {len(found)} of {len(found)} wrong answers are (ATT-MASK/allowed-inverted)" in lines[0]
    assert not lines[1:]  # it says no more of the others


def test_a_convention_that_a_right_answer_contradicts_is_not_offered(golden: corpus.Corpus) -> None:
    case = golden.cases["ATT-MASK/causal-longer-keys"]
    other = golden.cases["ATT-MASK/causal-one-query"]
    wrong = runner.judged(case, case.alternatives["causal_alignment=top-left"].response(), "float64", golden.C)
    right = runner.judged(other, _truth(other), "float64", golden.C)
    assert other.alternatives
    assert _diagnose(case, case.alternatives["causal_alignment=top-left"].response())[0].startswith("matches the conv")
    [found, _] = diagnosis.diagnosed([wrong, right], "float64")
    assert not any(line.startswith("matches the convention") for line in found.diagnosis)


def test_an_overflow_of_the_right_formula_is_called_an_overflow(golden: corpus.Corpus) -> None:
    """x^2 leaves float16 at 256, in this GELU and in every wrong one."""

    def gelu(x: Any) -> Any:
        a, c, half = (x.dtype.type(n) for n in ((2 / numpy.pi) ** 0.5, 0.044715, 0.5))
        h = numpy.tanh(a * (x + c * x * x * x))
        return half * x * (1 + h), lambda dy: dy * half * ((1 + h) + x * (1 - h * h) * a * (1 + 3 * c * x * x))

    found = _diagnosed(golden, "gelu_tanh", gelu, "float16")
    lines = found["FFN/gelu-tanh-large"].diagnosis
    assert lines[0].startswith("gradient of x overflows, or is 0 / 0 or inf - inf: not finite in ")
    assert lines[0].endswith(" elements, right in the others")
    assert not any("equal to" in line or "in the same places" in line for line in lines)


def test_an_overflow_is_a_mistake_where_another_answer_shows_it_too(golden: corpus.Corpus) -> None:
    """log(softmax(x)) overflows in float32 where float64 does not; where it overflows in both, that tells it."""
    [log_of_softmax] = [mutant for mutant in mutants.MUTANTS if mutant.id == "SMX/log-of-softmax"]
    assert isinstance(log_of_softmax, mutants.Edited)
    [function] = log_of_softmax.functions.values()
    for failure in _diagnosed(golden, "log_softmax", differentiated(function), "float32").values():
        assert "(SMX/log-of-softmax)" in failure.diagnosis[0]


def test_the_summary_says_what_explains_the_failures_of_which_nothing_is_said(golden: corpus.Corpus) -> None:
    found = _diagnosed(golden, "attention", _attention(bottom_right=False))
    failures = list(found.values())
    said = found["ATT-MASK/causal-longer-keys"].diagnosis
    assert "(ATT-MASK/top-left)" in said[1]
    [line] = summary.summary(failures, said)  # a convention explains the others
    assert line == (
        f"3 of {len(failures)} wrong answers are explained by attention whose row with no key left is NaN "
        "(ATT-MASK/nan-if-nothing)"
    )
    assert summary.summary(failures, [*said, *found["ATT-MASK/all-forbidden"].diagnosis]) == []
    assert summary.summary([], said) == []
    both = found["ATT-MASK/cache-left-padding"]
    assert both.diagnosis[0].startswith("matches the convention causal_alignment=top-left,empty_row=nan, ")


def test_what_no_mistake_explains_is_counted_with_what_is_seen_of_it(golden: corpus.Corpus) -> None:
    noise = numpy.random.default_rng(1)

    def softmax(x: Any) -> Any:
        return noise.normal(size=x.shape).astype(x.dtype)

    failures = list(_diagnosed(golden, "softmax", softmax).values())
    [line] = summary.summary(failures, failures[0].diagnosis)
    assert line.startswith(f"none of the {len(failures)} wrong answers is explained by a known mistake")


@pytest.mark.parametrize("changed", [lambda t: t * (1 + 1e-7), lambda t: t * (1 + 1e-7 * numpy.cos(t))])
def test_no_hint_says_what_everybody_knows(changed: Callable[[Any], Any], golden: corpus.Corpus) -> None:
    """A factor of 1, a correlation of 1.000."""
    case = golden.cases["FFN/linear-rows"]
    right = _truth(case)
    found = hints.hints(case, replace(right, outputs={"y": changed(right.outputs["y"])}), "float64")
    assert not any(" 1 times" in line or "1.000" in line for line in found)


def test_one_number_is_no_multiple_of_its_truth(golden: corpus.Corpus) -> None:
    case = next(c for c in golden.cases.values() if c.id == "CE/far-target")
    response = replace(_truth(case), outputs={"y": numpy.asarray(36.4)})
    assert hints.hints(case, response, "float64") == []


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_ratio_that_says_nothing_is_not_printed(dtype: str, golden: corpus.Corpus) -> None:
    """Where rounding leaves an exact number, the tolerance is the least number that there is."""
    case = next(c for c in golden.cases.values() if c.id == "SMX/softmax-nothing-left")
    y = case.outputs["y"].value + 0.25
    [verdict] = [v for v in runner.judge(case, Response({"y": y.astype(dtype)}, None), dtype, golden.C) if v.wrong]
    assert "e+" not in verdict.message


def test_an_overflow_of_the_squares_is_no_other_formula(golden: corpus.Corpus) -> None:
    """x / inf is 0, and so is x divided by a mean square that is large."""

    def rms_norm(x: Any, g: Any, *, eps: float) -> Any:
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(eps)) * g

    cases = [c.values_alone() for c in golden.cases.values() if c.operation == "rms_norm"]
    for chosen in (cases, [c for c in cases if c.id == "T5-REL/rms-large"]):
        run = runner.run(Functions("mine", {"rms_norm": rms_norm}, {}), chosen, "float16", golden.C)
        failures = {r.case.id: r for r in diagnosis.diagnosed(run, "float16") if r.failed}
        failure = failures["T5-REL/rms-large"]
        assert failure.diagnosis == ["output y is zero as x / inf is: the squares of the inputs overflow in float16"]


@pytest.mark.parametrize("operation", ["attention", "softmax"])
def test_a_row_without_a_number_is_no_missing_shift_though_no_other_case_is_run(
    operation: str, golden: corpus.Corpus
) -> None:
    def softmax(x: Any) -> Any:
        e = numpy.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    mine = Functions("mine", {"softmax": softmax, "attention": _attention(bottom_right=True)}, {})
    for case in golden.cases.values():
        if case.operation == operation:
            run = runner.run(mine, [case.values_alone()], "float64", golden.C)
            for result in diagnosis.diagnosed(run, "float64"):
                assert not any("shift" in line for line in result.diagnosis)


def _attention_in_float32(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    """Its softmax in float32; a row without a key is NaN."""
    s = q @ k.swapaxes(-1, -2) / numpy.sqrt(q.shape[-1])
    T, S = s.shape[-2:]
    s = numpy.where(numpy.tri(T, S, S - T, dtype=bool), s, -numpy.inf) if causal else s
    s = (s if allowed is None else numpy.where(allowed, s, -numpy.inf)).astype("float32")
    with numpy.errstate(invalid="ignore"):
        e = numpy.exp(s - s.max(-1, keepdims=True, initial=-1e30))
        e = numpy.where(numpy.isinf(s), 0, e)
        return (e / e.sum(-1, keepdims=True)).astype("float64") @ v


def test_an_answer_in_float32_is_said_to_be_so_before_what_explains_a_few_answers(golden: corpus.Corpus) -> None:
    failures = _diagnosed(golden, "attention", _attention_in_float32)
    assert len(failures) > 20
    for id, failure in failures.items():
        assert "as far as" in failure.diagnosis[0] or failure.status == "convention", (id, failure.diagnosis)
    assert failures["ATT-MASK/forbidden-row"].status == "fail"
    assert failures["ATT-MASK/forbidden-row"].diagnosis[0].startswith("right under the convention empty_row=nan as far")


def test_a_loss_of_float32_with_a_gradient_of_float64_is_in_single_precision(golden: corpus.Corpus) -> None:
    case = golden.cases["CE/mean"]
    truth = _truth(case)
    narrow = {name: x.astype("float32") for name, x in truth.outputs.items()}
    rounded = {name: x.astype("float32").astype("float64") for name, x in (truth.gradients or {}).items()}
    result = runner.judged(case, replace(truth, outputs=narrow, gradients=rounded), "float64", golden.C)
    [explained] = diagnosis.diagnosed([result], "float64")
    assert explained.diagnosis == ["gradient of logits holds numbers of float32, and is right as far as that reaches"]


@pytest.mark.parametrize(("digits", "said"), [(9, "right to 9 digits, which is more than float32 has"), (5, "")])
def test_a_number_of_more_digits_than_float32_is_told_from_float32(
    digits: int, said: str, golden: corpus.Corpus
) -> None:
    """Everything is off by the same share, as by a constant that somebody copied."""
    case = golden.cases["FFN/gelu-erf-matrix"]
    truth = _truth(case)
    off = Response({n: x * (1 + 0.7 * 10.0**-digits) for n, x in truth.outputs.items()}, truth.gradients)
    [result] = diagnosis.diagnosed([runner.judged(case, off, "float64", golden.C)], "float64")
    assert any(said in line and "digits" in line for line in result.diagnosis) is bool(said)


def test_numbers_that_float32_computed_are_said_to_be_of_float32(golden: corpus.Corpus) -> None:
    case = golden.cases["FFN/gelu-erf-matrix"]
    truth, draw = _truth(case), numpy.random.default_rng(2)
    noise = {n: 1 + 6e-8 * draw.normal(size=x.shape) for n, x in truth.outputs.items()}
    off = Response({n: x * noise[n] for n, x in truth.outputs.items()}, truth.gradients)
    [result] = diagnosis.diagnosed([runner.judged(case, off, "float64", golden.C)], "float64")
    assert any("is right as far as float32 reaches, not float64" in line for line in result.diagnosis)
