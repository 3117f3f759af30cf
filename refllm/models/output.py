"""The output layer of the language models: logits from hidden states, and its weights, the embedding's or its own,
where `config.tied` says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.backend import Array
from refllm.differentiable import declared_inputs
from refllm.ops.linear import matmul
from refllm.parameters import Tree


def logits(
    h: Array,
    back_hidden: Callable[[Array], Tree],
    W: Array,
    add_gradient: Callable[[Tree, Array, Any], Tree],
    config: Any,
) -> tuple[Array, Callable[[Array], Tree]]:
    """LMHEAD: y = h W,   h the hidden states that the pullback `back_hidden` came with

    Source:  documents 002 sec. 4.2: P(x_{t+1} | x_≤t) = softmax(h_t W).
    Shapes:  h (B, T, C); W (C, V) -> y (B, T, V)
    Back:    of all parameters of the model: that of the hidden states at dh = dy Wᵀ, to which the model's
             `add_gradient` (its `add_head_gradient`) adds dW = Σ hᵀ dy.

    >>> h, W = array([[[2.0]]]), array([[1.0, 3.0]])
    >>> y, back = logits(h, lambda dh: {"of the states": dh}, W, lambda dp, dW, config: {**dp, "head": dW}, None)
    >>> y.tolist(), {name: g.tolist() for name, g in back(ones((1, 1, 2))).items()}
    ([[[2.0, 6.0]]], {'of the states': [[[4.0]]], 'head': [[2.0, 2.0]]})
    """
    y, back_head = matmul(h, W)

    def back(dy: Array) -> Tree:
        dh, dW = back_head(dy)
        return add_gradient(back_hidden(dh), dW, config)

    return y, back


def logit_cap(config: Any) -> float | None:
    """What the logits are held within (CAP), or None."""
    return getattr(config, "logit_cap", 0.0) or None


@declared_inputs
def head(p: Tree, config: Any) -> Array:
    """The weights of the output layer: the embedding's, transposed, where `config` ties them

    Shapes:  p tree; token (V, C), or None; head (C, V), or None -> W (C, V)

    >>> class Tied: tied = True
    >>> head({"token": array([[1.0], [2.0], [3.0]])}, Tied).tolist()  # the table of the tokens, transposed
    [[1.0, 2.0, 3.0]]
    """
    return p["token"].T if config.tied else p["head"]


def add_head_gradient(dp: Tree, dhead: Array, config: Any) -> Tree:
    """The gradient of the hidden states completed by that of the head; a tied matrix sums its uses."""
    if config.tied:
        dp["token"] += dhead.T
    else:
        dp["head"] = dhead
    return dp
