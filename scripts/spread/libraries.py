"""PyTorch, JAX and ONNX Runtime as implementations, as people run them: eager, by fused kernels, compiled."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from refllm.verify import adapter, reference
from refllm.verify.kernels import bank
from refllm.verify.kernels.in_type import in_type
from spread import orders

ADAPTERS = Path(__file__).resolve().parents[1] / "adapters"
Functions = Mapping[str, Callable[..., Any]]
# name, functions, what sets the dtype of a run, and the plans that fit it by dtype
PlanSaid = str | Mapping[str, Any]
NARROW: PlanSaid = {"stored": {"*": "dtype"}, "accumulate": "dtype", "factors": "dtype"}
Implementation = tuple[str, Functions, Callable[[str], object], Mapping[str, PlanSaid]]
ALL = ("float32", "bfloat16", "float16")
PACKAGES = {"PyTorch": "torch", "torch": "torch", "JAX": "jax", "jax": "jax", "ONNX": "onnxruntime"}


def in_words(plan: PlanSaid) -> str:
    """What a plan is called in a table."""
    return plan if isinstance(plan, str) else "all in the dtype"


def version(name: str) -> str:
    """Of what is measured under that name: that of its package."""
    package = PACKAGES.get(name.replace(".", " ").split()[0].rstrip(","), "numpy")
    return f"{package} {importlib.metadata.version(package)}"


ATTENTION = ("attention", "relative_attention")


def implementations() -> Iterator[Implementation]:
    """Every one that is here."""
    yield "refllm", reference.functions(), _nothing, {"float32": "fused", "float16": "eager"}
    for name, functions in orders.of_text():
        dtypes = {"float32": "fused", "float16": "eager"} if name.endswith("NumPy") else {"float32": "fused"}
        yield name, functions, _nothing, dtypes
    yield "the text, products of tf32 (emulated)", orders.in_tf32(), _nothing, {"tf32": "fused"}
    for run in ("float32", "bfloat16", "float16"):  # a tiled attention among them
        kernels = in_type(bank.implementation(), run).functions
        yield "NumPy in tiles and blocks", kernels, _nothing, {run: "fused"}
    if installed("torch"):
        yield from _of_torch()
    if installed("jax"):
        yield from _of_jax()
    if installed("onnxruntime"):
        yield from _of_onnx()


def _nothing(dtype: str) -> None:
    """The arrays say it."""


def installed(module: str) -> bool:
    """Whether it can be imported."""
    with contextlib.suppress(ValueError):
        return importlib.util.find_spec(module) is not None
    return False


def _of_torch() -> Iterator[Implementation]:
    import torch  # type: ignore[import-not-found,unused-ignore]
    from torch.nn.attention import SDPBackend  # type: ignore[import-not-found,unused-ignore]

    found = adapter.from_file(ADAPTERS / "torch_adapter.py")
    make = found.functions["differentiable"]
    eager = {name: f for name, f in found.functions.items() if name not in ATTENTION}
    eager |= {"attention": make(plain_attention), "rms_norm": make(_rms_norm), "adamw": _Steps(found, "AdamW")}
    eager["clip_by_global_norm"] = clipping(found)
    use = _use(found)
    narrow = {"float32": "eager", "bfloat16": "narrow", "float16": "narrow"}
    yield "PyTorch, eager", eager, use, narrow
    kernels = found.functions["fused"].__globals__["KERNELS"]
    for name, kernel in (("math", SDPBackend.MATH), ("flash", SDPBackend.FLASH_ATTENTION)):
        functions = {n: chosen(found.functions[n], kernels, kernel) for n in ATTENTION}
        plans = dict.fromkeys(ALL, "fused" if name == "flash" else "eager")
        yield f"PyTorch SDPA, {name}", functions, use, plans
    forwards = {
        n: inspect.getclosurevars(f).nonlocals.get("forward") for n, f in eager.items() if inspect.isfunction(f)
    }
    import torch._functorch.config  # type: ignore[import-not-found,unused-ignore]

    torch._functorch.config.donated_buffer = False  # a pullback may be called twice
    torch._dynamo.config.recompile_limit = 64  # one a shape and choice of keywords, none of them eager
    yield "torch.compile", {n: make(torch.compile(f)) for n, f in forwards.items() if f}, use, narrow


def _use(found: adapter.Functions) -> Callable[[str], object]:
    return lambda dtype: found.use_dtype(dtype) if found.use_dtype is not None else None


def chosen(function: Callable[..., Any], kernels: list[Any], kernel: Any) -> Callable[..., Any]:
    """A function whose attention runs by one kernel, forward and backward."""

    def operation(*arrays: Any, **keywords: Any) -> Any:
        kernels[:] = [kernel]
        try:
            return function(*arrays, **keywords)
        finally:
            kernels.clear()

    return operation


def plain_attention(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    """One operation after the other."""
    import torch

    T, S = q.shape[-2], k.shape[-2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T if causal else S)
    mask = mask if allowed is None else mask & allowed
    some = mask.any(-1, keepdim=True)  # a row without a key is zero
    s = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask & some, -math.inf)
    return torch.where(some, torch.softmax(s, -1) @ v, 0)


def _rms_norm(x: Any, g: Any, *, eps: float) -> Any:
    import torch

    return torch.nn.functional.rms_norm(x, g.shape, g, eps)


class _Steps:
    """An optimiser of PyTorch on arrays of the dtype of the run."""

    def __init__(self, found: adapter.Functions, name: str) -> None:
        self.update = found.functions[name.lower()]

    def __call__(self, *arrays: Any, **keywords: Any) -> Any:
        return self.update(*arrays, **keywords)


def clipping(found: adapter.Functions, clip_: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """`clip_grad_norm_` on gradients of the dtype of the run. It divides by the norm plus 1e-6, which is another
    formula in float64 alone: beside a norm of some size that vanishes."""
    tensor, array = found.functions["tensor"], found.functions["array"]

    def clip_by_global_norm(g: list[Any], *, clip: float) -> Any:
        import torch

        if any(x.dtype == "float64" for x in g):
            raise NotImplementedError("clip / (norm + 1e-6)")
        parameters = [torch.nn.Parameter(torch.zeros_like(tensor(x))) for x in g]
        for parameter, x in zip(parameters, g, strict=True):
            parameter.grad = tensor(x)
        norm = (clip_ or torch.nn.utils.clip_grad_norm_)(parameters, clip)
        return array(norm), [array(parameter.grad) for parameter in parameters]

    return clip_by_global_norm


def _of_jax() -> Iterator[Implementation]:
    sys.path.insert(0, str(ADAPTERS.parent))

    import fused_kernels

    found = adapter.from_file(ADAPTERS / "jax_adapter.py")
    yield "JAX, jit", found.functions, _use(found), {"float32": "eager", "bfloat16": NARROW, "float16": NARROW}
    for name, kernels, dtypes in fused_kernels.of_jax(found):
        plans = {dtype: "eager" for dtype in dtypes if dtype != "float64"}
        yield name, kernels.functions, _use(found), plans


def _of_onnx() -> Iterator[Implementation]:
    os.environ["ONNX_BY"] = "runtime"
    found = adapter.from_file(ADAPTERS / "onnx_adapter.py")

    yield "ONNX Runtime", found.functions, _nothing, {"float32": "fused", "float16": "eager"}
