"""SGD, ADAM, ADAMW, gradient clipping, the schedule, and one training step: the formulas.

Source: Kingma & Ba 2015 (algorithm 1), Loshchilov & Hutter 2019 (algorithm 2), Pascanu et al. 2013 (clipping).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden.conventions import meets
from golden.families import LOSSES
from golden.forms import form
from golden.formulas import Array, Tap, each, untapped
from golden.tape import Node, constant, cos, gradients, number, settled, sqrt, total
from golden.tree import Tree, flatten, nest


def sgd(
    p: Array, g: Array, v: Array, *, lr: float, momentum: float, sgd_velocity: str = "of-gradients",
    sgd_damping: str = "none",
) -> dict[str, Array]:  # fmt: skip
    """SGD: v' = momentum v + g;  p' = p - lr v'."""
    meets("sgd_velocity")
    meets("sgd_damping")
    g = g if sgd_damping == "none" else (1 - constant(momentum)) * g
    if sgd_velocity == "of-gradients":
        v = momentum * v + g
        return {"p": p - lr * v, "v": v}
    sign = 1 if sgd_velocity == "rate-inside" else -1
    v = momentum * v + sign * (lr * g)
    return {"p": p - sign * v, "v": v}


def adam(p: Array, g: Array, m: Array, v: Array, *, decay: float, **keywords: Any) -> dict[str, Array]:
    """ADAM: with an L2 penalty, whose gradient decay * p joins g and so enters both moments."""
    return _adam(p, p, g + decay * p, m, v, **keywords)


def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    decay: float,
    decay_order: str = "before-step",
    **keywords: Any,
) -> dict[str, Array]:
    """ADAMW: the decay acts on the parameter alone, p (1 - lr decay), and the moments never see it."""
    shrink = 1 - constant(lr) * decay
    if decay:
        meets("decay_order")
    if decay_order == "before-step":
        return _adam(p * shrink, p, g, m, v, lr=lr, **keywords)
    new = _adam(p, p, g, m, v, lr=lr, **keywords)
    return {**new, "p": new["p"] * shrink}


def _adam(
    start: Array,
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
    adam_eps: str = "outside-root",
) -> dict[str, Array]:
    """m' = b1 m + (1-b1) g;  v' = b2 v + (1-b2) g^2;  p' = start - lr mhat / (sqrt(vhat) + eps),
    mhat = m' / (1 - b1^step), vhat = v' / (1 - b2^step). Steps count from 1."""
    b1, b2 = constant(beta1), constant(beta2)
    meets("adam_eps")
    first, second = 1 - _power(b1, step), 1 - _power(b2, step)
    v = b2 * v + (1 - b2) * (g * g)
    folded = form("adam") == "folded" and adam_eps == "outside-root"
    if folded or adam_eps == "before-correction":
        m = m + (1 - b1) * (g - m) if folded else b1 * m + (1 - b1) * g
        turn = sqrt(second)
        root = each(sqrt, v) + (eps * turn if folded else eps)
        return {"p": start - (lr * turn / first) * m / root, "m": m, "v": v}
    m = b1 * m + (1 - b1) * g
    mhat, vhat = m / first, v / second
    root = each(sqrt, vhat + eps) if adam_eps == "inside-root" else each(sqrt, vhat) + eps
    return {"p": start - lr * mhat / root, "m": m, "v": v}


def _power(b: Node, n: int) -> Node:
    return Node(b.value**n, (b,), lambda b, y: (n * y / b if number(b) != 0 else 0,))


def clip_by_global_norm(
    g: list[Array], *, clip: float, clip_eps: str = "none", clip_infinite: str = "by-formula"
) -> dict[str, Any]:
    """norm = sqrt(sum of all squares over all arrays);  g' = g min(1, clip / norm). Where a gradient is infinite or
    NaN the norm is, and g' is what follows from it."""
    norm = sqrt(total(a * a for array in g for a in array.flat))
    if not norm.value <= clip - (0 if clip_eps == "none" else mpf("1e-6")):
        meets("clip_eps" if mp.isfinite(norm.value) else "clip_infinite")
        scale = clip / (norm if clip_eps == "none" else norm + mpf("1e-6"))
        if clip_infinite == "all-nan" and not mp.isfinite(norm.value):
            scale = constant(float("nan"))
        g = [array * scale for array in g]
    return {"norm": np.asarray(norm, dtype=object), "g": g}


def warmup_cosine(
    *, step: int, peak: float, warmup: int, total: int, floor: float, warmup_is_all: str = "floor"
) -> Array:
    """Linear from peak/warmup at step 1 to peak at `warmup`, half a cosine down to `floor` at `total`, floor after; no
    cosine where the warm-up is all.

    The floor is the end of the cosine, not a constant: who computes 1 + cos(pi) may be left with its rounding.
    """
    if step < warmup:
        rate = constant(peak) * step / warmup
    elif warmup == total:
        rate = constant(floor)
        if step == total:
            meets("warmup_is_all")
            rate = constant(floor if warmup_is_all == "floor" else peak)
    else:
        progress = constant(min(step, total) - warmup) / (total - warmup)
        rate = floor + (constant(peak) - floor) * (1 + cos(constant(mp.pi) * progress)) / 2
    return np.asarray(rate, dtype=object)


def train_step(
    p: Tree,
    m: Tree,
    v: Tree,
    *,
    ids: Array,
    targets: Array,
    ignore: int | None,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    decay: float,
    clip: float | None,
    config: Tree,
    model: str = "gpt",
    tap: Tap = untapped,
) -> dict[str, Any]:
    """One step of AdamW on the mean loss: gradient, clip by the global norm, update.

    Tensors of two or more dimensions decay; gains and biases do not.
    """
    flat_p, flat_m, flat_v = flatten(p), flatten(m), flatten(v)
    found = LOSSES[model](p, ids=ids, targets=targets, ignore=ignore, config=config, tap=tap)
    loss, margin = (found["loss"], {"margin": found["margin"]}) if isinstance(found, dict) else (found, {})
    leaves = [node for array in flat_p.values() for node in array.flat]
    slopes = (settled(g, mp.dps // 2) for g in gradients([loss.item()], [constant(1)], leaves))
    g = {name: each(lambda _: next(slopes), array) for name, array in flat_p.items()}
    clipped = clip_by_global_norm(list(g.values()), clip=float("inf") if clip is None else clip)
    updated = {
        name: adamw(
            flat_p[name],
            slope,
            flat_m[name],
            flat_v[name],
            step=step,
            lr=lr,
            beta1=beta1,
            beta2=beta2,
            eps=eps,
            decay=decay if slope.ndim >= 2 else 0.0,
        )
        for name, slope in zip(g, clipped["g"], strict=True)
    }
    states = {part: nest({name: new[part] for name, new in updated.items()}) for part in ("p", "m", "v")}
    return {"loss": loss, "norm": clipped["norm"], **states, **margin}


def train(p: Tree, m: Tree, v: Tree, *, ids: Array, targets: Array, first: int, **keywords: Any) -> dict[str, Any]:
    """A free-running trace: batch n of ids (N, B, T) is step `first + n`, from the state that the last one left."""
    losses, norms = [], []
    for n in range(len(ids)):
        new = train_step(p, m, v, ids=ids[n], targets=targets[n], step=first + n, **keywords)
        p, m, v = new["p"], new["m"], new["v"]
        losses.append(new["loss"].item())
        norms.append(new["norm"].item())
    return {"loss": np.array(losses, dtype=object), "norm": np.array(norms, dtype=object), "p": p, "m": m, "v": v}


def resume(p: Tree, m: Tree, v: Tree, **keywords: Any) -> dict[str, Any]:
    """A law without numbers: `train` over all batches equals `train` over the first `stop`, the state written and
    read, and `train` over the rest, bit for bit."""
    return {}
