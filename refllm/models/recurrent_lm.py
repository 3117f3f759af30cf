"""Recurrent language models: a state that takes in one token after the other, and the next token from it.

    e_t = token[ids_t]                                      (B, T, C)
    h_t = layer_L( ... layer_1(e_t))                        RNN or LSTM, (B, T, N), each from its state before
    P(x_{t+1} | x_1 ... x_t) = softmax(h_t W)               W = tokenᵀ if tied

Every window that is trained on begins with a state of zeros, and gradients reach back to its beginning: nothing is
carried from window to window. Generation carries the state, for as long as it likes: there is no context to fill.

Source: Mikolov et al. 2010 (RNN), Sundermeyer et al. 2012 (LSTM), Zaremba et al. 2014 (arXiv:1409.2329) for dropout
between the layers; Press & Wolf 2017 (arXiv:1608.05859) for the tie; documents 001 ch. 1, 003 sec. 5.2.
What differs from PyTorch's layers: one bias, where PyTorch adds two that learn the same.
Erratum E13: the document scores a label at every position with this model; here the wanted output is the next token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from refllm.backend import Array
from refllm.blocks.recurrent import (
    GATES,
    initial_recurrent,
    recurrent_layers,
    recurrent_layers_shapes,
    recurrent_state_shapes,
)
from refllm.blocks.residual import maybe_dropout
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.checks import require_draws, require_dropout, require_one_of, require_parameters, require_whole
from refllm.models.output import add_head_gradient, head, logits
from refllm.models.state import State
from refllm.ops.embedding import embedding
from refllm.parameters import NamedLeaf, Tree, branch, from_names


@dataclass(frozen=True)
class Config:
    """The architecture: V, layers L, width C of the embedding, hidden N, the width of the states.

    `context` is the length of the windows to train on; the model has no limit of its own.
    """

    vocabulary: int
    context: int
    layers: int = 2
    width: int = 256
    hidden: int = 512
    cell: str = "lstm"
    tied: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        settle_fields(self)
        require_whole(self, "vocabulary", "context", "layers", "width", "hidden")
        require_one_of(self, "cell", GATES)
        if self.tied and self.width != self.hidden:
            raise UserError(
                f"a tied head needs states as wide as the embedding: width {self.width}, hidden {self.hidden}; "
                "make them equal or leave tied out"
            )
        require_dropout(self)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


CHOICES = tuple(field.name for field in fields(Config) if field.name != "vocabulary")  # a user's to make


def document_003(vocabulary: int, context: int) -> Config:
    """The model of documents 003 sec. 5.2: embedding 256, two LSTM layers of 512 units, no dropout."""
    return Config(vocabulary=vocabulary, context=context, layers=2, width=256, hidden=512, cell="lstm")


def shapes(config: Config) -> Tree:
    """The structure of the parameters."""
    V, C, N = config.vocabulary, config.width, config.hidden
    tree: Tree = {
        "token": (V, C),
        "layers": recurrent_layers_shapes(C, N, layers=config.layers, cell=config.cell, bidirectional=False),
    }
    if not config.tied:
        tree["head"] = (N, V)
    return tree


def initial(config: Config, generator: Any) -> Tree:
    """Initial parameters, as `initial_leaves` draws them."""
    return from_names(shapes(config), dict(initial_leaves(config, generator)))


def initial_leaves(config: Config, generator: Any) -> Iterator[NamedLeaf]:
    """Initial float64 host arrays by path: the layers' as in blocks/recurrent.py; the head uniform with deviation
    1/√N; the embedding normal with deviation 1, or where it is the head too C^(-1/4), half way in proportion between
    the 1 that reading wants and the 1/√C that the head wants."""
    C, tree = config.width, shapes(config)
    yield "token", generator.standard_normal(tree["token"]) * (C**-0.25 if config.tied else 1)
    yield from initial_recurrent(tree["layers"], generator, cell=config.cell, prefix="layers")
    if not config.tied:
        reach = math.sqrt(3 / config.hidden)
        yield "head", generator.uniform(-reach, reach, tree["head"])


@differentiable
def hidden_states(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: State | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """RNN-LM, LSTM-LM: the states of the last layer

    Source:  Mikolov et al. 2010 sec. 2; Zaremba et al. 2014 (arXiv:1409.2329) sec. 3; documents 003 sec. 5.2.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, N)
    Draws:   as `dropout_widths` says: bool (B, T, C) of the embedding, (B, T, N) of each layer
    Back:    back gives no gradient of the head, which is not used here.
    Special: T may have any length. With a carried state the layers go on from it and leave theirs in it; the pullback
             then serves the new tokens alone. Where the state knows of padding, none of it enters.

    >>> config = Config(vocabulary=5, context=4, layers=1, width=2, hidden=2)
    >>> p, how = initial(config, np.random.default_rng(0)), {"config": config, "dropout_mask": None, "cache": None}
    >>> y, z = (hidden_states(p, ids=ids, **how)[0] for ids in (array([[1, 2, 3]]), array([[1, 2, 4]])))
    >>> bool((y[:, :2] == z[:, :2]).all()), bool((y[:, 2] == z[:, 2]).any())  # the past does not know the future
    (True, False)
    """
    require_parameters("recurrent_lm", p, config, shapes, cache=cache)
    require_draws("recurrent_lm", dropout_mask, dropout_widths, config)
    token_mask = None if cache is None else cache.advance(ids.shape[1])
    e, back_embedding = embedding(p["token"], ids=ids)  # (B, T, C)
    x, back_drop = maybe_dropout(e, dropout_mask=branch(dropout_mask, "embedding"), rate=config.dropout)
    y, back_layers = recurrent_layers(
        x,
        p["layers"],
        cell=config.cell,
        token_mask=token_mask,
        states=None if cache is None else cache.layers,
        dropout_mask=branch(dropout_mask, "layers"),
        rate=config.dropout,
    )

    def back(dy: Array) -> Tree:
        dx, dlayers = back_layers(dy)
        return {"token": back_embedding(back_drop(dx)), "layers": dlayers}

    return y, back


def dropout_widths(config: Config) -> Tree:
    """The widths of the draws (B, T, width) that `dropout_mask` holds: one after the embedding, one
    after each layer."""
    return {"embedding": config.width, "layers": [config.hidden] * config.layers}


def state_shapes(config: Config) -> Tree:
    """What each layer carries from token to token, for one text."""
    return [recurrent_state_shapes(config.hidden, cell=config.cell) for _ in range(config.layers)]


@differentiable
def forward(
    p: Tree, *, ids: Array, config: Config, dropout_mask: Tree | None, cache: State | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """RNN-LM, LSTM-LM, LMHEAD: the logits of the next token at every position

    Source:  documents 002 sec. 4.2, 003 sec. 5.2.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)

    >>> config = Config(vocabulary=3, context=4, layers=1, width=2, hidden=2)
    >>> p = map_leaves(zeros, shapes(config))
    >>> forward(p, ids=array([[1, 2]]), config=config, dropout_mask=None, cache=None)[0].tolist()  # knows nothing
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """
    h, back_hidden = hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=cache)
    return logits(h, back_hidden, head(p, config), add_head_gradient, config)
