"""The experts of a layer cut over ranks."""

from refllm.spec.array import Array, Pullback, Tree
from refllm.spec.routing import combine, dispatch
from refllm.spec.shard import among_zeros, shard
from refllm.spec.switch_layer import expert_feed_forward, slots_of


def expert_parallel_layer(
    x: Array, g: Array, p: Tree, *, chosen: Array, capacity: int, activation: str, ranks: int, rank: int
) -> tuple[Array, Pullback]:
    """PAR, MOE: y_t = g_t FFN_e(x_t) for the tokens of the own experts e = chosen_t, 0 for the others: a part, which is
    sent, of the sum

    The places of an expert are given to the tokens of a text in their order, as on one device: an expert takes the
    first `capacity` of a text wherever it is. A rank has the weights of its own experts alone.
    Source:  Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2 and 5.4.
    Shapes:  x (..., T, C); g (..., T); W1 (E, C, F); b1 (E, F); W2 (E, F, C); b2 (E, C); chosen (..., T) in [0, E)
             -> y (..., T, C)
    Back:    that of the own experts. Their weights get the gradient of all tokens that came here, undivided; dx and dg
             are parts, which are sent

    >>> p = {"W1": array([[[2.]], [[3.]]]), "W2": ones((2, 1, 1))}
    >>> how = {"chosen": array([1, 0]), "capacity": 1, "activation": "relu", "ranks": 2}
    >>> expert_parallel_layer(ones((2, 1)), array([0.5, 1.]), p, **how, rank=1)[0]  # the second token is the other's
    array([[1.5],
           [0. ]])
    """
    E = len(p["W1"])
    own = shard(E, ranks=ranks, rank=rank)
    slots = slots_of(chosen, experts=E, capacity=capacity, token_mask=None)
    came, dispatch_back = dispatch(x, slots=slots, experts=E, capacity=capacity)
    mine = {name: w[own] for name, w in p.items()}
    a, experts_back = expert_feed_forward(came[..., own, :, :], mine, activation=activation)
    y, combine_back = combine(among_zeros(a, own, E, axis=-3), g, slots=slots)

    def expert_parallel_layer_back(dy: Array) -> tuple[Array, Array, Tree]:
        da, dg = combine_back(dy)
        dcame, dmine = experts_back(da[..., own, :, :])
        dx = dispatch_back(among_zeros(dcame, own, E, axis=-3))
        return dx, dg, {name: among_zeros(dw, own, E, axis=0) for name, dw in dmine.items()}

    return y, expert_parallel_layer_back
