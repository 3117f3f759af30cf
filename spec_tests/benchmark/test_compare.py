"""Laws of what the benchmark says of its measurements."""

from __future__ import annotations

import pytest

from benchmark.compare import told_share


def test_a_share_of_the_floor_is_told_for_every_side() -> None:
    assert told_share({"refllm": 0.72, "torch": 1.0}) == "share of that floor: refllm 72%, torch 100%"


@pytest.mark.parametrize("worst", [1.01, 3.32])
def test_products_that_took_longer_than_a_whole_step_are_no_floor_and_the_line_says_why(worst: float) -> None:
    said = told_share({"refllm": worst, "torch": 0.7})
    assert "%" not in said
    assert f"took {worst:.1f} times as long as refllm's whole step" in said
    assert "measure again" in said
