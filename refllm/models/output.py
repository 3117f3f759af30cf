"""The weights of the output layer, the embedding's or its own, for the models whose `config.tied` says which."""

from __future__ import annotations

from typing import Any

from refllm.backend import Array
from refllm.parameters import Tree


def head(p: Tree, config: Any) -> Array:
    """The weights of the output layer, (C, V): the embedding's, transposed, where `config` ties them."""
    return p["token"].T if config.tied else p["head"]


def add_head_gradient(dp: Tree, dhead: Array, config: Any) -> Tree:
    """The gradient of the hidden states completed by that of the head; a tied matrix sums its uses."""
    if config.tied:
        dp["token"] += dhead.T
    else:
        dp["head"] = dhead
    return dp
