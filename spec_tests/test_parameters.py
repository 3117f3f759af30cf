"""Laws of trees of parameters."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.parameters import (
    FlatTree,
    count,
    flatten,
    for_decoding,
    from_names,
    is_decayed,
    map_leaves,
    misfit,
    named_leaves,
    require_fit,
    surely_fits,
)
from spec_tests.gradients import random_tree, shapes_of

shapes_ = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
names = st.text("abcg", min_size=1, max_size=3)
trees: st.SearchStrategy[Any] = st.recursive(
    shapes_,
    lambda child: st.lists(child, min_size=1, max_size=3) | st.dictionaries(names, child, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda tree: not isinstance(tree, tuple))

MODEL = {"token": (3, 2), "layers": [{"norm": {"g": (2,)}, "W": (2, 2)}, {"norm": {"g": (2,)}, "W": (2, 2)}]}


def test_a_leafs_name_is_its_path_in_the_order_of_the_tree() -> None:
    assert [name for name, _ in named_leaves(MODEL)] == [
        "token", "layers.0.norm.g", "layers.0.W", "layers.1.norm.g", "layers.1.W",
    ]  # fmt: skip


@given(shapes=trees)
def test_a_tree_is_its_named_leaves(shapes: Any) -> None:
    leaves = dict(named_leaves(shapes))
    assert len(leaves) == len(list(named_leaves(shapes)))
    assert from_names(shapes, leaves) == shapes
    assert map_leaves(lambda leaf: leaf, shapes) == shapes


@given(shapes=trees)
def test_the_count_is_the_number_of_numbers_in_the_arrays(shapes: Any) -> None:
    assert count(shapes) == sum(leaf.size for _, leaf in named_leaves(map_leaves(numpy.zeros, shapes)))


@given(shapes=trees)
def test_mapping_over_several_trees_meets_leaves_at_the_same_place(shapes: Any) -> None:
    tree = random_tree(shapes, seed=0)
    difference = map_leaves(lambda a, b, c: a + b - c, tree, tree, tree)
    for (_, a), (_, b) in zip(named_leaves(difference), named_leaves(tree), strict=True):
        numpy.testing.assert_allclose(a, b, atol=1e-15)
    assert shapes_of(tree) == shapes


def test_lists_of_different_lengths_do_not_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        map_leaves(lambda a, b: a, [(1,), (2,)], [(1,)])


@given(shapes=trees)
def test_a_flat_tree_holds_the_same_numbers_decayed_ones_first(shapes: Any) -> None:
    tree = random_tree(shapes, seed=0)
    flat = flatten(shapes, tree)
    for (path, a), (other, b) in zip(named_leaves(flat.tree), named_leaves(tree), strict=True):
        assert path == other
        assert numpy.array_equal(a, b)
        assert a.size == 0 or numpy.shares_memory(a, flat.vector)
        assert not numpy.shares_memory(a, b)
        assert numpy.shares_memory(a, flat.decayed if is_decayed(a.shape) else flat.rest)
    assert len(flat.decayed) + len(flat.rest) == len(flat.vector) == count(shapes)
    assert len(flat.decayed) == sum(a.size for _, a in named_leaves(tree) if a.ndim >= 2)


def test_for_decoding_high_matrices_of_layers_stand_in_columns_and_all_numbers_are_the_same() -> None:
    shapes = {"token": (5, 2), "layers": [{"W1": (2, 6), "W2": (6, 2), "b2": (2,), "experts": (2, 6, 2), "Wo": (2, 2)}]}
    p = random_tree(shapes, seed=0)
    q = for_decoding(p)
    for (path, x), (_, y) in zip(named_leaves(p), named_leaves(q), strict=True):
        assert (x == y).all()
        assert (y is x) == (path != "layers.0.W2")
    assert q["layers"][0]["W2"].flags.f_contiguous


def test_writing_into_the_vector_is_writing_into_the_tree() -> None:
    flat = FlatTree(MODEL, numpy.zeros(count(MODEL)))
    flat.decayed[...] = 1
    flat.rest[...] = 2
    assert (flat.tree["layers"][1]["W"] == 1).all()
    assert (flat.tree["layers"][1]["norm"]["g"] == 2).all()


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be .18,. to hold the tree; got .17,."):
        FlatTree(MODEL, numpy.zeros(17))


def test_arrays_that_fit_pass_and_others_are_named() -> None:
    arrays = dict(named_leaves(random_tree(MODEL, seed=0)))
    require_fit(MODEL, arrays)
    with pytest.raises(UserError, match=r"only the model has layers.1.W"):
        require_fit(MODEL, {name: x for name, x in arrays.items() if name != "layers.1.W"})
    with pytest.raises(UserError, match=r"only the checkpoint has head"):
        require_fit(MODEL, {**arrays, "head": numpy.zeros(2)})
    with pytest.raises(UserError, match=r"token is .2, 3., should be .3, 2."):
        require_fit(MODEL, {**arrays, "token": numpy.zeros((2, 3))})


def test_what_does_not_fit_is_said_in_words_and_what_fits_is_not() -> None:
    shapes = {"token": (3, 2), "layers": [{"g": (2,)}, {"g": (2,)}]}
    tree = from_names(shapes, {path: numpy.zeros(shape) for path, shape in named_leaves(shapes)})
    kind, dtype = numpy.ndarray, numpy.dtype("float64")
    assert surely_fits(tree, shapes, kind, dtype)
    assert misfit(tree, shapes) is None
    swapped = map_leaves(lambda x: x.astype(">f8"), tree)  # of one dtype, though not of the usual object
    assert not surely_fits(swapped, shapes, kind, dtype)
    assert misfit(swapped, shapes) is None
    for wrong, says in (
        ({"token": tree["token"]}, "layers.0.g is missing"),
        ({**tree, "more": numpy.zeros(1)}, "more is too many"),
        ({**tree, "layers": tree["layers"][:1]}, "layers.1.g is missing"),
        ({**tree, "layers": dict(enumerate(tree["layers"]))}, "lists and dicts are not where they should be"),
        ({**tree, "token": numpy.zeros((2, 3))}, r"token is (2, 3), should be (3, 2)"),
        ({**tree, "token": [1.0]}, "token is missing"),
        ({**tree, "token": 1.0}, "token is no array of NumPy or CuPy, but float"),
        ({**tree, "layers": [{"g": numpy.zeros(2, "float32")}] * 2}, "layers.0.g is float32 but token is float64"),
    ):
        assert not surely_fits(wrong, shapes, kind, dtype)
        assert misfit(wrong, shapes) == says
