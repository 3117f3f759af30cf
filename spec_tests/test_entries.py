"""Parameters that lack an entry, have one too many or hold something else are refused, and the entry is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy
import pytest

from refllm.generation.generate import generate
from refllm.generation.writer import CausalWriter
from refllm.models import gpt
from refllm.parameters import Tree, named_leaves
from spec_tests import language_models
from spec_tests.examples import Example
from spec_tests.nested import GONE, changed
from spec_tests.test_every_pullback import EXAMPLES, refused

READERS = [example for example in EXAMPLES if "p" in example.arguments]
PARTS = [example for example in READERS if not example.whole]
OPTIONAL = {  # by the block that reads it, and then by those around it
    entry.name.rpartition(".")[2] for example in EXAMPLES for entry in example.contract.entries if entry.optional
}
CONFIG = language_models.GPT["GPT-2"]
WRONG: tuple[Any, ...] = (None, {}, {"W": numpy.ones(3)}, [], 1.0, "W", numpy.ma.masked_array(numpy.ones(3)))


def dicts_of(tree: Tree, *path: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Tree]]]:
    """Every dict in a tree, and the steps that lead there."""
    if isinstance(tree, dict):
        yield path, tree
    for name, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(child, (dict, list)):
            yield from dicts_of(child, *path, name)


def read_by(example: Example) -> list[str]:
    """The leaves of the parameters that a function reads: those that its pullback gives a gradient of."""
    y, back = example.run()
    gradients = back(*example.cotangents(y, seed=0))
    trees = [g for g in (gradients if isinstance(gradients, tuple) else (gradients,)) if isinstance(g, (dict, list))]
    within = "masked." if example.function.__name__ == "masked_transform" else ""
    return [f"{within}{path}" for tree in trees for path, _ in named_leaves(tree)]


def other_trees(example: Example) -> Iterator[tuple[str, Tree]]:
    """A name that the refusal has to have, and parameters with something wrong there."""
    p, read = example.arguments["p"], read_by(example)
    own = {entry.name: entry.optional for entry in example.contract.entries}
    for path, part in dicts_of(p):
        whole = not path and not _has_these_alone(example)
        if not whole and any(leaf.startswith(".".join([*map(str, path), ""])) for leaf in read):
            yield "another", changed(p, (*path, "another"), numpy.ones(3))
        for name, value in part.items():
            place = ".".join(map(str, (*path, name)))
            if not any(leaf == place or leaf.startswith(f"{place}.") for leaf in read):
                continue
            if not own.get(place, name in OPTIONAL):
                yield name, changed(p, (*path, name), GONE)
            wrong = WRONG if not isinstance(value, (dict, list)) else (None, numpy.ones(3), 1.0, "W")
            yield from ((name, changed(p, (*path, name), one)) for one in wrong)
            if not isinstance(value, (dict, list)):
                yield name, changed(p, (*path, name), value.tolist())


def _has_these_alone(example: Example) -> bool:
    """Whether what it takes are its own parameters; not those of the model that it is a head of."""
    own = {entry.name for entry in example.contract.entries if "." not in entry.name}
    return example.whole or (bool(own) and "p" not in own)


@pytest.mark.parametrize("example", PARTS, ids=repr)
def test_an_entry_that_is_missing_or_too_many_or_no_array_is_refused_by_its_name(example: Example) -> None:
    """By blocks and heads, though they have been called with good parameters before."""
    for name, wrong in other_trees(example):
        line = refused(partial(example.run, p=wrong), what=name)
        assert re.search(rf"\b{name}\b", line), f"{name}: {line}"


@pytest.mark.slow
@pytest.mark.parametrize("example", [example for example in READERS if example.whole], ids=repr)
def test_an_entry_of_a_whole_model_that_is_missing_or_too_many_or_no_array_is_refused_by_its_name(
    example: Example,
) -> None:
    test_an_entry_that_is_missing_or_too_many_or_no_array_is_refused_by_its_name(example)


def test_something_else_in_the_place_of_the_parameters_is_refused() -> None:
    for example in READERS:
        p = example.arguments["p"]
        for wrong in (None, numpy.ones(3), 1.0, "p", [*p.values()] if isinstance(p, dict) else {"p": p}):
            refused(partial(example.run, p=wrong), what=f"{example}: {type(wrong).__name__}")


def test_one_of_two_biases_is_refused() -> None:
    """Without a first bias the second would not be looked at."""
    (example,) = [one for one in PARTS if one.function.__name__ == "expert_feed_forward"]
    for name in ("b1", "b2"):
        assert "give both, or neither" in refused(
            partial(example.run, p=changed(example.arguments["p"], (name,), GONE)), what=name
        )


def test_generation_and_the_output_layer_refuse_them_too() -> None:
    """A cache is made like the first leaf, and the output layer is read on its own."""
    p, config, ids = language_models.parameters(CONFIG), CONFIG, language_models.tokens(1, 3)
    how: dict[str, Any] = dict.fromkeys(("padding", "top_k", "top_p", "uniforms"))

    def generated(p: Tree) -> None:
        next(generate(p, model=gpt, ids=ids, config=config, new_tokens=1, temperature=1.0, cache=True, **how))

    def written(p: Tree) -> None:
        CausalWriter(p, model=gpt, config=config, rows=1, room=5, padding=None).logits(ids)

    for wrong in ({}, {**p, "token": None}, {**p, "token": [1.0]}, {**p, "token": {}}):
        refused(partial(generated, wrong), what="generate")
        refused(partial(written, wrong), what="writer")
        assert "token" in refused(partial(gpt.head, wrong, config), what="head")
