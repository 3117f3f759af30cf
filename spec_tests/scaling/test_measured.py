"""What docs/scaling.md is made from: measured steps send the bytes of the page, and take as long as predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refllm.scaling.cuts import allreduced
from refllm.scaling.links import Link
from refllm.scaling.trainer import exchanged

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "docs/data/scaling.json").read_text(encoding="utf-8"))
    return found


def test_each_process_sent_the_bytes_of_the_page(measured: dict[str, Any]) -> None:
    steps = measured["cost"]["steps"] + measured["network"]["steps"]
    assert {step["processes"] for step in steps} == {1, 2, 4}
    for step in steps:
        assert step["bytes_sent"] == allreduced(4 * step["parameters"], step["processes"])


def test_what_is_not_computed_took_about_as_long_as_predicted_from_delay_and_bandwidth(
    measured: dict[str, Any],
) -> None:
    sizes = measured["network"]["sizes"]
    assert len({(step["delay"], step["bandwidth"]) for step in measured["network"]["steps"]}) >= 3
    for step in measured["network"]["steps"]:
        link, n = Link(step["delay"], step["bandwidth"]), step["processes"]
        batch = 8 * n * sizes["batch"] * (sizes["context"] + 1)
        beyond = step["step"] - step["compute"]
        assert 0.8 < beyond / exchanged(4 * step["parameters"], n, link, batch=batch) < 1.2


def test_two_processes_keep_most_of_the_speed_of_one(measured: dict[str, Any]) -> None:
    assert measured["weak"]["processes"] == 2
    assert 0.85 <= measured["weak"]["kept"] <= 1.05
