"""Sized cases judge: what is right passes in every dtype, and each usual mistake of a kernel fails and is located."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from refllm.numbers import plans
from refllm.verify import corpus, plain, reference
from refllm.verify.adapter import Functions
from refllm.verify.runner import Result
from refllm.verify.sized import cases, evaluate, judge
from refllm.verify.sized.probes import probes
from refllm.verify.sized.work import work

KNOWN = cases.load(corpus.folder(None))
OWN = Functions("refllm", reference.functions(), {}, reference.DTYPES)
Operation = Callable[..., Any]

# one small case or two of every operation: what a run without --slow looks at
FAST = [
    id for id, case in KNOWN.items()
    if (sum(np.prod(r["shape"]) for r in case.inputs.values()) < 12_000 and "attention" not in id)
    or id.endswith(("attention-3x129x33x64-normal", "grouped-attention-1x33-3-3x40-rotary"))
]  # fmt: skip


def results(implementation: Functions, ids: list[str], dtype: str) -> Iterator[Result]:
    return judge.run(implementation, [KNOWN[id] for id in ids], dtype, plans.plan("eager", dtype))


def result(operation: str, function: Operation, id: str, dtype: str = "float32") -> Result:
    [found] = results(Functions("mine", {operation: function}, {}, ("float64", "float32")), [id], dtype)
    return found


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_refllm_passes_the_small_ones(dtype: str) -> None:
    wrong = {r.case.id: (r.reason, [v.message for v in r.verdicts if v.wrong])
             for r in results(OWN, FAST, dtype) if r.status != "pass"}  # fmt: skip
    assert wrong == {}
    assert len(FAST) > 100


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_refllm_passes_all(dtype: str) -> None:
    ids = [id for id, case in KNOWN.items() if not case.slow]
    wrong = {
        r.case.id: [v.message for v in r.verdicts if v.wrong] for r in results(OWN, ids, dtype) if r.status != "pass"
    }
    assert wrong == {}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_case_without_elements_passes_or_fails_by_its_shape(dtype: str) -> None:
    assert (
        result("softmax", reference.functions()["softmax"], "SMX/kernel-softmax-0x1025-normal", dtype).status == "pass"
    )
    found = result("softmax", lambda x: x[..., :1], "SMX/kernel-softmax-0x1025-normal", dtype)
    assert [v.wrong for v in found.verdicts] == ["shape"]


# --- mistakes of kernels ----------------------------------------------------------------------------------------------


def with_value(operation: str, spoil: Callable[..., Any]) -> Operation:
    """The operation with its value spoilt, and its own gradients."""
    right = reference.functions()[operation]

    def spoilt(*arguments: Any, **keywords: Any) -> Any:
        y, back = right(*arguments, **keywords)
        return spoil(y.copy(), *arguments), back

    return spoilt


def with_gradient(operation: str, spoil: Callable[..., Any]) -> Operation:
    right = reference.functions()[operation]

    def spoilt(*arguments: Any, **keywords: Any) -> Any:
        y, back = right(*arguments, **keywords)
        return y, lambda dy: spoil(back(dy), dy, *arguments, **keywords)

    return spoilt


def tail_left(y: Any, *_: Any) -> Any:
    y[..., y.shape[-1] // 32 * 32 :] = 0
    return y


def first_columns_alone(y: Any, x: Any, *_: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return (e / e[..., :1024].sum(axis=-1, keepdims=True)).astype(x.dtype)


def last_tile_of_the_sum_lost(y: Any, x: Any, W: Any) -> Any:
    K = (x.shape[-1] - 1) // 32 * 32
    return x[..., :K] @ W[:K]


def narrow_sums(y: Any, x: Any, W: Any) -> Any:
    total = np.zeros(y.shape, "float32")
    for k in range(x.shape[-1]):
        total += x[..., k, None] * W[k]
        total = ((total.view("uint32") + 0x8000) & 0xFFFF0000).astype("uint32").view("float32")
    return total.astype(y.dtype)


def by_mean_of_squares(y: Any, x: Any, g: Any, b: Any) -> Any:
    mean = x.mean(axis=-1, keepdims=True)
    variance = np.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0)
    return ((x - mean) / np.sqrt(variance + x.dtype.type(1e-5)) * g + b).astype(x.dtype)


def width_cut(y: Any, q: Any, k: Any, v: Any) -> Any:
    y[..., 64:] = 0
    return y


def one_update_an_id(dE: Any, dy: Any, E: Any, *, ids: Any) -> Any:
    lost = np.zeros_like(dE)
    lost[ids] = dy
    return lost


def rows_with_another_stride(y: Any, *_: Any) -> Any:
    return np.roll(y, 1, axis=-2)


def every_second_row(y: Any, *_: Any) -> Any:
    y[..., 1::2, :] = 0
    return y


def without_memory(y: Any, *_: Any) -> Any:
    y[..., -1, -1] = np.nan
    return y


MISTAKES = [
    ("softmax", with_value("softmax", tail_left), "SMX/kernel-softmax-3x1025-normal", "column 1,024 of 1,025"),
    ("softmax", with_value("softmax", tail_left), "SMX/kernel-softmax-7x33-peaked", "column 32 of 33"),
    ("layer_norm", with_value("layer_norm", tail_left), "LN/kernel-layer-norm-7x31-normal", ""),
    ("softmax", with_value("softmax", first_columns_alone), "SMX/kernel-softmax-3x1025-normal", ""),
    ("softmax", with_value("softmax", first_columns_alone), "SMX/kernel-softmax-2x16384-normal", ""),
    ("matmul", with_value("matmul", last_tile_of_the_sum_lost), "LMHEAD/kernel-matmul-3x16384x7-normal", ""),
    ("matmul", with_value("matmul", last_tile_of_the_sum_lost), "LMHEAD/kernel-matmul-7x1024x19-normal", ""),
    ("matmul", with_value("matmul", narrow_sums), "LMHEAD/kernel-matmul-33x33x31-normal", ""),
    ("layer_norm", with_value("layer_norm", by_mean_of_squares), "LN/kernel-layer-norm-33x33-offset", ""),
    ("attention", with_value("attention", width_cut), "ATT/kernel-attention-1x7x64x64x96-peaked", "columns ≥ 64 of 96"),
    ("embedding", with_gradient("embedding", one_update_an_id), "EMB/kernel-embedding-257x65-5x129", "rows < 3 of 257"),
    ("matmul", with_value("matmul", rows_with_another_stride), "LMHEAD/kernel-matmul-33x33x31-normal", ""),
    ("rms_norm", with_value("rms_norm", every_second_row), "T5-REL/kernel-rms-norm-65x64-normal", "every second row"),
    ("gelu_tanh", with_value("gelu_tanh", without_memory), "FFN/kernel-gelu-tanh-33x65-peaked", "row 32 of 33"),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("operation", "function", "id", "place"), MISTAKES)
def test_a_kernels_mistake_fails_and_its_place_is_said(
    operation: str, function: Operation, id: str, place: str, dtype: str
) -> None:
    if id not in KNOWN:
        pytest.fail(f"there is no case {id}")
    found = result(operation, function, id, dtype)
    assert found.status == "fail"
    assert place in " ".join(v.message for v in found.verdicts if v.wrong)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_one_element_that_no_probe_looks_at_fails(dtype: str) -> None:
    id = "LN/kernel-layer-norm-3x1025-normal"
    looked_at = set(cases_probes(id))
    place = next(i for i in range(3 * 1025) if i not in looked_at)

    def spoil(y: Any, *_: Any) -> Any:
        y.reshape(-1)[place] *= 1.0001
        return y

    found = result("layer_norm", with_value("layer_norm", spoil), id, dtype)
    assert found.status == "fail"
    assert "wrong in 1 of 3,075 elements" in found.verdicts[0].message


def cases_probes(id: str) -> list[int]:
    from refllm.verify.sized.probes import probes

    sized = KNOWN[id]
    found: list[int] = probes(sized.outputs["y"], sized.seed, "outputs.y").tolist()
    return found


def test_answers_that_are_right_where_the_truth_is_stored_alone_are_said_to_be_looked_up() -> None:
    id, right = "FFN/kernel-silu-1025-normal", reference.functions()["silu"]

    def looked_up(x: Any) -> Any:
        y, back = right(x)
        stored = np.zeros(y.shape, bool)
        stored[probes(y.shape, KNOWN[id].seed, "outputs.y")] = True
        return np.where(stored, y, 0), back

    def half(x: Any) -> Any:
        y, back = right(x)
        return np.where(np.arange(y.size) < 200, y, 0), back

    said, other = (result("silu", f, id).verdicts[0].message for f in (looked_up, half))
    assert "elements whose truth is stored are right: as if they were looked up" in said
    assert "wrong" in other
    assert "looked up" not in other


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_zeros_and_values_without_gradients_and_other_dtypes_are_told_apart(dtype: str) -> None:
    right, id = reference.functions()["softmax"], "SMX/kernel-softmax-7x33-peaked"
    assert [v.wrong for v in result("softmax", np.zeros_like, id, dtype).verdicts] == ["zeros"]
    assert result("softmax", lambda x: right(x)[0], id, dtype).status == "value"
    wide = result("softmax", lambda x: right(x)[0].astype("float16"), id, dtype)
    assert wide.verdicts[0].wrong in ("dtype", "values")
    assert result("softmax", lambda x: None, id, dtype).status == "fault"


def test_infinite_truths_must_be_met() -> None:
    right, id = reference.functions()["log_softmax"], "SMX/kernel-log-softmax-129x129-masked"
    for dtype in ("float64", "float32"):
        found = result("log_softmax", lambda x: (np.maximum(right(x)[0], x.dtype.type(-1e4)), right(x)[1]), id, dtype)
        assert found.status == "fail"


def test_a_declared_convention_that_the_cases_do_not_know_is_skipped() -> None:
    aligned = Functions("mine", reference.functions(), {"causal_alignment": "top-left"}, reference.DTYPES)
    id = next(id for id, case in KNOWN.items() if case.conventions.get("causal_alignment"))
    [found] = results(aligned, [id], "float32")
    assert (found.status, found.reason) == ("skip", "the sized cases have no truth under causal_alignment=top-left")


def test_the_plain_text_itself_passes() -> None:
    text = Functions("text", plain.operations(), {})
    few = [id for id in FAST if KNOWN[id].operation in ("softmax", "layer_norm", "lstm", "rotary_halves", "adamw")]
    for dtype in ("float64", "float32"):
        assert [r.case.id for r in results(text, few, dtype) if r.status != "pass"] == []


def test_the_text_is_asked_with_one_thread_of_blas_and_gives_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, own = set[int](), evaluate.implementation

    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    def watched(operation: str, known: Any) -> Operation:
        function = own(operation, known)

        def watching(*arguments: Any, **keywords: Any) -> Any:
            seen.update(threads())
            return function(*arguments, **keywords)

        return watching

    monkeypatch.setattr(evaluate, "implementation", watched)
    case = min((case for case in KNOWN.values() if case.operation == "softmax"), key=work).case()
    with threadpool_limits(2, user_api="blas"):
        evaluate.expected(case, plans.plan("eager", "float32"), gradients=True)
        assert threads() == {2}
    assert seen == {1}
