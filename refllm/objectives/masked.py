"""The masked language model: which words stood at the selected places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.lm_head import lm_loss
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.fit import require_array, require_indices
from refllm.models.config import ModelConfig
from refllm.objectives.encoder import Encoder, Head, dropout_shapes
from refllm.ops.embedding import embedding
from refllm.parameters import Tree


@differentiable
def masked_nll(
    h: Array, p: Tree, *, model: Encoder, positions: Array, targets: Array, ignore: int | None, config: ModelConfig
) -> Head:
    """MLM: y = -Σ over the selected places of log P(word | the corrupted text), from the hidden states

    The rows of the selected places are taken out first: no other place ever has logits, and those in blocks.
    Source:  Devlin et al. 2019 sec. 3.1; documents 004 sec. 4.3, 002 sec. 3.3 (erratum E16: the condition is the
             corrupted text, and m_t the indicator of a selected place).
    Shapes:  h (B, T, C); positions (B, M) in [0, T); targets (B, M) in [0, V) or `ignore`;
             p tree; token (V, C); masked tree -> y ()
    Back:    gives dh, zero at the other places, and the gradients of "token" and "masked".
    Raises:  UserError if the batch has no masked position; IndexError if one lies outside the text.

    >>> from refllm.models import bert
    >>> config = bert.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, h = map_leaves(zeros, bert.shapes(config)), ones((1, 4, 2))
    >>> how = {"positions": array([[1, 3]]), "targets": array([[4, -1]]), "ignore": -1, "config": config}
    >>> round(float(masked_nll(h, p, model=bert, **how)[0] / math.log(5)), 12)  # one place counts
    1.0
    """
    (B, T, C), M = h.shape, positions.shape[1]
    if M == 0:
        raise UserError("masked: the batch has no masked position; give longer texts, or mask a larger share of them")
    require_indices("masked", positions=(positions, T))
    xp = namespace(h)
    places = positions.astype("int64") + T * xp.arange(B)[:, None]  # unsigned ones added to signed would be floats
    rows, back_rows = embedding(h.reshape(B * T, C), ids=places)  # (B, M, C)
    t, back_transform = model.masked_transform(rows, p, config=config)
    # a bias is the weight of an input that is always 1
    one = xp.ones((B, M, 1), t.dtype)
    require_array("masked_nll", "token", p["token"])  # no operation takes these two as they are
    require_array("masked_nll", "masked.bias", p["masked"]["bias"])
    decoder = xp.concatenate([p["token"], p["masked"]["bias"][:, None]], axis=1).T  # (C + 1, V)
    y, back_decoder = lm_loss(xp.concatenate([t, one], axis=2), decoder, targets=targets, ignore=ignore, cap=None)

    def back(dy: Array) -> tuple[Array, Tree]:
        dt, dW = back_decoder(dy)
        drows, dmasked = back_transform(dt[..., :C])
        return back_rows(drows).reshape(h.shape), {"token": dW[:C].T, "masked": {**dmasked, "bias": dW[C]}}

    return y, back


@differentiable
def masked_loss(
    p: Tree,
    *,
    model: Encoder,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    positions: Array,
    targets: Array,
    ignore: int | None,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """MLM: y = -Σ over the selected places of log P(word | the corrupted text)

    A sum, as `causal_loss` is one; `counted` says what the mean divides by.
    Source:  Devlin et al. 2019 sec. 3.1; documents 000 sec. 3.2, 001 ch. 3 sec. 1.2, 004 sec. 4.3.
    Shapes:  ids (B, T) in [0, V); segments (B, T) in [0, segments); attention_mask bool (B, 1, 1, T), or None;
             positions (B, M) in [0, T); targets (B, M) in [0, V) or `ignore` -> y ()
    Special: ids are the corrupted text, targets the words that stood at the positions.
    Raises:  UserError if the batch has no masked position.

    >>> from refllm.models import bert
    >>> config = bert.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, ids = map_leaves(zeros, bert.shapes(config)), array([[1, 2, 3, 4]])
    >>> how = {"segments": 0 * ids, "attention_mask": None, "config": config, "dropout_mask": None}
    >>> y = masked_loss(p, model=bert, ids=ids, positions=array([[1, 3]]), targets=array([[4, 1]]), ignore=-1, **how)[0]
    >>> round(float(y / math.log(5)), 12)
    2.0
    """
    h, back_h = model.encode(
        p, ids=ids, segments=segments, attention_mask=attention_mask, config=config, dropout_mask=dropout_mask
    )
    y, back_head = masked_nll(
        h, p, model=model, positions=positions, targets=targets, ignore=ignore, config=config
    )  # fmt: skip

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.whole_gradient(p, back_h(dh), dhead)

    return y, back


def counted(targets: Array, *, ignore: int, what: str) -> int:
    """How many targets count: the divisor of a mean, from host arrays of the WHOLE batch.

    Raises:  UserError if none does.

    >>> counted(array([[4, -1], [-1, 2]]), ignore=-1, what="masked positions")
    2
    """
    count = int((targets != ignore).sum())
    if count == 0:
        raise UserError(f"the batch has no {what}; give more text, or other examples")
    return count


@dataclass(frozen=True)
class Masked:
    """The mean of `masked_loss` over the selected places of a batch (data/masking.py)."""

    model: Encoder
    config: Any
    ignore: int = -1

    def totals(self, batch: Tree) -> int:
        return counted(batch["targets"], ignore=self.ignore, what="masked position")

    def dropout_shapes(self, batch: Tree) -> Tree:
        return dropout_shapes(self.model, self.config, batch["ids"])

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        y, back = masked_loss(
            p, model=self.model, ids=batch["ids"], segments=batch["segments"], attention_mask=batch["attention_mask"],
            positions=batch["positions"], targets=batch["targets"], ignore=self.ignore, config=self.config,
            dropout_mask=dropout_mask,
        )  # fmt: skip
        return y / totals, lambda dy: back(dy / totals)
