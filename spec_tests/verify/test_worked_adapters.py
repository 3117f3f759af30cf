"""The adapters that a newcomer copies: right in every case they serve, in every precision they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import refllm
from refllm.verify import adapter, corpus, runner

ROOT = Path(refllm.__file__).resolve().parents[1]
ADAPTERS = {"torch": ROOT / "scripts/adapters/torch_adapter.py", "jax": ROOT / "scripts/adapters/jax_adapter.py"}


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
    assert failures == {}
    assert sum(r.status == "pass" for r in results) > 150


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_example_of_the_documentation_works_as_it_stands(golden: corpus.Corpus, tmp_path: Path, dtype: str) -> None:
    pytest.importorskip("torch")
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/conformance.md").read_text(encoding="utf-8"), re.DOTALL)
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
