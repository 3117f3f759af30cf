"""One formula an operation, in plain scalar mathematics. Arrays are NumPy object arrays of nodes, used for shape only.

The identifiers (ATT, LN ...) are those of the specification. The gradients are not here: the tape makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden.conventions import meets
from golden.forms import form
from golden.tape import Node, constant, cos, erf, erfc, exp, gradients, log, logsumexp, number, sin, sqrt, tanh, total

Array = Any  # a NumPy array of nodes, or a vector of them; the type of its elements is beyond NumPy's types
Tap = Callable[[str, Any], None]
INFINITY = float("inf")
NAN = float("nan")


def untapped(name: str, value: Any) -> None:
    """The tap of somebody who does not look at intermediate values."""


def dot(a: Iterable[Node], b: Iterable[Node]) -> Node:
    return total(x * y for x, y in zip(a, b, strict=True))


def mean(terms: Sequence[Node]) -> Node:
    average: Node = total(terms) / len(terms)
    return average


def each(f: Callable[..., Any], *arrays: Array) -> Array:
    """f applied element by element, with broadcasting."""
    with np.errstate(invalid="ignore"):  # NaN is an answer here, not an accident
        return np.asarray(np.frompyfunc(f, len(arrays), 1)(*arrays), dtype=object)


def rows(f: Callable[[Array], Any], x: Array, width: int | None = None) -> Array:
    """f applied to every row along the last axis; f returns a row or one number. `width` is what it returns, for an x
    without rows."""
    results = [np.asarray(f(x[i]), dtype=object) for i in np.ndindex(x.shape[:-1])]
    shape = x.shape[:-1] + (results[0].shape if results else (x.shape[-1] if width is None else width,))
    y = np.empty(shape, dtype=object)
    for i, result in zip(np.ndindex(x.shape[:-1]), results, strict=True):
        y[(*i, ...)] = result
    return y


def reduce(losses: Array, reduction: str, count: int, empty_mean: str = "zero") -> Array:
    """The sum, the sum over `count`, or the losses themselves."""
    if reduction == "none":
        return losses
    loss = total(losses.flat)
    if reduction == "mean":
        loss = loss / count if count else nothing(empty_mean)
    return np.asarray(loss, dtype=object)


def nothing(empty_mean: str) -> Node:
    """The mean of no number."""
    meets("empty_mean")
    return constant(0 if empty_mean == "zero" else NAN)


# --- linear maps -----------------------------------------------------------------------------------------------------


def matmul(x: Array, W: Array) -> Array:
    """LMHEAD, FFN, MHA: y_o = sum_i x_i W_io."""
    return rows(lambda row: [dot(row, W[:, o]) for o in range(W.shape[1])], x, W.shape[1])


def linear(x: Array, W: Array, b: Array) -> Array:
    """FFN, LMHEAD: y_o = sum_i x_i W_io + b_o."""
    return matmul(x, W) + b


def heads(x: Array, W: Array, b: Array, *, heads: int, parts: int) -> dict[str, Array]:
    """MHA (Vaswani 2017, 3.2.2): x W + b cut into parts (query, key, value), each cut into heads (..., H, T, D)."""
    y = linear(x, W, b)
    y = y.reshape(*y.shape[:-1], parts, heads, -1)
    return {f"y{n}": np.swapaxes(y[..., n, :, :], -3, -2) for n in range(parts)}


# --- embeddings and positions ----------------------------------------------------------------------------------------


def embedding(E: Array, *, ids: Array) -> Array:
    """EMB (Bengio 2003): onehot(w) E, that is row w of E."""
    return E[ids]


def sinusoidal(p: Array, *, width: int, sinusoidal_layout: str = "interleaved") -> Array:
    """PE-SIN (Vaswani 2017, 3.5): PE(p, 2i) = sin(p / 10000^(2i/d)), PE(p, 2i+1) = cos(p / 10000^(2i/d))."""
    angles = [p / constant(mp.power(10000, mpf(2 * i) / width)) for i in range((width + 1) // 2)]
    sines, cosines = [each(sin, a) for a in angles], [each(cos, a) for a in angles]
    meets("sinusoidal_layout")
    if sinusoidal_layout == "halves":
        return np.stack(sines + cosines, axis=-1)
    return np.stack([wave for pair in zip(sines, cosines, strict=True) for wave in pair][:width], axis=-1)


def add_positions(x: Array, P: Array, *, positions: Array) -> Array:
    """PE-LRN (Devlin 2019): the row of the position is added to the embedding."""
    return x + P[positions]


# --- softmax and losses ----------------------------------------------------------------------------------------------


def _shifted(row: Sequence[Node]) -> tuple[list[Node | None], Node]:
    """exp(x_i - max) of every finite x_i, None for -inf, and their sum. The shift cancels, so it is a constant."""
    top = max((x.value for x in row), default=mpf(0))
    exps = [None if x.value == -INFINITY else exp(x - top) for x in row]
    return exps, total(e for e in exps if e is not None)


def shares(row: Sequence[Node]) -> list[Node]:
    """SMX: p_i = exp(x_i) / sum_j exp(x_j); x = -inf has p = 0, and a row of only -inf is all zeros."""
    exps, Z = _shifted(row)
    return [constant(0) if e is None else e / Z for e in exps]


def softmax_row(row: Sequence[Node]) -> list[Node]:
    """SMX in its customary forms."""
    if form("softmax") == "divided by the sum" or not _finite(row):
        return shares(row)
    L = _logsumexp(row, form("softmax"))
    return [constant(0) if x.value == -INFINITY else exp(x - L) for x in row]


def log_softmax_row(row: Sequence[Node]) -> list[Node]:
    """SMX: log p_i = x_i - max - log sum_j exp(x_j - max), or x_i - logsumexp(x)."""
    if form("log_softmax") == "shifted":
        exps, Z = _shifted(row)
        top = max(x.value for x in row)
        return [constant(-INFINITY) if e is None else x - top - log(Z) for x, e in zip(row, exps, strict=True)]
    L = _logsumexp(row, form("log_softmax"))
    return [constant(-INFINITY) if x.value == -INFINITY else x - L for x in row]


def _logsumexp(row: Sequence[Node], how: str) -> Node:
    """max + log sum_j exp(x_j - max); recomputed, with the derivative exp(x_i - logsumexp(x))."""
    if how == "recomputed":
        return logsumexp(_finite(row))
    _, Z = _shifted(row)
    log_Z = log(Z)
    return Node(log_Z.value + max(x.value for x in row), (log_Z,))  # the shift is exact, and cancels in the gradient


def _finite(row: Sequence[Node]) -> list[Node]:
    return [x for x in row if x.value != -INFINITY]


def softmax(x: Array, *, empty_softmax: str = "zeros") -> Array:
    def share(row: Array) -> list[Node]:
        if _finite(row):
            return softmax_row(row)
        meets("empty_softmax")
        return [constant(0 if empty_softmax == "zeros" else NAN)] * len(row)

    return rows(share, x)


def log_softmax(x: Array) -> Array:
    return rows(log_softmax_row, x)


def cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, reduction: str, empty_mean: str = "zero"
) -> Array:
    """CE, NLL: -log p_target; a target equal to `ignore` costs nothing and is not counted by the mean."""
    losses = np.empty(targets.shape, dtype=object)
    counted = np.ones(targets.shape, dtype=bool) if ignore is None else targets != ignore
    for i in np.ndindex(targets.shape):
        losses[i] = -log_softmax_row(logits[i])[targets[i]] if counted[i] else constant(0)
    return reduce(losses, reduction, int(counted.sum()), empty_mean)


def soft_cross_entropy(logits: Array, targets: Array, *, reduction: str, soft_targets: str = "any-sum") -> Array:
    """CE: -sum_i y_i log p_i for a distribution y; the mean is over rows."""
    losses = np.empty(logits.shape[:-1], dtype=object)
    for i in np.ndindex(losses.shape):
        losses[i] = -dot(targets[i], log_softmax_row(logits[i]))
        if total(targets[i]).value != 1:
            meets("soft_targets")
            losses[i] = _as_if_one(losses[i], logits[i], targets[i], soft_targets)
    return reduce(losses, reduction, losses.size)


def _as_if_one(loss: Any, x: Array, y: Array, soft_targets: str) -> Any:
    """The loss of targets that are taken to sum to 1: logsumexp(x) - sum_i y_i x_i, with the gradient p - y; or the
    right value with this gradient."""
    if soft_targets == "any-sum":
        return loss
    fused = _logsumexp(x, form("log_softmax")) - dot(y, x)
    if soft_targets == "sum-to-one":
        return fused
    right = Node(loss.value, (loss, *x), lambda *_: (1, *[0] * len(x)))
    slopes = gradients([fused], [constant(1)], list(x)), gradients([loss], [constant(1)], list(x))
    return right + total(_flowing(a - b, z) for a, b, z in zip(*slopes, x, strict=True))


def _flowing(slope: Any, z: Any) -> Any:
    """Nothing, with that slope."""
    return slope * (z - Node(z.value))


def smoothed_cross_entropy(
    logits: Array, *, targets: Array, ignore: int | None, smoothing: float, reduction: str, empty_mean: str = "zero"
) -> Array:
    """CE with label smoothing (Szegedy 2016, 7; Vaswani 2017, 5.4): the distribution asked for is
    (1 - smoothing) onehot(target) + smoothing / V."""
    losses = np.empty(targets.shape, dtype=object)
    counted = np.ones(targets.shape, dtype=bool) if ignore is None else targets != ignore
    share = constant(smoothing)
    for i in np.ndindex(targets.shape):
        log_p = log_softmax_row(logits[i]) if counted[i] else []
        losses[i] = -((1 - share) * log_p[targets[i]] + share * mean(log_p)) if counted[i] else constant(0)
    return reduce(losses, reduction, int(counted.sum()), empty_mean)


def mean_pool(h: Array, *, valid: Array | None, empty_mean: str = "zero") -> Array:
    """CTR (Reimers 2019, 3): the mean over the valid tokens of a text; zeros if it has none."""
    y = np.empty((*h.shape[:-2], h.shape[-1]), dtype=object)
    for text in np.ndindex(h.shape[:-2]):
        tokens = h[text] if valid is None else h[text][valid[text]]
        y[text] = [mean(column) if len(column) else nothing(empty_mean) for column in tokens.T]
    return y


def info_nce(a: Array, b: Array, *, temperature: float) -> Array:
    """CTR (van den Oord 2018): the mean over i of -log softmax_j(cos(a_i, b_j) / temperature) at j = i. A row of zeros
    has no direction: its cosines are 0."""
    losses = []
    for i, row in enumerate(_cosines(a, b)):
        losses.append(-log_softmax_row([cosine / temperature for cosine in row])[i])
    return np.asarray(mean(losses), dtype=object)


def _cosines(a: Array, b: Array) -> list[list[Node]]:
    if form("cosine") == "of directions":
        a, b = (rows(lambda row: row / _length(row), z) for z in (a, b))
        return [[dot(row, other) for other in b] for row in a]
    return [[dot(row, other) / (_length(row) * _length(other)) for other in b] for row in a]


def _length(row: Array) -> Any:
    """1 for a row of zeros, which no length divides."""
    return sqrt(dot(row, row)) if any(x.value != 0 for x in row) else 1


def l2_penalty(w: Array, *, strength: float) -> Array:
    """L2: strength / 2 * sum w^2."""
    return np.asarray(constant(strength) / 2 * total(a * a for a in w.flat), dtype=object)


def mean_squared_error(x: Array, t: Array) -> Array:
    """MSE: the mean over all elements of (x - t)^2."""
    return np.asarray(mean([(a - b) * (a - b) for a, b in zip(x.flat, t.flat, strict=True)]), dtype=object)


def chain_rule(logits: Array, *, ids: Array) -> Array:
    """CHAIN (Shannon 1948): log P(x_1 .. x_T) = sum_t log P(x_t given x_<t); row t of the logits is the
    distribution of ids[t] given what stands before it."""
    return rows(total, -cross_entropy(logits, targets=ids, ignore=None, reduction="none"))


def perplexity(logits: Array, *, ids: Array) -> Array:
    """PPL (Jelinek 1977): exp(NLL / T), over all T predicted tokens."""
    loss = cross_entropy(logits, targets=ids, ignore=None, reduction="mean")
    return np.asarray(exp(loss.item()), dtype=object)


# --- attention -------------------------------------------------------------------------------------------------------


def _without_key(scores: Callable[[], list[Node]], V: Array, empty_row: str) -> list[Node]:
    """Zeros; NaN; the mean of all values, where every score is replaced by one number; the same where one number is
    added that is so large that the scores vanish beside it: then their gradient is that of equal scores."""
    meets("empty_row")
    if empty_row in ("zeros", "nan"):
        return [constant(0 if empty_row == "zeros" else NAN)] * V.shape[-1]
    if empty_row == "mean":
        return [mean(column) for column in V.T]
    equal = shares([Node(mpf(0), (score,), lambda a, y: (1,)) for score in scores()])
    return [dot(equal, column) for column in V.T]


def _mixed(scores: Sequence[Node], V: Array) -> list[Node]:
    """sum_s softmax_s(scores) v_s."""
    if form("attention") == "weights first":
        weights = softmax_row(scores)
        return [dot(weights, V[:, e]) for e in range(V.shape[-1])]
    exps, Z = _shifted(scores)
    return [dot((e for e in exps if e is not None), V[:, e]) / Z for e in range(V.shape[-1])]


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    causal: bool,
    allowed: Array | None,
    causal_alignment: str = "bottom-right",
    empty_row: str = "zeros",
    bias: Array | None = None,
    scaled: bool = True,
    tap: Tap = untapped,
) -> Array:
    """ATT (Vaswani 2017, 3.2.1): y_t = sum_s softmax_s(q_t . k_s / sqrt(d_k)) v_s.

    ATT-MASK: the sum runs over the allowed keys alone; with none, y_t = 0. Causal: s <= t + S - T. A bias (..., T, S)
    is added to the scores. T5 does not scale them (Raffel 2020, code).
    """
    (T, D), S = q.shape[-2:], k.shape[-2]
    may = np.ones((*q.shape[:-1], S), dtype=bool)
    if allowed is not None:
        may &= allowed
    if causal:
        may &= np.arange(S) <= np.arange(T)[:, None] + (S - T if causal_alignment == "bottom-right" else 0)
        if T != S:
            meets("causal_alignment")
    y = np.empty((*q.shape[:-1], v.shape[-1]), dtype=object)
    if bias is not None:
        bias = np.broadcast_to(bias, may.shape)
    for i in np.ndindex(q.shape[:-1]):
        *batch, t = i
        K, V = k[*batch], v[*batch]
        keys = np.flatnonzero(may[i])

        def scored(keys: Any, i: Any = i, K: Array = K) -> list[Node]:
            scores = [dot(q[i], K[s]) for s in keys]
            if scaled:
                scores = [score / sqrt(constant(D)) for score in scores]
            if bias is not None:
                scores = [score + bias[i][s] for score, s in zip(scores, keys, strict=True)]
            return scores

        scores = scored(keys)
        if tap is not untapped:  # for nobody, the weights would double the exponentials, the most expensive part
            tap(f"scores.{t}", np.asarray(scores, dtype=object))
            tap(f"weights.{t}", np.asarray(softmax_row(scores), dtype=object))
        y[i] = _mixed(scores, V[keys]) if scores else _without_key(lambda: scored(range(S)), V, empty_row)
    return y


# --- normalisation, activations, dropout -----------------------------------------------------------------------------


def layer_norm(x: Array, g: Array, b: Array, *, eps: float) -> Array:
    """LN (Ba 2016): g (x - mean) / sqrt(var + eps) + b, with var = mean((x - mean)^2)."""

    def normalise(row: Array) -> list[Node]:
        m = mean(row)
        d = [x - m for x in row]
        return over_root(d, mean([a * a for a in d]) + eps)

    return rows(normalise, x) * g + b


def over_root(row: Sequence[Node], square: Node) -> list[Node]:
    """Every entry divided by the root of the square."""
    root = sqrt(square)
    if form("norm") == "divided by the root":
        return [a / root for a in row]
    r = 1 / root
    return [a * r for a in row]


def relu(x: Array, *, relu_at_zero: str = "0") -> Array:
    """FFN: max(0, x); the derivative at 0 is 0."""
    slope = {"0": mpf(0), "1": mpf(1), "half": mpf("0.5")}[relu_at_zero]

    def at(a: Node) -> Node:
        if number(a) != 0:
            return a if number(a) > 0 else constant(0)
        meets("relu_at_zero")
        return Node(mpf(0), (a,), lambda a, y: (slope,)) if slope else constant(0)

    return each(at, x)


def gelu_erf(x: Array) -> Array:
    """FFN (Hendrycks 2016): x/2 (1 + erf(x / sqrt 2)), whose sum is erfc(-x / sqrt 2): that keeps the small tail."""
    return each(lambda a: a / 2 * erfc(-a / sqrt(constant(2))), x)


def gelu_erf_inside(x: Array) -> Array:
    """The same inside a block, where 1 + erf is customary: what it loses of the tail mostly stands beside more."""
    if form("gelu") == "by erfc":
        return gelu_erf(x)
    return each(lambda a: a / 2 * (1 + erf(a / sqrt(constant(2)))), x)


def gelu_tanh(x: Array) -> Array:
    """FFN (Hendrycks 2016): x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    k, c = constant(mp.sqrt(2 / mp.pi)), constant(mpf(44715) / 10**6)
    return each(lambda a: a / 2 * (1 + tanh(k * (a + c * a * a * a))), x)


def dropout(x: Array, *, keep: Array, rate: float) -> Array:
    """DROP (inverted): x / (1 - rate) where kept, else 0."""
    return each(lambda a, kept: a / (1 - constant(rate)) if kept else constant(0), x, keep)
