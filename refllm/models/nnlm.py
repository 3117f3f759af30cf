"""The neural probabilistic language model: the last n - 1 tokens, and a feed-forward network over them.

    x_t = (e_t, e_{t-1}, ..., e_{t-n+2})                    e = token[ids]; the newest first, (B, T, (n-1) C)
    P(x_{t+1} | the last n - 1 tokens) = softmax(b + x W + tanh(d + x H) U)

`order` n counts as in an n-gram model: the n-1 tokens that are seen and the one that is predicted. Where a text, or a
window to train on, begins, vectors of zeros stand for the tokens that are missing.

Source: Bengio et al. 2003 sec. 2, eq. (1), transposed: weights are (in, out); the direct connections W, which the
paper leaves out in some of its models, with `direct`; documents 001 ch. 1.
What differs from the paper: dropout, if it is asked for. Its weight decay is a matter of the optimiser here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.residual import maybe_dropout
from refllm.differentiable import declared_inputs, differentiable
from refllm.kinds import settle_fields
from refllm.models.checks import require_draws, require_dropout, require_parameters, require_whole
from refllm.models.output import logits
from refllm.models.state import State
from refllm.ops.activation import tanh
from refllm.ops.embedding import embedding
from refllm.ops.linear import linear
from refllm.ops.window import window
from refllm.parameters import NamedLeaf, Tree, branch, from_names


@dataclass(frozen=True)
class Config:
    """The architecture: V, order n, width C of a token's vector, hidden N units of tanh.

    `context` is the length of the windows to train on; the model has no limit of its own.
    """

    vocabulary: int
    context: int
    order: int = 6
    width: int = 60
    hidden: int = 100
    direct: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "width", "hidden")
        require_whole(self, "order", least=2)
        require_dropout(self)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


CHOICES = tuple(field.name for field in fields(Config) if field.name != "vocabulary")  # a user's to make


def shapes(config: Config) -> Tree:
    """The structure of the parameters, with the letters of the paper."""
    V, N, seen = config.vocabulary, config.hidden, (config.order - 1) * config.width
    tree: Tree = {"token": (V, config.width), "H": (seen, N), "d": (N,), "U": (N, V)}
    if config.direct:
        tree["W"] = (seen, V)
    tree["b"] = (V,)
    return tree


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path: the vectors normal with deviation 1, matrices uniform with deviation
    1/√(their inputs), LeCun et al. 1998 sec. 4.6, biases 0."""
    for name, shape in shapes(config).items():
        reach = math.sqrt(3 / shape[0]) if len(shape) > 1 else 0.0
        yield name, generator.standard_normal(shape) if name == "token" else generator.uniform(-reach, reach, shape)


@differentiable
def hidden_states(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: State | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """NNLM: all that the output layer is linear in: (tanh(d + x H), x if direct, 1) side by side

    Source:  Bengio et al. 2003 sec. 2, eq. (1).
    Shapes:  ids (B, T) in [0, V) -> y (B, T, M)
    Draws:   as `dropout_widths` says: bool (B, T, C) of the vectors, (B, T, N) of tanh
    Back:    gives no gradient of U, W and b, which `head` holds.
    Special: M = N + 1, with the direct connections N + (n-1) C + 1. T may have any length.
             With a carried state, which is the vectors of the last n - 2 tokens, the text goes on from there; the
             pullback then serves the new tokens alone. Places of padding hold zeros, as those before the text do.

    >>> config = Config(vocabulary=3, context=4, order=2, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> hidden_states(p, ids=array([[1]]), config=config, dropout_mask=None, cache=None)[0].tolist()  # 1: the bias
    [[[0.0, 0.0, 1.0]]]
    """
    require_parameters("nnlm", p, config, shapes, cache=cache)
    require_draws("nnlm", dropout_mask, dropout_widths, config)
    B, T = ids.shape
    token_mask = None if cache is None else cache.advance(T)
    e, back_embedding = embedding(p["token"], ids=ids)
    xp, n, C, N = namespace(e), config.order, config.width, config.hidden
    e_kept, back_drop = maybe_dropout(e, dropout_mask=branch(dropout_mask, "embedding"), rate=config.dropout)
    past = xp.zeros((B, n - 2, C), e.dtype) if cache is None else cache.layers["past"]
    x, back_window = window(e_kept, past, places=n - 1, token_mask=token_mask)
    if cache is not None:
        cache.layers["past"] = x[:, -1].reshape(B, n - 1, C)[:, : n - 2][:, ::-1].copy()
    z, back_linear = linear(x, p["H"], p["d"])
    a, back_tanh = tanh(z)
    a_kept, back_drop_hidden = maybe_dropout(a, dropout_mask=branch(dropout_mask, "hidden"), rate=config.dropout)
    parts = [a_kept, x, xp.ones((B, T, 1), e.dtype)] if config.direct else [a_kept, xp.ones((B, T, 1), e.dtype)]

    def back(dy: Array) -> Tree:
        dx, dH, dd = back_linear(back_tanh(back_drop_hidden(dy[..., :N])))
        if config.direct:
            dx += dy[..., N:-1]
        de, _ = back_window(dx)
        return {"token": back_embedding(back_drop(de)), "H": dH, "d": dd}

    return xp.concatenate(parts, axis=-1), back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `dropout_mask` holds: of the vectors, and of the units of tanh."""
    return {"embedding": config.width, "hidden": config.hidden}


def state_shapes(config: Config) -> Tree:
    """What is carried from token to token, for one text: the vectors of the last n - 2 tokens, the newest last."""
    return {"past": (config.order - 2, config.width)}


@declared_inputs
def head(p: Tree, config: Config) -> Array:
    """The weights of the output layer: U, the direct connections W, and b, which the state's last column of ones meets

    Shapes:  p tree; U (N, V); W (K, V), or None; b (V,) -> y (N+K+1, V)

    >>> config = Config(vocabulary=3, context=4, order=2, width=2, hidden=2)
    >>> head(map_leaves(zeros, shapes(config)), config).shape  # two units and a bias for each token
    (3, 3)
    """
    parts = [p["U"], p["W"], p["b"][None]] if config.direct else [p["U"], p["b"][None]]
    return namespace(p["U"]).concatenate(parts)


def add_head_gradient(dp: Tree, dhead: Array, config: Config) -> Tree:
    """The gradient of `hidden_states` completed by that of the head, cut into its parts."""
    dp["U"] = dhead[: config.hidden]
    if config.direct:
        dp["W"] = dhead[config.hidden : -1]
    dp["b"] = dhead[-1]
    return dp


@differentiable
def forward(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: State | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """NNLM, LMHEAD: the logits of the next token at every position

    Source:  Bengio et al. 2003 sec. 2, eq. (1); documents 001 ch. 1.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)

    >>> config = Config(vocabulary=3, context=4, order=2, width=2, hidden=2)
    >>> p, how = initial(config, np.random.default_rng(0)), {"config": config, "dropout_mask": None, "cache": None}
    >>> y = forward(p, ids=array([[1, 2, 1, 2]]), **how)[0]
    >>> bool((y[0, 1] == y[0, 3]).all())  # of order 2 it sees the last token alone
    True
    """
    h, back_hidden = hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    return logits(h, back_hidden, head(p, config), add_head_gradient, config)
