"""A tiny model of each family, with an objective and a batch: what a tuning must be right for."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy

from refllm.models import bert, encoder_decoder, gpt, llama
from refllm.objectives.causal import Causal
from refllm.objectives.classification import Classification
from refllm.objectives.seq2seq import Seq2Seq
from refllm.parameters import Tree, named_leaves
from spec_tests.gradients import random_tree

V, T = 5, 4
RANDOM = numpy.random.default_rng(0)
IDS = RANDOM.integers(0, V, (3, T))


@dataclass(frozen=True)
class Family:
    model: ModuleType
    config: Any
    objective: Any
    batch: Tree
    new: tuple[str, ...] = ()  # the top of the tree that the trained model lacks

    @property
    def parameters(self) -> Tree:
        """Of the trained model, in float64."""
        shapes = {name: tree for name, tree in self.model.shapes(self.config).items() if name not in self.new}
        return random_tree(shapes, seed=0)

    def loss(self, p: Tree) -> float:
        return float(self.objective.loss(p, self.batch, totals=self.objective.totals(self.batch), dropout_mask=None)[0])


def _bert() -> Family:
    config = bert.Config(
        vocabulary=V, context=T, layers=2, heads=2, width=4, hidden=5, eps=1e-5, outputs=("classes",), labels=3
    )
    batch = {
        "ids": IDS, "segments": numpy.zeros_like(IDS), "attention_mask": (IDS >= 0)[:, None, None, :],
        "targets": numpy.array([2, 0, 1]),
    }  # fmt: skip
    return Family(bert, config, Classification(bert, config), batch, new=("classes",))


def _decoder(model: ModuleType, **more: Any) -> Family:
    config = model.Config(vocabulary=V, context=T, layers=2, heads=2, width=4, hidden=5, **more)
    return Family(model, config, Causal(model, config), IDS)


def _encoder_decoder() -> Family:
    config = encoder_decoder.Config(
        vocabulary=V,
        context=T,
        encoder_layers=1,
        decoder_layers=2,
        heads=1,
        head_width=2,
        width=3,
        hidden=3,
        activation="gelu_erf",
        positions="learned",
        norm="pre",
    )
    batch = {"source": IDS, "attention_mask": numpy.ones(IDS.shape, bool), "targets": IDS[:, ::-1]}
    return Family(encoder_decoder, config, Seq2Seq(encoder_decoder, config, start=0), batch)


FAMILIES = {
    "bert": _bert(),
    "gpt": _decoder(gpt, tied=True),
    "llama": _decoder(llama, kv_heads=1),
    "encoder_decoder": _encoder_decoder(),
}


def start(tuning: Any, seed: int = 1) -> Tree:
    """The trained leaves at their start."""
    return tuning.model.initial(None, numpy.random.default_rng(seed))


def moved(tuning: Any, seed: int = 2, *, scale: float = 0.3) -> Tree:
    """The trained leaves somewhere else, where no gradient is zero for a special reason."""
    random = numpy.random.default_rng(seed)
    return {path: leaf + scale * random.standard_normal(leaf.shape) for path, leaf in start(tuning).items()}


def same(a: Tree, b: Tree) -> bool:
    """To the bit."""
    one, other = dict(named_leaves(a)), dict(named_leaves(b))
    return one.keys() == other.keys() and all(numpy.array_equal(one[path], other[path]) for path in one)
