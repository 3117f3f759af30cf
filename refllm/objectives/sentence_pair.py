"""Two segments: does the second follow the first (NSP), do they stand in their order (SOP)?"""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array
from refllm.differentiable import differentiable
from refllm.models.config import ModelConfig
from refllm.objectives.encoder import Encoder, Head
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree


@differentiable
def pair_nll(h: Array, p: Tree, *, model: Encoder, targets: Array, ignore: int | None) -> Head:
    """NSP, SOP: y = -Σ over pairs of log P(class of the pair), from the hidden states

    Source:  Devlin et al. 2019 sec. 3.1; Lan et al. 2020 (arXiv:1909.11942) sec. 3.1.
    Shapes:  h (B, T, C); targets (B,) in [0, 2) or `ignore` -> y ()
    Special: 0 is in sequence, 1 is not.
    Back:    gives dh and the gradients of "pooler" and "pair".

    >>> from refllm.models import bert
    >>> config = bert.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, h = map_leaves(zeros, bert.shapes(config)), ones((2, 4, 2))
    >>> round(float(pair_nll(h, p, model=bert, targets=array([0, -1]), ignore=-1)[0] / math.log(2)), 12)
    1.0
    """
    logits, back_logits = model.pair_logits(h, p)
    y, back_nll = cross_entropy(logits, targets=targets, ignore=ignore, reduction="sum")
    return y, lambda dy: back_logits(back_nll(dy))


@differentiable
def pair_loss(
    p: Tree,
    *,
    model: Encoder,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    targets: Array,
    ignore: int | None,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """NSP, SOP: y = -Σ over pairs of log P(class of the pair)

    NSP and SOP are one formula; what differs is how the pairs are made (data/sentences.py).
    Source:  Devlin et al. 2019 sec. 3.1; Lan et al. 2020 sec. 3.1; documents 000 sec. 3.2, 004 sec. 2.3.
    Shapes:  ids (B, T) in [0, V); segments (B, T) in [0, segments); attention_mask bool (B, 1, 1, T), or None;
             targets (B,) in [0, 2) or `ignore` -> y ()
    Special: segments are 0 in [CLS] a [SEP], 1 in b [SEP]; targets 0 in sequence, 1 not.

    >>> from refllm.models import bert
    >>> config = bert.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, ids = map_leaves(zeros, bert.shapes(config)), array([[1, 2], [3, 4]])
    >>> how = {"segments": array([[0, 1], [0, 1]]), "attention_mask": None, "config": config, "dropout_mask": None}
    >>> y = pair_loss(p, model=bert, ids=ids, targets=array([0, 1]), ignore=None, **how)[0]
    >>> round(float(y / math.log(2)), 12)
    2.0
    """
    h, back_h = model.encode(
        p, ids=ids, segments=segments, attention_mask=attention_mask, config=config, dropout_mask=dropout_mask
    )
    y, back_head = pair_nll(h, p, model=model, targets=targets, ignore=ignore)

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.whole_gradient(p, back_h(dh), dhead)

    return y, back
