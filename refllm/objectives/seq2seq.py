"""From a source to a target: translation, summarisation, and every other task of text to text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from refllm.backend import Array, namespace
from refllm.blocks.lm_head import smoothed_lm_loss
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.models.config import ModelConfig
from refllm.parameters import Tree, map_leaves


class SequenceModel(Protocol):
    """What a model file offers to this objective."""

    def hidden_states(
        self, p: Tree, *, source: Array, attention_mask: Array | None, ids: Array, config: Any, dropout_mask: Any
    ) -> tuple[Array, Callable[[Array], Tree]]: ...

    def head(self, p: Tree, config: Any) -> Array: ...

    def add_head_gradient(self, dp: Tree, dhead: Array, config: Any) -> Tree: ...

    def dropout_widths(self, config: Any) -> Tree: ...


def shifted_right(targets: Array, *, start: int, ignore: int) -> Array:
    """What the decoder reads to predict `targets` (B, T): the start token and all of them but the last.

    Places of padding, whose target is `ignore`, hold the start token: no counted place comes after them.

    >>> shifted_right(array([[5, 6, 7], [8, -1, -1]]), start=0, ignore=-1).tolist()
    [[0, 5, 6], [0, 8, 0]]
    """
    xp = namespace(targets)
    before = xp.concatenate([xp.full_like(targets[:, :1], start), targets[:, :-1]], axis=1)
    return xp.where(before == ignore, start, before)


@differentiable
def seq2seq_loss(
    p: Tree,
    *,
    model: SequenceModel,
    source: Array,
    attention_mask: Array | None,
    inputs: Array,
    targets: Array,
    ignore: int | None,
    smoothing: float,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """NLL, label smoothing: y = -Σ over places of log P(target | the source, the inputs up to the place)

    A sum, as `causal_loss` is one. With smoothing, Σ_v t_v log P(v | ...) for log P(target | ...).
    Source:  Sutskever et al. 2014 (arXiv:1409.3215) sec. 2; Vaswani et al. 2017 (arXiv:1706.03762) sec. 5.4;
             documents 004 sec. 4.1.
    Shapes:  source (B, S) in [0, V); attention_mask bool (B, S), or None; inputs (B, T) in [0, V);
             targets (B, T) in [0, V) or `ignore` -> y ()
    Draws:   those of `encode` in "encoder", those of `decode` in "decoder"
    Special: `attention_mask` is false at the padding; inputs are what `shifted_right` makes of the targets.

    >>> from refllm.models import encoder_decoder as model
    >>> sizes = {"heads": 1, "head_width": 2, "width": 2, "hidden": 2}
    >>> config = model.Config(vocabulary=5, context=4, encoder_layers=1, decoder_layers=1, **sizes)
    >>> how = {"source": array([[1, 2, 3]]), "attention_mask": None, "config": config, "dropout_mask": None}
    >>> how |= {"inputs": array([[0, 4, 0]]), "targets": array([[4, 3, -1]]), "ignore": -1, "smoothing": 0.0}
    >>> y = seq2seq_loss(map_leaves(zeros, model.shapes(config)), model=model, **how)[0]
    >>> round(float(y / math.log(5)), 12)  # log V for each of two places
    2.0
    """
    h, back_hidden = model.hidden_states(
        p, source=source, attention_mask=attention_mask, ids=inputs, config=config, dropout_mask=dropout_mask
    )
    y, back_head = smoothed_lm_loss(
        h, model.head(p, config), targets=targets, ignore=ignore, smoothing=smoothing, cap=None
    )

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.add_head_gradient(back_hidden(dh), dhead, config)

    return y, back


@dataclass(frozen=True)
class Seq2Seq:
    """The mean of `seq2seq_loss` over the targets that count.

    A batch: source (B, S), attention_mask bool (B, S), targets (B, T), which are `ignore` at the padding.
    """

    model: SequenceModel
    config: Any
    start: int
    smoothing: float = 0.0
    ignore: int = -1

    def totals(self, batch: Tree) -> int:
        count = int((batch["targets"] != self.ignore).sum())
        if count == 0:
            raise UserError("the batch has no target; give examples whose target has a token")
        return count

    def dropout_shapes(self, batch: Tree) -> Tree:
        return dropout_shapes(self.model, self.config, batch["source"].shape, batch["targets"].shape)

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        targets = batch["targets"]
        y, back = seq2seq_loss(
            p, model=self.model, source=batch["source"], attention_mask=batch["attention_mask"],
            inputs=shifted_right(targets, start=self.start, ignore=self.ignore), targets=targets, ignore=self.ignore,
            smoothing=self.smoothing, config=self.config,
            dropout_mask=dropout_mask,
        )  # fmt: skip
        return y / totals, lambda dy: back(dy / totals)


def dropout_shapes(model: SequenceModel, config: Any, source: tuple[int, ...], target: tuple[int, ...]) -> Tree:
    """The shapes of the draws of the encoder and of the decoder."""
    widths, texts = model.dropout_widths(config), {"encoder": source, "decoder": target}
    return {half: map_leaves(lambda width, ids=ids: (*ids, width), widths[half]) for half, ids in texts.items()}
