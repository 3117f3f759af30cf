"""L1: the weights of several experts for a token, and the z-loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw, bfloat16

ABSENT = -np.inf


def top_experts() -> list[Case]:
    def case(slug: str, about: str, scores: Any, k: int, renormalise: bool = True) -> Case:
        id = f"TOPK/{slug}"
        drawn = Draw(id).normal(*scores, scale=3.0) if isinstance(scores, tuple) else bfloat16(scores)
        return Case(id, "top_experts", about, {"scores": drawn}, {"k": k, "renormalise": renormalise})

    return [
        case("two", "two of five experts; their weights sum to 1, the others have 0", (3, 5), 2),
        case("two-as-they-are", "the probabilities among all five: they sum to less than 1", (3, 5), 2, False),
        case("one", "k = 1: the weight is 1, and no gradient comes to the scores", (3, 4), 1),
        case("one-as-it-is", "k = 1: the probability itself, by which the router learns", (3, 4), 1, False),
        case("all", "k = E: nothing to renormalise, the softmax itself", (2, 3), 3),
        case("all-as-they-are", "k = E, not renormalised: the same numbers", (2, 3), 3, False),
        case("batch", "(B, T, E): a choice for every token", (2, 3, 4), 2),
        case("vector", "no leading axis", (5,), 3),
        case("square", "T = E: experts and tokens cannot be told by the lengths", (4, 4), 2, False),
        case("negative", "all scores are far below 0: their softmax is not", [[-64.0, -66.0, -65.0, -80.0]], 2),
        case("large", "scores that overflow without the shift", [[1000.0, 996.0, -1000.0, 992.0]], 2),
        case("tie", "equal scores at the border: the first ones are taken",
             [[1.0, 2.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]], 2, False),
        case("absent", "an expert with -inf has no weight although k has room for it", [[0.5, ABSENT, 1.5]], 3),
        case("no-tokens", "an empty batch", (0, 4), 2),
    ]  # fmt: skip


def z_loss() -> list[Case]:
    def case(slug: str, about: str, logits: Any, strength: float = 0.5, valid: Any = None) -> Case:
        id = f"ZLOSS/{slug}"
        drawn = Draw(id).normal(*logits, scale=2.0) if isinstance(logits, tuple) else bfloat16(logits)
        keywords = {"valid": None if valid is None else np.array(valid), "strength": strength}
        return Case(id, "z_loss", about, {"logits": drawn}, keywords)

    return [
        case("rows", "the mean over the tokens of the square of log Z, times the strength", (4, 5)),
        case("batch", "(B, T, V): one mean over all tokens", (2, 3, 4)),
        case("vector", "one token without a leading axis", (5,)),
        case("usual-strength", "1e-4, as on the logits of a vocabulary", (3, 6), 1e-4),
        case("one-logit", "V = 1: the square of the logit itself", (3, 1)),
        case("normalised", "logits that are nearly log-probabilities: log Z is near 0, and so is the loss",
             [[-0.6931471805599453, -1.3862943611198906, -1.3862943611198906]]),
        case("below", "log Z is negative: the gradient drives the logits up", [[-8.0, -9.0, -7.5], [-4.0, -4.0, -5.0]]),
        case("large", "logits that overflow without the shift", [[1000.0, 996.0], [-1000.0, -996.0]], 2.0**-10),
        case("same", "all logits equal: log Z = z + log V", [[1.5, 1.5, 1.5, 1.5]]),
        case("absent", "a logit of -inf adds nothing to Z and has no gradient",
             [[0.5, ABSENT, 2.0], [1.0, 0.25, ABSENT]]),
        case("padding", "padding is neither summed nor counted", (2, 3, 4), valid=[[True, True, False],
             [True, False, False]]),
        case("nothing", "no token to count: 0 and no gradient", (2, 3), valid=[False, False]),
    ]  # fmt: skip
