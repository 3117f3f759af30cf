"""Rows of a table by number, and the gradient that is scattered back into it."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.verify.kernels.machine import TILE, as_rows, tiles, unwritten, zeros

Pullback = Callable[[Array], Array]


def embedding(E: Array, *, ids: Array) -> tuple[Array, Pullback]:
    index, C = ids.reshape(-1), E.shape[1]
    y = unwritten((len(index), C), E)
    for part in tiles(len(index), TILE):
        y[part] = E[index[part]]

    def embedding_back(dy: Array) -> Array:
        given, dE = as_rows(dy), zeros(E.shape, E)
        for part in tiles(len(index), TILE):
            numpy.add.at(dE, index[part], given[part])
        return dE

    return y.reshape(*ids.shape, C), embedding_back
