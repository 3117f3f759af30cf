"""L3: BERT, each of its heads, and the losses of pre-training and of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.blocks import parameters
from golden.shapes import bert as shapes

TINY: dict[str, Any] = {
    "vocabulary": 9,
    "context": 6,
    "layers": 1,
    "heads": 2,
    "width": 4,
    "hidden": 6,
    "segments": 2,
    "activation": "gelu_erf",
    "eps": 1e-12,
    "labels": 3,
}
DEEPER = {**TINY, "vocabulary": 7, "layers": 2, "heads": 3, "width": 6, "hidden": 5}
PAIR = [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]  # segments of two texts of two sentences each
SHORTER = [[True] * 5, [True] * 3 + [False] * 2]  # the second text ends after three tokens
PAIR_SHORTER = [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]


def _text(
    id: str, config: dict[str, Any], segments: list[list[int]], present: list[list[bool]] | None
) -> dict[str, Any]:
    """ids begin with token 0, which stands for [CLS]; `allowed` is the mask over the keys, (B, 1, 1, T)."""
    kinds = np.array(segments)
    ids = Draw(f"{id} ids").integers(*kinds.shape, high=config["vocabulary"])
    ids[:, 0] = 0
    allowed = None if present is None else np.array(present)[:, None, None, :]
    return {"ids": ids, "segments": kinds, "allowed": allowed}


def _model(id: str, config: dict[str, Any], *outputs: str) -> dict[str, np.ndarray]:
    """The parameters, with the heads of these outputs."""
    return parameters(Draw(id), shapes(config, list(outputs)))


def bert() -> list[Case]:
    """The gradients of the heads are with the losses."""

    def case(
        id: str,
        about: str,
        output: str,
        *,
        config: dict[str, Any] = TINY,
        segments: list[list[int]] = PAIR,
        present: list[list[bool]] | None = None,
        gradient: bool = False,
    ) -> Case:
        heads = [] if output == "hidden" else [output]
        keywords = {**_text(id, config, segments, present), "output": output, "config": config}
        return Case(id, "bert", about, _model(id, config, *heads), keywords, gradient=gradient, taps=True)

    return [
        case(
            "BERT/hidden",
            "the states: token + position + segment, LN, post-norm layers that see both sides",
            "hidden",
            gradient=True,
        ),
        case(
            "BERT/two-layers-padding",
            "two layers, three heads; the padding behind the second text is no key for anybody",
            "hidden",
            config=DEEPER,
            segments=PAIR_SHORTER,
            present=SHORTER,
            gradient=True,
        ),
        case("BERT/one-token", "[CLS] alone", "hidden", segments=[[0]]),
        case("MLM/logits", "LN(f(h W + b)) E^T + bias at every place, tied to the embedding", "masked"),
        case(
            "MLM/logits-gelu-tanh",
            "the transform has the activation of the layers, here GELU's tanh form; a vocabulary of 7, two layers",
            "masked",
            config={**DEEPER, "activation": "gelu_tanh"},
            segments=[[0, 1, 1]],
        ),
        case("NSP/logits", "two classes from tanh(h W + b) at [CLS], the first token", "pair"),
        case(
            "CLS/logits",
            "the classes of a text, from the pooled state of [CLS]; with padding",
            "classes",
            segments=PAIR_SHORTER,
            present=SHORTER,
        ),
        case("TASKS/span-logits", "where an answer starts and where it ends: two numbers at every place", "span"),
    ]


def losses() -> list[Case]:
    """pretraining_loss, classifier_loss and span_loss."""

    def case(operation: str, id: str, about: str, outputs: list[str], asked: dict[str, Any], **more: Any) -> Case:
        keywords = {**_text(id, TINY, PAIR_SHORTER, SHORTER), **asked, "config": TINY}
        return Case(id, operation, about, _model(id, TINY, *outputs), keywords, taps=True, **more)

    def pretraining(id: str, about: str, masked: list[tuple[int, int]], pairs: list[int], **more: Any) -> Case:
        words = Draw(f"{id} words").integers(2, 5, high=TINY["vocabulary"])
        targets = np.full((2, 5), -100)
        for place in masked:
            targets[place] = words[place]
        asked = {"targets": targets, "ignore": -100, "pairs": np.array(pairs)}
        return case("pretraining_loss", id, about, ["masked", "pair"], asked, **more)

    def classifier(id: str, about: str, labels: list[int], how: dict[str, Any] | None = None, **more: Any) -> Case:
        return case("classifier_loss", id, about, ["classes"], {"targets": np.array(labels), **(how or {})}, **more)

    return [
        pretraining(
            "MLM/pretraining",
            "the mean over the three masked places of both texts, and the mean over the two pairs",
            [(0, 1), (0, 4), (1, 2)],
            [0, 1],
        ),
        pretraining(
            "MLM/e16-indicator",
            "m_t is 1 at the one masked place and 0 elsewhere: the other words of the corrupted text cost nothing",
            [(0, 2)],
            [1, 1],
            gradient=False,
            erratum="E16",
        ),
        classifier("CLS/loss", "the mean over the texts of -log P(label)", [2, 0]),
        classifier(
            "CLS/loss-weighted-smoothed",
            "divided by the sum of the texts' weights; a weight multiplies the smoothed share too, which goes to every "
            "label, the right one included",
            [2, 0],
            {"weights": np.array([0.75, 2.0]), "smoothing": 0.1},
        ),
        classifier(
            "CLS/e13-one-prediction",
            "one prediction a text, as wide as the labels; not one a token, as wide as the vocabulary",
            [1, 1],
            gradient=False,
            erratum="E13",
            printed={"prediction": [2, 5, 9]},
        ),
        case(
            "span_loss",
            "TASKS/span-loss",
            "the mean over texts, starts and ends; an answer lies in the second sentence, or in the text where there "
            "is none",
            ["span"],
            {
                "targets": np.array([[3, 4], [1, 1]]),
                "possible": np.array([[False, False, False, True, True], [False, True, True, False, False]]),
            },
        ),
        case(
            "span_loss",
            "TASKS/span-loss-anywhere",
            "every place is possible, padding too",
            ["span"],
            {"targets": np.array([[0, 4], [2, 1]]), "possible": None},
            gradient=False,
        ),
    ]


def mask_words() -> list[Case]:
    """The draws are eighths or so, and no share ends in half a word but where both ways of rounding agree."""
    special = np.arange(4)  # padding, [CLS], [SEP], [MASK]

    def case(slug: str, about: str, ids: Any, *, share: float, **given: Any) -> Case:
        id = f"MLM/{slug}"
        draw, ids = Draw(id), np.array(ids, np.int64)
        keywords = {
            "ids": ids,
            "which": draw.uniform(*ids.shape),
            "how": draw.uniform(*ids.shape),
            "words": 4 + draw.integers(*ids.shape, high=20),
            "special": special,
            "mask": 3,
            "share": share,
        }
        given = {name: np.array(x) for name, x in given.items()}
        return Case(id, "mask_words", about, {}, {**keywords, **given}, gradient=False)

    text = [[1, 10, 11, 12, 13, 14, 15, 16, 17, 2]]
    apart = [[0.5, 0.9, 0.8, 0.1, 0.7, 0.2, 0.6, 0.3, 0.4, 0.05]]
    return [
        case("mask-all-three", "four of eight words: one is masked, one replaced, one stays, one masked; all four are "
             "asked for", text, share=0.5, which=apart, how=[[0.0, 0.0, 0.0, 0.25, 0.0, 0.8125, 0.0, 0.9375, 0.5, 0.0]],
             words=[[20, 21, 22, 23, 24, 25, 26, 27, 28, 29]]),
        case("mask-borders", "0.8 itself is replaced, 0.9 itself stays: below, not at most",
             text, share=0.5, which=apart,
             how=[[0.0, 0.0, 0.0, 0.8, 0.0, 0.9, 0.0, 0.75, 0.875, 0.0]]),
        case("mask-special", "[CLS], [SEP] and padding have the smallest draws, and are never selected",
             [[1, 10, 11, 2, 12, 13, 2, 0, 0]], share=0.5,
             which=[[0.0, 0.9, 0.5, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0]]),
        case("mask-at-least-one", "an eighth of three words is one word all the same",
             [[1, 10, 11, 12, 2]], share=0.125),
        case("mask-share-of-each", "texts of unequal length: each has its own number; a short one has empty slots",
             [[1, 10, 11, 12, 13, 14, 15, 16, 17, 2], [1, 18, 19, 20, 21, 2, 0, 0, 0, 0]], share=0.5),
        case("mask-rounded", "5 / 4 is 1 and 7 / 4 is 2: rounded, neither cut nor raised",
             [[1, 10, 11, 12, 13, 14, 2, 0, 0], [1, 10, 11, 12, 13, 14, 15, 16, 2]], share=0.25),
        case("mask-all", "every word", [[1, 10, 11, 12, 2]], share=1.0),
        case("mask-no-word", "a text of special tokens alone has empty slots",
             [[1, 2, 0, 0], [1, 10, 11, 2]], share=0.5),
        case("mask-same-word", "a word that is replaced by itself is asked for", [[1, 10, 11, 2]], share=1.0,
             how=[[0.0, 0.875, 0.0, 0.0]], words=[[4, 10, 12, 4]]),
    ]  # fmt: skip
