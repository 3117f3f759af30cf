"""The verifier says yes to what is right, and to nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.parameters import map_leaves
from refllm.spec.array import tapped
from refllm.verify import corpus, diagnosis, plain, reference, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.runner import Result

Tree = Any
DISTORTIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "zeros": (numpy.zeros_like, "all zeros|a loss of zero"),
    "NaN": (lambda x: numpy.full_like(x, numpy.nan) if x.dtype.kind == "f" else x * 0 - 2, "NaN|wrong|bits"),
    "another shape": (lambda x: x[None], r"wrong shape|\(1,"),
    "another dtype": (lambda x: x.astype("complex128"), "wrong dtype: expected .*, got complex128|complex128"),
    "no arrays": (lambda x: x.tolist() if x.ndim else "1", "not a NumPy array|list|str"),
    "masked entries": (lambda x: numpy.ma.array(x, mask=True), "masked array with "),
    "nothing": (lambda x: None, r"None|NoneType"),
}


def _over(f: Callable[[Any], Any], y: Tree) -> Tree:
    return tuple(_over(f, x) for x in y) if isinstance(y, tuple) else map_leaves(lambda x: f(numpy.asarray(x)), y)


Remembered = dict[str, tuple[bool, Any, Any]]  # case -> whether there is a pullback, the values, the gradients


@pytest.fixture(scope="module")
def answers(golden: corpus.Corpus) -> Remembered:
    """What refllm returns for every case, computed once for all distortions."""
    found: Remembered = {}
    for case in golden.cases.values():
        if case.operation != "resume":
            y, back = _value_and_pullback(
                reference.functions()[case.operation](*case.arguments("float64"), **case.keyword_arguments())
            )
            pulled = back(*case.pull("float64")) if back is not None and case.gradients else None
            found[case.id] = (back is not None, y, pulled)
    return found


def _value_and_pullback(returned: Any) -> tuple[Any, Callable[..., Any] | None]:
    has_back = isinstance(returned, tuple) and len(returned) > 1 and callable(returned[1])
    return returned if has_back else (returned, None)


def _distorted(values: Callable[[Any], Any] | None, gradients: Callable[[Any], Any] | None) -> Functions:
    """refllm with f after every output, or after every gradient."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arrays, **keywords: _changed(
            *_value_and_pullback(function(*arrays, **keywords)), values, gradients
        )

    return Functions("distorted", {name: wrapped(f) for name, f in reference.functions().items()}, {})


def _changed(y: Any, back: Any, values: Callable[[Any], Any] | None, gradients: Callable[[Any], Any] | None) -> Any:
    y = y if values is None else _over(values, y)
    if back is None:
        return y
    return y, back if gradients is None else lambda *dy: _over(gradients, back(*dy))


def _distorted_answers(
    answers: Remembered, golden: corpus.Corpus, *, values: Any = None, gradients: Any = None
) -> list[Result]:
    """As `_distorted` on every case, of the remembered answers; a training to be resumed is run again."""

    def remembered(case: Case) -> Functions:
        has_back, y, pulled = answers[case.id]
        back = (lambda *dy: pulled) if has_back else None
        return Functions("distorted", {case.operation: lambda *_, **__: _changed(y, back, values, gradients)}, {})

    again = _distorted(values, gradients)
    return [
        result
        for case in golden.cases.values()
        for result in runner.run(remembered(case) if case.id in answers else again, [case], "float64", golden.C)
    ]


def _results(implementation: Functions, golden: corpus.Corpus, dtype: str = "float64") -> list[Result]:
    return list(runner.run(implementation, golden.cases.values(), dtype, golden.C))


def _all_zero(truths: Any) -> bool:
    return not any(truth.value.any() for truth in truths)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", reference.DTYPES)
def test_refllm_passes_every_case(golden: corpus.Corpus, dtype: str) -> None:
    implementation = Functions("refllm", reference.functions(), {}, reference.DTYPES)
    found = {r.case.id: (r.status, r.reason, [v.message for v in r.verdicts if v.wrong])
             for r in _results(implementation, golden, dtype) if r.status != "pass"}  # fmt: skip
    assert found == {}


@pytest.mark.one_in(8)
@pytest.mark.parametrize("mistake", DISTORTIONS)
def test_a_distorted_value_fails_every_case_and_the_message_says_how(
    golden: corpus.Corpus, answers: Remembered, mistake: str
) -> None:
    distort, message = DISTORTIONS[mistake]
    results = _distorted_answers(answers, golden, values=distort)
    assert len(results) == len(golden.cases)
    for result in results:
        case = result.case
        nothing_to_distort = {
            "zeros": case.outputs and _all_zero(case.outputs.values()),
            "NaN": case.outputs and all(numpy.isnan(truth.value).all() for truth in case.outputs.values()),
            "masked entries": case.outputs and not any(truth.value.size for truth in case.outputs.values()),
        }
        if nothing_to_distort.get(mistake):
            continue
        assert result.failed, case.id
        assert _says(result, message), (case.id, result.reason, [v.message for v in result.verdicts])


@pytest.mark.one_in(8)
@pytest.mark.parametrize("mistake", DISTORTIONS)
def test_a_distorted_gradient_fails_every_case_that_has_one(
    golden: corpus.Corpus, answers: Remembered, mistake: str
) -> None:
    distort, message = DISTORTIONS[mistake]
    checked = 0
    for result in _distorted_answers(answers, golden, gradients=distort):
        case = result.case
        if not case.gradients or (mistake == "zeros" and _all_zero(case.gradients.values())):
            continue
        if not any(truth.value.size for truth in case.gradients.values()) and mistake in ("NaN", "masked entries"):
            continue  # an empty batch has no number to distort
        checked += 1
        assert result.failed, case.id
        assert _says(result, message), (case.id, result.reason, [v.message for v in result.verdicts])
        assert result.reason or all("gradient" in v.name for v in result.verdicts if v.wrong)
    assert checked > 100


def _says(result: Result, message: str) -> bool:
    return any(re.search(message, line) for line in [result.reason, *(v.message for v in result.verdicts)])


@pytest.mark.every
def test_zeros_are_told_from_other_wrong_values_wherever_a_truth_is_not_zero(
    golden: corpus.Corpus, answers: Remembered
) -> None:
    results = _distorted_answers(answers, golden, values=numpy.zeros_like)
    kinds = {v.wrong for r in results for v in r.verdicts}
    assert kinds <= {"", "zeros"}


def test_returning_none_and_raising_are_errors_of_the_case_and_the_run_goes_on(golden: corpus.Corpus) -> None:
    def boom(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no\nluck")

    def leave(*_: Any, **__: Any) -> Any:
        raise SystemExit(0)

    for function, message in (
        (lambda *_, **__: None, r"returned nothing \(None\)"),
        (lambda *_, **__: (None, lambda dy: dy), r"returned nothing \(None\)"),
        (boom, "raised RuntimeError: no luck"),
        (leave, "raised SystemExit"),
    ):
        names = {case.operation for case in golden.cases.values()} | {"train"}
        results = _results(Functions("broken", dict.fromkeys(names, function), {}), golden)
        assert {r.status for r in results} == {"fault"}
        assert all(_says(r, message) for r in results)


def test_a_pullback_that_raises_or_returns_nothing_is_an_error(golden: corpus.Corpus) -> None:
    def back(_: Any) -> Any:
        raise KeyError("x")

    case = golden.cases["FFN/relu-grid"]
    for pullback, message in ((back, "relu's pullback raised KeyError"), (lambda _: None, "gradient of x is missing")):
        functions = {"relu": lambda x, pullback=pullback: (numpy.maximum(x, 0), pullback)}
        [result] = runner.run(Functions("mine", functions, {}), [case], "float64", golden.C)
        assert result.failed
        assert _says(result, message)


def test_what_is_not_there_is_skipped_with_its_reason_and_never_passes(golden: corpus.Corpus) -> None:
    def unsupported(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("no masks")

    functions = {"relu": lambda x: numpy.maximum(x, 0), "attention": unsupported}
    results = _results(Functions("mine", functions, {}), golden)
    assert {r.case.operation for r in results if r.status != "skip"} == {"relu"}
    assert {r.status for r in results if r.case.operation == "relu"} == {"value"}
    reasons = {r.case.operation: r.reason for r in results}
    assert reasons["softmax"] == "mine has no function softmax"
    assert reasons["relu"].startswith("value passed, gradient not given")
    assert "no masks" in reasons["attention"]


@pytest.mark.parametrize("dtype", reference.DTYPES)
def test_the_logarithm_of_a_softmax_is_no_log_softmax(dtype: str, golden: corpus.Corpus) -> None:
    """However well the softmax is guarded: a probability of 0 has lost its logarithm."""
    cases = [case.values_alone() for case in golden.cases.values() if case.operation == "log_softmax"]
    mine = {"log_softmax": lambda x: numpy.log(reference.functions()["softmax"](x)[0])}
    failed = [r.case.id for r in runner.run(Functions("mine", mine, {}), cases, dtype, golden.C) if r.failed]
    assert failed == ["SMX/log-softmax-far-apart"]


class _Own(numpy.ndarray):
    """Arrays of somebody's library that calculate in another way, or not at all."""

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("no arithmetic")


@pytest.mark.parametrize(
    "wrapped", [numpy.ma.array, numpy.matrix, lambda x: x.view(_Own)], ids=["masked", "matrix", "own"]
)
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_an_array_of_a_subclass_is_taken_as_an_array(wrapped: Any, factor: float, golden: corpus.Corpus) -> None:
    """And a wrong one is diagnosed as any other."""

    def softmax(x: Any) -> Any:
        y, back = reference.functions()["softmax"](x)
        return wrapped(y * factor), lambda dy: wrapped(back(numpy.asarray(dy)))

    case = golden.cases["SMX/softmax-rows"]
    run = runner.run(Functions("mine", {"softmax": softmax}, {}), [case], "float64", golden.C)
    [result] = diagnosis.diagnosed(run, "float64")
    assert (result.status == "pass") == (factor == 1)
    assert result.diagnosis == ([] if factor == 1 else ["output y is 1.5 times the truth"])


def test_a_wrong_value_without_a_pullback_fails(golden: corpus.Corpus) -> None:
    case = golden.cases["FFN/relu-grid"]
    [result] = runner.run(Functions("mine", {"relu": lambda x: x}, {}), [case], "float64", golden.C)
    assert result.status == "fail"


def test_values_alone_pass_without_a_pullback(golden: corpus.Corpus) -> None:
    cases = [c.values_alone() for c in golden.cases.values() if c.operation == "relu"]
    results = runner.run(Functions("mine", {"relu": lambda x: numpy.maximum(x, 0)}, {}), cases, "float64", golden.C)
    assert {r.status for r in results} == {"pass"}


def _attention(top_left: bool) -> Callable[..., Any]:
    attend = reference.functions()["attention"]

    def attention(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
        if causal and top_left:
            below = numpy.tril(numpy.ones((q.shape[-2], k.shape[-2]), bool))
            allowed, causal = below if allowed is None else below & allowed, False
        return attend(q, k, v, causal=causal, allowed=allowed)

    return attention


def test_a_convention_passes_if_it_is_declared_and_fails_if_not(golden: corpus.Corpus) -> None:
    case = golden.cases["ATT-MASK/causal-longer-keys"]
    declared = {"causal_alignment": "top-left"}
    for does in (False, True):
        for says in ({}, declared):
            mine = Functions("mine", {"attention": _attention(does)}, says)
            [result] = runner.run(mine, [case], "float64", golden.C)
            assert result.status == ("pass" if does == bool(says) else "convention")


def test_an_unknown_convention_of_a_case_is_skipped(golden: corpus.Corpus) -> None:
    mine = Functions("mine", {"attention": _attention(True)}, {"causal_alignment": "centred"})
    [result] = runner.run(mine, [golden.cases["ATT-MASK/causal-longer-keys"]], "float64", golden.C)
    assert (result.status, result.reason) == ("skip", "the golden files have no truth under causal_alignment=centred")


def test_what_a_dtype_cannot_hold_is_skipped_with_its_reason(golden: corpus.Corpus) -> None:
    reasons = {runner.unfit_for(case, "float16", golden.C) for case in golden.cases.values()} - {None}
    assert any("beyond the range of float16" in str(reason) for reason in reasons)
    assert all(runner.unfit_for(case, "float32", golden.C) is None for case in golden.cases.values())
    near_a_tie = [c for c in golden.cases.values() if c.level == 5 and runner.unfit_for(c, "bfloat16", golden.C)]
    assert near_a_tie


def test_a_float64_answer_in_a_float32_run_is_the_wrong_dtype(golden: corpus.Corpus) -> None:
    implementation = _distorted(lambda x: x.astype("float64") if x.dtype.kind == "f" else x, None)
    case = golden.cases["ATT/square"]
    [result] = runner.run(implementation, [case], "float32", golden.C)
    assert result.status == "dtype"
    assert _says(result, "output y has the wrong dtype: expected float32, got float64")


def _with_intermediates(p: Any, **how: Any) -> Any:
    """GPT, and what the text names on the way."""
    with tapped() as found:
        y, back = plain.operations()["gpt"](p, **how)
    return y, back, dict(found)


def test_the_first_wrong_intermediate_is_named_and_its_error_local(golden: corpus.Corpus) -> None:
    def gpt(p: Any, *, ids: Any, config: Any) -> Any:
        p["layers"][1]["feed_forward"]["b2"] = p["layers"][1]["feed_forward"]["b2"] + 1
        return _with_intermediates(p, ids=ids, config=config)

    case = golden.cases["LMHEAD/gpt2"]
    [result] = runner.run(Functions("mine", {"gpt": gpt}, {}), [case], "float64", golden.C)
    assert result.tap is not None
    assert result.tap.startswith("layers.1.feed_forward is the first intermediate that differs")
    assert "local" in result.tap


def test_an_error_behind_what_was_not_given_is_local_or_inherited(golden: corpus.Corpus) -> None:

    def gpt(p: Any, *, ids: Any, config: Any) -> Any:
        y, back, taps = _with_intermediates(p, ids=ids, config=config)
        taps["layers.0.residual2"] = taps["layers.0.residual1"] + 2 * taps["layers.0.feed_forward"]
        kept = ("embedding", "layers.0.residual2")
        return y, back, {name: taps[name] for name in kept}

    case = golden.cases["LMHEAD/gpt2"]
    [result] = runner.run(Functions("mine", {"gpt": gpt}, {}), [case], "float64", golden.C)
    assert result.tap is not None
    assert "local or inherited is not known" in result.tap


def _case(golden: corpus.Corpus, operation: str) -> Case:
    return next(case for case in golden.cases.values() if case.operation == operation)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("forgets the moments", "after resuming is not that of one go"),
        ("counts steps from one again", "after resuming is not that of one go"),
        ("does not train", "is not trained"),
    ],
)
def test_a_resumed_training_that_differs_is_found(golden: corpus.Corpus, mistake: str, message: str) -> None:
    def train(p: Any, m: Any, v: Any, *, first: int, **how: Any) -> Any:
        if mistake == "forgets the moments":
            m = map_leaves(lambda x: x * 0, m) if first > 1 else m
        begin = 1 if mistake == "counts steps from one again" else first
        loss, norm, *state = reference.functions()["train"](p, m, v, first=begin, **how)
        return loss, norm, *([p, m, v] if mistake == "does not train" else state)

    cases = [case for case in golden.cases.values() if case.operation == "resume"]
    for result in runner.run(Functions("mine", {"train": train}, {}), cases, "float64", golden.C):
        assert result.failed
        assert _says(result, message)


def test_a_buffer_that_is_used_again_is_called_so_and_no_tensor_is_wrong_and_right(golden: corpus.Corpus) -> None:
    held: dict[Any, Any] = {}

    def train(p: Any, m: Any, v: Any, **how: Any) -> Any:
        loss, norm, *state = reference.functions()["train"](p, m, v, **how)
        places = iter(range(10**6))

        def put(x: Any) -> Any:
            buffer = held.setdefault((next(places), x.shape), numpy.empty_like(x))
            buffer[...] = x
            return buffer

        return loss, norm, *(map_leaves(put, tree) for tree in state)

    case = _case(golden, "resume")
    [result] = runner.run(Functions("mine", {"train": train}, {}), [case], "float64", golden.C)
    names = [verdict.name for verdict in result.verdicts]
    assert len(names) == len(set(names))
    assert result.failed
    wrong = {verdict.message.partition(": ")[2] for verdict in result.verdicts if verdict.wrong}
    assert wrong == {
        "a later call of train changes what an earlier one returned (a buffer that is used again); return a copy"
    }
    assert not any(verdict.wrong for verdict in result.verdicts if verdict.name in ("output loss", "output norm"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("returned", "status"),
    [
        (float, "pass"),
        (numpy.float64, "pass"),
        (lambda x: numpy.asarray(float(x)), "pass"),
        (lambda x: int(0 * x), "pass"),  # where the truth is 0
        (numpy.float16, "dtype"),
        (lambda x: numpy.int64(0 * x), "dtype"),
        (bool, "fail"),
        (lambda x: [float(x)], "fail"),
        (str, "fail"),
        (lambda x: numpy.asarray([float(x)]), "fail"),
        (lambda x: 10**400, "fail"),
    ],
)
def test_a_number_without_an_array_beside_it_may_be_of_any_precision_that_is_not_coarser(
    returned: Callable[[Any], Any], status: str, dtype: str, golden: corpus.Corpus
) -> None:
    case = next(c for c in golden.cases.values() if c.operation == "warmup_cosine" and not c.outputs["y"].value.any())
    mine = Functions("mine", {"warmup_cosine": lambda **_: returned(case.outputs["y"].value)}, {})
    [result] = runner.run(mine, [case], dtype, golden.C)
    assert result.status == status


def _as(dtype: str, value: Any = "y") -> Functions:
    """A right softmax in another dtype."""
    right = reference.functions()["softmax"]

    def softmax(x: Any) -> Any:
        y, back = right(x.astype(dtype) if dtype.startswith("float") else x)
        return y.astype(dtype), lambda dy: back(dy.astype(dtype)).astype(dtype)

    return Functions("mine", {"softmax": softmax}, {})


@pytest.mark.parametrize(
    ("run_in", "answered_in"), [("float32", "float64"), ("float64", "float32"), ("float64", "float16")]
)
def test_another_dtype_is_a_verdict_of_its_own_and_no_formula(
    run_in: str, answered_in: str, golden: corpus.Corpus
) -> None:
    cases = [case for case in golden.cases.values() if case.operation == "softmax"]
    results = list(diagnosis.diagnosed(runner.run(_as(answered_in), cases, run_in, golden.C), run_in))
    assert {r.status for r in results} <= {"dtype", "fail"}
    assert sum(r.status == "dtype" for r in results) >= len(results) - 2  # float16 cannot hold every input
    for result in (r for r in results if r.status == "dtype"):
        assert result.diagnosis == []
        assert all(v.message.endswith(f"expected {run_in}, got {answered_in}") for v in result.verdicts)


def test_wrong_numbers_of_another_dtype_are_wrong_numbers(golden: corpus.Corpus) -> None:
    case = golden.cases["SMX/softmax-rows"]
    mine = Functions("mine", {"softmax": lambda x: (1.01 * case.outputs["y"].value).astype("float64")}, {})
    [result] = runner.run(mine, [case.values_alone()], "float32", golden.C)
    assert result.status == "fail"
    assert _says(result, "times the tolerance.*; its dtype is another too: expected float32, got float64")


def test_a_cast_converts_and_is_noted_and_hides_no_loss(golden: corpus.Corpus) -> None:
    cases = [golden.cases["SMX/softmax-rows"]]
    [result] = runner.run(_as("float64"), cases, "float32", golden.C, casts=True)
    assert (result.status, result.cast) == ("pass", ["output y: float64", "gradient of x: float64"])
    run = runner.run(_as("float32"), cases, "float64", golden.C, casts=True)
    [result] = diagnosis.diagnosed(run, "float64")
    assert result.status == "fail"
    assert result.diagnosis == ["output y holds numbers of float32, and is right as far as that reaches"]


def test_a_convention_that_another_right_answer_contradicts_is_a_mistake(golden: corpus.Corpus) -> None:
    cases = [golden.cases[name] for name in ("ATT-MASK/causal-longer-keys", "ATT-MASK/causal-longer-queries")]
    always = Functions("mine", {"attention": _attention(True)}, {})
    results = runner.settled(runner.run(always, cases, "float64", golden.C), "float64", golden.C)
    assert [r.status for r in results] == ["convention", "convention"]

    def sometimes(q: Any, k: Any, v: Any, **how: Any) -> Any:
        return _attention(len(k) > len(q))(q, k, v, **how)

    mixed = Functions("mine", {"attention": sometimes}, {})
    results = runner.settled(runner.run(mixed, cases, "float64", golden.C), "float64", golden.C)
    assert sorted(r.status for r in results) == ["fail", "pass"]
