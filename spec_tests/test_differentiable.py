"""What a `Shapes:` line says is checked at the door and at the pullback, and the message says what would be right."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refllm
from refllm.differentiable import ADMITTED, declared_inputs, differentiable
from refllm.errors import UserError
from refllm.fit import require_indices
from refllm.shapes import ShapesError
from spec_tests import examples
from spec_tests.operations import operation_functions

DECORATORS = {differentiable.__name__, declared_inputs.__name__}


def checked(line: str, signature: str, value: str = "x * 1") -> Callable[..., Any]:
    """A function of that signature and `Shapes:` line, checked; its value is an expression, its pullback gives dy."""
    names: dict[str, Any] = {}
    exec(f"def op({signature}):\n    return {value}, lambda *dy: dy", names)
    names["op"].__doc__ = f"y = x\n\nShapes:  {line}\n"
    op: Callable[..., Any] = differentiable(names["op"])
    return op


LAYER_NORM = checked("x (..., C); g (C,) -> y (..., C)", "x, g")


@given(leading=st.lists(st.integers(0, 3), max_size=3), C=st.integers(0, 4))
def test_any_batch_is_admitted(leading: list[int], C: int) -> None:
    y, _ = LAYER_NORM(numpy.zeros((*leading, C)), numpy.zeros(C))
    assert y.shape == (*leading, C)


@pytest.mark.parametrize(
    ("line", "shapes", "message"),
    [
        (
            "x (..., C); g (C,)",
            [(8, 4, 768), (512,)],
            "g must be (C,) = (768,) to match x (..., C) = (8, 4, 768); got (512,)",
        ),
        ("x (..., C); g (C,)", [(8, 7), (1, 7)], "g must be (C,) = (7,) to match x (..., C) = (8, 7); got (1, 7)"),
        ("x (..., C); g (C,)", [(), (3,)], "x must be (..., C); got ()"),
        ("x (..., C); g (...)", [(2, 3), (4,)], "g must be (...,) = (2,) to match x (..., C) = (2, 3); got (4,)"),
        ("x (V, C); g (...)", [(5,), (2,)], "x must be (V, C); got (5,)"),
        ("x (C, C); g ()", [(2, 3), ()], "x must be (C, C); got (2, 3)"),
        ("x (N,); g (4*N,)", [(3,), (9,)], "g must be (4*N,) = (12,) to match x (N,) = (3,); got (9,)"),
        ("x (4*N,); g (N,)", [(9,), (2,)], "x must be (4*N,); got (9,)"),
        ("x (T, S); g (T+S-1,)", [(2, 3), (5,)], "g must be (T+S-1,) = (4,) to match x (T, S) = (2, 3); got (5,)"),
        ("x (B,); g (n*B, K)", [(2,), (5, 3)], "g must be (n*B, K) = (n*2, K) to match x (B,) = (2,); got (5, 3)"),
        (
            "x (B, T); g broadcast to (B, T)",
            [(2, 3), (2,)],
            "g must broadcast to (B, T) = (2, 3) to match x (B, T) = (2, 3); got (2,)",
        ),
        (
            "x (B, T); g end of (B, T)",
            [(2, 3), (1, 3)],
            "g must be the end of (B, T) = (2, 3) to match x (B, T) = (2, 3); got (1, 3)",
        ),
    ],
)  # fmt: skip
def test_the_message_names_operation_argument_letters_and_shapes(
    line: str, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape('op: ' + message)}$"):
        checked(f"{line} -> y ()", "x, g")(*map(numpy.zeros, shapes))


@pytest.mark.parametrize(
    ("line", "shapes"),
    [
        ("x (N,); g (4*N,)", [(3,), (12,)]),
        ("x (4*N,); g (N,)", [(12,), (3,)]),
        ("x (T, S); g (T+S-1,)", [(2, 3), (4,)]),
        ("x (T, S); g (T+S-1,)", [(0, 0), (0,)]),
        ("x (T,); g (T+S-1, S)", [(2,), (4, 3)]),
        ("x (B, C); g (n*B, K)", [(2, 3), (6, 5)]),
        ("x (B, C); g (n*B, K)", [(0, 3), (0, 5)]),
        ("x (B, T); g broadcast to (B, T)", [(2, 3), (1, 3)]),
        ("x (B, T); g broadcast to (B, T, S)", [(2, 3), (3, 9)]),
        ("x (..., T); g broadcast to (..., T)", [(4, 2, 3), (2, 1)]),
        ("x (B, T); g end of (B, T)", [(2, 3), (3,)]),
        ("x (..., C); g end of (...)", [(4, 2, 3), (4, 2)]),
    ],
)
def test_what_fits_is_admitted(line: str, shapes: list[tuple[int, ...]]) -> None:
    checked(f"{line} -> y (...)", "x, g")(*map(numpy.zeros, shapes))


def test_a_whole_number_is_a_size() -> None:
    op = checked("x (..., I); W (I, parts*D) -> y (..., I)", "x, W, *, parts")
    op(numpy.zeros((2, 3)), numpy.zeros((3, 8)), parts=4)
    for parts, error, message in (
        (3, ValueError, r"op: W must be (I, parts*D) = (3, 3*D) to match x (..., I) = (2, 3); got (3, 8)"),
        (0, ValueError, "op: parts must be at least 1, got 0"),
        (-4, ValueError, "op: parts must be at least 1, got -4"),
        (4.0, TypeError, "op: parts must be a whole number, got 4.0"),
        (None, TypeError, "op: parts must be a whole number, got None"),
        ([4], TypeError, r"op: parts must be a whole number, got [4]"),
    ):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            op(numpy.zeros((2, 3)), numpy.zeros((3, 8)), parts=parts)


@pytest.mark.skipif(numpy.longdouble(0).itemsize == 8, reason="this platform has nothing wider than float64")
def test_what_is_wider_than_float64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"op: x must be float64 or narrower, got .*; convert it with \.astype"):
        LAYER_NORM(numpy.zeros((2, 3), numpy.longdouble), numpy.zeros(3, numpy.longdouble))


def test_two_float_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="op: g is float64 but x is float32; give both the same dtype"):
        LAYER_NORM(numpy.zeros((2, 3), "float32"), numpy.zeros(3))


@pytest.mark.parametrize(
    ("kind", "good", "wrong", "message"),
    [
        ("", ["float64"], ["int64", "bool", "complex128", "object"], "floating-point"),
        ("bool ", ["bool"], ["int64", "float64", "uint8"], "boolean"),
        ("int ", ["int64", "int8", "uint64"], ["float64", "bool", "object"], "integers"),
        ("real ", ["float64", "float32", "int64", "uint8"], ["bool", "complex128", "object"], "real numbers"),
    ],
)
def test_the_kind_of_numbers_is_part_of_the_line(kind: str, good: list[str], wrong: list[str], message: str) -> None:
    op = checked(f"x (T,); a {kind}(T,) -> y (T,)", "x, a")
    for dtype in good:
        op(numpy.zeros(3), numpy.zeros(3, dtype))
    for dtype in wrong:
        with pytest.raises(ValueError, match=rf"op: a must be {message}, got {dtype}; convert it with \.astype"):
            op(numpy.zeros(3), numpy.zeros(3, dtype))


@pytest.mark.parametrize("wrong", [[1.0, 2.0], None, 1.0, "x", numpy.zeros((1, 2)).view(numpy.matrix)])
def test_what_is_no_array_is_refused_by_its_name(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"op: g must be a NumPy or CuPy array, got .*; convert it first"):
        LAYER_NORM(numpy.zeros((2, 2)), wrong)


def test_a_masked_array_does_not_lose_its_mask_unseen() -> None:
    masked = numpy.ma.masked_array(numpy.zeros(2), mask=[True, False])
    LAYER_NORM(numpy.zeros((2, 2)), numpy.zeros(2))  # of the same shapes and dtypes
    with pytest.raises(TypeError, match="op: g is a masked array, whose mask would be lost"):
        LAYER_NORM(numpy.zeros((2, 2)), masked)
    _, back = LAYER_NORM(numpy.zeros((2, 2)), numpy.zeros(2))
    back(numpy.zeros((2, 2)))
    with pytest.raises(TypeError, match="op: dy is a masked array"):
        back(numpy.ma.masked_array(numpy.zeros((2, 2)), mask=True))


def test_what_may_be_left_out_is_none() -> None:
    op = checked(
        "x (B, T); token_mask bool (B, T), or None; dropout_mask[2] bool (T,), or None -> y (B, T)",
        "x, *, token_mask, dropout_mask",
    )
    x, mask = numpy.zeros((2, 3)), numpy.ones((2, 3), bool)
    op(x, token_mask=None, dropout_mask=None)
    op(x, token_mask=mask, dropout_mask=(mask[0], mask[1]))
    with pytest.raises(ValueError, match=r"op: token_mask must be \(B, T\) = \(2, 3\)"):
        op(x, token_mask=mask[:1], dropout_mask=None)
    op(x, token_mask=None, dropout_mask=mask)  # its rows
    for wrong, got in (([mask[0]] * 3, "3"), (mask[:1], "1"), (mask[0], "3"), (7, "int"), (iter(mask), "iterator")):
        with pytest.raises(TypeError, match=f"op: dropout_mask must be 2 arrays; got {got}"):
            op(x, token_mask=None, dropout_mask=wrong)
    with pytest.raises(ValueError, match=r"op: dropout_mask must be \(T,\) = \(3,\)"):
        op(x, token_mask=None, dropout_mask=[mask[0], mask[0, :2]])


def test_names_that_are_no_arguments_are_entries_of_the_parameters() -> None:
    op = checked("x (B, T); W (T, C) -> y (B, T)", "x, p", value="x * p['W'].max()")
    x, W = numpy.zeros((2, 3)), numpy.zeros((9, 9))  # the shape is looked at by the operations inside
    assert op(x, {"W": W})[0].shape == (2, 3)
    for wrong, line in (
        ({}, "op: the parameters lack W; give W"),
        ({"W": W, "V": W}, "op: V is none of the parameters, which are W; leave it out"),
        ({"W": None}, "op: W must be a NumPy or CuPy array, got NoneType; convert it first (with asarray)"),
        ({"W": {"W": W}}, "op: W must be a NumPy or CuPy array, got dict; convert it first (with asarray)"),
        ([W], "op: p must be a dict of W; got list"),
    ):
        with pytest.raises(UserError) as error:
            op(x, wrong)
        assert str(error.value) == line


def test_entries_of_an_entry_and_trees_and_what_may_be_absent_are_declared_too() -> None:
    op = checked(
        "x (B, T); norm tree; head.W (T, C); head.b (C,), or None -> y (B, T)",
        "x, p",
        value="x * p['head']['W'].max() * len({**p['norm']})",
    )
    x, W = numpy.zeros((2, 3)), numpy.zeros((9, 9))
    assert op(x, {"norm": {}, "head": {"W": W}})[0].shape == (2, 3)
    for wrong, line in (
        ({"head": {"W": W}}, "op: the parameters lack norm; give norm, head"),
        ({"norm": W, "head": {"W": W}}, "op: norm must be a dict of parameters, got ndarray"),
        ({"norm": {}}, "op: the parameters lack head; give norm, head"),
        ({"norm": {}, "head": {"b": W}}, "op: the parameters lack head.W; give head.W, head.b (or not)"),
        ({"norm": {}, "head": W}, "op: head must be a dict of head.W, head.b (or not); got ndarray"),
        (
            {"norm": {}, "head": {"W": W, "c": W}},
            "op: head.c is none of the parameters, which are head.W, head.b (or not); leave it out",
        ),
    ):
        with pytest.raises(UserError) as error:
            op(x, wrong)
        assert str(error.value) == line


SEVERAL = checked("x (B, T) -> y (B, T); s (B,)", "x", value="(x * 1, x[:, 0] * 1)")
PARTS = checked("x (B, T) -> y[parts] (B, T)", "x, *, parts", value="tuple(x * 1 for _ in range(parts))")
REDUCED = checked(
    'x (B, T) -> y () or, for "none", (B, T)', "x, *, reduction", value='x if reduction == "none" else x.sum()'
)


@pytest.mark.parametrize(
    ("dy", "error", "message"),
    [
        (numpy.zeros((3, 2)), ValueError, "dy must be (..., C) = (2, 3), the shape of y; got (3, 2)"),
        (numpy.zeros((1, 2, 3)), ValueError, "dy must be (..., C) = (2, 3), the shape of y; got (1, 2, 3)"),
        (numpy.zeros(3), ValueError, "dy must be (..., C) = (2, 3), the shape of y; got (3,)"),
        (numpy.zeros(()), ValueError, "dy must be (..., C) = (2, 3), the shape of y; got ()"),
        (numpy.zeros((2, 3), "float32"), ValueError, "dy is float32 but y is float64; give both the same dtype"),
        (numpy.zeros((2, 3), int), ValueError, "dy is int64 but y is float64; give both the same dtype"),
        ([[0.0] * 3] * 2, TypeError, "dy must be a NumPy or CuPy array, got list; convert it first (with asarray)"),
        (1.0, TypeError, "dy must be a NumPy or CuPy array, got float; convert it first (with asarray)"),
        (None, TypeError, "dy must be a NumPy or CuPy array, got NoneType; convert it first (with asarray)"),
    ],
)
def test_a_gradient_that_is_not_one_of_y_is_refused(dy: Any, error: type[Exception], message: str) -> None:
    _, back = LAYER_NORM(numpy.zeros((2, 3)), numpy.zeros(3))
    back(numpy.zeros((2, 3)))
    with pytest.raises(error, match=f"^{re.escape('op: ' + message)}$"):
        back(dy)


def test_another_number_of_gradients_is_refused() -> None:
    y, back = LAYER_NORM(numpy.zeros((2, 3)), numpy.zeros(3))
    for dys, got in (((), 0), ((y, y), 2)):
        with pytest.raises(TypeError, match=rf"^op: back takes 1 gradient, of y; got {got}$"):
            back(*dys)


def test_of_several_values_the_one_is_named() -> None:
    _, back = SEVERAL(numpy.zeros((2, 3)))
    back(numpy.zeros((2, 3)), numpy.zeros(2))
    with pytest.raises(ValueError, match=r"^op: dy of s must be \(B,\) = \(2,\), the shape of s; got \(3,\)$"):
        back(numpy.zeros((2, 3)), numpy.zeros(3))
    with pytest.raises(TypeError, match=r"^op: back takes 2 gradients, of y and s; got 1$"):
        back(numpy.zeros((2, 3)))
    _, back = PARTS(numpy.zeros((2, 3)), parts=2)
    with pytest.raises(ValueError, match=r"^op: dy of y\[1\] must be \(B, T\) = \(2, 3\)"):
        back(numpy.zeros((2, 3)), numpy.zeros((3, 2)))
    _, back = PARTS(numpy.zeros((2, 3)), parts=1)
    with pytest.raises(TypeError, match=r"^op: back takes 1 gradient, of y\[0\]; got 2$"):
        back(numpy.zeros((2, 3)), numpy.zeros((2, 3)))


def test_the_shape_that_counts_is_that_of_the_value_that_was_returned() -> None:
    _, back = REDUCED(numpy.ones((2, 3)), reduction="none")
    with pytest.raises(ValueError, match=r"dy must be \(B, T\) = \(2, 3\), the shape of y; got \(\)"):
        back(numpy.zeros(()))
    _, back = REDUCED(numpy.ones((2, 3)), reduction="sum")
    assert back(numpy.ones(()))[0] == 1
    with pytest.raises(ValueError, match=r"dy must be \(\) = \(\), the shape of y; got \(2, 3\)"):
        back(numpy.zeros((2, 3)))


def test_a_refused_call_is_refused_again() -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="g must be"):
            LAYER_NORM(numpy.zeros((5, 4)), numpy.zeros(3))


def test_what_was_admitted_is_forgotten_before_it_fills_the_memory() -> None:
    op = checked("x (T,) -> y (T,)", "x")
    for n in range(ADMITTED + 10):
        op(numpy.zeros(n))
    with pytest.raises(ValueError, match="x must be"):
        op(numpy.zeros(()))


def test_the_function_looks_as_it_was_written_and_its_frame_can_be_read() -> None:
    def f(x: Any, *, eps: float, out: Any = None) -> Any:
        """y = x

        Shapes:  x (T,) -> y (T,)
        """
        raise RuntimeError("inside")

    g = declared_inputs(f)
    assert (g.__name__, g.__doc__, g.__module__, inspect.signature(g)) == (
        f.__name__, f.__doc__, f.__module__, inspect.signature(f),
    )  # fmt: skip
    with pytest.raises(RuntimeError) as caught:
        g(numpy.zeros(3), eps=1.0)
    lines = [frame.line for frame in traceback.extract_tb(caught.tb)]
    assert "return _function(x, eps=eps, out=out)" in lines
    with pytest.raises(TypeError, match=r"f\(\) missing 1 required keyword-only argument: 'eps'"):
        g(numpy.zeros(3))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("docstring", "signature", "message"),
    [
        ("y = x", "x", "f: the docstring has no `Shapes:` section; add one"),
        ("y = x\n\nShapes:  x (T,) -> y (T,)", "*x", "f: a starred parameter hides what is passed"),
        ("y = x\n\nShapes:  x of T -> y (T,)", "x", "f: `Shapes:` holds 'x of T'"),
    ],
)
def test_a_line_that_cannot_be_read_stops_every_call(docstring: str, signature: str, message: str) -> None:
    for decorate in (differentiable, declared_inputs):
        op = decorate(undocumented(docstring, signature))
        for _ in range(2):
            with pytest.raises(ShapesError, match=message):
                op(numpy.zeros(3))
            with pytest.raises(ShapesError, match=message):
                assert_it_can_be_called(op)


def undocumented(docstring: str, signature: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(f"def f({signature}): ...", names)
    names["f"].__doc__ = docstring
    function: Callable[..., Any] = names["f"]
    return function


def decorated() -> Iterator[tuple[str, str]]:
    """Module and name of every function of the package that stands under a decorator of refllm/differentiable.py."""
    package = Path(refllm.__file__).parent
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        source = path.read_text(encoding="utf-8")
        if "from refllm.differentiable import" not in source:  # the mutants have a decorator of that name, too
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and DECORATORS & {ast.unparse(d) for d in node.decorator_list}:
                yield module, node.name


def assert_it_can_be_called(function: Callable[..., Any]) -> None:
    """A call without arguments reads the line, and goes no further than Python's own complaint."""
    with pytest.raises(TypeError, match="missing"):
        function()


@pytest.mark.parametrize(("module", "name"), list(decorated()))
def test_the_line_of_every_function_of_the_package_can_be_read(module: str, name: str) -> None:
    """The line is read at the first call, so that an import stays fast: here is where a wrong one is found."""
    function = getattr(importlib.import_module(module), name)
    assert hasattr(function, "__wrapped__")
    assert_it_can_be_called(function)


def test_every_decorated_function_was_found() -> None:
    found = set(decorated())
    assert {(function.__module__, function.__name__) for _, function in examples.functions()} <= found
    assert {(function.__module__, function.__name__) for function in operation_functions()} <= found
    assert {module for module, _ in found} >= {"refllm.optim.update", "refllm.finetune.low_rank"}


def test_the_first_call_is_like_every_other() -> None:
    def f(x: Any, g: Any = None, *, eps: float = 2.0) -> Any:
        """y = x

        Shapes:  x (T,); g (T,), or None -> y (T,)
        """
        return (x, g, eps), lambda dy: dy

    x = numpy.zeros(3)
    once = declared_inputs(f)
    assert inspect.signature(once) == inspect.signature(f)
    first, again = once(x), once(x)
    assert first[0] == again[0] == (x, None, 2.0)
    assert declared_inputs(f)(x, x, eps=1.0)[0] == (x, x, 1.0)
    with pytest.raises(ValueError, match=r"f: x must be \(T,\)"):
        declared_inputs(f)(numpy.zeros((3, 3)))


def test_threads_may_share_a_first_call() -> None:
    for _ in range(20):
        op = checked("x (T,) -> y (T,)", "x")
        with ThreadPoolExecutor(4) as pool:
            values = list(pool.map(lambda n, op=op: op(numpy.ones(n))[0].sum(), range(8)))
        assert values == list(range(8))


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


def test_python_without_docstrings_is_refused_in_words_of_its_own() -> None:
    script = "import numpy; from refllm.ops.activation import relu; relu(numpy.ones(3))"
    done = subprocess.run([sys.executable, "-OO", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "refllm.errors.UserError: refllm reads the shapes that its docstrings declare" in done.stderr
