"""Products of experts in tiles of rows that run over the border between two experts: all rows of such a tile use the
matrix of the expert of one of them.

    for cause in grouped("expert_linear"):      … of 64 rows, which use the expert of their first row

The rows of all experts lie below each other: those of one group, those of all groups, or those of all groups expert by
expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response

SIZES = (64, 128, 32, 16, 256, 8)
PLACES = {
    "": "of one group",
    "all-": "of all groups",
    "sorted-": "of all groups, expert by expert",
}
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {  # words, and what is that of the expert of the tile
    "": (", in its value alone", ("y", "b")),
    "both-": (", on both ways", ("y", "b", "dx", "dW", "db")),
    "gradient-": (", in the gradient alone", ("dx", "dW", "db")),
    "product-": (", in its product alone, not in its bias", ("y",)),
    "both-product-": (", on both ways, but not in the bias", ("y", "dx", "dW")),
    "gradient-dx-": (", in the gradient of x alone", ("dx",)),
    "gradient-dw-": (", in the gradients of the weights alone", ("dW", "db")),
    "gradient-product-": (", in the gradient alone, but for that of the bias", ("dx", "dW")),
    "gradient-dw-alone-": (", in the gradient of W alone", ("dW",)),
}


@dataclass(frozen=True, eq=False)
class OverBorders:
    id: str
    about: str
    size: int
    last: bool
    places: str
    parts: tuple[str, ...]
    gradients_alone: bool
    issue: str | None = None
    diff: list[tuple[str, list[str]]] = field(default_factory=list)

    def answer(self, case: Case, dtype: str) -> Response | None:
        text, used = plain.text(), dict[str, bool]()

        def exchanged(name: str) -> Callable[..., Any]:
            def of_experts(x: Array, W: Array, *b: Array) -> Any:
                other = self._experts(x.shape)
                used["other"] = used.get("other", False) or bool((other != _own(x.shape)).any())
                return self._of(text[name], x, W, *b, other=other)

            return of_experts

        functions = {text[name]: exchanged(name) for name in ("expert_linear", "expert_matmul")}
        found = plain.answer(case, dtype, functions, traced=False, values=not case.cotangents)
        return found if used.get("other") else None

    def _experts(self, shape: tuple[int, ...]) -> Array:
        """The expert whose matrix each row uses."""
        own = _own(shape)
        groups = len(own)
        order = own.swapaxes(0, 1) if self.places == "sorted-" else own
        rows = order.reshape(groups, -1) if self.places == "" else order.reshape(1, -1)
        place = numpy.arange(rows.shape[1]) // self.size * self.size
        chosen = rows[:, numpy.minimum(place + self.size - 1, rows.shape[1] - 1) if self.last else place]
        found: Array = chosen.reshape(order.shape)
        return found.swapaxes(0, 1) if self.places == "sorted-" else found

    def _of(self, right: Callable[..., Any], x: Array, W: Array, *b: Array, other: Array) -> Any:
        y, back = right(x, W, *b)
        E, rows = x.shape[-3], x.reshape(-1, x.shape[-1])
        e, own = other.reshape(-1), numpy.broadcast_to(_own(x.shape), other.shape).reshape(-1)
        if "y" in self.parts:
            made = _products(rows, W, e)
            for each in b:
                made = made + each[e if "b" in self.parts else own]
            y = made.reshape(*x.shape[:-1], W.shape[-1])

        def over_borders_back(dy: Array) -> tuple[Array, ...]:
            dx, dW, *db = back(dy)
            d = dy.reshape(-1, dy.shape[-1])
            if "dx" in self.parts:
                dx = _products(d, W.swapaxes(-1, -2), e).reshape(x.shape)
            if "dW" in self.parts:
                dW = numpy.stack([rows[e == n].T @ d[e == n] for n in range(E)])
            if "db" in self.parts:
                db = [numpy.stack([d[e == n].sum(axis=0) for n in range(E)]) for _ in db]
            return dx, dW, *db

        return y, over_borders_back


def _own(shape: tuple[int, ...]) -> Array:
    """The expert of each row, (groups, E, K)."""
    E, K = shape[-3:-1]
    return numpy.broadcast_to(numpy.arange(E)[:, None], (int(numpy.prod(shape[:-3])), E, K))


def _products(x: Array, W: Array, e: Array) -> Array:
    made = numpy.zeros((len(x), W.shape[-1]), numpy.result_type(x, W))
    for n in range(len(W)):
        made[e == n] = x[e == n] @ W[n]
    return made


def grouped(operation: str) -> Iterator[OverBorders]:
    called = {f.__name__ for f in plain.called(operation)} if operation in plain.operations() else set()
    if not called & {"expert_linear", "expert_matmul"}:
        return
    for (id, (how, parts)), (where, places), size, last in product(WAYS.items(), PLACES.items(), SIZES, (False, True)):
        if "expert_linear" not in called and "bias" in how:
            continue
        about = (
            f"{operation} in tiles of {size} rows {places} that run over the border between two experts and use the "
            f"expert of their {'last' if last else 'first'} row{how}"
        )
        name = f"{operation}/{id}{where}tiles-over-experts"
        yield OverBorders(name, about, size, last, where, parts, not {"y"} & set(parts))
