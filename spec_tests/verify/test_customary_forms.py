"""An implementation in any customary form of a formula passes: nobody is told that a right answer is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import corpus, runner
from refllm.verify.adapter import Functions

GOLDEN = corpus.load(corpus.folder(None))


def results(operation: str, function: Callable[..., Any], dtype: str) -> Iterator[runner.Result]:
    cases = [case for case in GOLDEN.cases.values() if case.operation == operation]
    yield from runner.run(Functions("customary", {operation: function}, {}), cases, dtype, GOLDEN.C)


def logsumexp(x: Array) -> Array:
    top = x.max(axis=-1, keepdims=True)
    top = numpy.where(numpy.isfinite(top), top, 0).astype(x.dtype)
    with numpy.errstate(divide="ignore"):
        return numpy.asarray(top + numpy.log(numpy.exp(x - top).sum(axis=-1, keepdims=True)))


def flash_attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    """Dao 2022, algorithm 4: nothing but y and L = logsumexp(s) is kept; P = exp(s - L) again, D = Σ y dy."""
    (T, D), S = q.shape[-2:], k.shape[-2]
    scale = q.dtype.type(D**-0.5)
    seen = numpy.tri(T, S, S - T, dtype=bool) if causal else numpy.ones((T, S), bool)
    seen = seen if allowed is None else seen & allowed

    def scores() -> Array:
        return numpy.where(seen, q @ k.mT * scale, -numpy.inf).astype(q.dtype)

    s = scores()
    L = logsumexp(s)
    L = numpy.where(numpy.isneginf(L), 0, L).astype(q.dtype)
    y = numpy.exp(s - L) @ v

    def back(dy: Array) -> tuple[Array, ...]:
        P = numpy.exp(scores() - L)
        dS = P * (dy @ v.mT - (dy * y).sum(axis=-1, keepdims=True))
        return scale * (dS @ k), scale * (dS.mT @ q), P.mT @ dy

    return y, back


def online_attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    """The forward of the same, a key at a time: what is summed is brought to each new maximum."""
    _, back = flash_attention(q, k, v, causal=causal, allowed=allowed)
    (T, D), S = q.shape[-2:], k.shape[-2]
    seen = numpy.tri(T, S, S - T, dtype=bool) if causal else numpy.ones((T, S), bool)
    seen = numpy.broadcast_to(seen if allowed is None else seen & allowed, (*q.shape[:-1], S))
    top = numpy.full((*q.shape[:-1], 1), -numpy.inf, q.dtype)
    total, y = numpy.zeros_like(top), numpy.zeros((*q.shape[:-1], v.shape[-1]), q.dtype)
    for n in range(S):
        s = numpy.where(seen[..., n, None], q @ k[..., n, :, None] * q.dtype.type(D**-0.5), -numpy.inf)
        new = numpy.maximum(top, s)
        shift = numpy.where(numpy.isneginf(new), 0, new)
        weight, kept = numpy.exp(s - shift), numpy.exp(top - shift)
        total, y, top = total * kept + weight, y * kept + weight * v[..., n, None, :], new
    return y / numpy.where(total == 0, 1, total).astype(q.dtype), back


def softmax(x: Array) -> Any:
    L = logsumexp(x)
    y = numpy.exp(x - numpy.where(numpy.isneginf(L), 0, L).astype(x.dtype))
    return y, lambda dy: y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def log_softmax(x: Array) -> Any:
    L = logsumexp(x)
    return x - L, lambda dy: dy - numpy.exp(x - L) * dy.sum(axis=-1, keepdims=True)


def reduced(each: Array, count: int, reduction: str) -> tuple[Array, float]:
    if reduction == "none":
        return each, 1.0
    share = 1 / count if reduction == "mean" and count else 1.0
    return numpy.asarray(each.sum() * each.dtype.type(share)), share


def cross_entropy(logits: Array, *, targets: Array, ignore: int | None, reduction: str, smoothing: float = 0.0) -> Any:
    """logsumexp(x) - x_t, and a gradient of probabilities that are formed again, as fused kernels do."""
    counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
    hot = numpy.eye(logits.shape[-1], dtype=logits.dtype)[numpy.where(counted, targets, 0)]
    asked = (1 - smoothing) * hot + smoothing / logits.shape[-1]
    wanted = numpy.where(asked == 0, 0, logits * asked).sum(axis=-1) if smoothing else (
        numpy.take_along_axis(logits, numpy.where(counted, targets, 0)[..., None], -1)[..., 0]
    )  # fmt: skip
    L = logsumexp(logits)
    y, share = reduced(numpy.where(counted, L[..., 0] - wanted, 0).astype(logits.dtype), int(counted.sum()), reduction)

    def back(dy: Array) -> Array:
        each = numpy.broadcast_to(dy * logits.dtype.type(share), targets.shape) * counted
        dx = (numpy.exp(logits - L) - asked) * each[..., None]
        return numpy.asarray(dx, logits.dtype)

    return y, back


def soft_cross_entropy(logits: Array, targets: Array, *, reduction: str) -> Any:
    """Σ_i y_i logsumexp(x) - Σ_i y_i x_i."""
    L, amount = logsumexp(logits), targets.sum(axis=-1, keepdims=True)
    each = (amount * L)[..., 0] - (targets * logits).sum(axis=-1)
    y, share = reduced(each, each.size, reduction)

    def back(dy: Array) -> tuple[Array, Array]:
        each = numpy.broadcast_to(dy * logits.dtype.type(share), logits.shape[:-1])[..., None]
        return each * (numpy.exp(logits - L) * amount - targets), each * (L - logits)

    return y, back


def info_nce(a: Array, b: Array, *, temperature: float) -> Any:
    """cos = a · b / (|a| |b|), and logsumexp(s) - s_ii."""
    one = a.dtype.type
    lengths = [numpy.sqrt((z * z).sum(axis=-1, keepdims=True)) for z in (a, b)]
    n, m = (numpy.where(length == 0, 1, length) for length in lengths)
    cosines = a @ b.T / (n * m.T)
    s = cosines * one(1 / temperature)
    L = logsumexp(s)
    loss = (L[:, 0] - numpy.diagonal(s)).mean()

    def back(dy: Array) -> tuple[Array, Array]:
        d = (numpy.exp(s - L) - numpy.eye(len(a), dtype=a.dtype)) * (dy * one(1 / temperature / len(a)))
        da = (d / m.T) @ b / n - (d * cosines).sum(axis=1, keepdims=True) * a / (n * n)
        db = (d / n).T @ a / m - (d * cosines).sum(axis=0)[:, None] * b / (m * m)
        return da, db

    return numpy.asarray(loss), back


def layer_norm(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    c = x - x.mean(axis=-1, keepdims=True)
    root = numpy.sqrt((c * c).mean(axis=-1, keepdims=True) + x.dtype.type(eps))
    return c / root * g + b


def rms_norm(x: Array, g: Array, *, eps: float) -> Any:
    return x / numpy.sqrt((x * x).mean(axis=-1, keepdims=True) + x.dtype.type(eps)) * g


def adam(p: Array, g: Array, m: Array, v: Array, *, decay: float, **how: Any) -> Any:
    return folded(p, g + p.dtype.type(decay) * p, m, v, **how)


def adamw(p: Array, g: Array, m: Array, v: Array, *, lr: float, decay: float, **how: Any) -> Any:
    return folded(p * p.dtype.type(1 - lr * decay), g, m, v, lr=lr, **how)


def folded(
    p: Array, g: Array, m: Array, v: Array, *, step: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Array, ...]:
    """Kingma 2015, the end of section 2; m by its distance from g, as PyTorch's lerp."""
    number = p.dtype.type
    m = m + number(1 - beta1) * (g - m)
    v = number(beta2) * v + number(1 - beta2) * (g * g)
    turn = (1 - beta2**step) ** 0.5
    return p - number(lr * turn / (1 - beta1**step)) * m / (numpy.sqrt(v) + number(eps * turn)), m, v


def silu(x: Array) -> Any:
    with numpy.errstate(over="ignore"):
        return x / (1 + numpy.exp(-x))


def rotary_halves(x: Array, *, positions: Array, base: float) -> Any:
    """By complex numbers, with angles in float64."""
    half = x.shape[-1] // 2
    angle = positions[..., None] * base ** (-numpy.arange(half) / half)
    turn = numpy.exp(1j * angle).astype("complex64" if x.dtype == "float32" else "complex128")

    def turned(x: Array, turn: Array) -> Array:
        z = (x[..., :half] + 1j * x[..., half:]) * turn
        return numpy.concatenate([z.real, z.imag], axis=-1).astype(x.dtype)

    return turned(x, turn), lambda dy: turned(dy, turn.conj())


CUSTOMARY: list[tuple[str, Callable[..., Any]]] = [
    ("attention", flash_attention), ("attention", online_attention), ("softmax", softmax),
    ("log_softmax", log_softmax), ("cross_entropy", cross_entropy), ("smoothed_cross_entropy", cross_entropy),
    ("soft_cross_entropy", soft_cross_entropy), ("info_nce", info_nce), ("layer_norm", layer_norm),
    ("rms_norm", rms_norm), ("adam", adam), ("adamw", adamw), ("silu", silu), ("rotary_halves", rotary_halves),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # -inf - -inf in a row of nothing, which is replaced
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("operation", "function"), CUSTOMARY, ids=lambda f: getattr(f, "__name__", f))
def test_a_customary_form_passes(operation: str, function: Callable[..., Any], dtype: str) -> None:
    found = list(results(operation, function, dtype))
    assert [(r.case.id, r.reason, r.ratio) for r in found if r.failed] == []
    assert sum(bool(r.verdicts) for r in found) > 3


def fast_variance(x: Array, g: Array, b: Array, *, eps: float) -> Any:
    mean = x.mean(axis=-1, keepdims=True)
    square = (x * x).mean(axis=-1, keepdims=True) - mean * mean
    return (x - mean) / numpy.sqrt(numpy.maximum(square, 0) + x.dtype.type(eps)) * g + b


def logarithm_of_softmax(x: Array) -> Any:
    e = numpy.exp(x - x.max(axis=-1, keepdims=True))
    with numpy.errstate(divide="ignore"):
        return numpy.log(e / e.sum(axis=-1, keepdims=True))


WRONG: list[tuple[str, Callable[..., Any]]] = [("layer_norm", fast_variance), ("log_softmax", logarithm_of_softmax)]


@pytest.mark.parametrize(("operation", "function"), WRONG, ids=lambda f: getattr(f, "__name__", f))
def test_a_form_that_loses_digits_is_not_customary(operation: str, function: Callable[..., Any]) -> None:
    assert any(result.failed for result in results(operation, function, "float32"))


def quasi_hyperbolic_adam(
    share: Callable[[float, int], float],
) -> Callable[..., tuple[Array, ...]]:
    """QHAdam with both ν = 1, which is Adam, and whose moments are means with weights that sum to 1:
    Adam's are `share` of them."""

    def adam(
        p: Array, g: Array, m: Array, v: Array, *, step: int, lr: float, beta1: float, beta2: float, eps: float,
        decay: float,
    ) -> tuple[Array, ...]:  # fmt: skip
        number = p.dtype.type
        g = g + number(decay) * p
        moments = []
        for kept, new, beta in ((m, g, beta1), (v, g * g, beta2)):
            mean = kept / number(share(beta, step - 1)) if step > 1 else kept
            weight = number(1 / sum(beta**i for i in range(step)))
            moments.append(mean * (1 - weight) + weight * new)
        p = p - number(lr) * moments[0] / (numpy.sqrt(moments[1]) + number(eps))
        return p, moments[0] * number(share(beta1, step)), moments[1] * number(share(beta2, step))

    return adam


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_an_adapter_that_rescales_moments_is_right_if_its_factor_is(dtype: str) -> None:
    """Σ β^i times 1 - β, which is exact, is as good as Adam. 1 - β^t cancels: in float64 it is off by up to 42 ulp, and
    no tolerance is meant for what an adapter does between the library and the case."""
    summed = quasi_hyperbolic_adam(lambda beta, t: (1 - beta) * sum(beta**i for i in range(t)))
    assert not any(result.failed for result in results("adam", summed, dtype))
    cancelled = quasi_hyperbolic_adam(lambda beta, t: 1 - beta**t)
    assert any(result.failed for result in results("adam", cancelled, dtype)) is (dtype == "float64")
