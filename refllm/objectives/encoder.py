"""What the objectives of an encoder ask of its model file. (refllm/models/bert.py)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from refllm.backend import Array
from refllm.parameters import Tree, map_leaves

Head: TypeAlias = tuple[Array, Callable[[Array], tuple[Array, Tree]]]  # back gives dh and the parameters that it used


class Encoder(Protocol):
    """Hidden states of a text, the heads on them, and the gradient put together from the parts that each gives."""

    def encode(
        self,
        p: Tree,
        *,
        ids: Array,
        segments: Array,
        attention_mask: Array | None,
        config: Any,
        dropout_mask: Tree | None,
    ) -> tuple[Array, Callable[[Array], Tree]]: ...

    def masked_transform(self, h: Array, p: Tree, *, config: Any) -> Head: ...

    def pair_logits(self, h: Array, p: Tree) -> Head: ...

    def class_logits(self, h: Array, p: Tree, *, dropout_mask: Array | None, rate: float) -> Head: ...

    def span_logits(self, h: Array, p: Tree) -> Head: ...

    def whole_gradient(self, p: Tree, *parts: Tree) -> Tree: ...

    def dropout_widths(self, config: Any) -> Tree: ...


def dropout_shapes(model: Encoder, config: Any, ids: Array) -> Tree:
    """The shapes of the draws that `encode` takes for these ids (B, T)."""
    return map_leaves(lambda width: (*ids.shape, width), model.dropout_widths(config))
