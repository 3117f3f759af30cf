"""Fused kernels as implementations, for calibrate.py: what people run where they write one line of a framework.

PyTorch's scaled dot-product attention by its plain and by its flash kernel, what torch.compile makes of some
operations, and jax.nn.dot_product_attention; each on the four dimensions that it asks for.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from refllm.verify import adapter

ATTENTION = (
    *("attention", "relative_attention", "self_attention", "cross_attention", "grouped_attention"),
    *("transformer_layer", "llama_layer", "gpt", "llama", "bert", "encoder_decoder"),
)
COMPILED = ("softmax", "log_softmax", "layer_norm", "gelu_erf", "gelu_tanh", "silu", "rms_norm")
EVERY = ("float64", "float32", "bfloat16", "float16")
Kernels = Iterator[tuple[str, adapter.Functions, tuple[str, ...]]]


def of_torch(found: adapter.Functions) -> Kernels:
    """`found` is scripts/adapters/torch_adapter.py."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    from torch.nn.attention import SDPBackend  # type: ignore[import-not-found,unused-ignore]

    chosen = found.functions["fused"].__globals__["KERNELS"]
    for name, kernel in (("plain", SDPBackend.MATH), ("flash", SDPBackend.FLASH_ATTENTION)):
        chosen[:] = [kernel]
        functions = {operation: found.functions[operation] for operation in ATTENTION}
        yield f"PyTorch SDPA, {name}", adapter.Functions(name, functions, {}, EVERY, _use(found)), EVERY
    chosen.clear()
    functions = {operation: _compiled(found, operation) for operation in COMPILED}
    yield f"torch.compile {torch.__version__}", adapter.Functions("compiled", functions, {}, EVERY, _use(found)), EVERY


def _use(found: adapter.Functions) -> Callable[[str], object]:
    """The dtype of bfloat16 runs; the others have that of their arrays."""
    return lambda dtype: found.use_dtype(dtype) if found.use_dtype is not None else None


def _compiled(found: adapter.Functions, operation: str) -> Callable[..., Any]:
    import torch

    forward = inspect.getclosurevars(found.functions[operation]).nonlocals["forward"]
    compiled: Callable[..., Any] = found.functions["differentiable"](torch.compile(forward, dynamic=True))
    return compiled


def of_jax(found: adapter.Functions) -> Kernels:
    """`found` is scripts/adapters/jax_adapter.py."""
    functions = {"attention": found.functions["differentiable"](_dot_product_attention)}
    implementation = adapter.Functions("dot_product_attention", functions, {}, EVERY, _use(found))
    yield (
        "jax.nn.dot_product_attention",
        implementation,
        EVERY[1:3],
    )  # float64 goes by float32, float16 not at all on a CPU


def _dot_product_attention(q: Any, k: Any, v: Any, *, causal: bool, allowed: Any) -> Any:
    import jax  # type: ignore[import-not-found,unused-ignore]

    lead, T, S = q.shape[:-2], q.shape[-2], k.shape[-2]
    mask = numpy.tri(T, S, S - T, dtype=bool) if causal else numpy.ones((T, S), bool)
    mask = numpy.broadcast_to(mask if allowed is None else mask & allowed, (*lead, T, S)).reshape(-1, 1, T, S)
    if v.shape[-1] != q.shape[-1] or not mask.any(axis=-1).all():
        raise NotImplementedError("jax.nn.dot_product_attention: d_v must be d_k, and a row has a key")
    q, k, v = (x.reshape(-1, x.shape[-2], 1, x.shape[-1]) for x in (q, k, v))  # (B, T, H, D)
    y = jax.nn.dot_product_attention(q, k, v, mask=jax.numpy.asarray(mask))
    return y[:, :, 0].reshape(*lead, T, -1)


def installed(module: str) -> bool:
    with contextlib.suppress(ValueError):
        return importlib.util.find_spec(module) is not None
    return False
