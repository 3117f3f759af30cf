"""Denoising: the model reads a corrupted text and writes what it was, or what was taken out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array, namespace
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.fit import require_indices
from refllm.models.config import ModelConfig
from refllm.objectives.seq2seq import SequenceModel, dropout_shapes, seq2seq_loss, shifted_right
from refllm.parameters import Tree

_IGNORE = -1


@differentiable
def denoising_loss(
    p: Tree,
    *,
    model: SequenceModel,
    source: Array,
    attention_mask: Array | None,
    ids: Array,
    counted: Array,
    start: int,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """DAE: y = -Σ_t m_t log P(x_t | x̃, x_1 ... x_{t-1}),   x̃ the corrupted text, m_t whether place t counts

    Erratum E16: m_t is an indicator, and the condition is the corrupted text as a whole, not the text without a word.
    BART writes the whole text and counts all of it; T5 and PEGASUS write what was taken out (data/corruption.py makes
    both). A sum, as `causal_loss` is one.
    Source:  Lewis et al. 2020 (arXiv:1910.13461) sec. 2.2; Raffel et al. 2020 (arXiv:1910.10683) sec. 3.1.4; documents
             002 sec. 3.3.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S), or None; ids (B, T) in [0, V); counted bool (B, T) ->
             y ()
    Special: source is x̃, ids are x, counted is m; `attention_mask` and `counted` are false at the padding.

    >>> from refllm.models import encoder_decoder as model
    >>> sizes = {"heads": 1, "head_width": 2, "width": 2, "hidden": 2}
    >>> config = model.Config(vocabulary=5, context=4, encoder_layers=1, decoder_layers=1, **sizes)
    >>> how = {"source": array([[1, 2, 3]]), "attention_mask": None, "config": config, "dropout_mask": None}
    >>> how |= {"ids": array([[1, 4, 3]]), "counted": array([[True, True, False]]), "start": 0}
    >>> y = denoising_loss(map_leaves(zeros, model.shapes(config)), model=model, **how)[0]
    >>> round(float(y / math.log(5)), 12)  # log V for each of two places
    2.0
    """
    xp = namespace(ids)
    if not 0 <= start < config.vocabulary:
        raise UserError(f"denoising_loss: start must be a token, in [0, {config.vocabulary}); got {start}")
    require_indices("denoising_loss", ids=(ids, config.vocabulary))
    ids = ids.astype("int64", copy=False)  # room for the number that is ignored
    return seq2seq_loss(
        p, model=model, source=source, attention_mask=attention_mask,
        inputs=shifted_right(ids, start=start, ignore=_IGNORE),
        targets=xp.where(counted, ids, _IGNORE), ignore=_IGNORE, smoothing=0.0, config=config,
        dropout_mask=dropout_mask,
    )  # fmt: skip


@dataclass(frozen=True)
class Denoising:
    """The mean of `denoising_loss` over the places that count.

    A batch: source (B, S), attention_mask bool (B, S), ids (B, T), counted bool (B, T).
    """

    model: SequenceModel
    config: Any
    start: int

    def totals(self, batch: Tree) -> int:
        count = int(batch["counted"].sum())
        if count == 0:
            raise UserError("the batch has no masked position; give longer texts, or corrupt a larger share of them")
        return count

    def dropout_shapes(self, batch: Tree) -> Tree:
        return dropout_shapes(self.model, self.config, batch["source"].shape, batch["ids"].shape)

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        y, back = denoising_loss(
            p, model=self.model, source=batch["source"], attention_mask=batch["attention_mask"], ids=batch["ids"],
            counted=batch["counted"], start=self.start, config=self.config,
            dropout_mask=dropout_mask,
        )  # fmt: skip
        return y / totals, lambda dy: back(dy / totals)
