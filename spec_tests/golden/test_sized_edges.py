"""What a sized case is for, its numbers reach: what lies behind the last whole tile is chosen, and weighs something."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.sized.cases import load

KNOWN = load(Path(__file__).resolve().parents[2] / "golden")
SMALLEST = 32  # below it nothing is cut into tiles


def of_experts(case: Case) -> tuple[int, Array]:
    scores = case.inputs["scores"]
    return scores.shape[-1], np.argsort(-scores, axis=-1, kind="stable")[..., : case.keywords["k"]]


# For each operation that selects: among how many, and which it selects.
SELECTING: dict[str, Callable[[Case], tuple[int, Array]]] = {
    "top_experts": of_experts,
    "gate": lambda case: (case.inputs["p"].shape[-1], case.keywords["chosen"]),
    "load_balance": lambda case: (case.inputs["p"].shape[-1], case.keywords["chosen"]),
    "embedding": lambda case: (case.inputs["E"].shape[0], case.keywords["ids"]),
    "add_positions": lambda case: (case.inputs["P"].shape[0], case.keywords["positions"]),
    "cross_entropy": lambda case: (case.inputs["logits"].shape[-1], case.keywords["targets"]),
    "smoothed_cross_entropy": lambda case: (case.inputs["logits"].shape[-1], case.keywords["targets"]),
    "dispatch": lambda case: (case.keywords["experts"] * case.keywords["capacity"] + 1, case.keywords["slots"]),
    "combine": lambda case: (math.prod(case.inputs["z"].shape[-3:-1]) + 1, case.keywords["slots"]),
}


def chosen(operation: str) -> dict[int, set[int]]:
    """By how many there are to choose from, those that are chosen in any of these cases."""
    found = defaultdict[int, set[int]](set)
    for sized in KNOWN.values():
        if sized.operation == operation and not sized.slow:
            count, picked = SELECTING[operation](sized.case())
            found[count] |= set(picked.reshape(-1).tolist())
    return found


def powers(count: int) -> Iterator[int]:
    power = SMALLEST
    while power < count:
        yield power
        power *= 2


@pytest.mark.parametrize("operation", list(SELECTING))
def test_what_lies_behind_each_power_of_two_is_chosen(operation: str) -> None:
    found = chosen(operation)
    for power in powers(max(found)):
        beyond = [n for count, picked in found.items() if power < count <= 2 * power for n in picked]
        assert not beyond or max(beyond) >= power, f"{operation}: nothing from {power} on is in any case chosen"
        last = found.get(power + 1, {power})
        assert power in last, f"{operation}: the last of {power + 1} is in no case among the chosen"


def test_every_operation_that_takes_whole_numbers_to_choose_is_held_to_it() -> None:
    """Positions of rotary embeddings choose nothing: each is an angle. Documents and lengths have laws of their own."""
    taking = {
        sized.operation
        for sized in KNOWN.values()
        for name, recipe in sized.keywords.items()
        if isinstance(recipe, dict) and recipe["profile"] in ("integers", "count", "listed")
    }
    others = {"rotary_halves", "rotary_interleaved", "partial_rotary", "grouped_attention", "packed_attention"}
    assert taking - others == set(SELECTING) - {"top_experts"}


def test_a_number_that_a_norm_loses_behind_65_536_is_seen() -> None:
    """A chain of so many numbers above 0 may be thousands of roundings off: one of them alone is lost in it."""
    sized = KNOWN["SGD/kernel-clip-by-global-norm-65537-outlier-last"]
    g = sized.case().inputs["g.0"]
    known = sized.known["outputs.norm"]
    lost = abs(math.sqrt(float((g[:-1] ** 2).sum())) - float(known.values[0]))
    assert lost > 1000 * 12 * float(known.deviations[0]) * 2.0**-24
