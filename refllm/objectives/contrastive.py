"""The contrastive objective: sentences that follow each other near, those of other pairs far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refllm.backend import Array, namespace
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.models.config import ModelConfig
from refllm.objectives.encoder import Encoder, dropout_shapes
from refllm.ops.contrastive import info_nce, mean_pool
from refllm.parameters import Tree, map_leaves


@differentiable
def sentence_vectors(
    p: Tree, *, model: Encoder, ids: Array, token_mask: Array, config: ModelConfig, dropout_mask: Tree | None
) -> tuple[Array, Callable[[Array], Tree]]:
    """CTR: one vector for each sentence, the mean of an encoder's hidden states over its tokens

    Source:  Reimers & Gurevych 2019 (arXiv:1908.10084) sec. 3; documents 002 sec. 3.3.
    Shapes:  ids (N, T) in [0, V); token_mask bool (N, T) -> y (N, C)
    Back:    gives the parameters that the encoder used.

    >>> from refllm.models import bert
    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=())
    >>> p, how = bert.initial(config, np.random.default_rng(0)), {"model": bert, "config": config, "dropout_mask": None}
    >>> ids, seen = array([[1, 2, 0], [1, 2, 4]]), array([[True, True, False]] * 2)
    >>> y = sentence_vectors(p, ids=ids, token_mask=seen, **how)[0]
    >>> y.shape, bool((y[0] == y[1]).all())  # what is no token does not count
    ((2, 2), True)
    """
    h, back_encode = model.encode(
        p,
        ids=ids,
        segments=namespace(ids).zeros_like(ids),
        attention_mask=token_mask[:, None, None, :],
        config=config,
        dropout_mask=dropout_mask,
    )
    y, back_pool = mean_pool(h, token_mask=token_mask)
    return y, lambda dy: back_encode(back_pool(dy))


@differentiable
def contrastive_loss(
    p: Tree,
    *,
    model: Encoder,
    ids: Array,
    token_mask: Array,
    temperature: float,
    config: ModelConfig,
    dropout_mask: Tree | None,
) -> tuple[Array, Callable[[Array], Tree]]:
    """CTR: y = -Σ over pairs of log( exp(s_ii) / Σ_j exp(s_ij) ),   s_ij = cos(a_i, b_j) / temperature

    a_i is the vector of a sentence, b_i that of the one after it, and the b_j of other pairs are the random ones.
    A sum, as `causal_loss` is one. But a pair is told from the others given with it: cut into shards, a batch gives
    each pair fewer to be told from, and another loss.
    Source:  van den Oord et al. 2018 (arXiv:1807.03748) eq. 4; documents 002 sec. 3.3.
    Shapes:  ids (N, 2, T) in [0, V); token_mask bool (N, 2, T) -> y ()
    Draws:   those of `encode` for (2 N, T) tokens, those of a pair after each other
    Raises:  UserError for less than two pairs: there would be nothing to tell them from.

    >>> from refllm.models import bert
    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=())
    >>> p, ids = bert.initial(config, np.random.default_rng(0)), array([[[1, 2], [1, 2]]] * 4)  # four pairs, all alike
    >>> how = {"model": bert, "token_mask": ids > 0, "temperature": 0.1, "config": config, "dropout_mask": None}
    >>> round(float(contrastive_loss(p, ids=ids, **how)[0] / math.log(4)), 9)  # log 4 for each
    4.0
    """
    N, _, T = ids.shape
    if N < 2:
        raise UserError(f"contrastive: a batch needs at least two pairs of sentences, got {N}; raise the batch")
    vectors, back_vectors = sentence_vectors(
        p,
        model=model,
        ids=ids.reshape(2 * N, T),
        token_mask=token_mask.reshape(2 * N, T),
        config=config,
        dropout_mask=dropout_mask,
    )
    y, back_nce = info_nce(vectors[0::2], vectors[1::2], temperature=temperature)

    def back(dy: Array) -> Tree:
        dvectors = namespace(vectors).empty_like(vectors)
        dvectors[0::2], dvectors[1::2] = back_nce(dy * N)
        return model.whole_gradient(p, back_vectors(dvectors))

    return y * N, back


@dataclass(frozen=True)
class Contrastive:
    """The mean of `contrastive_loss` over pairs of adjacent sentences: ids and token_mask (N, 2, T)."""

    model: Encoder
    config: Any
    temperature: float = 0.05

    def totals(self, batch: Tree) -> int:
        return len(batch["ids"])

    def dropout_shapes(self, batch: Tree) -> Tree:
        """(N, 2, T, C), so that a shard of the pairs takes its own draws."""
        return dropout_shapes(self.model, self.config, batch["ids"])

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        sentences = None if dropout_mask is None else map_leaves(lambda x: x.reshape(-1, *x.shape[2:]), dropout_mask)
        y, back = contrastive_loss(
            p, model=self.model, ids=batch["ids"], token_mask=batch["token_mask"], temperature=self.temperature,
            config=self.config, dropout_mask=sentences,
        )  # fmt: skip
        return y / totals, lambda dy: back(dy / totals)
