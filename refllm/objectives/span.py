"""Extractive question answering: where in the text an answer starts and where it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array, known, namespace
from refllm.differentiable import declared_inputs, differentiable
from refllm.errors import UserError
from refllm.fit import require_indices
from refllm.models.config import ModelConfig
from refllm.objectives.encoder import Encoder, Head, dropout_shapes
from refllm.objectives.masked import counted
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree


@differentiable
def span_nll(
    h: Array, p: Tree, *, model: Encoder, answer_mask: Array | None, targets: Array, ignore: int | None
) -> Head:
    """TASKS, CE: y = -Σ over texts of (log P(start) + log P(end)), from the hidden states

    Each is a softmax over the places of the text where an answer may lie.
    Source:  Devlin et al. 2019 sec. 4.2; documents 000 sec. 6.
    Shapes:  h (B, T, C); answer_mask bool (B, T), or None; targets (B, 2) in [0, T) or `ignore` -> y ()
    Back:    gives dh, zero where answer_mask is false, and the gradient of "span".
    Raises:  UserError if an answer lies where answer_mask is false.

    >>> from refllm.models import bert
    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=("span",))
    >>> p, h, may = map_leaves(zeros, bert.shapes(config)), ones((1, 4, 2)), array([[False, True, True, True]])
    >>> y = span_nll(h, p, model=bert, answer_mask=may, targets=array([[1, 2]]), ignore=None)[0]
    >>> round(float(y / math.log(3)), 12)  # one of three places for the start, and one for the end
    2.0
    """
    xp = namespace(h)
    logits, back_logits = model.span_logits(h, p)
    scores = logits.swapaxes(1, 2)  # (B, 2, T)
    if answer_mask is not None:
        _require_answers_inside(xp, answer_mask, targets, ignore)
        scores = xp.where(answer_mask[:, None, :], scores, _least(xp, scores)).astype(scores.dtype)
    y, back_nll = cross_entropy(scores, targets=targets, ignore=ignore, reduction="sum")

    def back(dy: Array) -> tuple[Array, Tree]:
        dscores = back_nll(dy)
        if answer_mask is not None:
            dscores *= answer_mask[:, None, :]
        return back_logits(dscores.swapaxes(1, 2))

    return y, back


@differentiable
def span_loss(
    p: Tree,
    *,
    model: Encoder,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    answer_mask: Array | None,
    targets: Array,
    ignore: int | None,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """TASKS, CE: y = -Σ over texts of (log P(start) + log P(end))

    Source:  Devlin et al. 2019 sec. 4.2; documents 000 sec. 6.
    Shapes:  ids (B, T) in [0, V); segments (B, T) in [0, segments); attention_mask bool (B, 1, 1, T), or None;
             answer_mask bool (B, T), or None; targets (B, 2) in [0, T) or `ignore` -> y ()
    Special: ids are [CLS] question [SEP] text [SEP]; an answer may lie where `answer_mask` is true; targets are its
             start and its end.
    Raises:  UserError if an answer lies where answer_mask is false.

    >>> from refllm.models import bert
    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=("span",))
    >>> p, ids = map_leaves(zeros, bert.shapes(config)), array([[1, 2, 3, 4]])
    >>> how = {"segments": 0 * ids, "attention_mask": None, "config": config, "dropout_mask": None, "ignore": None}
    >>> y = span_loss(p, model=bert, ids=ids, answer_mask=None, targets=array([[1, 2]]), **how)[0]
    >>> round(float(y / math.log(4)), 12)
    2.0
    """
    h, back_h = model.encode(
        p, ids=ids, segments=segments, attention_mask=attention_mask, config=config, dropout_mask=dropout_mask
    )
    y, back_head = span_nll(h, p, model=model, answer_mask=answer_mask, targets=targets, ignore=ignore)

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.whole_gradient(p, back_h(dh), dhead)

    return y, back


@declared_inputs
def best_spans(logits: Array, *, answer_mask: Array | None, longest: int) -> Array:
    """TASKS: the start s and end e with the largest start_s + end_e, s <= e < s + longest, both in answer_mask

    Source:  Devlin et al. 2019 sec. 4.2 (the maximum scoring span with e >= s).
    Shapes:  logits (B, T, 2); answer_mask bool (B, T), or None -> spans int (B, 2)

    >>> start, end = [0.0, 9.0, 0.0, 5.0], [8.0, 0.0, 7.0, 9.0]
    >>> logits = np.stack([start, end], axis=-1)[None]  # 1 to 3 has the most, 1 to 2 where two places are the most
    >>> [best_spans(logits, answer_mask=None, longest=n).tolist() for n in (4, 2)]
    [[[1, 3]], [[1, 2]]]
    """
    xp = namespace(logits)
    T = logits.shape[1]
    place = xp.arange(T)
    ahead = place - place[:, None]  # e - s
    inside = ((ahead >= 0) & (ahead < longest))[None]
    if answer_mask is not None:
        inside = inside & answer_mask[:, :, None] & answer_mask[:, None, :]
    scores = xp.where(inside, logits[:, :, None, 0] + logits[:, None, :, 1], _least(xp, logits))
    best = scores.reshape(len(logits), T * T).argmax(axis=1)
    return xp.stack([best // T, best % T], axis=1)


@dataclass(frozen=True)
class Span:
    """The mean of `span_loss` over the starts and ends of a batch."""

    model: Encoder
    config: Any
    ignore: int = -1

    def totals(self, batch: Tree) -> int:
        return counted(batch["targets"], ignore=self.ignore, what="answer")

    def dropout_shapes(self, batch: Tree) -> Tree:
        return dropout_shapes(self.model, self.config, batch["ids"])

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        y, back = span_loss(
            p, model=self.model, ids=batch["ids"], segments=batch["segments"], attention_mask=batch["attention_mask"],
            answer_mask=batch["answer_mask"], targets=batch["targets"], ignore=self.ignore, config=self.config,
            dropout_mask=dropout_mask,
        )  # fmt: skip
        return y / totals, lambda dy: back(dy / totals)


def _least(xp: Any, x: Array) -> float:
    """A score whose exponential is 0, finite so that a text with no place for an answer gives no NaN."""
    return float(xp.finfo(x.dtype).min) / 2


def _require_answers_inside(xp: Any, answer_mask: Array, targets: Array, ignore: int | None) -> None:
    answered = xp.ones(targets.shape, bool) if ignore is None else targets != ignore
    require_indices("span_nll", targets=(xp.where(answered, targets, 0), answer_mask.shape[1]))
    at_target = xp.take_along_axis(answer_mask, xp.where(answered, targets, 0), axis=1)
    if known((answered & ~at_target).any()):
        raise UserError(
            "span: an answer starts or ends where none may lie; move it, set answer_mask there, or leave it out"
        )
