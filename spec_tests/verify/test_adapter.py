"""A Python file as an implementation: what it may hold, and what is said when it cannot be used."""

from __future__ import annotations

import colorsys
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import adapter, corpus, reference
from refllm.verify.adapter import Functions
from refllm.verify.case import FaultError, UnsupportedError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


RELU = "import numpy\ndef relu(x):\n    return numpy.maximum(x, 0), lambda dy: dy * (x > 0)\n"


def test_the_functions_of_a_file_are_called_with_numpy_arrays(write: Write, golden: corpus.Corpus) -> None:
    found = adapter.from_file(write(RELU))
    case = golden.cases["FFN/relu-grid"]
    response = found.respond(case, "float32")
    assert response.outputs["y"].dtype == "float32"
    assert response.gradients is not None
    numpy.testing.assert_array_equal(response.gradients["x"], case.cotangents["y"] * (case.inputs["x"] > 0))


def test_what_lies_beside_a_file_can_be_imported(write: Write, tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text(RELU)
    assert "relu" in adapter.from_file(write("from beside_it import relu")).functions


def test_a_file_beside_an_adapter_does_not_hide_the_standard_library(write: Write, tmp_path: Path) -> None:
    """Nor does an adapter that is called as a module of it; what is beside it goes before what is installed."""
    sys.modules.pop("colorsys", None)
    (tmp_path / "colorsys.py").write_text("raise ImportError('not the one of the library')\n")
    (tmp_path / "hypothesis_of_mine.py").write_text("def f(x): return x\n")
    text = "import colorsys, hypothesis_of_mine\ndef relu(x): return colorsys.ONE_SIXTH\n"
    assert adapter.from_file(write(text)).functions["relu"](0) == colorsys.ONE_SIXTH
    (tmp_path / "colorsys.py").write_text("import colorsys\ndef relu(x): return colorsys.ONE_SIXTH\n")
    assert adapter.from_file(tmp_path / "colorsys.py").functions["relu"](0) == colorsys.ONE_SIXTH


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import of_nothing_at_all", "cannot be imported: ModuleNotFoundError"),
        ("x = 1\ndef (", r"cannot be imported: SyntaxError: [^()]*\(mine.py, line 2\)$"),
        ("x = 1\nimport of_nothing", r"No module named 'of_nothing' \(mine.py, line 2\)$"),
        ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("1 / 0", r"ZeroDivisionError: division by zero \(mine.py, line 1\)"),
        ("DTYPES = 'float32'", "DTYPES must be a list of some of float64, float32"),
        ("DTYPES = ['float8']", "DTYPES must be a list of some of float64, float32"),
        ("CONVENTIONS = ['a']", "CONVENTIONS must be a dict of texts"),
        ("CONVENTIONS = {'a': 1}", "CONVENTIONS must be a dict of texts"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(write: Write, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        adapter.from_file(write(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["none.py", ".", "notes.txt"])
def test_only_a_python_file_is_a_module(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text(RELU)
    with pytest.raises(UserError, match="is no Python file"):
        adapter.from_file(tmp_path / name)


def test_a_precision_that_arrays_cannot_say_must_be_declared(write: Write, golden: corpus.Corpus) -> None:
    case = golden.cases["FFN/relu-grid"]
    with pytest.raises(UnsupportedError, match="does not have bfloat16 among its DTYPES"):
        adapter.from_file(write(RELU)).respond(case, "bfloat16")
    told = "DTYPES = ['bfloat16', 'tf32']\ntold = []\ndef use_dtype(dtype):\n    told.append(dtype)\n"
    found = adapter.from_file(write(RELU + told))
    assert found.respond(case, "bfloat16").outputs["y"].dtype == "float32"
    assert found.respond(case, "tf32").outputs["y"].dtype == "float32"
    with pytest.raises(UnsupportedError, match="does not have float64"):
        found.respond(case, "float64")


def test_what_an_adapter_prints_and_warns_does_not_reach_the_report(
    write: Write, golden: corpus.Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = "print('loading')\nimport numpy\ndef relu(x):\n    print('called')\n    return numpy.log(x * 0)\n"
    adapter.from_file(write(noisy)).respond(golden.cases["FFN/relu-grid"], "float64")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "loading\ncalled\n"


def test_an_exception_is_one_line_with_its_place(write: Write, golden: corpus.Corpus) -> None:
    found = adapter.from_file(write("def relu(x):\n    raise ValueError('a\\nb' * 500)\n"))
    with pytest.raises(FaultError, match=r"^relu raised ValueError: a ba b.*\(mine.py, line 2\)$") as caught:
        found.respond(golden.cases["FFN/relu-grid"], "float64")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("definition", ["def relu():", "def relu(x, y):", "@functools.cache\ndef relu():"])
def test_a_function_that_does_not_take_the_arguments_is_named_by_its_place(
    definition: str, write: Write, golden: corpus.Corpus
) -> None:
    found = adapter.from_file(write(f"import functools\n{definition}\n    return 1\n"))
    with pytest.raises(FaultError, match=r"^relu raised TypeError: .*\(mine.py, line 2\)$"):
        found.respond(golden.cases["FFN/relu-grid"], "float64")


def test_a_syntax_error_in_what_an_adapter_imports_is_named_by_its_place(write: Write, tmp_path: Path) -> None:
    (tmp_path / "broken_beside_it.py").write_text("x = 1\ny = (\n")
    with pytest.raises(UserError, match=r"SyntaxError: .* \(broken_beside_it.py, line 2\)$"):
        adapter.from_file(write("import broken_beside_it"))


def test_an_operation_that_overwrites_its_argument_breaks_a_law_an_optimiser_does_not(golden: corpus.Corpus) -> None:
    def softmax(x: Any) -> Any:
        y, back = reference.functions()["softmax"](x)
        x[...] = y
        return x, back

    def sgd(p: Any, g: Any, v: Any, **how: Any) -> Any:
        p[...], v[...] = reference.functions()["sgd"](p, g, v, **how)
        return p, v

    mine = Functions("mine", {"softmax": softmax, "sgd": sgd}, {})
    assert mine.respond(golden.cases["SGD/momentum"], "float64").outputs
    assert mine.respond(golden.cases["SGD/momentum"], "float64").laws == ()
    law, _ = mine.respond(golden.cases["SMX/softmax-rows"], "float64").laws
    assert law.broken
    assert law.message.startswith("the input x is changed by the call: x[0, 0] was ")
