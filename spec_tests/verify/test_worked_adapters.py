"""The adapters that a newcomer copies: right in every case they serve, in every precision they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import refllm
from refllm.verify import adapter, corpus, runner
from refllm.verify.isolated import Isolated

ROOT = Path(refllm.__file__).resolve().parents[1]
ADAPTERS = {"torch": ROOT / "scripts/adapters/torch_adapter.py", "jax": ROOT / "scripts/adapters/jax_adapter.py"}

# pytorch/pytorch#187806: GELU as 1 + erf, which has no digits left of a small tail
FAULTS = {"torch": {"FFN/gelu-erf-tail", "FFN/gelu-erf-tail-rows"}}


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("framework", ["torch", pytest.param("jax", marks=pytest.mark.slow)])  # jax compiles each case
def test_a_framework_passes_every_case_that_its_adapter_serves(
    golden: corpus.Corpus, framework: str, dtype: str
) -> None:
    pytest.importorskip(framework)
    implementation = adapter.from_file(ADAPTERS[framework])
    results = list(runner.run(implementation, golden.cases.values(), dtype, golden.C))
    failures = {r.case.id: r.reason or [v.message for v in r.verdicts if v.wrong] for r in results if r.failed}
    lost = FAULTS.get(framework, set()) if dtype != "bfloat16" else set()  # whose 8 bits the tail has left
    assert set(failures) == lost, failures
    assert sum(r.status == "pass" for r in results) > 150


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_example_of_the_documentation_works_as_it_stands(golden: corpus.Corpus, tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("torch")
    page = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    [code] = [c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def layer_norm" in c]
    (tmp_path / "my_adapter.py").write_text(code)
    cases = [case for case in golden.cases.values() if case.operation == "layer_norm"]
    results = list(runner.run(adapter.from_file(tmp_path / "my_adapter.py"), cases, dtype, golden.C))
    assert {r.status for r in results} == {"pass"}


@pytest.mark.parametrize("framework", ADAPTERS)
def test_a_worked_adapter_takes_few_lines_for_an_operation(golden: corpus.Corpus, framework: str) -> None:
    text = ADAPTERS[framework].read_text(encoding="utf-8")
    operations = {case.operation for case in golden.cases.values()}
    served = [name for name in operations if re.search(rf"^(\w+, )*{name}(, \w+)* = ", text, re.MULTILINE)]
    assert len(served) > 25
    assert len(text.splitlines()) <= 10 * len(served)


CLIPPED = {"SGD/clip-above", "SGD/clip-one-large", "SGD/clip-exact"}  # divided by the norm plus 1e-6
NOTHING = {"SMX/softmax-nothing-left", "CE/ignore-all", "CE/no-rows", "CE/smoothed-ignore-all", "CTR/zero-row"}  # NaN
LIBRARIES = {  # adapter: what must be installed, its operations put to the test, faults of the library, other choices
    "scipy": ("scipy", {"softmax", "log_softmax", "gelu_erf", "silu", "cross_entropy"}, set(), NOTHING),
    "sklearn": ("sklearn", {"softmax", "relu", "tanh", "cross_entropy", "sgd"}, {"CE/far-target"}, NOTHING),
    "optax": ("optax", {"adam", "adamw", "sgd", "clip_by_global_norm"}, set(), set()),
    "jax_nn": ("jax", {"silu", "gelu_erf", "relu"}, set(), set()),
    "onnx": (
        "onnx", {"softmax", "log_softmax", "cross_entropy", "rnn", "layer_norm", "adam"},
        {"SMX/log-softmax-far-apart", "CE/far-target", "RNN/padding"}, NOTHING,
    ),
    "torch_modules": (
        "torch", {"attention", "self_attention", "lstm", "adamw", "sgd", "cross_entropy", "clip_by_global_norm"},
        set(), NOTHING | CLIPPED,
    ),
    "tinygrad": ("tinygrad", {"tanh", "multiply"}, {"RNN/tanh-near"}, set()),
}  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize("name", LIBRARIES)
def test_an_adapter_of_a_library_shows_its_faults_and_no_other(golden: corpus.Corpus, name: str) -> None:
    """In float32. A dtype and a convention that differ are no faults, nor is a form of Adam that it documents."""
    needed, operations, faults, choices = LIBRARIES[name]
    pytest.importorskip(needed)
    cases = [case for case in golden.cases.values() if case.operation in operations]
    with Isolated(ROOT / "scripts/adapters" / f"{name}_adapter.py", 300.0) as implementation:
        results = list(runner.run(implementation, cases, "float32", golden.C))
    failed = {r.case.id for r in results if r.wrong and not (name == "onnx" and r.case.operation == "adam")}
    known = {case.id for case in cases}
    assert faults & known <= failed
    assert failed <= faults | choices
    assert all(
        any(r.status in ("pass", "value", "dtype") for r in results if r.case.operation == o) for o in operations
    )
