"""Recurrent layers: in one direction, in both, and several on top of each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeAlias

from refllm.backend import Array, namespace
from refllm.blocks.layers import through
from refllm.blocks.residual import maybe_dropout
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.kinds import OneOf
from refllm.ops.recurrent import lstm, rnn
from refllm.parameters import NamedLeaf, Tree, named_leaves

GATES = {"rnn": 1, "lstm": 4}  # the cells, and how many sums each unit of theirs takes
Cell: TypeAlias = Annotated[str, OneOf(GATES)]


def recurrent_shapes(inputs: int, width: int, *, cell: Cell) -> Tree:
    G = GATES[cell] * width
    return {"Wx": (inputs, G), "Wh": (width, G), "b": (G,)}


def recurrent_layers_shapes(inputs: int, width: int, *, layers: int, cell: Cell, bidirectional: bool) -> Tree:
    seen = 2 * width if bidirectional else width  # by the layers above the first
    shapes = [recurrent_shapes(seen if i else inputs, width, cell=cell) for i in range(layers)]
    return [{"forward": one, "backward": dict(one)} for one in shapes] if bidirectional else shapes


def initial_recurrent(shapes: Tree, generator: Any, *, cell: Cell, prefix: str) -> Iterator[NamedLeaf]:
    """The initial leaves of layers of `cell`: matrices uniform with deviation 1/√(their inputs), biases 0, those of the
    LSTM's forget gates 1.

    Source:  LeCun et al. 1998 sec. 4.6 for the deviation, with which sums are about as large as what they sum; Gers et
             al. 2000 and Jozefowicz et al. 2015 for the forget gates: open at first, so that gradients reach far back.
    """
    for path, shape in named_leaves(shapes, prefix):
        reach = math.sqrt(3 / shape[0]) if len(shape) > 1 else 0.0
        leaf = generator.uniform(-reach, reach, shape)
        if len(shape) == 1 and cell == "lstm":
            N = shape[0] // GATES[cell]
            leaf[N : 2 * N] = 1
        yield path, leaf


def recurrent_state_shapes(width: int, *, cell: Cell) -> Tree:
    """What a layer carries from token to token, for one text."""
    return {"h": (width,), "c": (width,)} if cell == "lstm" else {"h": (width,)}


@differentiable
def recurrent(
    x: Array, p: Tree, *, cell: Cell, token_mask: Array | None, state: Tree | None
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """RNN or LSTM, cell = "rnn" or "lstm", from a state of zeros

    Source:  Elman 1990; Hochreiter & Schmidhuber 1997; documents 003 sec. 4.1, 5.2.
    Shapes:  x (B, T, I); Wx (I, G*N); Wh (N, G*N); b (G*N,); token_mask bool (B, T), or None -> y (B, T, N)
    Special: G is 1 for the RNN and 4 for the LSTM, its gates. With `state`, a dict of the arrays h (B, N) and for the
             LSTM c (B, N), the layer begins with these and puts its last ones in their place; the pullback then serves
             the new tokens alone, so training uses none.

    >>> p = {"Wx": ones((1, 1)), "Wh": zeros((1, 1)), "b": zeros(1)}
    >>> y, back = recurrent(array([[[0.0], [1000.0]]]), p, cell="rnn", token_mask=None, state=None)
    >>> y.tolist()  # tanh, without memory
    [[[0.0], [1.0]]]
    """
    xp = namespace(x)
    begin = state if state is not None else {name: xp.zeros((len(x), len(p["Wh"])), x.dtype) for name in ("h", "c")}
    if cell == "rnn":
        y, back_rnn = rnn(x, begin["h"], p["Wx"], p["Wh"], p["b"], token_mask=token_mask)
    else:
        (y, c), back_lstm = lstm(x, begin["h"], begin["c"], p["Wx"], p["Wh"], p["b"], token_mask=token_mask)
    if state is not None:
        state["h"] = y[:, -1].copy()
        if cell == "lstm":
            state["c"] = c

    def back(dy: Array) -> tuple[Array, Tree]:
        if cell == "rnn":
            dx, _, dWx, dWh, db = back_rnn(dy)
        else:
            dx, _, _, dWx, dWh, db = back_lstm(dy, xp.zeros_like(c))
        return dx, {"Wx": dWx, "Wh": dWh, "b": db}

    return y, back


@differentiable
def bidirectional(
    x: Array, p: Tree, *, cell: Cell, token_mask: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """BIRNN: y_t = (forward h_t, backward h_t) side by side; the backward states run from the last token to the first

    Source:  Schuster & Paliwal 1997; documents 003 sec. 2.3, 4.1 (erratum E17: it is two recurrences).
    Shapes:  x (B, T, I); token_mask bool (B, T), or None; forward tree; backward tree -> y (B, T, 2*N)
    Special: where `token_mask` is false the states pass unchanged, so that texts of unequal length, padded on either
             side, have in both directions the states that each has alone.

    >>> p = {"Wx": ones((1, 1)), "Wh": array([[1000.0]]), "b": zeros(1)}
    >>> x = array([[[0.0], [1000.0], [0.0]]])  # from left to right only what comes after the 1000 knows of it
    >>> bidirectional(x, {"forward": p, "backward": p}, cell="rnn", token_mask=None)[0].tolist()
    [[[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]]
    """
    xp = namespace(x)
    turned = None if token_mask is None else token_mask[:, ::-1]
    ahead, back_ahead = recurrent(x, p["forward"], cell=cell, token_mask=token_mask, state=None)
    behind, back_behind = recurrent(x[:, ::-1], p["backward"], cell=cell, token_mask=turned, state=None)
    N = ahead.shape[-1]

    def back(dy: Array) -> tuple[Array, Tree]:
        dx, dforward = back_ahead(dy[..., :N])
        dx_turned, dbackward = back_behind(dy[:, ::-1, N:])
        return dx + dx_turned[:, ::-1], {"forward": dforward, "backward": dbackward}

    return xp.concatenate([ahead, behind[:, ::-1]], axis=-1), back


@differentiable
def recurrent_layers(
    x: Array,
    p: Sequence[Tree],
    *,
    cell: Cell,
    token_mask: Array | None,
    states: Sequence[Tree] | None,
    dropout_mask: Sequence[Array] | None,
    rate: float,
) -> tuple[Array, Callable[[Array], tuple[Array, list[Tree]]]]:
    """RNN, LSTM or BIRNN, several layers: each reads the states of the one below; dropout after each

    A layer is bidirectional where its parameters are {"forward", "backward"}. The draws of dropout change what goes up
    to the next layer, never what goes on to the next step. M is N, the width of a state, and 2N where a layer is
    bidirectional.
    Source:  Zaremba et al. 2014 (arXiv:1409.2329) sec. 3.1; documents 003 sec. 5.2 (two layers).
    Shapes:  x (B, T, I); token_mask bool (B, T), or None; dropout_mask[L] bool (B, T, M), or None -> y (B, T, M)

    >>> p = {"Wx": ones((1, 1)), "Wh": zeros((1, 1)), "b": zeros(1)}
    >>> how = {"cell": "rnn", "token_mask": None, "states": None, "dropout_mask": None, "rate": 0.0}
    >>> y, back = recurrent_layers(array([[[1.0]]]), [p, p], **how)
    >>> float(y[0, 0, 0] - np.tanh(np.tanh(1.0)))
    0.0
    """

    for what, given in (("states", states), ("dropout_mask", dropout_mask)):
        if given is not None and len(given) != len(p):
            raise UserError(f"recurrent_layers: {what} must be one for each of the {len(p)} layers; got {len(given)}")

    def directions(x: Array, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        if "backward" in of_layer:
            return bidirectional(x, of_layer, cell=cell, token_mask=token_mask)
        return recurrent(x, of_layer, cell=cell, token_mask=token_mask, state=None if states is None else states[i])

    def layer(x: Array, of_layer: Tree, i: int) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
        h, back_h = directions(x, of_layer, i)
        y, back_drop = maybe_dropout(h, dropout_mask=None if dropout_mask is None else dropout_mask[i], rate=rate)
        return y, lambda dy: back_h(back_drop(dy))

    return through(x, p, layer)
