"""The page of released libraries is what was measured, and says what was not run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("compare_libraries", ROOT / "scripts/compare_libraries.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_libraries"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_was_measured(script: Any) -> None:
    data = json.loads((ROOT / "docs/data/libraries.json").read_text(encoding="utf-8"))
    assert script.page(data) == (ROOT / "docs/libraries.md").read_text(encoding="utf-8")
    assert set(data) <= {subject.name for subject in script.SUBJECTS}


def test_what_was_not_run_has_these_words_and_each_limit_its_input(script: Any) -> None:
    none = {"passed": 0, "value_only": 0, "failed": 0, "dtype": 0, "convention": 0, "skipped": 3}
    limit = {"operation": "relu", "dtype": "float32", "case": "FFN/relu", "status": "fail", "message": "a|b <c>",
             "input": "x = [1.0]", "more": 2}  # fmt: skip
    found = {"command": "refllm verify m", "versions": {"m": "1"}, "dtypes": {"float32": none}, "limits": [limit]}
    page = script.page({"m": found})
    assert "| m | m 1 | float32 | not run | 0 | 0 | 3 |" in page
    assert "| FFN/relu and 2 more | a\\|b &lt;c> | x = [1.0] |" in page


def test_a_limit_is_measured_with_its_smallest_case(script: Any, tmp_path: Path) -> None:
    from refllm.verify import corpus

    (tmp_path / "mine.py").write_text("def relu(x):\n    return x, lambda dy: dy\n")
    subject = script.Subject("mine", str(tmp_path / "mine.py"), ("numpy",), dtypes=("float64",))
    found = script.measured(subject, corpus.load(corpus.folder(None)))
    [limit] = found["limits"]
    assert limit["operation"] == "relu"
    assert limit["input"].startswith("x = [")
    assert found["dtypes"]["float64"]["failed"] == limit["more"] + 1
