"""Arrays of other libraries: given and taken as they are, differentiated where the library can, refused in words."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import adapter, arrays, check, corpus, runner
from refllm.verify.arrays.bridge import Bridge
from refllm.verify.case import FaultError
from refllm.verify.plugging import said_by

FORWARD = {
    "torch": "import torch\nsoft = lambda x: torch.softmax(x, -1)\nsqrt = torch.sqrt\n",
    "jax": "import jax\nfrom jax import numpy as jnp\nsoft = jax.nn.softmax\nsqrt = jnp.sqrt\n",
}
BODY = """
ARRAYS = "{library}"

def layer_norm(x, g, b, *, eps):
    m = x.mean(-1).reshape(*x.shape[:-1], 1)
    c = x - m
    return g * c / sqrt((c * c).mean(-1).reshape(*x.shape[:-1], 1) + eps) + b

def lstm(x, h, c, Wx, Wh, b, *, valid):
    raise NotImplementedError("later")

def embedding(E, *, ids):
    return E[ids]

def feed_forward(x, p, *, activation):
    if activation != "relu" or "b1" not in p:
        raise NotImplementedError("relu alone, with biases")
    h = x @ p["W1"] + p["b1"]
    return h * (h > 0) @ p["W2"] + p["b2"]
"""


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("library", ["torch", pytest.param("jax", marks=pytest.mark.slow)])  # jax compiles each case
def test_a_forward_function_of_a_library_passes_with_the_gradient_that_the_library_finds(
    golden: corpus.Corpus, tmp_path: Path, library: str, dtype: str
) -> None:
    pytest.importorskip(library)
    (tmp_path / "mine.py").write_text(FORWARD[library] + BODY.format(library=library))
    mine = adapter.from_file(tmp_path / "mine.py")
    wanted = {"layer_norm", "embedding", "feed_forward"}
    cases = [case for case in golden.cases.values() if case.operation in wanted]
    results = [r for r in runner.run(mine, cases, dtype, golden.C) if r.status != "skip"]
    assert {r.case.operation for r in results} == wanted
    assert {r.case.id for r in results if r.status != "pass"} <= {"EMB/scalar"}  # a view of E, in PyTorch


@pytest.mark.oracle
def test_a_tensor_that_is_returned_is_taken_without_being_declared(golden: corpus.Corpus) -> None:
    torch = pytest.importorskip("torch")

    def softmax(x: Any) -> Any:
        return torch.softmax(torch.tensor(x), -1)

    found = check(softmax, values=True)
    assert {r.case.id for r in found.failures} <= {"SMX/softmax-nothing-left"}  # NaN in PyTorch


@pytest.mark.oracle
def test_a_narrower_tensor_than_the_run_asks_for_is_said_to_be_one() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(FaultError, match="an array of bfloat16 was returned in a run of float32; return float32"):
        arrays.arrived(torch.zeros(2, dtype=torch.bfloat16), "float32")
    assert arrays.arrived(torch.ones(2, dtype=torch.bfloat16), "bfloat16").dtype == numpy.float32


@pytest.mark.oracle
def test_a_subclass_of_a_tensor_is_a_tensor() -> None:
    torch = pytest.importorskip("torch")
    assert isinstance(arrays.arrived(torch.nn.Parameter(torch.ones(2)), "float32"), numpy.ndarray)


def multiplied(x: Any, W: Any) -> Any:
    return x @ W, lambda dy: (dy @ W.T, x.T @ dy)


def of_the_first_alone(x: Any, W: Any) -> Any:
    return x @ W, lambda dy: dy @ W.T


def test_a_pullback_of_the_function_itself_goes_before_the_librarys() -> None:
    y, back = Bridge("numpy").over(multiplied, "float64")(numpy.ones((2, 3)), numpy.ones((3, 4)))
    dx, dW = back(numpy.ones((2, 4)))
    assert (y.shape, dx.shape, dW.shape) == ((2, 4), (2, 3), (3, 4))


def test_a_pullback_with_another_number_of_gradients_is_a_fault() -> None:
    _, back = Bridge("numpy").over(of_the_first_alone, "float64")(numpy.ones((2, 3)), numpy.ones((3, 4)))
    with pytest.raises(FaultError, match="returned 1 gradients; it must return 2"):
        back(numpy.ones((2, 4)))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('ARRAYS = "tensorflow"', "arrays are those of numpy, torch"),
        ("ARRAYS = 3", 'ARRAYS must be a text, as ARRAYS = "torch"'),
        ('SIGNATURES = "pytorch"', "tables of signatures are torch, jax, keras, onnx"),
    ],
)
def test_what_a_file_says_of_itself_wrongly_is_one_line(tmp_path: Path, said: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"{said}\ndef relu(x):\n    return x\n")
    with pytest.raises(UserError, match=message):
        adapter.from_file(tmp_path / "mine.py")


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="arrays of torch need torch, which this Python does not have"):
        Bridge("torch")


def test_nothing_of_a_library_is_imported_before_it_is_asked_for() -> None:
    program = (
        "import sys, refllm.verify.adapter, refllm.commands.verify, refllm.verify.plugging\n"
        "print([n for n in ('torch', 'jax', 'cupy', 'tinygrad', 'keras') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_device_of_the_files_own_is_left_alone() -> None:
    """Many files have one, which need not be a text."""
    module = types.SimpleNamespace(DEVICE=object())
    assert said_by("mine.py", module).device is None
    module = types.SimpleNamespace(ARRAYS="torch", DEVICE="cuda")
    assert said_by("mine.py", module).device == "cuda"
