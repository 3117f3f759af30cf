"""The switch layer: a feed-forward layer of many experts, of which each token uses one; a Transformer layer with it."""

from refllm.spec.array import Array, Pullback, Tree, one_hot, pick, tap, top, where
from refllm.spec.feed_forward import activated
from refllm.spec.layers import normalised, residual
from refllm.spec.linear import matmul
from refllm.spec.routing import combine, dispatch, expert_linear, expert_matmul, gate, load_balance
from refllm.spec.self_attention import self_attention
from refllm.spec.softmax import softmax


def switch_layer(
    x: Array, p: Tree, *, activation: str, capacity: int, token_mask: Array | None
) -> tuple[tuple[Array, Array], Pullback]:
    """MOE: y_t = P_t[e] FFN_e(x_t),   P_t = softmax(x_t Wr),   e = argmax P_t;   and the load balance of each text

    An expert takes the first `capacity` tokens of a text that choose it and that token_mask marks; the others have
    y = 0.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2; documents 002 sec. 1.1.
    Shapes:  x (..., T, C); Wr (C, E); W1 (E, C, F); b1 (E, F); W2 (E, F, C); b2 (E, C); token_mask bool (..., T)
             -> y (..., T, C), balance (...)
    Back:    the choice has no gradient: the router learns by the probability that y is multiplied with, and by the
             balance, so dP is the sum of two; and dx of two, through the experts and through the router

    >>> p = {"Wr": array([[0., log(3.)]]), "W1": array([[[1.]], [[2.]]]), "W2": ones((2, 1, 1))}
    >>> switch_layer(ones((1, 2, 1)), p, activation="relu", capacity=1, token_mask=None)[0]  # 3/4 · 2, and no room
    (array([[[1.5],
            [0. ]]]), array([1.5]))
    """
    scores, scores_back = matmul(x, p["Wr"])
    P, softmax_back = softmax(tap("scores", scores))
    E, chosen = P.shape[-1], most_probable(scores)
    slots = slots_of(chosen, experts=E, capacity=capacity, token_mask=token_mask)
    z, dispatch_back = dispatch(x, slots=slots, experts=E, capacity=capacity)
    a, experts_back = expert_feed_forward(z, p, activation=activation)
    g, gate_back = gate(P, chosen=chosen)
    y, combine_back = combine(a, g, slots=slots)
    balance, balance_back = load_balance(P, chosen=chosen, token_mask=token_mask)

    def switch_layer_back(dy: Array, dbalance: Array) -> tuple[Array, Tree]:
        da, dg = combine_back(dy)
        dP = balance_back(dbalance) + gate_back(dg)
        dz, dexperts = experts_back(da)
        dx, dWr = scores_back(softmax_back(dP))
        return dx + dispatch_back(dz), {"Wr": dWr, **dexperts}

    return (y, balance), switch_layer_back


def most_probable(scores: Array) -> Array:
    """The place of the largest score of every row; of equal ones the first."""
    return (scores == top(scores)).argmax(axis=-1)


def slots_of(chosen: Array, *, experts: int, capacity: int, token_mask: Array | None) -> Array:
    """MOE: place k of its expert, if k tokens of the text before it chose the same one and k is below the capacity

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2 and fig. 3.
    Shapes:  chosen (..., T); token_mask bool (..., T) -> (..., T), experts * capacity for a token that has none

    >>> slots_of(array([0, 1, 0, 0]), experts=2, capacity=2, token_mask=None)  # the last token has no place
    array([0, 2, 1, 4])
    """
    takes = one_hot(chosen, experts)
    if token_mask is not None:
        takes = takes & token_mask[..., None]
    k = pick(takes.cumsum(axis=-2), chosen) - 1
    return where(takes.any(axis=-1) & (k < capacity), chosen * capacity + k, experts * capacity)


def expert_feed_forward(x: Array, p: Tree, *, activation: str) -> tuple[Array, Pullback]:
    """MOE, FFN: y[e] = f(x[e] W1[e] + b1[e]) W2[e] + b2[e]; without the biases where p has none

    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2; Raffel et al. 2020 (arXiv:1910.10683) sec. 2.1 for no biases.
    Shapes:  x (..., E, K, C); W1 (E, C, F); b1 (E, F); W2 (E, F, C); b2 (E, C) -> y (..., E, K, C)
    """
    biased = "b1" in p
    h, first_back = expert_linear(x, p["W1"], p["b1"]) if biased else expert_matmul(x, p["W1"])
    a, activation_back = activated(h, activation=activation)
    y, second_back = expert_linear(a, p["W2"], p["b2"]) if biased else expert_matmul(a, p["W2"])

    def expert_feed_forward_back(dy: Array) -> tuple[Array, Tree]:
        da, dW2, *db2 = second_back(dy)
        dx, dW1, *db1 = first_back(activation_back(da))
        biases = {"b1": db1[0], "b2": db2[0]} if biased else {}
        return dx, {"W1": dW1, "W2": dW2, **biases}

    return y, expert_feed_forward_back


def switch_transformer_layer(
    x: Array, p: Tree, *, heads: int, causal: bool, attention_mask: Array | None, activation: str, capacity: int,
    token_mask: Array | None, eps: float,
) -> tuple[tuple[Array, Array], Pullback]:  # fmt: skip
    """MHA, MOE, LN: h = x + MHA(LN(x)),   y = h + MOE(LN(h)); and the load balance of each text

    Source:  Fedus et al. 2021 (arXiv:2101.03961) fig. 2; pre-norm as in Radford et al. 2019 sec. 2.3.
    Shapes:  x (..., T, C); token_mask bool (..., T) -> y (..., T, C), balance (...)
    Back:    takes the gradients of both
    """

    def attend(h: Array, p: Tree) -> tuple[Array, Pullback]:
        return self_attention(h, p, heads=heads, causal=causal, attention_mask=attention_mask)

    h, attend_back = residual(x, p, 1, "attention", attend, norm="pre", eps=eps)
    n, norm_back = normalised(h, p["norm2"], eps=eps)
    (a, balance), switch_back = switch_layer(
        tap("norm2", n), p["switch"], activation=activation, capacity=capacity, token_mask=token_mask
    )
    y = tap("residual2", h + tap("switch", a))

    def switch_transformer_layer_back(dy: Array, dbalance: Array) -> tuple[Array, Tree]:
        dn, dswitch = switch_back(dy, dbalance)
        dh, dnorm2 = norm_back(dn)
        dx, dattend = attend_back(dy + dh)
        return dx, {**dattend, "norm2": dnorm2, "switch": dswitch}

    return (y, balance), switch_transformer_layer_back
