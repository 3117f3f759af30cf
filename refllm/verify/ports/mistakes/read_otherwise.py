"""One leaf read otherwise: transposed, left out, a gain without its 1, a table from another row on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy

from refllm.backend import Array
from refllm.verify.ports.mistakes.leaves import COST, LIKELY, UNLIKELY, Way


def of_leaf(path: str, leaf: Array) -> Iterator[Way]:
    name = path.rpartition(".")[2]
    if (leaf.ndim == 2 and name.startswith("W")) or name == "head":
        yield from _of_matrix(leaf)
    if leaf.ndim == 1:
        yield from _of_vector(name)
    if name in ("position", "segment", "relative"):
        yield from _of_table(name, leaf)


def _of_matrix(leaf: Array) -> Iterator[Way]:
    yield "{} is not read: zeros are in its place", UNLIKELY, ["- x @ {}", "+ 0"], lambda W: W * 0
    if leaf.shape[0] == leaf.shape[1]:
        yield "{} is not transposed, or once too often", LIKELY, ["- {}", "+ {}.T"], lambda W: W.T
        return
    lines = ["- {}", "+ {}.T.reshape({}.shape)"]
    said = "{} has its rows for its columns: the numbers are read in the order of the file under the other shape"
    yield said, COST, lines, lambda W: W.T.reshape(W.shape)


def _of_vector(name: str) -> Iterator[Way]:
    if name.startswith("b"):
        yield "{} is left out", LIKELY, ["- + {}", "+ "], lambda b: b * 0
    elif name == "offset":
        yield "the gain is {}, where 1 + {} is right", LIKELY, ["- 1 + {}", "+ {}"], lambda g: g - 1
        yield "the gain {} is left out", COST, ["- (1 + {}) n", "+ n"], lambda g: g * 0
    elif name == "g":
        yield "the gain is 1 + {}, where {} is right", LIKELY, ["- {}", "+ 1 + {}"], lambda g: g + 1
        yield "the gain {} is left out", COST, ["- {} n", "+ n"], lambda g: g * 0 + 1


def _of_table(name: str, leaf: Array) -> Iterator[Way]:
    yield "the table {} is left out", LIKELY, ["- + {}[...]", "+ "], lambda E: E * 0
    if name == "position":
        for n in (1, 2):
            yield (
                f"positions begin at {n}, where 0 is right", LIKELY, ["- {}[t]", f"+ {{}}[t + {n}]"],
                partial(numpy.roll, shift=-n, axis=0),
            )  # fmt: skip
        yield (
            "all places have the position 0",
            COST,
            ["- {}[t]", "+ {}[0]"],
            partial(_one_row, n=0),
        )
    if name == "segment":
        yield "the segments are exchanged", COST, ["- {}[segments]", "+ {}[1 - segments]"], lambda E: E[::-1]
        for n in range(min(2, len(leaf))):
            yield (
                f"all tokens have the segment {n}", LIKELY, ["- {}[segments]", f"+ {{}}[{n}]"],
                partial(_one_row, n=n),
            )  # fmt: skip
    if name == "relative" and leaf.shape[0] % 2 == 0:
        said = "the halves of {} for keys before and after a place are exchanged"
        yield said, COST, ["- {}", "+ the other half of {}"], lambda E: numpy.roll(E, len(E) // 2, axis=0)


def _one_row(E: Array, n: int) -> Array:
    return numpy.broadcast_to(E[n : n + 1], E.shape)
