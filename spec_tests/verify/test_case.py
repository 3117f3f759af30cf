"""Names with dots and trees are the same thing, there and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest

from refllm.verify import corpus
from refllm.verify.case import MisshapenError, flat, tree


def test_dots_are_a_path_and_numbers_are_places_in_a_list() -> None:
    leaves = {"p.a": 1, "p.layers.0.g": 2, "p.layers.1.g": 3, "x": 4}
    assert tree("p", leaves) == {"a": 1, "layers": [{"g": 2}, {"g": 3}]}
    assert tree("x", leaves) == 4


@pytest.mark.parametrize("level", range(1, 7))
def test_the_arguments_of_every_case_flatten_to_its_inputs(golden: corpus.Corpus, level: int) -> None:
    for case in golden.cases.values():
        if case.level == level and case.inputs:
            arguments = case.arguments("float64")
            given = tuple(arguments) if len(arguments) > 1 else arguments[0]
            found = case.flat_gradients(given).values()
            assert [repr(x.tolist()) for x in found] == [repr(x.tolist()) for x in case.inputs.values()]


def test_arguments_are_fresh_so_that_an_implementation_may_change_them(golden: corpus.Corpus) -> None:
    case = golden.cases["ATT/square"]
    case.arguments("float64")[0][...] = 0
    assert case.inputs["q"].any()
    case = golden.cases["LMHEAD/gpt2"]
    case.keyword_arguments()["config"].clear()
    case.keyword_arguments()["ids"][...] = 0
    assert case.keywords["config"]
    assert case.keywords["ids"].any()


def test_every_float_becomes_the_dtype_of_the_run_and_nothing_else_does(golden: corpus.Corpus) -> None:
    for case in golden.cases.values():
        if case.level == 1 and all(x.dtype.kind == "f" for x in case.inputs.values()):
            for x in case.arguments("float32"):
                assert all(leaf.dtype == "float32" for leaf in (x if isinstance(x, list) else [x]))
    assert golden.cases["FP8/bfloat16-ties"].arguments("float32")[0].dtype == "int64"
    assert golden.cases["EMB/rows"].keyword_arguments()["ids"].dtype == "int64"


@pytest.mark.parametrize(
    ("value", "names", "message"),
    [
        (1, ["y", "z"], r"must return 2 values, \(y, z\); it returned one int"),
        ((1, 2, 3), ["y", "z"], "it returned a tuple of 3"),
        (None, ["y", "z"], r"it returned nothing \(None\)"),
        ({"a": 1}, ["p.b"], "returned no p.b: a dict of a has no 'b'"),
        ([1], ["p.0", "p.1"], "returned no p.1: a list of 1 has no '1'"),
        (1, ["p.b"], "returned no p.b: one int has no 'b'"),
    ],
)
def test_another_structure_is_named(value: Any, names: list[str], message: str) -> None:
    with pytest.raises(MisshapenError, match=message):
        flat(value, names, "the operation")


def test_a_declared_convention_exchanges_the_truth_with_its_alternative(golden: corpus.Corpus) -> None:
    case = golden.cases["ATT-MASK/causal-longer-keys"]
    other = case.under({"causal_alignment": "top-left", "of_no_concern": "here"})
    assert other is not None
    assert other.outputs is case.alternatives["causal_alignment=top-left"].outputs
    assert other.conventions == {"causal_alignment": "top-left"}
    back = other.alternatives["causal_alignment=bottom-right"]
    assert (back.outputs, back.gradients) == (case.outputs, case.gradients)
    assert case.under({"causal_alignment": "bottom-right"}) is case
    assert case.under({"causal_alignment": "centred"}) is None


def test_the_values_alone_have_no_gradients(golden: corpus.Corpus) -> None:
    case = golden.cases["ATT/square"]
    assert case.values_alone() == replace(case, cotangents={}, gradients={})
    numpy.testing.assert_array_equal(case.values_alone().outputs["y"].value, case.outputs["y"].value)
