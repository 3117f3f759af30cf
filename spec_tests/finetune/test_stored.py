"""Laws of the forms in which weights take less room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as shapes_and_arrays

from refllm import checkpoint
from refllm.errors import UserError
from refllm.finetune.stored import (
    FORMS,
    dequantised,
    packed,
    piecewise_weights_of,
    quantised,
    unpacked,
    weights_of,
)
from refllm.parameters import map_leaves, named_leaves
from spec_tests.finetune.models import same
from spec_tests.gradients import random_tree

every_form = pytest.mark.parametrize("form", FORMS)
matrices = shapes_and_arrays.arrays(
    "float32",
    shapes_and_arrays.array_shapes(min_dims=2, max_dims=3, max_side=5),
    elements=st.floats(-(2.0**90), 2.0**90, width=32, allow_subnormal=True),
)
SHAPES = {"token": (6, 4), "layers": [{"W": (4, 5), "b": (5,), "experts": (2, 3, 4)}], "norm": {"g": (4,)}}
LEAVES = {path: leaf.astype("float32") for path, leaf in named_leaves(random_tree(SHAPES, seed=0))}


@given(matrices, st.sampled_from([-1, -2]))
def test_a_weight_is_off_by_half_a_step_of_its_channel_at_most(W: Any, axis: int) -> None:
    q, s = quantised(W, axis=axis)
    assert q.dtype == "int8"
    assert s.shape == tuple(1 if i == W.ndim + axis else n for i, n in enumerate(W.shape))
    assert q.min() >= -127
    exact = q.astype("float64") * s
    assert (abs(exact - W) <= 0.5 * s * (1 + 1e-4)).all()


@given(matrices)
def test_what_has_been_rounded_is_not_rounded_again(W: Any) -> None:
    W = W + numpy.float32(1)  # away from the subnormal numbers, whose scale has fewer digits
    q, s = quantised(W, axis=-2)
    again, _ = quantised(dequantised(q, s), axis=-2)
    assert numpy.array_equal(again, q)


def test_a_large_channel_takes_no_digits_from_the_others() -> None:
    W = numpy.array([[1e6, 0.5], [1.0, 0.25]], "float32")
    q, s = quantised(W, axis=-2)
    numpy.testing.assert_allclose(dequantised(q, s)[:, 1], [0.5, 0.25], rtol=0.01)


def test_a_channel_of_zeros_stays_zeros() -> None:
    q, s = quantised(numpy.zeros((3, 2), "float32"), axis=-2)
    assert not dequantised(q, s).any()


@every_form
def test_the_leaves_come_back_under_their_names_in_float32(form: str) -> None:
    again = unpacked(packed(LEAVES, form), form)
    assert {path: (leaf.shape, leaf.dtype) for path, leaf in again.items()} == {
        path: (leaf.shape, leaf.dtype) for path, leaf in LEAVES.items()
    }
    for path in ("layers.0.b", "norm.g"):
        assert numpy.array_equal(again[path], LEAVES[path])


def test_a_sparse_matrix_comes_back_to_the_bit() -> None:
    sparse = {path: numpy.where(abs(leaf) < 0.3, 0, leaf).astype("float32") for path, leaf in LEAVES.items()}
    assert same(unpacked(packed(sparse, "sparse"), "sparse"), sparse)


def test_a_form_takes_the_room_that_it_says() -> None:
    """A byte a weight and a float a channel; a bit a weight and a float for each that is kept."""
    W = random_tree({"W": (64, 32)}, seed=0)["W"].astype("float32")
    W[abs(W) < 0.3] = 0
    rooms = {form: sum(leaf.nbytes for leaf in packed({"W": W}, form).values()) for form in FORMS}
    assert rooms["int8"] == 64 * 32 + 4 * 32
    assert rooms["sparse"] == 64 * 32 // 8 + 4 * (W != 0).sum() + 2 * 8


def test_a_table_has_a_scale_a_row_and_a_matrix_one_a_column() -> None:
    arrays = packed(LEAVES, "int8")
    assert arrays["token.scale"].shape == (6, 1)
    assert arrays["layers.0.W.scale"].shape == (1, 5)
    assert arrays["layers.0.experts.scale"].shape == (2, 1, 4)


@every_form
def test_parts_that_do_not_belong_together_are_refused(form: str) -> None:
    arrays = packed(LEAVES, form)
    for part in ("scale", "shape", "kept"):
        if f"token.{part}" in arrays:
            missing = {name: array for name, array in arrays.items() if name != f"token.{part}"}
            with pytest.raises(UserError, match="do not belong together"):
                unpacked(missing, form)


def test_weights_of_a_checkpoint_are_the_same_whatever_their_form() -> None:
    kept = {"plain": LEAVES, "sparse": packed(LEAVES, "sparse")}
    assert same(weights_of({}, lambda group: kept["plain"]), LEAVES)
    assert same(weights_of({"form": "sparse"}, lambda group: kept["sparse"]), LEAVES)
    with pytest.raises(UserError, match="stored as int8, sparse, not as 'int4'"):
        weights_of({"form": "int4"}, lambda group: LEAVES)


@pytest.mark.parametrize("form", [None, *FORMS])
def test_weights_that_are_read_piecewise_are_the_same_whatever_their_form(form: str | None, tmp_path: Path) -> None:
    """And refused where one is not finite."""
    described = {} if form is None else {"form": form}
    shapes = map_leaves(lambda x: x.shape, LEAVES)
    spoiled = {**LEAVES, "norm.g": LEAVES["norm.g"] * numpy.float32("nan")}
    for name, leaves in (("good", LEAVES), ("bad", spoiled)):
        checkpoint.save(tmp_path / name, {}, {"weights": leaves if form is None else packed(leaves, form)}, step=0)
    good, bad = (checkpoint.load(tmp_path / name)[1] for name in ("good", "bad"))
    found = piecewise_weights_of(described, good.piecewise, shapes)
    wanted = weights_of(described, good)
    assert {path: (x.shape, x.dtype) for path, x in found.items()} == {
        path: (x.shape, x.dtype) for path, x in wanted.items()
    }
    assert same({path: x.whole() for path, x in found.items()}, wanted)
    with pytest.raises(UserError, match=r"not all finite numbers \(norm.g\)"):
        piecewise_weights_of(described, bad.piecewise, shapes)


@pytest.mark.parametrize("number", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("form", [None, "sparse"])
def test_weights_that_are_not_finite_are_refused_whatever_their_form(form: str | None, number: float) -> None:
    spoiled = {path: leaf.copy() for path, leaf in LEAVES.items()}
    spoiled["layers.0.W"][1, 2] = number
    kept = spoiled if form is None else packed(spoiled, form)
    with pytest.raises(UserError, match=r"not all finite numbers \(layers.0.W\).*lower --lr"):
        weights_of({} if form is None else {"form": form}, lambda group: kept)
