"""L1: what is done to logits before a token is drawn: min-p, and the penalty of repetitions."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw

OUT = -np.inf


def min_p() -> list[Case]:
    def case(slug: str, about: str, logits: Any, share: float) -> Case:
        id = f"MINP/{slug}"
        drawn = Draw(id).normal(*logits, scale=4.0) if isinstance(logits, tuple) else np.array(logits)
        return Case(id, "min_p", about, {"logits": drawn}, {"share": share}, gradient=False)

    return [
        case("rows", "each row by its own largest", (3, 6), 0.125),
        case("batch", "(B, T, V)", (2, 3, 4), 0.5),
        case("vector", "no leading axis", (8,), 0.125),
        case("sure", "a model that is sure leaves one token", [[6.0, 0.0, 1.0, -2.0]], 0.1),
        case("unsure", "a model that is unsure leaves all", [[0.25, 0.0, 0.125, -0.25]], 0.1),
        case("flat", "a flat row of many tokens: each has less than the share, and all stay", [[0.5] * 12], 0.5),
        case("none", "a share of 0 leaves everything", [[5.0, -5.0, 0.0]], 0.0),
        case("one", "a share of 1 leaves the largest, and what is equal to it", [[2.0, 3.0, 3.0, -1.0]], 1.0),
        case("negative", "all logits are negative: the largest is not the farthest from 0", [[-4.0, -3.0, -8.0]], 0.25),
        case("large", "logits that overflow without the shift", [[1000.0, 1000.0, 996.0, -1000.0]], 0.25),
        case("absent", "what is -inf stays so", [[1.0, OUT, 0.5, OUT]], 0.25),
        case("one-token", "V = 1", [[-3.0], [2.0]], 0.5),
    ]  # fmt: skip


def repetition_penalty() -> list[Case]:
    def case(slug: str, about: str, logits: Any, ids: Any, penalty: float) -> Case:
        id = f"REP/{slug}"
        drawn = Draw(id).normal(*logits, scale=2.0) if isinstance(logits, tuple) else np.array(logits)
        keywords = {"ids": np.array(ids, dtype=int), "penalty": penalty}
        return Case(id, "repetition_penalty", about, {"logits": drawn}, keywords, gradient=False)

    return [
        case("signs", "positive logits are divided, negative ones multiplied: both become smaller",
             [[4.0, -4.0, 2.0, -2.0]], [[0, 1]], 2.0),
        case("twice", "a token that was there three times is penalised once", [[4.0, -4.0, 2.0]], [[0, 1, 0, 1, 0]],
             1.5),
        case("rows", "each row has its own tokens", (2, 5), [[0, 3, 3], [4, 1, 0]], 1.25),
        case("batch", "two leading axes", (2, 2, 4), [[[0, 1], [2, 2]], [[3, 0], [1, 1]]], 1.5),
        case("vector", "no leading axis", (6,), [5, 0, 2], 1.3),
        case("reward", "a penalty below 1 makes them more probable", [[4.0, -4.0, 2.0, -2.0]], [[0, 1]], 0.5),
        case("one", "a penalty of 1 changes nothing", (2, 4), [[0, 1], [2, 3]], 1.0),
        case("none", "a context without tokens changes nothing", (2, 4), [[], []], 2.0),
        case("zero", "a logit of 0 stays 0", [[0.0, 1.0, -1.0]], [[0, 2]], 2.0),
        case("all", "every token was there", [[3.0, -1.5, 0.75]], [[2, 1, 0]], 1.2),
        case("padding", "-1 stands for no token, and not for the last", [[3.0, -1.5, 2.0], [1.0, -0.5, -2.0]],
             [[-1, -1, 0], [-1, 1, 1]], 2.0),
        case("absent", "what is -inf stays so", [[OUT, 2.0, OUT]], [[0, 1]], 1.5),
    ]  # fmt: skip
