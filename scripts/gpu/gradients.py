"""Values and gradients on the device against float64 on the host: every operation, and GPT as a whole.

Random arguments of size 1. A difference counts relative to 1 + the largest entry of its tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy
from hypothesis import given, settings

from refllm.backend import to_device, to_host
from refllm.models import gpt
from refllm.objectives.causal import causal_loss
from refllm.parameters import Tree, map_leaves, named_leaves
from spec_tests.gradients import random_tree
from spec_tests.operations import Case, cases, declared, operation_functions

LIMITS = {"float64": 1e-10, "float32": 1e-3}
CONFIGURATIONS = {
    "GPT-2 style": gpt.Config(vocabulary=61, context=24, layers=3, heads=4, width=32, hidden=128),
    "2017 style": gpt.Config(
        vocabulary=61, context=24, layers=2, heads=4, width=32, hidden=64, norm="post", activation="relu",
        positions="sinusoidal", tied=False,
    ),
    "several tiles": gpt.Config(
        vocabulary=31, context=600, layers=2, heads=2, width=8, hidden=32, activation="gelu_erf", tied=False
    ),
}  # fmt: skip


def rows(examples: int) -> Iterator[dict[str, Any]]:
    """A row for each operation and configuration, in each dtype: the worst error and whether it is rounding."""
    for dtype, limit in LIMITS.items():
        for function in operation_functions():
            yield _row("operation", function.__name__, dtype, limit, _operation(function, dtype, examples))
        for name, config in CONFIGURATIONS.items():
            yield _row("GPT", name, dtype, limit, _gpt(config, dtype))


def _row(kind: str, name: str, dtype: str, limit: float, error: float) -> dict[str, Any]:
    return {"kind": kind, "name": name, "dtype": dtype, "error": error, "limit": limit, "agrees": error <= limit}


def _operation(function: Callable[..., Any], dtype: str, examples: int) -> float:
    worst = 0.0

    @settings(max_examples=examples, derandomize=True, deadline=None, database=None)
    @given(case=cases(declared(function), dtypes=(dtype,), magnitudes=(1,)))
    def examine(case: Case) -> None:
        nonlocal worst
        truth = _results(function, [x.astype("float64") for x in case.arrays], case.keywords, case.cotangents())
        there = {name: _over(value) for name, value in case.keywords.items()}
        got = _results(function, [_over(x) for x in case.arrays], there, [_over(d) for d in case.cotangents()])
        worst = _worse(worst, *map(_difference, truth, map(to_host, got)))

    examine()
    return worst


def _results(function: Callable[..., Any], arrays: Any, keywords: Any, dy: Any) -> tuple[Any, ...]:
    y, back = function(*arrays, **keywords)
    gradients = back(*(d.astype(arrays[0].dtype) for d in dy))
    return (*_tuple(y), *_tuple(gradients))


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _over(x: Any) -> Any:
    return to_device(x, "cuda") if isinstance(x, numpy.ndarray) else x


def _gpt(config: gpt.Config, dtype: str) -> float:
    """The loss and every parameter's gradient."""
    p = map_leaves(lambda leaf: leaf.astype(dtype), random_tree(gpt.shapes(config), seed=3, scale=0.1))
    tokens = numpy.random.default_rng(4).integers(0, config.vocabulary, (2, config.context + 1))
    truth = _loss_and_gradients(map_leaves(lambda leaf: leaf.astype("float64"), p), tokens, config)
    got = _loss_and_gradients(map_leaves(_over, p), _over(tokens), config)
    return _worse(0.0, *(_difference(truth[name], to_host(value)) for name, value in got.items()))


def _loss_and_gradients(p: Tree, tokens: Any, config: gpt.Config) -> dict[str, Any]:
    ids, targets = tokens[:, :-1], tokens[:, 1:]
    loss, back = causal_loss(p, model=gpt, ids=ids, targets=targets, ignore=None, config=config, dropout_mask=None)
    mean = loss / ids.size
    return {"loss": mean, **dict(named_leaves(back(mean / loss)))}


def _difference(truth: Any, got: Any) -> float:
    largest = float(numpy.max(numpy.abs(truth), initial=0))
    return float(numpy.max(numpy.abs(truth - got), initial=0)) / (1 + largest)


def _worse(*errors: float) -> float:
    """The largest; infinite if one is not a number."""
    return max(math.inf if math.isnan(error) else error for error in errors)
