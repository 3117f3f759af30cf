"""Laws of borrowed layers: each is there while it is gone through, and its gradient is given away at once."""

from __future__ import annotations

from typing import Any

import numpy

from refllm.blocks.layers import through
from refllm.borrowed import Borrowed


class Keeper:
    """A lender that writes down what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def bring(self, unit: int) -> None:
        self.asked.append(("bring", unit))

    def drop(self, unit: int) -> None:
        self.asked.append(("drop", unit))

    def hand_over(self, unit: int, gradient: Any) -> None:
        self.asked.append(("take", unit, float(gradient["w"])))


def scaled(x: Any, p: Any, n: int) -> Any:
    return x * p["w"], lambda dy: (dy * p["w"], {"w": (dy * x).sum()})


def test_layers_come_and_go_in_order_and_back_and_leave_no_gradient_behind() -> None:
    layers = [{"w": numpy.float64(w)} for w in (2, 3)]
    keeper, x = Keeper(), numpy.ones(1)
    y, back = through(x, Borrowed(layers, keeper, 5), scaled)
    there = [(what, unit) for unit in (5, 6) for what in ("bring", "drop")]
    assert keeper.asked == there
    dx, given = back(numpy.ones(1))
    assert keeper.asked[len(there) :] == [
        ("bring", 6), ("drop", 6), ("take", 6, 2.0), ("bring", 5), ("drop", 5), ("take", 5, 3.0),
    ]  # fmt: skip
    assert given == [{}, {}]
    plain, plain_back = through(x, layers, scaled)
    assert (y, dx) == (plain, plain_back(numpy.ones(1))[0])
    assert [float(dlayer["w"]) for dlayer in plain_back(numpy.ones(1))[1]] == [3.0, 2.0]
