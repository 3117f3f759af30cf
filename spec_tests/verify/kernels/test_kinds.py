"""Kinds of mistakes that have a parameter, or hold on one path alone: they are named with it, and nothing else is.

The kernels here were written for these tests; none is a row of the bank.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.kernels.machine import narrow
from spec_tests.verify.kernels.noted import Noted
from spec_tests.verify.kernels.test_diagnosis import told

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


@wrong("matmul", "takes x @ W without the terms after whole parts of 16 (matmul/product-tail-lost)")
def vectors_of_sixteen(x: Array, W: Array) -> Any:
    K = len(W) // 16 * 16
    return x[..., :K] @ W[:K]


@wrong("linear", "partial tile of columns (linear/bias-not-in-last-tile), the columns after the last whole tile of 8")
def bias_by_vectors_of_eight(x: Array, W: Array, b: Array) -> Any:
    y = x @ W
    y[..., : len(b) // 8 * 8] += b[: len(b) // 8 * 8]
    return y


@wrong("linear", "whose bias counts 3 times (linear/bias-counts-again), in the cases where I > 512")
def bias_in_every_split(x: Array, W: Array, b: Array) -> Any:
    return x @ W + (3 * b if len(W) > 1000 else b)


@wrong("softmax", "over the first 512 places of N alone")
def softmax_of_half_a_block(x: Array) -> Any:
    y = numpy.zeros_like(x)
    y[..., :512] = TEXT["softmax"](x[..., :512])[0]
    return y


@wrong("rms_norm", "by the width rounded up to 128")
def mean_over_padding(x: Array, g: Array, *, eps: float) -> Any:
    width = -(-x.shape[-1] // 128) * 128
    return (x / numpy.sqrt((x * x).sum(-1, keepdims=True) / width + eps) * g).astype(x.dtype)


@wrong("gelu_tanh", "whose √(2/π) is 0.798 ")
def constant_of_three_digits(x: Array) -> Any:
    return (0.5 * x * (1 + numpy.tanh(0.798 * (x + 0.044715 * x**3)))).astype(x.dtype)


@wrong("gelu_tanh", "which is NaN for large z")
def tanh_of_powers_in_float32(x: Array) -> Any:
    z = numpy.sqrt(numpy.float32(2 / numpy.pi)) * (x + numpy.float32(0.044715) * x**3)
    with numpy.errstate(all="ignore"):
        e = numpy.exp(2 * z)
        overflows = numpy.isnan((e - 1) / (e + 1))
    return numpy.where(overflows, numpy.nan, TEXT["gelu_tanh"](x)[0]).astype(x.dtype)


@wrong("layer_norm", "as those of a whole one, with blocks of 64 ")
def blocks_of_64_merged(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    N = x.shape[-1]
    count, mean, squares = 0, 0.0, 0.0
    for first in range(0, N, 64):
        part, whole = x[..., first : first + 64].astype(float), min(64, N)
        off = part.mean(-1, keepdims=True) - mean
        squares = squares + part.var(-1, keepdims=True) * part.shape[-1] + off**2 * count * whole / (count + whole)
        mean, count = mean + off * whole / (count + whole), count + whole
    return ((x - mean) / numpy.sqrt(squares / max(N, 1) + eps) * g + b).astype(x.dtype)


@wrong("layer_norm", "that adds eps to the sum before it is divided by the width (layer_norm/eps-in-sum)")
def eps_in_the_sum(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    """Hardly more than is allowed where the numbers are large."""
    c = x.astype("float64") - x.mean(axis=-1, keepdims=True, dtype="float64")
    N = max(1, x.shape[-1])
    return (c / numpy.sqrt(((c * c).sum(axis=-1, keepdims=True) + eps) / N) * g + b).astype(x.dtype)


@wrong("clip_by_global_norm", "after its last whole block, with blocks of 512 (clip_by_global_norm/tail-lost)")
def norm_of_whole_blocks(g: list[Array], *, clip: float) -> Any:
    kept = [x.reshape(-1)[: x.size // 512 * 512].astype(float) for x in g]
    norm = numpy.sqrt(sum((x * x).sum() for x in kept))
    scale = clip / norm if norm > clip else 1.0
    return numpy.asarray(norm, g[0].dtype), [(x * scale).astype(x.dtype) for x in g]


@wrong("clip_by_global_norm", "a norm without the first array (clip_by_global_norm/first-array-lost)")
def norm_of_the_others(g: list[Array], *, clip: float) -> Any:
    norm = numpy.sqrt(sum((x.astype(float) ** 2).sum() for x in (g[1:] or g)))
    scale = clip / norm if norm > clip else 1.0
    return numpy.asarray(norm, g[0].dtype), [(x * scale).astype(x.dtype) for x in g]


@wrong("dropout", "that keeps 1 - rate in 16 bits (dropout/kept-in-16-bits)")
def scale_of_16_bits(x: Array, *, keep: Array, rate: float) -> Any:
    return TEXT["dropout"](x, keep=keep, rate=1 - int((1 - rate) * 65536) / 65536)


@wrong("silu", "a function of the number alone")
def exponential_of_my_own(x: Array) -> Any:
    n = -x * numpy.log2(numpy.e)
    f = n - numpy.floor(n)
    return (x / (1 + numpy.exp2(numpy.floor(n)) * (1 + f * (0.65 + 0.35 * f)))).astype(x.dtype)


@wrong("rnn", "in chunks of 32 steps, each of which begins with a state of zeros")
def chunks_of_steps(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None) -> Any:
    parts = []
    for first in range(0, x.shape[1], 32):
        there = None if valid is None else valid[:, first : first + 32]
        parts.append(TEXT["rnn"](x[:, first : first + 32], h if not first else 0 * h, Wx, Wh, b, valid=there)[0])
    return numpy.concatenate(parts, axis=1)


@wrong("matmul", "every second row")
def odd_rows_of_half(x: Array, W: Array) -> Any:
    y, K = x @ W, len(W) // 2
    y[..., 1::2, :] = x[..., 1::2, :K] @ W[:K]
    return y


@wrong("matmul", "accumulators are bfloat16, with tiles of 64")
def stored_between_tiles(x: Array, W: Array) -> Any:
    y = numpy.zeros((*x.shape[:-1], W.shape[1]), x.dtype)
    for first in range(0, len(W), 64):
        y = narrow(y + x[..., first : first + 64] @ W[first : first + 64], "bfloat16")
    return y


@wrong("matmul", "in slices of 256 terms, whose sums are float16 before they are added (matmul/slices-in-float16)")
def slices_in_half(x: Array, W: Array) -> Any:
    if len(W) <= 256:
        return x @ W
    parts = [x[..., n : n + 256] @ W[n : n + 256] for n in range(0, len(W), 256)]
    return sum((part.astype("float16") for part in parts), start=numpy.zeros((), x.dtype)).astype(x.dtype)


@wrong("log_softmax", "whose exp is rounded to bfloat16 (log_softmax/exp-in-bfloat16)")
def exponentials_of_few_bits(x: Array) -> Any:
    c = x.astype("float64") - x.max(axis=-1, keepdims=True)
    c = numpy.where(numpy.isnan(c), -numpy.inf, c)
    Z = narrow(numpy.exp(c), "bfloat16").sum(axis=-1, keepdims=True)
    return (c - numpy.log(numpy.where(Z == 0, 1, Z))).astype(x.dtype)


@wrong("rms_norm", "whose sqrt is rounded to float16 (rms_norm/sqrt-in-float16)")
def fast_root(x: Array, g: Array, *, eps: float) -> Any:
    z = x.astype("float64")
    return (z / narrow(numpy.sqrt((z * z).mean(axis=-1, keepdims=True) + eps), "float16") * g).astype(x.dtype)


@wrong(
    "layer_norm",
    "in which db is added up in the first block alone, with tiles of 32",
)
def buffer_of_rows(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    y, back = TEXT["layer_norm"](x, g, b, eps=eps)

    def buffer_of_rows_back(dy: Array) -> Any:
        dx, dg, _ = back(dy)
        return dx, dg, dy.reshape(-1, dy.shape[-1])[:32].sum(axis=0)

    return y, buffer_of_rows_back


@wrong("gated_feed_forward", "in whose gradient a stands where h did, which was overwritten")
def product_in_place(x: Array, p: Any, *, activation: str) -> Any:
    g, h = x @ p["Wg"], x @ p["W1"]
    f, activation_back = TEXT[activation](g)
    h *= f

    def product_in_place_back(dy: Array) -> Any:
        da, dW2 = dy @ p["W2"].T, h.reshape(-1, h.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])
        dg, dh, rows = activation_back(da * h), da * f, x.reshape(-1, x.shape[-1]).T
        dWg, dW1 = rows @ dg.reshape(-1, dg.shape[-1]), rows @ dh.reshape(-1, dh.shape[-1])
        return dg @ p["Wg"].T + dh @ p["W1"].T, {"Wg": dWg, "W1": dW1, "W2": dW2}

    return h @ p["W2"], product_in_place_back


@wrong("normed_attention", "in whose gradient g * n stands where n did, which was overwritten (of rms_norm)")
def normed_in_place(q: Array, k: Array, v: Array, gq: Array, gk: Array, *, eps: float, **how: Any) -> Any:
    """The rows take the gain in the buffer of the normalised ones."""
    made = [(x, g, 1 / numpy.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)) for x, g in ((q, gq), (k, gk))]
    rows = [x * r * g for x, g, r in made]
    y, attention_back = TEXT["attention"](*rows, v, **how)

    def normed_in_place_back(dy: Array) -> Any:
        *given, dv = attention_back(dy)
        found = []
        for (_, g, r), n, d in zip(made, rows, given, strict=True):
            dn = d * g
            found.append(
                (r * (dn - n * (dn * n).mean(axis=-1, keepdims=True)), (d * n).reshape(-1, len(g)).sum(axis=0))
            )
        (dq, dgq), (dk, dgk) = found
        return dq, dk, dv, dgq, dgk

    return y, normed_in_place_back


@wrong("dropout", "whose mask is read with the bits of each byte in the reverse order, in the gradient alone")
def mask_of_two_orders(x: Array, *, keep: Array, rate: float) -> Any:
    bits = numpy.packbits(keep.reshape(-1))

    def mask_of_two_orders_back(dy: Array) -> Array:
        kept = numpy.unpackbits(bits, bitorder="little")[: dy.size].reshape(dy.shape)
        return dy * kept / (1 - rate)

    return TEXT["dropout"](x, keep=keep, rate=rate)[0], mask_of_two_orders_back


@wrong("attention", "whose mask is read with the bits of each 32 in the reverse order, row by row (")
def mask_of_words(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    if allowed is not None:
        S = allowed.shape[-1]
        words = numpy.pad(allowed, [(0, 0)] * (allowed.ndim - 1) + [(0, -S % 32)]).reshape(*allowed.shape[:-1], -1, 32)
        allowed = words[..., ::-1].reshape(*allowed.shape[:-1], -1)[..., :S]
    return TEXT["attention"](q, k, v, causal=causal, allowed=allowed)


@wrong("smoothed_cross_entropy", "spread over the other V - 1 labels, in the gradient alone")
def smoothing_of_others(logits: Array, *, targets: Array, smoothing: float, **how: Any) -> Any:
    V = logits.shape[-1]
    y, _ = TEXT["smoothed_cross_entropy"](logits, targets=targets, smoothing=smoothing, **how)
    _, back = TEXT["smoothed_cross_entropy"](logits, targets=targets, smoothing=smoothing * V / (V - 1), **how)
    return y, back


@wrong("packed_attention", "whose causal masks are all moved by the longest keys less the longest queries")
def offset_of_the_batch(q: Array, k: Array, v: Array, *, borders: Array, key_borders: Array, causal: bool) -> Any:
    allowed = numpy.zeros((q.shape[-2], k.shape[-2]), bool)
    more = int(numpy.diff(key_borders).max() - numpy.diff(borders).max())
    for first, end, key_first, key_end in zip(borders, borders[1:], key_borders, key_borders[1:], strict=False):
        shape = end - first, key_end - key_first
        allowed[first:end, key_first:key_end] = numpy.tri(*shape, more, dtype=bool) if causal else True
    return TEXT["attention"](q, k, v, causal=False, allowed=allowed)


@wrong("softmax", "that rescales what it has written in the block before alone, not in all before, with blocks of 64")
def exponentials_kept_in_one_pass(x: Array) -> Any:
    y, top, Z = numpy.zeros(x.shape), numpy.full((*x.shape[:-1], 1), -numpy.inf), numpy.zeros((*x.shape[:-1], 1))
    for first in range(0, x.shape[-1], 64):
        here, before = slice(first, first + 64), slice(max(first - 64, 0), first)
        new = numpy.maximum(top, x[..., here].max(axis=-1, keepdims=True))
        shift = numpy.where(numpy.isinf(new), 0, new)
        y[..., here], fade = numpy.exp(x[..., here] - shift), numpy.exp(top - shift)
        y[..., before] *= fade
        Z, top = Z * fade + y[..., here].sum(axis=-1, keepdims=True), new
    return (y / numpy.where(Z == 0, 1, Z)).astype(x.dtype)


@wrong("log_softmax", "whose 4 lanes, every fourth column each, add their sums without their maxima")
def lanes_without_their_maxima(x: Array) -> Any:
    top, Z = x.max(axis=-1, keepdims=True), 0.0
    shift = numpy.where(numpy.isinf(top), 0, top)
    for lane in range(4):
        own = x[..., lane::4].max(axis=-1, keepdims=True, initial=-numpy.inf)
        own = numpy.where(numpy.isinf(own), 0, own)
        Z = Z + numpy.exp(x[..., lane::4].astype("float64") - own).sum(axis=-1, keepdims=True)
    return (x - shift - numpy.log(numpy.where(Z == 0, 1, Z))).astype(x.dtype)


@wrong("cross_entropy", "`index <= columns.stop` stands for `index < columns.stop`, with blocks of 32")
def targets_at_borders_of_chunks(logits: Array, *, targets: Array, **how: Any) -> Any:
    losses = TEXT["cross_entropy"](logits, targets=targets, ignore=how["ignore"], reduction="none")[0]
    V = logits.shape[-1]
    border = (targets % 32 == 0) & (targets > 0) & (targets < V)
    before = numpy.take_along_axis(logits, numpy.maximum(targets - 1, 0)[..., None], axis=-1)[..., 0]
    losses = losses - numpy.where(border, before, 0)
    counted = numpy.ones(targets.shape, bool) if how["ignore"] is None else targets != how["ignore"]
    losses = numpy.where(counted, losses, 0)
    if how["reduction"] == "none":
        return losses.astype(logits.dtype)
    y = losses.sum() / (max(1, counted.sum()) if how["reduction"] == "mean" else 1)
    return numpy.asarray(y, logits.dtype)


@wrong("gru_reset_after", "whose gradient loses dh at the borders of chunks of 8 steps, from the last step on")
def chunks_of_the_way_back(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, c: Array, *, valid: Array | None) -> Any:
    """Each chunk is differentiated by itself; nothing enters it from the one after."""
    state, parts, T = h, [], x.shape[1]
    borders = [0, *[n for n in range(1, T) if (T - n) % 8 == 0], T]
    for first, last in itertools.pairwise(borders):
        there = None if valid is None else valid[:, first:last]
        y, back = TEXT["gru_reset_after"](x[:, first:last], state, Wx, Wh, b, c, valid=there)
        parts.append((first, last, y, back))
        state = y[:, -1]

    def chunks_of_the_way_back_back(dy: Array) -> Any:
        found = [back(dy[:, first:last]) for first, last, _, back in parts]
        dx = numpy.concatenate([each[0] for each in found], axis=1)
        return dx, found[0][1], *(sum(each[n] for each in found) for n in range(2, 6))

    return numpy.concatenate([y for _, _, y, _ in parts], axis=1), chunks_of_the_way_back_back


@wrong("sink_attention", "whose sink counts once for each tile of 16 keys")
def sink_in_each_split(q: Array, k: Array, v: Array, sink: Array, *, causal: bool, allowed: Array | None) -> Any:
    more = numpy.log(-(-k.shape[-2] // 16))
    return TEXT["sink_attention"](q, k, v, sink + more.astype(q.dtype), causal=causal, allowed=allowed)


@wrong("rms_norm", "in which dg is added up in every second block")
def gain_of_every_second_block(x: Array, g: Array, *, eps: float) -> Any:
    y, back = TEXT["rms_norm"](x, g, eps=eps)

    def gain_of_every_second_block_back(dy: Array) -> Any:
        some = dy.reshape(-1, dy.shape[-1]).copy()
        some[numpy.arange(len(some)) // 32 % 2 == 1] = 0
        return back(dy)[0], back(some.reshape(dy.shape))[1]

    return y, gain_of_every_second_block_back


@wrong("relative_attention", "whose gradients are added up over the last part of 64 places of T alone")
def bias_gradient_of_the_last_tile(q: Array, k: Array, v: Array, r: Array, **how: Any) -> Any:
    """Each tile of queries overwrites the distances that it has: where there are few keys, not all."""
    y, back = TEXT["relative_attention"](q, k, v, r, **how)
    T, S = q.shape[-2], k.shape[-2]
    begin = (T - 1) // 64 * 64

    def bias_gradient_of_the_last_tile_back(dy: Array) -> Any:
        *others, dr = back(dy)
        last = numpy.zeros_like(dy)
        last[..., begin:, :] = dy[..., begin:, :]
        touched = slice(0, T - 1 - begin + S)
        dr[:, touched] = back(last)[3][:, touched]
        return *others, dr

    return y, bias_gradient_of_the_last_tile_back


@wrong("softmax", "in whose gradient dp stands where p did, which was overwritten")
def gradient_in_place(x: Array) -> Any:
    y, _ = TEXT["softmax"](x)

    def gradient_in_place_back(dp: Array) -> Any:
        return dp * (dp - (dp * dp).sum(axis=-1, keepdims=True))

    return y, gradient_in_place_back


@pytest.mark.one_in(10)
@pytest.mark.parametrize("name", list(KERNELS))
def test_a_kind_of_mistake_is_named_with_its_parameter(name: str) -> None:
    KERNELS.is_named(name)


@wrong("adamw", "")
def far_off_late(p: Array, g: Array, m: Array, v: Array, *, step: int, **how: Any) -> Any:
    new, *moments = TEXT["adamw"](p, g, m, v, step=step, **how)
    return (new + (new - p) * 0.37 * (step > 50), *moments)


@wrong("cross_entropy", "")
def sometimes_off(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Any:
    y = TEXT["cross_entropy"](logits, targets=targets, ignore=ignore, reduction=reduction)[0]
    return numpy.asarray(y * (1.0437 if logits.shape[-1] > 100 else 1), logits.dtype)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", [name for name, (_, _, said) in KERNELS.items() if not said])
def test_numbers_that_are_far_off_are_no_lost_digits(name: str) -> None:
    found = KERNELS.found(name)
    assert found
    assert [line for result in found for line in result.diagnosis if isinstance(line, Explanation)] == []


@pytest.mark.every
def test_digits_that_are_lost_at_random_have_no_cause_and_so_many_bits() -> None:
    """Roundings as large as those of float16, at places where no known mistake rounds."""

    def softmax(x: Array) -> Any:
        y = TEXT["softmax"](x.astype("float64"))[0]
        generator, half = numpy.random.default_rng(y.size), 0.75 * 2.0**-11
        return (y * (1 + generator.uniform(-half, half, y.shape))).astype("float32")

    found = told(Functions("noisy", {"softmax": softmax}, {}, ("float64", "float32")), "softmax", "float32", seconds=5)
    lines = [line for result in found for line in result.diagnosis]
    assert [line for line in lines if isinstance(line, Explanation)] == []
    assert any("loses digits as numbers of about 11 bits do (float16, tf32)" in line for line in lines), lines


@pytest.mark.every
def test_errors_that_are_of_another_size_in_each_case_are_no_lost_digits() -> None:
    """Terms are lost whose share of a sum depends on its length."""

    def matmul(x: Array, W: Array) -> Any:
        kept = numpy.arange(len(W)) % 37 != 5
        return TEXT["matmul"](x * kept, W)

    found = told(Functions("thinned", {"matmul": matmul}, {}, ("float64", "float32")), "matmul", "float32", seconds=5)
    assert any("no known mistake" in line for result in found for line in result.diagnosis)
    assert not any("loses digits" in line for result in found for line in result.diagnosis)


@pytest.mark.every
def test_a_scalar_in_single_precision_is_named_in_double() -> None:
    def rms_norm(x: Array, g: Array, *, eps: float) -> Any:
        return TEXT["rms_norm"](x, g, eps=float(numpy.float32(eps)))

    found = told(Functions("single", {"rms_norm": rms_norm}, {}, ("float64",)), "rms_norm", "float64")
    lines = [line for result in found for line in result.diagnosis]
    assert any("rms_norm whose eps is float32 (rms_norm/eps-in-float32)" in line for line in lines), lines
