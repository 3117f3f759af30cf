"""At which step of attention an answer goes wrong that nothing explains: which tensors are right, and the weights and
the score gradient that the others are made of, where these can be told from them.

With no more keys than a value has columns, y = P v has one solution P, and dq = ds k / √D one solution ds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.kernels import flash
from refllm.verify.kernels.screens import Head, Screen
from refllm.verify.sized.pattern import in_words

WORST = 100.0  # condition of the equations that are solved
NEAR, LARGE = 0.02, 1e-3  # how near two weights are that are the same, and what is no rounding of 0
SMALLEST = 2e-4  # of the weights that are compared
FEW = 0.75  # the share of the weights that may be off to say which
MANY = 8  # weights that are compared, at least
SAME = ("attention", "sliding_window_attention", "packed_attention")  # whose weights are a softmax of their scores
OF = {"gradients.q": "ds k", "gradients.k": "dsᵀ q", "gradients.v": "Pᵀ dy"}


def lines_of(case: Case, screen: Screen, given: Mapping[str, Array], wrong: Mapping[str, Array]) -> Iterator[str]:
    if case.operation not in SAME or screen.asked is None:
        return
    with numpy.errstate(all="ignore"):
        if screen.name in wrong:
            head = screen.of_values[0]
            yield from _of_weights("the weights", _solved(given[screen.name][head.index], head.arrays[2]), head)
            return
        yield from _of_gradients(case, screen, given, wrong)


def _of_gradients(case: Case, screen: Screen, given: Mapping[str, Array], wrong: Mapping[str, Array]) -> Iterator[str]:
    off = [name for name in OF if name in wrong]
    if len(off) == 1 and all(name in given for name in OF):
        yield f"y and the other gradients are right, so that the product {OF[off[0]]} alone can be wrong"
        return
    if off == ["gradients.q", "gradients.k"]:
        yield "y and the gradient of v are right: the weights P are, the score gradient ds = P (dP - Σ dy y) is not"
    head = screen.of_gradients[0]
    dy = next(iter(case.cotangents.values()))[head.index].astype("float64")
    if "gradients.v" in wrong:
        P = _solved(given["gradients.v"][head.index], dy)
        yield from _of_weights("the weights of the gradient", None if P is None else P.T, head)
    elif "gradients.q" in wrong:
        ds = _solved(given["gradients.q"][head.index] * math.sqrt(head.arrays[0].shape[-1]), head.arrays[1])
        if ds is not None:
            yield from _of_score_gradient(ds, head, dy)


def _solved(y: Array, v: Array) -> Array | None:
    """P of y = P v; None if it is not certain."""
    if v.shape[0] > v.shape[1] or not v.size or not numpy.isfinite(y).all() or not numpy.isfinite(v).all():
        return None
    if numpy.linalg.cond(v.astype("float64")) > WORST:
        return None
    found: Array = y.astype("float64") @ numpy.linalg.pinv(v.astype("float64"))
    return found


def _weights(head: Head) -> Array:
    q, k, _ = head.arrays
    s = flash.scores(q, k, slice(0, q.shape[0]), slice(0, k.shape[0]), *head.how)
    top = s.max(axis=-1, keepdims=True)
    e = numpy.exp(s - numpy.where(numpy.isinf(top), 0, top))
    Z = e.sum(axis=-1, keepdims=True)
    P: Array = e / numpy.where(Z == 0, 1, Z)
    return P


def _of_weights(what: str, found: Array | None, head: Head) -> Iterator[str]:
    """In what weights differ from the right ones."""
    if found is None:
        return
    P = _weights(head)
    forbidden = (P == 0) & (abs(found) > LARGE)
    if forbidden.any():
        t, s = (int(i) for i in numpy.argwhere(forbidden)[0])
        more = f" ({forbidden.sum():,} such places)" if forbidden.sum() > 1 else ""
        yield f"{what} are not 0 where a mask forbids: query {t:,} attends key {s:,}{more}"
        return
    told = P > SMALLEST
    ratio = numpy.where(told, found / numpy.where(told, P, 1), numpy.nan)
    middle = numpy.nanmedian(numpy.where(told.any(axis=-1, keepdims=True), ratio, 1), axis=-1, keepdims=True)
    off, far = told & (abs(ratio - middle) > NEAR * abs(middle)), abs(middle[:, 0] - 1) > NEAR
    if told.sum() < MANY:
        return
    if not off.any() and far.any():
        low, high = float(middle[far].min()), float(middle[far].max())
        rows = in_words(numpy.broadcast_to(far[:, None], P.shape), ["query", "key"])
        yield (
            f"{what} are right but for a factor of their query ({low:.4g} to {high:.4g}{', ' + rows if rows else ''}):"
            " the sum that they are divided by is wrong, or how it is rescaled"
        )
        return
    off = told & (abs(ratio - 1) > NEAR)
    if 0 < off.sum() <= FEW * told.sum():
        e = P / P.max(axis=-1, keepdims=True, initial=SMALLEST)
        rest = e[told & ~off]
        rows = in_words(off, ["row", "column"])
        where = f": {rows} (rows are queries, columns keys)" if rows else ""
        if rest.size and e[off].max() < rest.min():
            where = f": those whose exponential e^(s - max) is below {rest.min():.2g}, and no others"
        yield f"{what} are wrong in {off.sum():,} of {told.sum():,} places{where}"


def _of_score_gradient(ds: Array, head: Head, dy: Array) -> Iterator[str]:
    """In what a score gradient differs from P (dP - Σ dy y)."""
    P, v = _weights(head), head.arrays[2]
    dP = dy @ v.T
    told = P > 10 * LARGE
    delta = numpy.where(told, dP - ds / numpy.where(told, P, 1), numpy.nan)
    right = (P * dP).sum(axis=-1)
    rows = told.sum(axis=-1) > 1
    if told.sum() < MANY or not rows.any():
        return
    spread = numpy.nanmax(delta[rows], axis=-1) - numpy.nanmin(delta[rows], axis=-1)
    size = float(abs(right[rows]).mean()) + 1e-30
    if (spread < NEAR * size).all():
        ratio = numpy.nanmedian(delta[rows], axis=-1) / right[rows]
        alike = ratio.max() - ratio.min() < NEAR * abs(ratio).max()
        times = f" ({ratio[0]:.4g} times the right one)" if alike else ""
        yield f"of ds the sum Σ dy y of the queries alone is wrong{times}"
        return
    true = P * (dP - right[:, None])
    clear = abs(true) > NEAR * abs(true).max()
    factors = ds[clear] / true[clear]
    if clear.sum() >= MANY and factors.max() - factors.min() < NEAR * abs(factors).max():
        yield f"ds is {numpy.median(factors):.6g} times the right one"
    elif clear.sum() >= MANY:
        off = clear & (abs(ds - true) > NEAR * abs(true))
        clause = in_words(off, ["row", "column"])
        if clause and off.sum() <= FEW * clear.sum():
            yield f"ds is wrong in {off.sum():,} of {clear.sum():,} places: {clause} (rows are queries, columns keys)"
