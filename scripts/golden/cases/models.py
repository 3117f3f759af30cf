"""L3: a tiny GPT, its loss, every gradient and every intermediate value; the probability of a sentence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.blocks import parameters
from golden.shapes import gpt as shapes

GPT2 = {
    "vocabulary": 11,
    "context": 6,
    "layers": 2,
    "heads": 2,
    "width": 8,
    "hidden": 16,
    "norm": "pre",
    "activation": "gelu_tanh",
    "positions": "learned",
    "tied": True,
    "eps": 1e-5,
}
VASWANI = {
    "vocabulary": 7,
    "context": 5,
    "layers": 2,
    "heads": 3,
    "width": 6,
    "hidden": 10,
    "norm": "post",
    "activation": "relu",
    "positions": "sinusoidal",
    "tied": False,
    "eps": 1e-5,
}
SMALL = {**GPT2, "vocabulary": 7, "context": 8, "layers": 1, "width": 4, "hidden": 8}
UNTIED = {**SMALL, "tied": False, "activation": "gelu_erf", "layers": 2}
SCALED = {**SMALL, "positions": "sinusoidal", "scaled_embedding": True}
SCALED_LEARNED = {**UNTIED, "layers": 1, "scaled_embedding": True}
POST_TIED = {**SMALL, "norm": "post", "activation": "relu"}


def model(name: str, config: dict[str, Any], scale: float = 0.5) -> dict[str, np.ndarray]:
    """The parameters of a tiny GPT, flat, under p."""
    return parameters(Draw(name), shapes(config), scale=scale)


def _ids(id: str, config: dict[str, Any], *shape: int) -> np.ndarray:
    return Draw(f"{id} ids").integers(*shape, high=config["vocabulary"])


def gpt() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], ids: Any, **more: Any) -> Case:
        id = f"LMHEAD/{slug}"
        name = more.pop("model", id)
        keywords = {"ids": _ids(id, config, *ids) if isinstance(ids, tuple) else np.array(ids), "config": config}
        return Case(id, "gpt", about, model(name, config), keywords, taps=True, **more)

    sentence = _ids("LMHEAD/e8", SMALL, 6)
    return [
        case(
            "gpt2", "pre-norm, learned positions, GELU tanh, head tied to the embedding; a batch of two", GPT2, (2, 6)
        ),
        case("vaswani", "post-norm, sinusoidal positions, ReLU, its own head; three heads", VASWANI, (2, 5)),
        case(
            "untied-gelu-erf", "pre-norm, its own head, exact GELU, one sentence shorter than the context", UNTIED, (4,)
        ),
        case("post-tied", "post-norm has no final norm; tied head", POST_TIED, (5,)),
        case(
            "scaled-embedding",
            "the embedding times sqrt(C) where it is read, not where it is the head; the positions are not scaled",
            SCALED,
            (2, 5),
        ),
        case("one-token", "a single token attends to itself", SMALL, (1,)),
        case(
            "repeated-token",
            "the tied embedding collects gradients from the input and from the head",
            SMALL,
            [[3, 3, 3, 0]],
        ),
        case(
            "e8-parallel",
            "every h_t at once under the causal mask; row t equals the last row on the prefix of t + 1 "
            "tokens (see e8-prefix)",
            SMALL,
            sentence,
            model="LMHEAD/e8",
            erratum="E8",
        ),
        case(
            "e8-prefix",
            "the first three tokens of e8-parallel: the same three rows, the future changes nothing",
            SMALL,
            sentence[:3],
            model="LMHEAD/e8",
            erratum="E8",
        ),
    ]


def gpt_loss() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], B: int, T: int, ignored: list[tuple[int, int]]) -> Case:
        id = f"NLL/{slug}"
        targets = Draw(f"{id} targets").integers(B, T, high=config["vocabulary"])
        for place in ignored:
            targets[place] = -100
        keywords = {
            "ids": _ids(id, config, B, T),
            "targets": targets,
            "ignore": -100 if ignored else None,
            "config": config,
        }
        return Case(id, "gpt_loss", about, model(id, config), keywords, taps=True)

    return [
        case("gpt2", "the mean over all tokens of a batch of two, and the gradient of every parameter", GPT2, 2, 6, []),
        case(
            "gpt2-ignored",
            "the mean over the targets that are not ignored, three of them in all",
            GPT2,
            2,
            5,
            [(0, 4), (1, 0), (1, 1)],
        ),
        case("vaswani-ignored", "post-norm, sinusoidal, untied, with ignored targets", VASWANI, 2, 5, [(1, 3), (1, 4)]),
        case("untied", "the head has its own gradient, the embedding only the input's", UNTIED, 1, 4, []),
        case("post-tied", "post-norm, tied", POST_TIED, 2, 3, []),
        case("scaled-embedding", "the embedding times sqrt(C), learned positions, untied", SCALED_LEARNED, 2, 3, []),
    ]


def sentence() -> list[Case]:
    """chain_rule and perplexity."""
    chances = [0.2, 0.4, 0.6, 0.8]  # P(cat | The), P(sat | ..), P(on | ..), P(the | ..)
    e4 = {"logits": np.array([[0.0, math.log(p / (1 - p))] for p in chances])}
    told = (
        "0.2 * 0.4 * 0.6 * 0.8 = 0.0384 is conditional on the first word, whose probability is missing: over the 4 "
        "predicted words NLL = 3.259697819388456"
    )
    ones = {"ids": np.ones(4, np.int64)}
    draw = Draw("CHAIN")
    x, ids = draw.normal(5, 7, scale=2.0), draw.integers(5, high=7)
    batch = {"logits": draw.normal(2, 3, 5)}
    of_batch = {"ids": np.array([[1, 4, 0], [2, 2, 3]])}
    return [
        Case("CHAIN/sentence", "chain_rule", "the sum over t of log P(x_t given x_<t)", {"logits": x}, {"ids": ids}),
        Case("CHAIN/batch", "chain_rule", "one log-probability a sentence, not one a batch", batch, of_batch),
        Case(
            "CHAIN/long",
            "chain_rule",
            "24 improbable words: their product underflows float32, the sum of logs does not",
            {"logits": draw.normal(24, 3, scale=8.0)},
            {"ids": draw.integers(24, high=3)},
        ),
        Case("CHAIN/e4", "chain_rule", told, e4, ones, erratum="E4", printed={"product": 0.0384}),
        Case("PPL/sentence", "perplexity", "exp of the mean negative log-likelihood", {"logits": x}, {"ids": ids}),
        Case("PPL/batch", "perplexity", "over all tokens of the batch", batch, of_batch),
        Case(
            "PPL/uniform",
            "perplexity",
            "equal logits: the perplexity is the size of the vocabulary",
            {"logits": np.ones((3, 6))},
            {"ids": np.array([0, 3, 5])},
        ),
        Case(
            "PPL/e4",
            "perplexity",
            told + ", PPL = 2.259005009024612",
            e4,
            ones,
            erratum="E4",
            printed={"product": 0.0384},
        ),
    ]
