"""What a text is: one label for the whole of it, from the state at [CLS]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.config import ModelConfig
from refllm.objectives.encoder import Encoder, Head, dropout_shapes
from refllm.ops.cross_entropy import smoothed_cross_entropy
from refllm.parameters import Tree, branch


@differentiable
def class_nll(
    h: Array,
    p: Tree,
    *,
    model: Encoder,
    targets: Array,
    weights: Array | None,
    smoothing: float,
    dropout_mask: Array | None,
    config: ModelConfig,
) -> Head:
    """CLS, CE: y = -Σ over texts of w Σ_v t_v log P(v), from the hidden states; w = 1 without weights

    t = (1 - ε) onehot(label) + ε / labels,   ε = smoothing; with ε = 0 the inner sum is log P(label), to the bit.
    Source:  Devlin et al. 2019 sec. 4.1; Szegedy et al. 2016 (arXiv:1512.00567) sec. 7; documents 000 sec. 4.2.
    Shapes:  h (B, T, C); targets (B,) in [0, labels); weights real (B,), or None; dropout_mask bool (B, C), or None
             -> y ()
    Back:    gives dh and the gradients of "pooler" and "classes".

    >>> from refllm.models import bert
    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=("classes",), labels=3)
    >>> p, h = map_leaves(zeros, bert.shapes(config)), ones((2, 4, 2))
    >>> how = {"targets": array([0, 2]), "weights": array([1.0, 4.0]), "smoothing": 0.0, "dropout_mask": None}
    >>> round(float(class_nll(h, p, model=bert, config=config, **how)[0] / math.log(3)), 12)  # of weights 1 and 4
    5.0
    """
    logits, back_logits = model.class_logits(h, p, dropout_mask=dropout_mask, rate=config.dropout)
    how: dict[str, Any] = {"targets": targets, "ignore": None, "smoothing": smoothing}
    if weights is None:
        y, back_nll = smoothed_cross_entropy(logits, **how, reduction="sum")
        return y, lambda dy: back_logits(back_nll(dy))
    each, back_each = smoothed_cross_entropy(logits, **how, reduction="none")
    w = weights.astype(each.dtype)
    return (each * w).sum(), lambda dy: back_logits(back_each(dy * w))


@differentiable
def classification_loss(
    p: Tree,
    *,
    model: Encoder,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    targets: Array,
    weights: Array | None,
    smoothing: float,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """CLS, CE, label smoothing: y = -Σ over texts of w Σ_v t_v log P(v | [CLS] x [SEP])

    t = (1 - ε) onehot(label) + ε / labels,   ε = smoothing; with ε = 0 the inner sum is log P(label), to the bit.

    One prediction a text, as wide as the label set (erratum E13). A weight is that of a text: for weights of classes
    give `class_weights[targets]`. The mean divides by the sum of the weights.
    Source:  Devlin et al. 2019 sec. 4.1; Szegedy et al. 2016 (arXiv:1512.00567) sec. 7; documents 000 sec. 4.2, 4.3;
             003 sec. 5.2.
    Shapes:  ids (B, T) in [0, V); segments (B, T) in [0, segments); attention_mask bool (B, 1, 1, T), or None;
             targets (B,) in [0, labels); weights real (B,), or None -> y ()
    Draws:   those of `encode`, and in "classes" one of bool (B, C) for the pooled state

    >>> from refllm.models import bert
    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=("classes",), labels=3)
    >>> p, ids = map_leaves(zeros, bert.shapes(config)), array([[1, 2], [3, 4]])
    >>> how = {"segments": 0 * ids, "attention_mask": None, "targets": array([0, 2]), "weights": None, "smoothing": 0.0}
    >>> y = classification_loss(p, model=bert, ids=ids, config=config, dropout_mask=None, **how)[0]
    >>> round(float(y / math.log(3)), 12)  # log 3 for each of two texts
    2.0
    """
    inside, pooled = apart(dropout_mask)
    h, back_h = model.encode(
        p, ids=ids, segments=segments, attention_mask=attention_mask, config=config, dropout_mask=inside
    )
    y, back_head = class_nll(
        h, p, model=model, targets=targets, weights=weights, smoothing=smoothing, dropout_mask=pooled, config=config
    )

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.whole_gradient(p, back_h(dh), dhead)

    return y, back


def apart(dropout_mask: Tree | None) -> tuple[Tree | None, Array | None]:
    """The draws of the encoder, and the one for the pooled state."""
    if dropout_mask is None:
        return None, None
    of_classes = branch(dropout_mask, "classes")
    return {name: draw for name, draw in dropout_mask.items() if name != "classes"}, of_classes


@dataclass(frozen=True)
class Classification:
    """The mean of `classification_loss` over the texts of a batch, weighted where the batch holds "weights"."""

    model: Encoder
    config: Any
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        settle_fields(self)
        if not 0 <= self.smoothing < 1:
            raise UserError(f"the smoothing of the labels must be at least 0 and below 1, got {self.smoothing}")

    def totals(self, batch: Tree) -> float:
        total = float(batch["weights"].sum()) if "weights" in batch else float(len(batch["targets"]))
        if not total > 0:
            raise UserError("the texts of the batch have no weight at all; give at least one class a positive weight")
        return total

    def dropout_shapes(self, batch: Tree) -> Tree:
        of_encoder = dropout_shapes(self.model, self.config, batch["ids"])
        return {**of_encoder, "classes": (len(batch["ids"]), self.config.width)}

    def loss(
        self, p: Tree, batch: Tree, *, totals: float, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        y, back = classification_loss(
            p, model=self.model, ids=batch["ids"], segments=batch["segments"], attention_mask=batch["attention_mask"],
            targets=batch["targets"], weights=batch.get("weights"), smoothing=self.smoothing, config=self.config,
            dropout_mask=dropout_mask,
        )  # fmt: skip
        return y / totals, lambda dy: back(dy / totals)
