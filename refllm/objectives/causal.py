"""The language-model objective, and the probability of a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from refllm.backend import Array, namespace
from refllm.blocks.lm_head import lm_loss
from refllm.differentiable import declared_inputs, differentiable
from refllm.models.config import ModelConfig
from refllm.models.output import logit_cap
from refllm.ops.cross_entropy import cross_entropy
from refllm.parameters import Tree, map_leaves


class CausalModel(Protocol):
    """What a model file offers to this objective.

    A model with a loss of its own beside that of the tokens (switch: the balance of its experts) has `balanced_states`
    too, whose value is (h, balance).
    """

    def hidden_states(
        self, p: Tree, *, ids: Array, config: Any, dropout_mask: Tree | None, cache: Any
    ) -> tuple[Array, Callable[[Array], Tree]]: ...

    def head(self, p: Tree, config: Any) -> Array: ...

    def add_head_gradient(self, dp: Tree, dhead: Array, config: Any) -> Tree: ...

    def dropout_widths(self, config: Any) -> Tree: ...


@differentiable
def causal_loss(
    p: Tree,
    *,
    model: CausalModel,
    ids: Array,
    targets: Array,
    ignore: int | None,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """NLL: y = -Σ over places of log P(target | the tokens up to the place);   + α balance N where there are experts

    A sum, not a mean: shards and micro-batches then add up whatever their sizes, and the caller divides once, by the N
    places that are not ignored. The balance has then been added once to the mean over the places.
    Source:  documents 002 sec. 3.3, 4.2; 004 sec. 2.3; the balance: Fedus et al. 2021 (arXiv:2101.03961) sec. 2.2, eq.
             4, a loss that is added to the model's.
    Shapes:  ids (B, T) in [0, V); targets (B, T) in [0, V) or `ignore` -> y ()
    Special: the balance is a mean over texts and N a number of places, so that with experts shards add up only where
             all texts have as many places that count. N is 1 if none does, as in the mean of `cross_entropy`.

    >>> from refllm.models import gpt
    >>> config = gpt.Config(vocabulary=5, context=4, layers=1, heads=1, width=2, hidden=2)
    >>> how = {"ids": array([[1, 2, 3]]), "targets": array([[2, 3, -1]]), "ignore": -1, "dropout_mask": None}
    >>> p = map_leaves(zeros, gpt.shapes(config))  # a model that knows nothing: log V for each place that counts
    >>> round(float(causal_loss(p, model=gpt, config=config, **how)[0] / math.log(5)), 12)
    2.0
    """
    if hasattr(model, "balanced_states"):
        return _balanced_loss(
            p, model=model, ids=ids, targets=targets, ignore=ignore, config=config, dropout_mask=dropout_mask
        )
    h, back_hidden = model.hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)
    y, back_head = lm_loss(h, model.head(p, config), targets=targets, ignore=ignore, cap=logit_cap(config))

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.add_head_gradient(back_hidden(dh), dhead, config)

    return y, back


def _balanced_loss(
    p: Tree,
    *,
    model: Any,
    ids: Array,
    targets: Array,
    ignore: int | None,
    config: Any,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    (h, balance), back_states = model.balanced_states(p, ids=ids, config=config, dropout_mask=dropout_mask)
    nll, back_head = lm_loss(h, model.head(p, config), targets=targets, ignore=ignore, cap=None)
    xp = namespace(targets)
    counted = targets.size if ignore is None else xp.maximum((targets != ignore).sum(), 1).astype(nll.dtype)
    weight = config.balance * counted  # a mean over the texts, as a sum over the places that count

    def back(dy: Array) -> Tree:
        dh, dhead = back_head(dy)
        return model.add_head_gradient(back_states(dh, dy * weight), dhead, config)

    return nll + balance * weight, back


@dataclass(frozen=True)
class Causal:
    """The mean of `causal_loss` over windows of tokens (B, T + 1): every token but the first is a target."""

    model: CausalModel
    config: Any

    def totals(self, batch: Tree) -> int:
        return int(batch.shape[0] * (batch.shape[1] - 1))

    def dropout_shapes(self, batch: Tree) -> Tree:
        B, T = batch.shape[0], batch.shape[1] - 1
        return map_leaves(lambda width: (B, T, width), self.model.dropout_widths(self.config))

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        y, back = causal_loss(
            p,
            model=self.model,
            ids=batch[:, :-1],
            targets=batch[:, 1:],
            ignore=None,
            config=self.config,
            dropout_mask=dropout_mask,
        )
        return y / totals, lambda dy: back(dy / totals)


@declared_inputs
def sentence_log_probability(logits: Array, *, ids: Array, ignore: int | None) -> Array:
    """CHAIN: log P(x_2 ... x_T | x_1) = Σ_t log P(x_t | x_<t),   from the logits after x_1 ... x_{T-1}

    A sum of logarithms, since the product of a few hundred probabilities is no longer a floating-point number.
    Conditional on the first token (erratum E4): P(x_1) itself needs a token that begins every text.
    Source:  documents 002 sec. 4.2; Shannon 1948.
    Shapes:  logits (..., T, V); ids (..., T) in [0, V) or `ignore` -> y (...)
    Special: ids are x_2 ... x_T of a sentence: one fewer than it has.

    >>> y = sentence_log_probability(zeros((2, 3, 4)), ids=array([[0, 1, 2], [3, -1, -1]]), ignore=-1)
    >>> (y / math.log(4)).round(12).tolist()
    [-3.0, -1.0]
    """
    nll, _ = cross_entropy(logits, targets=ids, ignore=ignore, reduction="none")
    return -nll.sum(axis=-1)
