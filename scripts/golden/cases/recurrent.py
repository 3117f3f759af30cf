"""L1: one recurrent layer over a sequence, and back through time; the window of a feed-forward language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golden.case import Case, Draw

ENDS = [[True, True, True, True], [True, True, False, False], [True, False, False, False]]
HOLES = [[False, True, False, True], [False, False, True, True], [False, False, False, False]]


def _case(
    operation: str,
    slug: str,
    about: str,
    *,
    B: int = 1,
    T: int = 1,
    I: int = 3,
    N: int = 2,
    start: float = 1.0,
    scale: float = 0.5,
    valid: Any = None,
    given: Mapping[str, Any] | None = None,
) -> Case:
    """`start` is the size of the first state, `scale` that of the weights. A `given` input is not drawn."""
    gates = 4 if operation == "lstm" else 1
    draw = Draw(f"{operation.upper()}/{slug}")
    inputs = {"x": draw.normal(B, T, I), "h": draw.normal(B, N, scale=start)}
    if operation == "lstm":
        inputs["c"] = draw.normal(B, N, scale=start)
    inputs |= {
        "Wx": draw.normal(I, gates * N, scale=scale),
        "Wh": draw.normal(N, gates * N, scale=scale),
        "b": draw.normal(gates * N, scale=0.5),
    }
    inputs |= {name: np.array(array, dtype=np.float64) for name, array in (given or {}).items()}
    keywords = {"valid": None if valid is None else np.array(valid, dtype=bool)}
    return Case(f"{operation.upper()}/{slug}", operation, about, inputs, keywords)


def _common(operation: str) -> list[Case]:
    def case(slug: str, about: str, **sizes: Any) -> Case:
        return _case(operation, slug, about, **sizes)

    return [
        case("one-step", "one step from a state of zeros: Wh has no say in the value and no gradient", start=0.0),
        case("initial-state", "one step from a state that is not zero", N=3, I=2),
        case("several-steps", "five steps, each from the state of the one before", T=5),
        case("batch", "every row of the batch has its own state", B=3, T=3),
        case("square", "as many inputs as units: Wx and Wh cannot be told apart by their shapes", B=2, T=3, I=3, N=3),
        case("batch-as-long-as-wide", "B = T = I = N: axes cannot be told apart by their lengths", B=2, T=2, I=2, N=2),
        case("one-unit", "one unit, one input", T=4, I=1, N=1),
        case(
            "long",
            "24 steps of weights above 1: the gradient comes back from the last to the first and to the state before",
            T=24,
            I=1,
            N=1,
            given={"Wh": [[1.25] * (4 if operation == "lstm" else 1)]},
        ),
        case(
            "padding",
            "sequences of 4, 2 and 1: behind the end the state passes unchanged, and so does its gradient",
            B=3,
            T=4,
            valid=ENDS,
        ),
        case(
            "padding-in-front",
            "padding in front, a hole, and a sequence of padding alone, whose state is the one given",
            B=3,
            T=4,
            valid=HOLES,
        ),
    ]


def rnn() -> list[Case]:
    return [
        *_common("rnn"),
        _case(
            "rnn",
            "saturated",
            "sums of hundreds: tanh is 1 or -1, not an overflow, and passes no gradient",
            T=2,
            given={"x": [[[256.0, -192.0, 128.0], [-1.0, 0.5, 0.25]]]},
        ),
    ]


def lstm() -> list[Case]:
    large = [512.0, 0.0, -512.0, 0.0, 0.5, 512.0, -0.25, 0.75]  # i, f, g, o of two units
    return [
        *_common("lstm"),
        _case(
            "lstm",
            "large-gates",
            "gates of 512 and -512 are open or shut, without an overflow",
            B=2,
            T=3,
            given={"b": large},
        ),
        _case(
            "lstm",
            "remembers",
            "forget gates open, input gates shut: the cell carries its value, and its gradient, over eight steps",
            T=8,
            I=1,
            given={"b": [-6.0, -6.0, 6.0, 6.0, 0.5, -0.5, 1.0, 2.0], "c": [[1.5, -0.75]]},
        ),
        _case(
            "lstm",
            "large-cell",
            "a cell far from 0: the output is o tanh(c), not o c",
            T=2,
            given={"c": [[6.0, -4.0]]},
        ),
    ]


def window() -> list[Case]:
    def case(slug: str, about: str, B: int, T: int, C: int, places: int, valid: Any = None) -> Case:
        draw = Draw(f"NNLM/{slug}")
        inputs = {"x": draw.normal(B, T, C), "past": draw.normal(B, places - 1, C)}
        keywords = {"places": places, "valid": None if valid is None else np.array(valid, dtype=bool)}
        return Case(f"NNLM/{slug}", "window", about, inputs, keywords)

    return [
        case(
            "window", "the last three words side by side, the newest first; before the text stands `past`", 1, 4, 2, 3
        ),
        case("window-batch", "each text has its own past; B = T = C", 2, 2, 2, 2),
        case("window-one-place", "one place is the word itself, and nothing of a past", 1, 3, 2, 1),
        case("window-longer-than-text", "a window longer than the text shows the past in every row", 1, 2, 1, 4),
        case("window-padding", "where there is no word, zeros stand for it", 3, 4, 2, 3, ENDS[:2] + HOLES[:1]),
    ]


def tanh() -> list[Case]:
    def case(slug: str, about: str, x: Any) -> Case:
        return Case(f"RNN/{slug}", "tanh", about, {"x": np.array(x, dtype=np.float64)}, {})

    return [
        case("tanh", "drawn numbers of either sign", Draw("RNN/tanh").normal(3, 4)),
        case(
            "tanh-far",
            "far from 0 it is 1 or -1 with no slope, where a quotient of e^x overflows",
            [1000.0, -1000.0, 96.0, -96.0, 20.0, -20.0, 9.0, -9.0],
        ),
        case(
            "tanh-near",
            "near 0 it is x: a difference of exponentials has lost the digits",
            [0.0, 2.0**-30, -(2.0**-30), 2.0**-12, -(2.0**-12), 2.0**-6],
        ),
    ]


def bidirectional() -> list[Case]:
    def case(slug: str, about: str, cell: str, B: int, T: int, I: int, N: int, valid: Any = None) -> Case:
        id, gates = f"BIRNN/{slug}", 4 if cell == "lstm" else 1
        draw = Draw(id)
        inputs = {"x": draw.normal(B, T, I)}
        for way in ("forward", "backward"):
            inputs |= {
                f"p.{way}.Wx": draw.normal(I, gates * N, scale=0.5),
                f"p.{way}.Wh": draw.normal(N, gates * N, scale=0.5),
                f"p.{way}.b": draw.normal(gates * N, scale=0.5),
            }
        keywords = {"cell": cell, "valid": None if valid is None else np.array(valid, dtype=bool)}
        return Case(id, "bidirectional", about, inputs, keywords)

    return [
        case(
            "rnn",
            "the states of both directions side by side, forward first, each at the place of its word",
            "rnn",
            1,
            4,
            3,
            2,
        ),
        case("one-word", "one word: both directions see it, and nothing else", "rnn", 2, 1, 2, 2),
        case("padding", "the way back begins at the last word, not in the padding behind it", "rnn", 3, 4, 2, 2, ENDS),
        case("padding-in-front", "padding in front, a hole, padding alone", "rnn", 3, 4, 2, 2, HOLES),
        case("lstm", "LSTM in both directions, each with its own weights", "lstm", 2, 3, 2, 2),
        case("lstm-padding", "the cell passes the padding too", "lstm", 3, 4, 2, 1, ENDS),
    ]
