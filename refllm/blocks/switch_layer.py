"""The switch layer: a feed-forward layer of many experts, of which each token uses one; a Transformer layer with it."""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace
from refllm.blocks.feed_forward import ACTIVATIONS, Activation
from refllm.blocks.residual import maybe_dropout, norm_shapes, pre_norm
from refllm.blocks.self_attention import KeyValueStore, self_attention, self_attention_shapes
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.ops.layer_norm import layer_norm
from refllm.ops.linear import matmul
from refllm.ops.routing import combine, dispatch, expert_linear, expert_matmul, gate, load_balance
from refllm.ops.softmax import softmax
from refllm.parameters import Tree, branch

Balanced = tuple[tuple[Array, Array], Callable[[Array, Array], tuple[Array, Tree]]]  # y and the balance of each text


def switch_layer_shapes(width: int, hidden: int, experts: int, *, biases: bool) -> Tree:
    E, C, F = experts, width, hidden
    if not biases:  # as in T5, and so in the published Switch models
        return {"Wr": (C, E), "W1": (E, C, F), "W2": (E, F, C)}
    return {"Wr": (C, E), "W1": (E, C, F), "b1": (E, F), "W2": (E, F, C), "b2": (E, C)}


@differentiable
def switch_layer(x: Array, p: Tree, *, activation: Activation, capacity: int, token_mask: Array | None) -> Balanced:
    """MOE: y_t = P_t[e] FFN_e(x_t),   P_t = softmax(x_t Wr),   e = argmax P_t;   and the load balance of each text

    An expert takes the first `capacity` tokens of a text that choose it; a later one overflows, and its y is 0, so that
    the residual connection alone passes it on. Of experts with the same probability the first is chosen.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2; documents 002 sec. 1.1.
    Shapes:  x (..., T, C); Wr (C, E); W1 (E, C, F); b1 (E, F), or None; W2 (E, F, C);
             b2 (E, C), or None; token_mask bool (..., T), or None -> y (..., T, C); balance (...)
    Back:    back(dy, dbalance). The choice has no gradient; the router learns by the probability that y is multiplied
             with, and by the balance.
    Special: where token_mask is false (padding; None: nowhere) a token takes no place, does not count and gets y = 0.
             The tokens of a text compete with each other alone: neither other texts nor later tokens change y.
    Raises:  ValueError if the capacity is zero.

    >>> p = {"Wr": array([[9.0, -9.0]]), "W1": ones((2, 1, 1)), "W2": array([[[1.0]], [[10.0]]])}
    >>> x = array([[[100.0], [200.0]]])  # both choose expert 0, which has room for one
    >>> (y, balance), back = switch_layer(x, p, activation="relu", capacity=1, token_mask=None)
    >>> y.tolist(), balance.tolist()
    ([[[100.0], [0.0]]], [2.0])
    """
    capacity = min(capacity, max(1, x.shape[-2]))  # more places than a text has tokens are none the more
    scores, back_scores = matmul(x, p["Wr"])
    P, back_softmax = softmax(scores)
    chosen = P.argmax(axis=-1)
    slots = _slots(chosen, token_mask=token_mask, experts=P.shape[-1], capacity=capacity)
    balance, back_balance = load_balance(P, chosen=chosen, token_mask=token_mask)
    g, back_gate = gate(P, chosen=chosen)
    z, back_dispatch = dispatch(x, slots=slots, experts=P.shape[-1], capacity=capacity)  # (..., E, capacity, C)
    a, back_experts = expert_feed_forward(z, p, activation=activation)
    y, back_combine = combine(a, g, slots=slots)

    def back(dy: Array, dbalance: Array) -> tuple[Array, Tree]:
        da, dg = back_combine(dy)
        dz, dp = back_experts(da)
        dP = back_gate(dg)
        dP += back_balance(dbalance)
        dx, dWr = back_scores(back_softmax(dP))
        dx += back_dispatch(dz)
        return dx, {"Wr": dWr, **dp}

    return (y, balance), back


@differentiable
def expert_feed_forward(
    x: Array, p: Tree, *, activation: Activation
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """MOE, FFN: y[e] = f(x[e] W1[e] + b1[e]) W2[e] + b2[e]; without the biases where p has none

    The router Wr of a layer with experts may stand in p.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1 for no biases.
    Shapes:  x (..., E, K, C); W1 (E, C, F); b1 (E, F), or None; W2 (E, F, C); b2 (E, C), or None;
             Wr (C, E), or None -> y (..., E, K, C)

    >>> p = {"W1": ones((2, 1, 1)), "W2": array([[[1.0]], [[10.0]]])}
    >>> expert_feed_forward(ones((2, 1, 1)), p, activation="relu")[0].tolist()
    [[[1.0]], [[10.0]]]
    """
    if ("b1" in p) != ("b2" in p):
        raise UserError("expert_feed_forward: the parameters have one of b1 and b2; give both, or neither")
    first, second = (("W1", "b1"), ("W2", "b2")) if "b1" in p else (("W1",), ("W2",))
    each = expert_linear if "b1" in p else expert_matmul
    h, back1 = each(x, *(p[name] for name in first))
    a, back_f = ACTIVATIONS[activation](h)
    y, back2 = each(a, *(p[name] for name in second))

    def back(dy: Array) -> tuple[Array, Tree]:
        da, *dsecond = back2(dy)
        dx, *dfirst = back1(back_f(da))
        return dx, dict(zip(first + second, dfirst + dsecond, strict=True))

    return y, back


def switch_transformer_layer_shapes(width: int, hidden: int, experts: int) -> Tree:
    return {
        "norm1": norm_shapes(width),
        "attention": self_attention_shapes(width),
        "norm2": norm_shapes(width),
        "switch": switch_layer_shapes(width, hidden, experts, biases=True),
    }


@differentiable
def switch_transformer_layer(
    x: Array,
    p: Tree,
    *,
    heads: int,
    causal: bool,
    attention_mask: Array | None,
    activation: Activation,
    capacity: int,
    token_mask: Array | None,
    eps: float,
    dropout_mask: Tree | None,
    rate: float,
    cache: KeyValueStore | None,
) -> Balanced:
    """MHA, MOE, LN: h = x + MHA(LN(x)),   y = h + MOE(LN(h)); and the load balance of each text

    Source:  Fedus et al. 2021 (arXiv:2101.03961) fig. 2; pre-norm as in Radford et al. 2019 sec. 2.3.
    Shapes:  x (B, T, C); attention_mask bool broadcast to (B, heads, T, S), or None; token_mask bool (B, T), or None;
             norm1.g (C,); norm1.b (C,); attention tree;
             norm2.g (C,); norm2.b (C,); switch tree -> y (B, T, C); balance (B,)
    Draws:   of "attention" and "switch", bool (B, T, C)
    Back:    back(dy, dbalance). The second sublayer is written out, since its pullback takes two gradients.

    >>> norm, one = {"g": ones(1), "b": zeros(1)}, zeros((1, 1))
    >>> p = {"norm1": norm, "norm2": norm, "switch": {"Wr": one, "W1": zeros((1, 1, 1)), "W2": zeros((1, 1, 1))}}
    >>> p["attention"] = {"Wqkv": zeros((1, 3)), "bqkv": zeros(3), "Wo": one, "bo": zeros(1)}
    >>> how = {"heads": 1, "causal": True, "attention_mask": None, "activation": "relu", "capacity": 1}
    >>> how |= {"token_mask": None, "eps": 1e-5, "dropout_mask": None, "rate": 0.0, "cache": None}
    >>> (y, balance), back = switch_transformer_layer(array([[[3.0]]]), p, **how)
    >>> y.tolist(), balance.tolist()  # the residual connections remain; one expert is in balance
    ([[[3.0]]], [1.0])
    """

    def attend(z: Array) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        return self_attention(z, p["attention"], heads=heads, causal=causal, attention_mask=attention_mask, cache=cache)

    h, back_attend = pre_norm(x, p["norm1"], attend, eps=eps, dropout_mask=branch(dropout_mask, "attention"), rate=rate)
    n, back_norm = layer_norm(h, **p["norm2"], eps=eps)
    (a, balance), back_switch = switch_layer(
        n, p["switch"], activation=activation, capacity=capacity, token_mask=token_mask
    )
    d, back_drop = maybe_dropout(a, dropout_mask=branch(dropout_mask, "switch"), rate=rate)

    def back(dy: Array, dbalance: Array) -> tuple[Array, Tree]:
        dn, dswitch = back_switch(back_drop(dy), dbalance)
        dh, dg, db = back_norm(dn)
        dh += dy  # the residual path
        dx, dnorm1, dattention = back_attend(dh)
        return dx, {"norm1": dnorm1, "attention": dattention, "norm2": {"g": dg, "b": db}, "switch": dswitch}

    return (h + d, balance), back


def _slots(chosen: Array, *, token_mask: Array | None, experts: int, capacity: int) -> Array:
    """The slot of every token (ops/routing.py): place k of its expert if k tokens before it chose the same one.

    Shapes:  chosen (..., T) in [0, experts); token_mask bool (..., T) -> (..., T) in [0, experts * capacity]
    """
    xp = namespace(chosen)
    takes = xp.arange(experts) == chosen[..., None]  # (..., T, E)
    if token_mask is not None:
        takes = takes & token_mask[..., None]
    up_to_it = xp.take_along_axis(takes.cumsum(axis=-2), chosen[..., None], axis=-1)[..., 0]  # itself included
    has_place = takes.any(axis=-1) & (up_to_it <= capacity)
    return xp.where(has_place, chosen * capacity + up_to_it - 1, experts * capacity)
