"""Training: the gradient, clipped, and AdamW; a step, and a trace of steps."""

from collections.abc import Callable
from typing import Any

from refllm.spec.array import Array, Pullback, Tree, everywhere, like, part, stack
from refllm.spec.tree import each, leaves
from refllm.spec.update import adamw, clip_by_global_norm

Loss = Callable[..., tuple[Array, Pullback]]


def train_step(
    p: Tree, m: Tree, v: Tree, *, loss: Loss, step: int, lr: float, beta1: float, beta2: float, eps: float,
    decay: float, clip: float | None, **batch: Any,
) -> tuple[Array, Array, Tree, Tree, Tree]:  # fmt: skip
    """ADAMW: y, back = loss(p, batch);   g = back(1), clipped;   p', m', v' = adamw(p, g, m, v)

    Tensors of two or more dimensions decay; gains and biases do not. Without a `clip` nothing is clipped.
    Source:  Loshchilov & Hutter 2019 (arXiv:1711.05101) alg. 2; Radford et al. 2018 sec. 4.1 for what decays.
    Shapes:  p, m, v: trees -> loss (), norm (), p', m', v'
    """
    y, loss_back = loss(p, **batch)
    g = loss_back(like(everywhere(y.shape), y))
    norm, g = clipped(g, clip)

    def update(p: Array, g: Array, m: Array, v: Array) -> tuple[Array, Array, Array]:
        of_matrices = decay if p.ndim >= 2 else 0
        return adamw(p, g, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps, decay=of_matrices)

    new = each(update, p, g, m, v)
    new_p, new_m, new_v = (each(lambda _, leaf, n=n: leaf[n], p, new) for n in range(3))
    return y, norm, new_p, new_m, new_v


def clipped(g: Tree, clip: float | None) -> tuple[Array, Tree]:
    """ADAMW: the global norm of all gradients, and the gradients scaled down to the norm `clip` if it is larger

    Source:  as `clip_by_global_norm`.
    """
    norm, flat = clip_by_global_norm(leaves(g), clip=float("inf") if clip is None else clip)
    scaled = iter(flat)
    return norm, each(lambda _: next(scaled), g)


def train(
    p: Tree, m: Tree, v: Tree, *, loss: Loss, ids: Array, targets: Array, first: int, **how: Any
) -> tuple[Array, Array, Tree, Tree, Tree]:
    """ADAMW: a trace: batch n of ids (N, B, T) is step `first + n`, from the state that the last one left

    Source:  as `train_step`.
    Shapes:  ids (N, B, T); targets (N, B, T) -> losses (N,), norms (N,), p', m', v'
    """
    losses, norms = [], []
    for n in range(len(ids)):
        with part(f"steps.{n}"):
            y, norm, p, m, v = train_step(p, m, v, loss=loss, ids=ids[n], targets=targets[n], step=first + n, **how)
        losses.append(y)
        norms.append(norm)
    return stack(losses, axis=0), stack(norms, axis=0), p, m, v
