"""BERT's pre-training: the masked language model and the sentence pair together, from one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array
from refllm.differentiable import differentiable
from refllm.models.config import ModelConfig
from refllm.objectives.encoder import Encoder, dropout_shapes
from refllm.objectives.masked import counted, masked_nll
from refllm.objectives.sentence_pair import pair_nll
from refllm.parameters import Tree


@differentiable
def pretraining_loss(
    p: Tree,
    *,
    model: Encoder,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    positions: Array,
    targets: Array,
    pair: Array,
    ignore: int | None,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[tuple[Array, Array], Callable[[Array, Array], Tree]]:
    """MLM, NSP: y = (Σ over the selected places of the masked loss, Σ over the pairs of the pair loss)

    Two sums, because their means have different divisors: the objective is y[0] / places + y[1] / pairs.
    Source:  Devlin et al. 2019 sec. 3.1 and A.2; documents 000 sec. 3.2.
    Shapes:  ids (B, T) in [0, V); segments (B, T) in [0, segments); attention_mask bool (B, 1, 1, T), or None;
             positions (B,
             M) in [0, T); targets (B, M) in [0, V) or `ignore`; pair (B,) in [0, 2) or `ignore` -> y[2] ()

    >>> from refllm.models import bert
    >>> config = bert.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> p, ids = map_leaves(zeros, bert.shapes(config)), array([[1, 2, 3, 4]])
    >>> how = {"segments": 0 * ids, "attention_mask": None, "config": config, "dropout_mask": None, "ignore": -1}
    >>> (words, pairs), back = pretraining_loss(
    ...     p, model=bert, ids=ids, positions=array([[1, 3]]), targets=array([[4, 1]]), pair=array([1]), **how
    ... )
    >>> round(float(words / math.log(5)), 12), round(float(pairs / math.log(2)), 12)
    (2.0, 1.0)
    """
    h, back_h = model.encode(
        p, ids=ids, segments=segments, attention_mask=attention_mask, config=config, dropout_mask=dropout_mask
    )
    masked, back_masked = masked_nll(
        h, p, model=model, positions=positions, targets=targets, ignore=ignore, config=config
    )  # fmt: skip
    pairs, back_pair = pair_nll(h, p, model=model, targets=pair, ignore=ignore)

    def back(dmasked: Array, dpairs: Array) -> Tree:
        dh, dmasked_head = back_masked(dmasked)
        dh_pair, dpair_head = back_pair(dpairs)
        return model.whole_gradient(p, back_h(dh + dh_pair), dmasked_head, dpair_head)

    return (masked, pairs), back


@dataclass(frozen=True)
class Pretraining:
    """The mean of the masked loss over the selected places plus the mean of the pair loss over the pairs."""

    model: Encoder
    config: Any
    ignore: int = -1

    def totals(self, batch: Tree) -> tuple[int, int]:
        return (
            counted(batch["targets"], ignore=self.ignore, what="masked position"),
            counted(batch["pair"], ignore=self.ignore, what="pair of sentences"),
        )

    def dropout_shapes(self, batch: Tree) -> Tree:
        return dropout_shapes(self.model, self.config, batch["ids"])

    def loss(
        self, p: Tree, batch: Tree, *, totals: tuple[int, int], dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        (masked, pairs), back = pretraining_loss(
            p, model=self.model, ids=batch["ids"], segments=batch["segments"], attention_mask=batch["attention_mask"],
            positions=batch["positions"], targets=batch["targets"], pair=batch["pair"], ignore=self.ignore,
            config=self.config, dropout_mask=dropout_mask,
        )  # fmt: skip
        places, examples = totals
        return masked / places + pairs / examples, lambda dy: back(dy / places, dy / examples)
