"""L1: the gated recurrent unit, with its reset gate before and after the product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.recurrent import ENDS, HOLES

SHUT, OPEN = -1024.0, 1024.0


def _case(
    form: str,
    slug: str,
    about: str,
    *,
    B: int = 1,
    T: int = 1,
    I: int = 3,
    N: int = 2,
    start: float = 1.0,
    valid: Any = None,
    given: Mapping[str, Any] | None = None,
) -> Case:
    """`start` is the size of the first state. A `given` input is not drawn."""
    id = f"GRU/{form}-{slug}"
    draw = Draw(id)
    inputs = {
        "x": draw.normal(B, T, I),
        "h": draw.normal(B, N, scale=start),
        "Wx": draw.normal(I, 3 * N, scale=0.5),
        "Wh": draw.normal(N, 3 * N, scale=0.5),
        "b": draw.normal(3 * N, scale=0.5),
    }
    if form == "after":
        inputs["c"] = draw.normal(N, scale=0.5)
    inputs |= {name: np.array(array, dtype=np.float64) for name, array in (given or {}).items()}
    keywords = {"valid": None if valid is None else np.array(valid, dtype=bool)}
    return Case(id, f"gru_reset_{form}", about, inputs, keywords)


def _common(form: str) -> list[Case]:
    def case(slug: str, about: str, **sizes: Any) -> Case:
        return _case(form, slug, about, **sizes)

    return [
        case("one-step", "one step from a state of zeros: the new state, times 1 - z", start=0.0),
        case("initial-state", "one step from a state that is not zero", N=3, I=2),
        case("several-steps", "five steps, each from the state of the one before", T=5),
        case("batch", "every row of the batch has its own state", B=3, T=3),
        case("square", "B = T = I = N: axes cannot be told apart by their lengths", B=2, T=2, I=2, N=2),
        case("one-unit", "one unit, one input", T=4, I=1, N=1),
        case("padding", "sequences of 4, 2 and 1: behind the end the state passes unchanged", B=3, T=4, valid=ENDS),
        case("padding-in-front", "padding in front, a hole, and a sequence of padding alone", B=3, T=4, valid=HOLES),
        case("remembers", "update gates of 1: the state stays what it was, for eight steps", T=8, I=1,
             given={"b": [0.5, -0.5, OPEN, OPEN, 1.0, 2.0], "h": [[1.5, -0.75]]}),
        case("forgets", "update gates of 0: the state is the new one alone", T=2, B=2,
             given={"b": [0.5, -0.5, SHUT, SHUT, 0.25, -0.25]}),
        case("reset", "reset gates of 0: the new state does not see the one before", T=3,
             given={"b": [SHUT, SHUT, 0.5, -0.5, 0.25, -0.25]}),
    ]  # fmt: skip


def gru_reset_before() -> list[Case]:
    mixing = {"Wh": [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]], "b": [SHUT, OPEN, 0, 0, 0, 0]}
    return [
        *_common("before"),
        _case("before", "mixing", "one unit is reset, and the product exchanges the units: it is the reset unit's own "
              "share that is missing", T=2, given=mixing),
    ]  # fmt: skip


def gru_reset_after() -> list[Case]:
    mixing = {"Wh": [[0.0, 0.0, 0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]], "b": [SHUT, OPEN, 0, 0, 0, 0]}
    return [
        *_common("after"),
        _case("after", "mixing", "one unit is reset, and the product exchanges the units: it is what comes to the "
              "reset unit that is missing", T=2, given=mixing),
        _case("after", "inner-bias", "a large bias c is reset with the product; a large b is not", T=2, B=2,
              given={"c": [4.0, -3.0], "b": [0.5, -0.5, 0.0, 0.25, -3.5, 3.0]}),
    ]  # fmt: skip
