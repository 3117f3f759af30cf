"""From pairs of texts to the batches of an encoder-decoder. (DATA)"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refllm.data.corruption import denoising_batch
from refllm.data.examples import Pair, folded, split_examples
from refllm.data.padding import LengthBuckets
from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SpecialIds

Ids: TypeAlias = NDArray[np.int64]
IdPair: TypeAlias = tuple[Ids, Ids]  # source and target, each with [SEP] at its end

IGNORE = -1


def split_pairs(pairs: Sequence[Pair], *, validation: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Training and held-out pairs; those with equal sources or equal targets, but for case and space, on one side."""
    bundles = connected([(f"s {folded(pair.source)}", f"t {folded(pair.target)}") for pair in pairs])
    train, held_out = split_examples(
        list(zip(pairs, bundles, strict=True)), key=lambda item: item[1], group=lambda item: None,
        validation=validation, seed=seed,
    )  # fmt: skip
    return [pair for pair, _ in train], [pair for pair, _ in held_out]


def connected(edges: Sequence[tuple[str, str]]) -> list[str]:
    """For each edge the name of its part of the graph: edges that share an end have the same. (Union-find)"""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    for a, b in edges:
        parent[root(a)] = root(b)
    return [root(a) for a, _ in edges]


def encoded(text: str, *, tokenizer: Any) -> Ids:
    """The ids of a text and [SEP]. The text has no space around it but one before, so that its first word is spelled
    like the same word within a sentence."""
    ids: Ids = tokenizer.encode(f" {text.strip()}")
    return np.append(ids, tokenizer.special.sep)


def encoded_pairs(pairs: Iterable[Pair], *, tokenizer: Any, context: int) -> tuple[list[IdPair], int]:
    """The pairs of which both sides fit the context, and how many did not."""
    both = [tuple(encoded(text, tokenizer=tokenizer) for text in (pair.source, pair.target)) for pair in pairs]
    fitting = [(source, target) for source, target in both if max(len(source), len(target)) <= context]
    return fitting, len(both) - len(fitting)


def pair_batch(pairs: Sequence[IdPair], *, special: SpecialIds) -> dict[str, NDArray[Any]]:
    """The batch of objectives/seq2seq.py: source (B, S), attention_mask bool (B, S), targets (B, T),
    IGNORE at the padding."""
    made = denoising_batch(pairs, pad=special.pad)
    targets = np.where(made["counted"], made["ids"], IGNORE)
    return {"source": made["source"], "attention_mask": made["attention_mask"], "targets": targets}


def by_length(lengths: Sequence[int], *, batch: int) -> list[list[int]]:
    """The numbers of all texts in batches of similar lengths, to be read once."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return [order[start : start + batch] for start in range(0, len(order), batch)]


class PairBatches:
    """Batches of pairs of similar lengths in an order that can be stopped and gone on with."""

    def __init__(self, pairs: Sequence[IdPair], *, special: SpecialIds, order: LengthBuckets) -> None:
        self.pairs, self.special, self.order = pairs, special, order

    @classmethod
    def of(
        cls,
        pairs: Sequence[IdPair],
        *,
        special: SpecialIds,
        batch: int,
        order: np.random.Generator,
        state: Mapping[str, Any] | None,
    ) -> PairBatches:
        """Batches in the order of a Generator, or going on from a state.

        Raises: UserError if there is no pair, or the state is not one of these pairs.
        """
        if not pairs:
            raise UserError("no training pair fits the context; give shorter texts or a larger --context")
        lengths = [len(source) + len(target) for source, target in pairs]
        buckets = LengthBuckets.of(lengths, batch=batch, generator=order, state=state)
        return cls(pairs, special=special, order=buckets)

    def next_batch(self) -> dict[str, NDArray[Any]]:
        """The next batch; at the end of an epoch perhaps of fewer pairs."""
        return pair_batch([self.pairs[i] for i in self.order.next_batch()], special=self.special)

    def state(self) -> dict[str, Any]:
        """What a run needs to go on, ready for JSON."""
        return self.order.state()
