"""Tables of signatures: right functions under the names that people have pass, wrong ones fail, whatever the arrays."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import adapter, check, corpus, reference, runner, signatures
from refllm.verify.plugging import Plug, plugged

RIGHT = reference.functions()


def scaled_dot_product_attention(q: Any, k: Any, v: Any, attn_mask: Any = None, is_causal: bool = False) -> Any:
    """As PyTorch documents it, with its pullback; a row without a key is zero."""
    s = q @ k.swapaxes(-1, -2) / q.dtype.type(numpy.sqrt(q.shape[-1]))
    if is_causal:
        s = numpy.where(numpy.tri(*s.shape[-2:]) > 0, s, -numpy.inf)
    if attn_mask is not None:
        s = numpy.where(attn_mask, s, -numpy.inf) if attn_mask.dtype == bool else s + attn_mask
    p = RIGHT["softmax"](s)[0]

    def back(dy: Any) -> Any:
        dp = dy @ v.swapaxes(-1, -2)
        ds = p * (dp - (dp * p).sum(-1, keepdims=True))
        root = q.dtype.type(numpy.sqrt(q.shape[-1]))
        found = (ds @ k / root, ds.swapaxes(-1, -2) @ q / root, p.swapaxes(-1, -2) @ dy)
        if attn_mask is None or attn_mask.dtype == bool:
            return found
        axes = tuple(i for i in range(ds.ndim) if attn_mask.shape[i] == 1 and ds.shape[i] != 1)
        return (*found, ds.sum(axes, keepdims=True) if axes else ds)

    return p @ v, back


def linear(x: Any, weight: Any, bias: Any) -> Any:
    y, back = RIGHT["linear"](x, weight.T, bias)

    def linear_back(dy: Any) -> Any:
        dx, dW, db = back(dy)
        return dx, dW.T, db

    return y, linear_back


def layer_norm(x: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    assert normalized_shape == weight.shape
    return RIGHT["layer_norm"](x, weight, bias, eps=eps)


def gelu(x: Any, approximate: str = "none") -> Any:
    return RIGHT["gelu_tanh" if approximate == "tanh" else "gelu_erf"](x)


def embedding(ids: Any, weight: Any) -> Any:
    return RIGHT["embedding"](weight, ids=ids)


def cross_entropy(
    x: Any, target: Any, ignore_index: int = -100, label_smoothing: float = 0.0, reduction: str = "mean"
) -> Any:
    if target.dtype.kind == "f":
        return RIGHT["soft_cross_entropy"](x, target, reduction=reduction)
    how = {"targets": target, "ignore": ignore_index, "smoothing": label_smoothing, "reduction": reduction}
    return RIGHT["smoothed_cross_entropy"](x, **how)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (scaled_dot_product_attention, linear, layer_norm, gelu, embedding, cross_entropy)
}
SERVED = {
    "attention", "sliding_window_attention", "packed_attention", "relative_attention", "linear", "layer_norm",
    "gelu_erf", "gelu_tanh", "embedding", "cross_entropy", "smoothed_cross_entropy", "soft_cross_entropy",
}  # fmt: skip
AS_REFLLM = {"empty_mean": "zero", "empty_softmax": "zeros"}  # where the functions above are not as PyTorch


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_right_functions_of_numpy_with_the_names_of_pytorch_pass_with_their_gradients(dtype: str) -> None:
    found = check(FUNCTIONS, dtype=dtype, signatures="torch", arrays="numpy", conventions=AS_REFLLM, search=0)
    ran = {r.case.operation: r for r in found.report.results if r.status == "pass"}
    assert set(ran) == SERVED
    assert {r.case.id for r in found.failures if r.status != "convention"} == set()
    assert not any(r.status == "value" for r in found.report.results)


def test_a_transposed_weight_under_a_table_is_named() -> None:
    def linear(x: Any, weight: Any, bias: Any) -> Any:
        return x @ weight.T + 2 * bias

    found = check(linear, signatures="torch", arrays="numpy", values=True)
    assert not found.passed
    assert any(result.diagnosis for result in found.failures)


def test_a_declared_convention_does_not_keep_a_mistake_from_being_named() -> None:
    def unscaled(q: Any, k: Any, v: Any, attn_mask: Any = None, is_causal: bool = False) -> Any:
        return scaled_dot_product_attention(q * numpy.sqrt(q.shape[-1]), k, v, attn_mask, is_causal)[0]

    unscaled.__name__ = "scaled_dot_product_attention"
    found = check(unscaled, "attention", signatures="torch", arrays="numpy", values=True, search=0)
    assert "without the 1/√d_k scale" in next(r for r in found.failures if r.case.id == "ATT/square").diagnosis[0]


def test_a_parameter_that_a_function_lacks_is_a_reason_to_skip_and_another_number_of_arrays_a_fault(
    golden: corpus.Corpus,
) -> None:
    def attend(q: Any, k: Any, v: Any) -> Any:
        return scaled_dot_product_attention(q, k, v)

    functions = {"scaled_dot_product_attention": attend, "layer_norm": lambda x, weight, bias: x}
    known = plugged(functions, Plug("numpy", None, "torch"), whole=True)
    mine = adapter.Functions("mine", known.functions, {}, bridge=known.bridge)
    masked, plain = golden.cases["ATT-MASK/own-per-head"], golden.cases["ATT/square"]
    normed = next(case for case in golden.cases.values() if case.operation == "layer_norm")
    [a, b, c] = runner.run(mine, [masked, plain, normed], "float64", golden.C)
    assert (a.status, b.status, c.status) == ("skip", "pass", "fault")
    assert "takes no attn_mask" in a.reason
    assert "does not take what its table calls it with" in c.reason


@pytest.mark.parametrize("name", signatures.TABLES)
def test_every_entry_of_a_table_is_for_an_operation_that_there_is(golden: corpus.Corpus, name: str) -> None:
    """And takes what its cases give."""
    operations = {case.operation: case for case in golden.cases.values()}
    table = signatures.table(name)
    assert len(table.entries) > 10
    for entry in table.entries:
        case = operations[entry.operation]
        inspect.signature(entry.ask).bind(None, *case.order, **case.keywords)


@pytest.mark.parametrize("name", signatures.TABLES)
def test_the_conventions_of_a_table_are_known(golden: corpus.Corpus, name: str) -> None:
    known = {pair for case in golden.cases.values() for key in case.alternatives for pair in key.split(",")}
    assert {f"{n}={v}" for n, v in signatures.table(name).conventions.items()} <= known


def test_a_module_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no module refllm_not_there\.at_all here"):
        adapter.from_file("refllm_not_there.at_all")


def test_a_module_serves_only_what_its_table_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library has other functions that are called like operations."""
    (tmp_path / "kernels_of_mine.py").write_text("def gelu(x):\n    return x\n\ndef dropout(x):\n    return x\n")
    monkeypatch.chdir(tmp_path)
    plug = Plug("numpy", None, "torch")
    assert adapter.from_file("kernels_of_mine", plug).operations == {"gelu_erf", "gelu_tanh"}
    assert adapter.from_file(tmp_path / "kernels_of_mine.py", plug).operations == {"gelu_erf", "gelu_tanh", "dropout"}
    sys.modules.pop("kernels_of_mine", None)


FAULTS = {  # module: cases that PyTorch 2.13 gets wrong in float32, pytorch/pytorch#187806 among them
    "torch.nn.functional": {"FFN/gelu-erf-tail", "FFN/gelu-erf-tail-rows"},
    "torch.nn": {"FFN/gelu-erf-tail", "FFN/gelu-erf-tail-rows"},
    "torch.nn.utils": set(),
}


@pytest.mark.oracle
@pytest.mark.parametrize("module", FAULTS)
def test_pytorch_passes_by_the_import_name_of_a_module(golden: corpus.Corpus, module: str) -> None:
    pytest.importorskip("torch")
    mine = adapter.from_file(module, Plug(signatures="torch"))
    results = list(runner.run(mine, golden.cases.values(), "float32", golden.C))
    assert {r.case.id for r in results if r.wrong} == FAULTS[module]
    assert sum(r.status == "pass" for r in results) >= 7
