"""PyTorch's tensors, and its autograd where a function gives only the value."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from refllm.backend import Array
from refllm.verify.arrays import own_dtype

DTYPES = ("float64", "float32", "float16", "bfloat16")


def given(x: Array, dtype: str, device: str | None) -> Any:
    """In the memory of the array where the host has such tensors: what a function writes there is seen, and how the
    array lies in memory stays."""
    kind = own_dtype(x, dtype)
    if any(step < 0 for step in x.strides):  # which no tensor has
        x = x.copy()
    held = torch.from_numpy(x) if x.ndim else torch.tensor(x)
    return held.to(device=device, dtype=torch.float32 if kind == "tf32" else getattr(torch, kind))


def taken(x: Any) -> Array:
    x = x.detach().resolve_conj().resolve_neg().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def dtype_of(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.")


def watched(x: Any) -> Any:
    return x.requires_grad_()


def pullback(f: Any, inputs: list[Any], outputs: list[Any]) -> Any:
    """None where no output hangs on an input: the function computed without autograd."""
    if not any(isinstance(y, torch.Tensor) and y.requires_grad for y in outputs):
        return None

    def back(dy: list[Any]) -> list[Any]:
        found = zip(outputs, dy, strict=True)
        pairs = [(y, d) for y, d in found if isinstance(y, torch.Tensor) and y.requires_grad]
        heads, along = zip(*pairs, strict=True)
        return list(torch.autograd.grad(heads, inputs, along, retain_graph=True, materialize_grads=True))

    return back


def using(dtype: str) -> Any:
    return contextlib.nullcontext()
