"""GPT on one page is the composed GPT, and the gradient that it writes out is the tape's."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import numpy
import pytest

from refllm.models import gpt as fast
from refllm.numbers import exact
from refllm.parameters import map_leaves, named_leaves
from refllm.spec import gpt_on_one_page
from refllm.spec.gpt import gpt_loss
from refllm.spec.gpt_on_one_page import gpt_loss_and_gradient
from refllm.verify.case import Case
from spec_tests.spec import exactly
from spec_tests.spec.composed import golden

PAGE = inspect.getsource(gpt_on_one_page)


def test_it_fits_a_page() -> None:
    assert len(PAGE.splitlines()) <= 150


def test_it_imports_the_vocabulary_alone() -> None:
    modules = {node.module for node in ast.walk(ast.parse(PAGE)) if isinstance(node, ast.ImportFrom)}
    assert modules == {"refllm.spec.array"}


def is_its_own(case: Case) -> bool:
    """GPT-2 as the page has it: pre-norm, the tanh form of GELU, learned positions, tied."""
    config = case.keywords.get("config", {})
    wanted = {"norm": "pre", "activation": "gelu_tanh", "positions": "learned", "tied": True}
    return case.operation == "gpt_loss" and case.keywords["ignore"] is None and wanted.items() <= config.items()


GOLDEN = [case for case in golden().cases.values() if is_its_own(case)]


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case.id)
def test_it_gives_the_golden_loss_and_gradient(case: Case) -> None:
    how = {name: case.keywords[name] for name in ("ids", "targets")}
    config = case.keywords["config"]
    with exact.digits(exactly.DIGITS):
        p = exact.lift(case.arguments("float64")[0])
        loss, gradient = gpt_loss_and_gradient(p, **how, heads=config["heads"], eps=config["eps"])
        numpy.testing.assert_array_equal(exactly.rounded(loss), case.outputs["loss"].value)
        dy = case.cotangents["loss"].item()
        for name, found in named_leaves(gradient, "p"):
            numpy.testing.assert_array_equal(exactly.rounded(found * dy), case.gradients[name].value, name)


def drawn(layers: int, dtype: str) -> tuple[Any, Any, Any, fast.Config]:
    """Parameters, ids and targets of a small model that has every part of a large one."""
    config = fast.Config(vocabulary=5, context=4, layers=layers, heads=2, width=4, hidden=6)
    generator = numpy.random.default_rng(layers)
    p = map_leaves(
        lambda x: x.astype(dtype) + generator.normal(0, 0.5, x.shape).astype(dtype), fast.initial(config, generator)
    )
    ids, targets = generator.integers(0, 5, (2, 2, 3))
    return p, ids, targets, config


@pytest.mark.parametrize("layers", [1, 2])
def test_its_gradient_is_that_of_the_tape_and_of_the_composed_text(layers: int) -> None:
    """To 300 digits, for every parameter."""
    floats, ids, targets, config = drawn(layers, "float64")
    with exact.digits(exactly.DIGITS):
        p, one = exact.lift(floats), exact.lift(numpy.ones(()))
        loss, gradient = gpt_loss_and_gradient(p, ids=ids, targets=targets, heads=config.heads, eps=config.eps)
        y, back = gpt_loss(p, ids=ids, targets=targets, ignore=None, config=config.as_dict())
        assert exactly.furthest(loss, y) < -300
        leaves, composed = dict(named_leaves(p)), dict(named_leaves(back(one)))
        tape = dict(zip(leaves, exact.gradients([loss], [one], list(leaves.values())), strict=True))
        assert dict(named_leaves(gradient)).keys() == leaves.keys()
        for name, found in named_leaves(gradient):
            assert exactly.furthest(found, tape[name]) < -300, name
            assert exactly.furthest(found, composed[name]) < -300, name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_on_floats_it_is_the_composed_text(dtype: str) -> None:
    p, ids, targets, config = drawn(3, dtype)
    loss, gradient = gpt_loss_and_gradient(p, ids=ids, targets=targets, heads=config.heads, eps=config.eps)
    y, back = gpt_loss(p, ids=ids, targets=targets, ignore=None, config=config.as_dict())
    composed = dict(named_leaves(back(numpy.ones((), dtype))))
    assert {x.dtype for _, x in named_leaves(gradient)} == {numpy.dtype(dtype)}
    for name, found in [("loss", loss), *named_leaves(gradient)]:
        truth = y if name == "loss" else composed[name]
        atol = 2000 * numpy.finfo(dtype).eps * abs(truth).max()
        numpy.testing.assert_allclose(found, truth, rtol=0, atol=atol, err_msg=name)
