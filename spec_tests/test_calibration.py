"""The tables of what right implementations need are what was measured; NumPy is right in every order of its sums."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from refllm.numbers import plans

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/conformance.md"
DATA = ROOT / "docs/data/sized_calibration.json"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("calibrate_spread", ROOT / "scripts/calibrate_spread.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibrate_spread"] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_was_measured(script: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert script.rendered(page) == page


def test_no_right_answer_is_counted_that_is_beyond_the_limit() -> None:
    data = json.loads(DATA.read_text(encoding="utf-8"))
    answers = [a for row in data.values() for a in row["operations"].values()]
    assert answers
    assert all(a["largest"] <= plans.LIMIT for a in answers)


def test_numpy_raises_no_failure_at_the_sizes_of_kernels() -> None:
    """As the page says: refllm, the text in every order of its sums, and tiles and blocks."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    own = {key: row for key, row in data.items() if row["version"].startswith("numpy")}
    assert len(own) >= 12
    assert {key for key, row in own.items() if any(a["wrong"] for a in row["operations"].values())} == set()


@pytest.mark.parametrize("operation", ["top_experts", "repeat_heads"])
def test_what_is_measured_is_what_a_run_gives(script: Any, operation: str) -> None:
    """Counts, which are sums of true and false, too."""
    found = script.spread_sized.measured("^(refllm|the text, sums in pairs)$", f"^{operation}$", "float32", write=False)
    data = json.loads(DATA.read_text(encoding="utf-8"))
    assert found
    for key, row in found.items():
        [answers] = row["operations"].values()
        assert not answers["wrong"]
        assert answers["right"] == data[key]["operations"][operation]["right"]
