"""A small BERT, and a batch for its objectives."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.models import bert
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import random_tree

CONFIG = bert.Config(vocabulary=5, context=6, layers=1, heads=2, width=4, hidden=5, eps=1e-5, dropout=0.4)
P = random_tree(bert.shapes(CONFIG), seed=0)
B, T, M, V = 3, 6, 2, 5


def batch(seed: int = 0) -> Tree:
    """Texts of different lengths with two slots each, the second one of the last text not used."""
    random = numpy.random.default_rng(seed)
    lengths = numpy.array([T, 4, 5])
    positions = numpy.array([[1, 4], [0, 3], [2, 0]])
    targets = random.integers(0, V, (B, M))
    targets[2, 1] = -1
    return {
        "ids": random.integers(0, V, (B, T)),
        "segments": random.integers(0, 2, (B, T)),
        "attention_mask": (numpy.arange(T) < lengths[:, None])[:, None, None, :],
        "positions": positions,
        "targets": targets,
        "pair": random.integers(0, 2, B),
    }


def fixed(dropout_mask: Any = None) -> dict[str, Any]:
    return {"model": bert, "config": CONFIG, "dropout_mask": dropout_mask, "ignore": -1}


def draws(objective: Any, b: Tree) -> Any:
    return map_leaves(lambda shape: numpy.random.default_rng(1).random(shape) < 0.6, objective.dropout_shapes(b))


def assert_equal_trees(a: Tree, b: Tree) -> None:
    for (path, one), (other_path, other) in zip(named_leaves(a), named_leaves(b), strict=True):
        assert path == other_path
        numpy.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13, err_msg=path)


def added(a: Tree, b: Tree) -> Tree:
    if isinstance(a, dict):
        return {name: added(a[name], b[name]) for name in a}
    if isinstance(a, list):
        return [added(x, y) for x, y in zip(a, b, strict=True)]
    return a + b
