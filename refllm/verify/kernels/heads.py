"""Keys and values that several query heads share: each is copied for its group, and its gradients are added up."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.verify.kernels.machine import unwritten, zeros

Pullback = Callable[[Array], Array]


def repeat_heads(k: Array, *, groups: int) -> tuple[Array, Pullback]:
    heads, shape = k.shape[-3], (*k.shape[:-3], k.shape[-3] * groups, *k.shape[-2:])
    y = unwritten(shape, k)
    for head in range(heads * groups):
        y[..., head, :, :] = k[..., head // groups, :, :]

    def repeat_heads_back(dy: Array) -> Array:
        dk = zeros(k.shape, k)
        for head in range(heads * groups):
            dk[..., head // groups, :, :] += dy[..., head, :, :]
        return dk

    return y, repeat_heads_back
