"""A sum of the text that is taken of some of its numbers, or read before it is whole, is named by its line; so are
branches, shares of a batch, old numbers behind the end of a tile, merged statistics and rows of another length.

The kernels here were written for these tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.kernels import branches, partial_sums
from refllm.verify.kernels.in_text import InText
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def chunks(n: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


@wrong("softmax", "takes sum(p * dp) without the places after whole parts of 4 (softmax/sum-tail-lost)")
def dot_in_vectors_of_four(x: Array) -> Any:
    p, _ = TEXT["softmax"](x)
    whole = x.shape[-1] // 4 * 4
    return p, lambda dy: p * (dy - (p * dy)[..., :whole].sum(axis=-1, keepdims=True))


@wrong("softmax", "takes sum(p * dp) as far as it has come in chunks of 16 places")
def dot_that_is_not_whole(x: Array) -> Any:
    p, _ = TEXT["softmax"](x)

    def back(dy: Array) -> Array:
        dx, dot = numpy.zeros_like(x), numpy.zeros((*x.shape[:-1], 1), x.dtype)
        for here in chunks(x.shape[-1], 16):
            dot += (p * dy)[..., here].sum(axis=-1, keepdims=True)
            dx[..., here] = p[..., here] * (dy[..., here] - dot)
        return dx

    return p, back


@wrong("layer_norm", "takes mean(dn) and mean(dn * n) without the places after whole parts of 16")
def means_in_lanes_of_sixteen(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    y, back = TEXT["layer_norm"](x, g, b, eps=eps)
    N = max(x.shape[-1], 1)
    c = x - x.mean(axis=-1, keepdims=True, dtype="float64")
    r = 1 / numpy.sqrt((c * c).mean(axis=-1, keepdims=True) + eps)
    n, whole = c * r, x.shape[-1] // 16 * 16

    def lanes_back(dy: Array) -> Any:
        dn = (dy * g).astype("float64")
        first, second = (z[..., :whole].sum(axis=-1, keepdims=True) / N for z in (dn, dn * n))
        return (r * (dn - first - n * second)).astype(x.dtype), *back(dy)[1:]

    return y, lanes_back


@wrong(
    "rms_norm", "takes mean(dn * n) with the numbers of the part before behind the end of its last, partial part of 8"
)
def old_lanes_behind_the_end(x: Array, g: Array, *, eps: float) -> Any:
    y, back = TEXT["rms_norm"](x, g, eps=eps)
    N = x.shape[-1]
    r = 1 / numpy.sqrt((x.astype("float64") ** 2).mean(axis=-1, keepdims=True) + eps)

    def old_back(dy: Array) -> Any:
        n, dn = x * r, (dy * g).astype("float64")
        lanes = numpy.zeros((*x.shape[:-1], 8))
        total = numpy.zeros((*x.shape[:-1], 1))
        for here in chunks(N, 8):
            lanes[..., : here.stop - here.start] = (n * dn)[..., here]
            total += lanes.sum(axis=-1, keepdims=True)
        return (r * (dn - n * total / N)).astype(x.dtype), back(dy)[1]

    return y, old_back


@wrong("layer_norm", "whose value and gradient are divided by the length rounded up to 128")
def divided_by_padded_rows(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    N = -(-x.shape[-1] // 128) * 128 or 1

    def mean(z: Array) -> Any:
        return z.sum(axis=-1, keepdims=True, dtype="float64") / N

    c = x - mean(x)
    r = 1 / numpy.sqrt(mean(c * c) + eps)
    n = c * r

    def padded_back(dy: Array) -> Any:
        dn = dy * g
        dx = r * (dn - mean(dn) - n * mean(dn * n))
        dg, db = ((z).reshape(-1, len(g)).sum(axis=0) for z in (dy * n, dy))
        return tuple(z.astype(x.dtype) for z in (dx, dg, db))

    return (n * g + b).astype(x.dtype), padded_back


@wrong("layer_norm", "whose mean the last, partial one counts as a whole one; the squares are right, with blocks of 32")
def mean_of_the_means_beside_true_squares(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    z = x.astype("float64")
    mean = sum(z[..., here].mean(axis=-1, keepdims=True) for here in chunks(x.shape[-1], 32))
    mean = mean / max(1, -(-x.shape[-1] // 32))
    return ((z - mean) / numpy.sqrt(z.var(axis=-1, keepdims=True) + eps) * g + b).astype(x.dtype)


@wrong("layer_norm", "with the distance from the mean that the block is already in, with blocks of 64")
def distance_after_the_mean_has_moved(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    z, count, mean, squares = x.astype("float64"), 0, 0.0, 0.0
    for here in chunks(x.shape[-1], 64):
        part = z[..., here]
        n, own = part.shape[-1], part.mean(axis=-1, keepdims=True)
        mean = mean + (own - mean) * n / (count + n)
        squares = squares + part.var(axis=-1, keepdims=True) * n + (own - mean) ** 2 * count * n / (count + n)
        count += n
    return ((z - mean) / numpy.sqrt(squares / max(count, 1) + eps) * g + b).astype(x.dtype)


@wrong("matmul", "3 tiles of K in shared memory in turn, whose last, partial one still holds the numbers of 3 tiles")
def three_stages(x: Array, W: Array) -> Any:
    K = len(W)
    y = x @ W
    if K % 16 and K // 16 >= 3:
        old = slice((K // 16 - 3) * 16 + K % 16, (K // 16 - 2) * 16)
        y = y + x[..., old] @ W[old]
    return y


@wrong("rotary_interleaved", "each is that before turned once more, in float32 (rotary_halves/recurrence-in-")
def turned_step_by_step(x: Array, *, positions: Array, base: float) -> Any:
    D = x.shape[-1]
    frequencies = base ** (-numpy.arange(0, D, 2) / D)
    turn = numpy.exp(1j * frequencies).astype("complex64")
    z = numpy.exp(1j * positions[:, None] * frequencies).astype("complex64")
    for t in range(1, len(positions)):
        z[t] = z[t - 1] * turn if positions[t] == positions[t - 1] + 1 else z[t]
    y = numpy.empty_like(x)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * z
    y[..., 0::2], y[..., 1::2] = turned.real, turned.imag
    return y


@wrong("normed_attention", "whose gradients are those of the last matrix of rows alone")
def gain_of_the_last_head(*arrays: Array, **how: Any) -> Any:
    y, back = TEXT["normed_attention"](*arrays, **how)

    def last_back(dy: Array) -> Any:
        last = numpy.zeros_like(dy)
        last[(-1,) * (dy.ndim - 2)] = dy[(-1,) * (dy.ndim - 2)]
        return *back(dy)[:3], *back(last)[3:]

    return y, last_back


@wrong("sink_attention", "whose gradients are those of the first index of the first axis alone")
def sink_of_the_first_text(*arrays: Array, **how: Any) -> Any:
    y, back = TEXT["sink_attention"](*arrays, **how)

    def first_back(dy: Array) -> Any:
        first = numpy.zeros_like(dy)
        first[0] = dy[0]
        return *back(dy)[:3], back(first)[3]

    return y, first_back


@wrong(
    "attention", "whose mask has rows that are padded to multiples of 16, and is read as if nothing were between them"
)
def mask_packed_by_row(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    if allowed is not None:
        bits = numpy.pad(allowed, [(0, 0)] * (allowed.ndim - 1) + [(0, -allowed.shape[-1] % 16)])
        allowed = bits.reshape(-1)[: allowed.size].reshape(allowed.shape)
    return TEXT["attention"](q, k, v, causal=causal, allowed=allowed)


@wrong("dropout", "whose mask is read as if it had rows that are padded to multiples of 32, in the gradient alone")
def mask_read_in_words(x: Array, *, keep: Array, rate: float) -> Any:
    def words_back(dy: Array) -> Array:
        if keep.ndim < 2:
            return dy * keep / (1 - rate)
        n = keep.shape[-1]
        stride = -(-n // 32) * 32
        stream = numpy.append(keep.reshape(-1), numpy.zeros(keep.size // n * stride, bool))
        read = stream[numpy.arange(keep.size // n)[:, None] * stride + numpy.arange(n)]
        dx: Array = dy * read.reshape(dy.shape) / (1 - rate)
        return dx

    return TEXT["dropout"](x, keep=keep, rate=rate)[0], words_back


@wrong("rnn", "takes dz[t] @ Wh.T where dh should stand (by token_mask)")
def state_gradient_of_missing_tokens(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None) -> Any:
    y, _ = TEXT["rnn"](x, h, Wx, Wh, b, valid=valid)

    def missing_back(dy: Array) -> Any:
        dh, found = numpy.zeros_like(h), [numpy.zeros_like(z) for z in (x, Wx, Wh, b)]
        for t in reversed(range(x.shape[1])):
            before, there = (
                y[:, t - 1] if t else h,
                numpy.ones((len(h), 1), bool) if valid is None else valid[:, t, None],
            )
            dz = numpy.where(there, (dh + dy[:, t]) * (1 - y[:, t] ** 2), 0)
            dh, found[0][:, t] = dz @ Wh.T, dz @ Wx.T
            for total, own in zip(found[1:], (x[:, t].T @ dz, before.T @ dz, dz.sum(axis=0)), strict=True):
                total += own
        return found[0], dh, *found[1:]

    return y, missing_back


@wrong(
    "top_experts",
    "k rounds, each of which chooses all that share the largest number left (top_experts/ties-of-each-round)",
)
def all_of_a_round(scores: Array, *, k: int, renormalise: bool) -> Any:
    rows = scores.reshape(-1, scores.shape[-1])
    ranks = numpy.stack([numpy.searchsorted(-numpy.unique(row)[::-1], -row) for row in rows])
    p = TEXT["softmax"](scores)[0] * (ranks.reshape(scores.shape) < k)
    return p / p.sum(axis=-1, keepdims=True) if renormalise else p


@wrong("top_experts", "k rounds, each of which leaves out all that are equal to the one that it chooses")
def ties_that_go_with_the_chosen(scores: Array, *, k: int, renormalise: bool) -> Any:
    left, chosen = scores.copy(), numpy.zeros(scores.shape, bool)
    for _ in range(k):
        best = left.max(axis=-1, keepdims=True)
        first = numpy.argmax(left, axis=-1)[..., None]
        numpy.put_along_axis(chosen, first, numpy.isfinite(best), axis=-1)
        left[left == best] = -numpy.inf
    p = TEXT["softmax"](scores)[0] * chosen
    return p / p.sum(axis=-1, keepdims=True) if renormalise else p


@wrong("sink_attention", "a sink that is divided by √d_k like the scores (SINK/scaled)")
def sink_beside_the_scores(q: Array, k: Array, v: Array, sink: Array, **how: Any) -> Any:
    y, _ = TEXT["sink_attention"](q, k, v, sink / numpy.sqrt(numpy.float32(q.shape[-1])), **how)
    return y


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", list(KERNELS))
def test_a_kind_of_mistake_is_named_first(name: str) -> None:
    KERNELS.is_named_first(name)


OF_TEXT: dict[str, Callable[[str], Any]] = {
    "sums": partial_sums.partial_sums,
    "sums of gradients": partial_sums.partial_sums_of_gradients,
    "branches": branches.branches,
    "branches of gradients": branches.branches_of_gradients,
}


@pytest.mark.parametrize("kind", OF_TEXT)
@pytest.mark.parametrize("operation", ["softmax", "layer_norm", "lstm", "smoothed_cross_entropy", "attention_with_lse"])
def test_every_edit_is_python_and_has_words_of_its_own(operation: str, kind: str) -> None:
    found: list[InText] = list(OF_TEXT[kind](operation))
    assert all(cause.edit.function() is not None for cause in found), operation
    assert all(cause.gradients_alone is kind.endswith("gradients") for cause in found)
    assert len({cause.about for cause in found}) == len(found)
    assert all(cause.about.startswith(f"{operation} ") for cause in found)


def test_every_sum_and_mean_of_a_norm_is_edited() -> None:
    words = " ".join(cause.about for cause in partial_sums.partial_sums_of_gradients("layer_norm"))
    assert all(f"takes {of} " in words for of in ("mean(dn)", "mean(dn * n)", "mean(dn) and mean(dn * n)"))
