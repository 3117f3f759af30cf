"""SGD, Adam and AdamW: one step for one array.

Each returns the new array and its new state and leaves its arguments alone. `out` names arrays to write the results
into, as everywhere in NumPy; they may be the arguments themselves, and a trainer that owns its state says so. How the
arrays lie in memory changes no number: what is in C order is written to directly, anything else at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from refllm.backend import Array, namespace, row_blocks
from refllm.differentiable import declared_inputs
from refllm.fit import require_array


@declared_inputs
def sgd(
    p: Array, g: Array, v: Array, *, lr: float, momentum: float, decay: float, out: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """SGD: v' = μ v + g + λ p,   p' = p - lr v'

    μ is the momentum, λ the L2 penalty (`decay`); with μ = 0 this is plain gradient descent.
    Source:  Sutskever et al. 2013, in the form of most frameworks (lr outside the velocity); documents 004 sec. 3.2.
    Shapes:  p (...); g (...); v (...) -> p' (...); v' (...)

    >>> p, v = sgd(array([1.0]), array([2.0]), array([4.0]), lr=0.5, momentum=0.5, decay=0.0)
    >>> v.tolist(), p.tolist()  # 0.5 · 4 + 2, and 1 - 0.5 · 4
    ([4.0], [-1.0])
    """
    xp = namespace(p)
    _require_finite("sgd", lr=lr, momentum=momentum, decay=decay)
    _require_out("sgd", {"p": p, "v": v}, out)
    new_p, new_v = _room(g, (p, v), out)
    gradient = g + decay * p if decay else g
    xp.multiply(v, momentum, out=new_v)
    new_v += gradient
    xp.subtract(p, lr * new_v, out=new_p)
    return _delivered((new_p, new_v), out)


@declared_inputs
def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """ADAM: m' = β1 m + (1-β1) g,   v' = β2 v + (1-β2) g²,   p' = p - lr m̂ / (√v̂ + eps),
             m̂ = m' / (1-β1^step),   v̂ = v' / (1-β2^step)

    `decay` is the L2 penalty λ, added to the gradient: g + λ p. `step` counts from 1.
    Source:  Kingma & Ba 2015 (arXiv:1412.6980) alg. 1: eps outside the root, after the correction; documents 000
             sec. 4.3, 003 sec. 5.2.
    Shapes:  p (...); g (...); m (...); v (...) -> p' (...); m' (...); v' (...)

    >>> how = {"step": 1, "lr": 0.5, "beta1": 0.9, "beta2": 0.99, "eps": 0.0, "decay": 0.0}
    >>> p, m, v = adam(array([1.0, 1.0]), array([7.0, -1e-3]), zeros(2), zeros(2), **how)
    >>> p.round(12).tolist()  # the first step is lr in the direction of -sign(g), however large g is
    [0.5, 1.5]
    """
    _require("adam", step, beta1, beta2, lr=lr, eps=eps, decay=decay)
    gradient = g + decay * p if decay else g
    _require_out("adam", {"p": p, "m": m, "v": v}, out)
    return _step(p, gradient, m, v, step, lr, beta1, beta2, eps, 1.0, out)


@declared_inputs
def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """ADAMW: Adam's step without the penalty, and the decay apart: p' = (1 - lr λ) p - lr m̂ / (√v̂ + eps)

    Source:  Loshchilov & Hutter 2019 (arXiv:1711.05101) alg. 2, with the schedule's factor inside lr; documents 000
             sec. 5.2 (code).
    Shapes:  p (...); g (...); m (...); v (...) -> p' (...); m' (...); v' (...)

    >>> how = {"step": 1, "lr": 0.5, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1}
    >>> adamw(array([2.0]), zeros(1), zeros(1), zeros(1), **how)[0].round(12).tolist()  # (1 - 0.5 · 0.1) · 2
    [1.9]
    """
    _require("adamw", step, beta1, beta2, lr=lr, eps=eps, decay=decay)
    _require_out("adamw", {"p": p, "m": m, "v": v}, out)
    return _step(p, g, m, v, step, lr, beta1, beta2, eps, 1 - lr * decay, out)


def _require(rule: str, step: int, beta1: float, beta2: float, **numbers: float) -> None:
    if step < 1:
        raise ValueError(f"{rule}: step counts from 1; got {step}")
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"{rule}: needs 0 <= beta < 1 for both; got {beta1} and {beta2}")
    _require_finite(rule, **numbers)
    if numbers["eps"] < 0:
        raise ValueError(f"{rule}: eps must not be negative; got {numbers['eps']}")


def _require_finite(rule: str, **numbers: float) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise ValueError(f"{rule}: {name} must be a finite number; got {number}")


def _room(g: Array, arguments: tuple[Array, ...], out: Sequence[Array] | None) -> tuple[Array, ...]:
    """Where a step may write while it reads: the arrays of `out`, if each is the argument of its place in C order and
    none holds the gradient too; else new ones in C order, since only those have a flat view."""
    if out is not None and all(
        o is x and o.flags.c_contiguous and not namespace(o).shares_memory(o, g)
        for o, x in zip(out, arguments, strict=True)
    ):
        return tuple(out)
    return tuple([namespace(x).empty(x.shape, x.dtype) for x in arguments])


def _require_out(rule: str, arguments: dict[str, Array], out: Sequence[Array] | None) -> None:
    if out is None:
        return
    if len(out) != len(arguments):
        names = ", ".join(f"{name}'" for name in arguments)
        raise ValueError(f"{rule}: out must be the arrays ({names}); got {len(out)}")
    for i, (o, (name, x)) in enumerate(zip(out, arguments.items(), strict=True)):
        require_array(rule, f"{name}' of out", o)
        if o.shape != x.shape or o.dtype != x.dtype:
            raise ValueError(
                f"{rule}: {name}' of out must be (...) = {x.shape}, {x.dtype}, as {name} is; got {o.shape}, {o.dtype}"
            )
        if not getattr(o.flags, "writeable", True):
            raise ValueError(f"{rule}: {name}' of out is read-only; give an array that may be written to")
        if any(namespace(o).shares_memory(o, other) for other in out[:i]):
            raise ValueError(f"{rule}: {name}' of out shares memory with another result; give each its own array")


def _delivered(results: tuple[Array, ...], out: Sequence[Array] | None) -> tuple[Any, ...]:
    """The results, in the arrays of `out` where such were given."""
    if out is None:
        return results
    for o, x in zip(out, results, strict=True):
        if o is not x:
            o[...] = x
    return tuple(out)


def _step(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    shrink: float,
    out: Sequence[Array] | None,
) -> tuple[Any, ...]:
    """p' = shrink p - lr m̂ / (√v̂ + eps), the corrections folded in: with a = 1-β1^step and b = √(1-β2^step),
    lr m̂ / (√v̂ + eps) = (lr b / a) m' / (√v' + b eps). In pieces that stay in the cache, into arrays in C order:
    their flat views are not copies."""
    xp, new = namespace(p), _room(g, (p, m, v), out)
    correction = math.sqrt(1 - beta2**step)
    rate = lr * correction / (1 - beta1**step)
    flat = [z.reshape(-1) for z in (p, g, m, v, *new)]
    for pi, gi, mi, vi, new_pi, new_mi, new_vi in row_blocks(*flat):
        t = gi * (1 - beta1)
        xp.multiply(mi, beta1, out=new_mi)
        new_mi += t
        xp.multiply(gi, gi, out=t)
        t *= 1 - beta2
        xp.multiply(vi, beta2, out=new_vi)
        new_vi += t
        xp.sqrt(new_vi, out=t)
        t += correction * eps
        xp.divide(new_mi, t, out=t)
        t *= rate
        xp.multiply(pi, shrink, out=new_pi)
        new_pi -= t
    return _delivered(new, out)
