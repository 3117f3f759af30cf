"""Arguments are checked at the door, and the message says what is wrong and what would be right."""

import re

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.shapes import parse, require, require_floating, require_indices

LAYER_NORM = "x (..., C); g (C,)"


def test_a_specification_is_read_as_names_and_letters() -> None:
    x, g, y = parse("x (..., T, C); g (C,);y ()")
    assert x == ("x", ("...", "T", "C"), True, ("T", "C"))
    assert g == ("g", ("C",), False, ("C",))
    assert y == ("y", (), False, ())


@pytest.mark.parametrize("wrong", ["x", "x of C", "x (C"])
def test_what_is_no_specification_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="not a shape specification"):
        parse(wrong)


@given(leading=st.lists(st.integers(0, 3), max_size=3), C=st.integers(0, 4))
def test_the_letters_take_the_sizes_of_any_batch(leading: list[int], C: int) -> None:
    sizes = require("layer_norm", LAYER_NORM, numpy.zeros((*leading, C)), numpy.zeros(C))
    assert {name: sizes[name] for name in ("C",)} == {"C": C}


@pytest.mark.parametrize(
    ("spec", "shapes", "message"),
    [
        (LAYER_NORM, [(8, 4, 768), (512,)], "g must be (C,) = (768,) to match x (..., C) = (8, 4, 768); got (512,)"),
        (LAYER_NORM, [(8, 768), (1, 768)], "g must be (C,) = (768,) to match x (..., C) = (8, 768); got (1, 768)"),
        (LAYER_NORM, [(), (3,)], "x must be (..., C); got ()"),
        (
            "x (..., C); t (..., C)",
            [(2, 3), (4, 3)],
            "t must be (..., C) = (2, 3) to match x (..., C) = (2, 3); got (4, 3)",
        ),
        ("E (V, C); ids (...)", [(5,), (2,)], "E must be (V, C); got (5,)"),
        ("x (C, C)", [(2, 3)], "x must be (C, C); got (2, 3)"),
    ],
)
def test_the_message_names_operation_argument_letters_and_shapes(
    spec: str, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('op: ' + message)}$"):
        require("op", spec, *(numpy.zeros(shape) for shape in shapes))


def test_two_float_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="op: g is float64 but x is float32; give both the same dtype"):
        require("op", LAYER_NORM, numpy.zeros((2, 3), "float32"), numpy.zeros(3))


@pytest.mark.parametrize("dtype", [int, bool, complex])
def test_only_indices_and_masks_may_be_no_floating_point_numbers(dtype: type) -> None:
    with pytest.raises(ValueError, match=r"op: g must be floating-point, got .*; convert it with .astype"):
        require("op", LAYER_NORM, numpy.zeros((2, 3)), numpy.zeros(3, dtype))
    require("op", "E (V, C); ids (...)", numpy.zeros((2, 3)), numpy.zeros(3, dtype))


@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, 1.0])
def test_what_is_no_array_is_refused_by_its_name(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"op: g must be a NumPy or CuPy array, got .*; convert it first"):
        require("op", LAYER_NORM, numpy.zeros((2, 2)), wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex128"])
def test_only_floating_point_is_floating(dtype: str) -> None:
    require_floating("op", x=numpy.zeros(1, "float32"), y=numpy.zeros(1))
    with pytest.raises(ValueError, match=rf"op: y must be floating-point, got {dtype}; convert it with .astype"):
        require_floating("op", x=numpy.zeros(1), y=numpy.zeros(1, dtype))


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_indices_in_range_are_accepted(dtype: str) -> None:
    require_indices("op", ids=(numpy.array([0, 4], dtype), 5))
    require_indices("op", ids=(numpy.array([], dtype), 0))


@pytest.mark.parametrize("wrong", [-1, 5])
def test_the_first_index_out_of_range_is_named(wrong: int) -> None:
    with pytest.raises(IndexError, match=rf"^op: ids must be in \[0, 5\); got {wrong}$"):
        require_indices("op", ids=(numpy.array([[0, 1], [wrong, 99]]), 5))


def test_indices_must_be_integers() -> None:
    with pytest.raises(ValueError, match="op: ids must be integers, got bool"):
        require_indices("op", ids=(numpy.array([True]), 5))
