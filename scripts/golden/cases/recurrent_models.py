"""L3 the language models before the Transformer and their losses; L4 a step of training; L5 generation with a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from golden import shapes
from golden.case import Case, Draw
from golden.cases.blocks import parameters
from golden.cases.runs import RATES, writing

RNN: dict[str, Any] = {
    "vocabulary": 7,
    "context": 8,
    "layers": 2,
    "width": 4,
    "hidden": 3,
    "cell": "rnn",
    "tied": False,
}
LSTM = {**RNN, "cell": "lstm"}
TIED = {**LSTM, "layers": 1, "hidden": 4, "tied": True}
NNLM: dict[str, Any] = {"vocabulary": 7, "context": 8, "order": 4, "width": 2, "hidden": 3, "direct": True}
INDIRECT = {**NNLM, "order": 3, "direct": False}
HYBRID: dict[str, Any] = {
    "vocabulary": 7,
    "context": 8,
    "layers": 2,
    "heads": 2,
    "width": 4,
    "hidden": 3,
    "cell": "lstm",
    "bidirectional": False,
}
BOTH_WAYS = {**HYBRID, "layers": 1, "hidden": 2, "cell": "rnn", "bidirectional": True}
SHAPES: dict[str, Callable[[dict[str, Any]], dict[str, tuple[int, ...]]]] = {
    "recurrent_lm": shapes.recurrent_lm,
    "nnlm": shapes.nnlm,
    "hybrid": shapes.hybrid,
}


def _drawn(name: str, model: str, config: dict[str, Any]) -> dict[str, np.ndarray]:
    return parameters(Draw(name), SHAPES[model](config))


def _logits(model: str, id: str, about: str, config: dict[str, Any], *shape: int) -> Case:
    """The gradients are with the losses."""
    keywords = {"ids": Draw(f"{id} ids").integers(*shape, high=config["vocabulary"]), "config": config}
    return Case(id, model, about, _drawn(id, model, config), keywords, gradient=False, taps=True)


def _loss(model: str, id: str, about: str, config: dict[str, Any], ignored: list[tuple[int, int]]) -> Case:
    draw, V = Draw(f"{id} texts"), config["vocabulary"]
    ids, targets = draw.integers(2, 4, high=V), draw.integers(2, 4, high=V)
    for place in ignored:
        targets[place] = -100
    keywords = {"ids": ids, "targets": targets, "ignore": -100 if ignored else None, "config": config}
    return Case(id, f"{model}_loss", about, _drawn(id, model, config), keywords, taps=True)


def recurrent_lm() -> list[Case]:
    return [
        _logits("recurrent_lm", "RNN-LM/logits", "two layers of an RNN, each text from states of zeros", RNN, 2, 4),
        _logits("recurrent_lm", "LSTM-LM/logits", "two layers of an LSTM, 003 sec. 5.2 in small", LSTM, 2, 4),
        _logits("recurrent_lm", "LSTM-LM/tied", "the head is the embedding turned over", TIED, 1, 3),
        _loss("recurrent_lm", "RNN-LM/loss", "the mean over all places, and every gradient through time", RNN, []),
        _loss("recurrent_lm", "LSTM-LM/loss", "with ignored targets", LSTM, [(0, 3), (1, 0), (1, 3)]),
        _loss("recurrent_lm", "LSTM-LM/loss-tied", "the embedding collects from the input and from the head", TIED, []),
    ]


def nnlm() -> list[Case]:
    return [
        _logits(
            "nnlm", "NNLM/logits", "b + x W + tanh(d + x H) U of the last three words, the newest first", NNLM, 2, 5
        ),
        _logits("nnlm", "NNLM/one-word", "a text of one word: zeros stand for the two that are missing", NNLM, 1, 1),
        _loss("nnlm", "NNLM/loss", "every gradient, the direct connections' too", NNLM, [(1, 3)]),
        _loss("nnlm", "NNLM/loss-indirect", "order 3, without direct connections", INDIRECT, []),
    ]


def hybrid() -> list[Case]:
    def states(id: str, about: str, ids: Any, allowed: Any = None, name: str | None = None, **more: Any) -> Case:
        keywords = {
            "ids": np.array(ids),
            "allowed": None if allowed is None else np.array(allowed, dtype=bool),
            "config": BOTH_WAYS,
        }
        return Case(id, "hybrid_states", about, _drawn(name or id, "hybrid", BOTH_WAYS), keywords, taps=True, **more)

    e9: dict[str, Any] = {"name": "HYBRID/e9", "gradient": False, "erratum": "E9"}
    return [
        _logits(
            "hybrid", "HYBRID/logits", "causal attention over embedding and positions, then LSTM layers", HYBRID, 2, 4
        ),
        _loss("hybrid", "HYBRID/loss", "every gradient; nothing has a residual or a norm", HYBRID, [(0, 0)]),
        states(
            "HYBRID/bidirectional-padding",
            "states in both directions, past the padding behind one text and in front of the other",
            [[1, 5, 2, 0], [0, 3, 6, 4]],
            [[True, True, True, False], [False, True, True, True]],
        ),
        states(
            "HYBRID/e9-bidirectional",
            "in both directions the state of the FIRST word depends on the last one (see e9-later-word): trained to "
            "predict the next word it would read it, and it cannot generate",
            [[2, 5, 1, 3]],
            **e9,
        ),
        states(
            "HYBRID/e9-later-word", "e9-bidirectional with another last word: every state differs", [[2, 5, 1, 6]], **e9
        ),
    ]


def train_step() -> list[Case]:
    def case(slug: str, about: str, model: str, config: dict[str, Any], step: int, **more: Any) -> Case:
        id = f"ADAMW/{slug}"
        draw, moments, V = Draw(f"{id} batch"), Draw(f"{id} moments"), config["vocabulary"]
        scale, shapes = 0.25 * (step > 1), SHAPES[model](config)
        inputs = _drawn(id, model, config)
        inputs |= {f"m.{path}": moments.normal(*shape, scale=scale) for path, shape in shapes.items()}
        inputs |= {f"v.{path}": np.abs(moments.normal(*shape, scale=scale)) for path, shape in shapes.items()}
        batch = {"ids": draw.integers(2, 4, high=V), "targets": draw.integers(2, 4, high=V), "ignore": None}
        keywords = {"model": model, **batch, "step": step, **RATES, **more, "config": config}
        return Case(id, "train_step", about, inputs, keywords, gradient=False, taps=True)

    return [
        case("step-lstm", "an LSTM of two layers, clipped; matrices and tables decay, biases do not", "recurrent_lm",
             LSTM, 3, clip=0.125),
        case("step-rnn", "the first step of an RNN", "recurrent_lm", {**RNN, "layers": 1}, 1),
        case("step-nnlm", "over a window of words", "nnlm", INDIRECT, 2),
    ]  # fmt: skip


def generate() -> list[Case]:
    def case(
        slug: str,
        about: str,
        model: str,
        config: dict[str, Any],
        new_tokens: int,
        name: str,
        prompt: tuple[int, ...],
        scale: float,
        **more: Any,
    ) -> Case:
        """`name` names the drawn model and prompt, chosen so that words vary and no decision is near a tie."""
        ids = Draw(f"{name} prompt").integers(*prompt, high=config["vocabulary"])
        keywords = {"model": model, **writing(ids, config, new_tokens, **more)}
        drawn = parameters(Draw(name), SHAPES[model](config), scale=scale)
        return Case(f"GEN/{slug}", "generate", about, drawn, keywords, gradient=False)

    lstm = ("recurrent_lm", LSTM, 6, "GEN/recurrent_lm-lstm 89", (3,), 3.0)
    draws = [
        [0.26953125, 0.65234375, 0.38671875, 0.67578125],
        [0.24609375, 0.4765625, 0.76171875, 0.59375],
    ]
    return [
        case("lstm", "every step reads the whole text from the beginning", *lstm, cache=False),
        case("lstm-state", "the same with carried states: each step reads one token", *lstm),
        case("rnn-batch-state", "two layers of an RNN, each row with its own states", "recurrent_lm", RNN, 6,
             "GEN/recurrent_lm-rnn 2", (2, 2), 2.0),
        case("lstm-sampled-state", "sampled, a batch", "recurrent_lm", LSTM, 4, "GEN/recurrent_lm-lstm 0", (2, 2), 1.5,
             uniforms=draws),
        case("nnlm-state", "what is carried are the vectors of the last two words", "nnlm", NNLM, 6, "GEN/nnlm-nnlm 14",
             (2,), 1.5),
        case("hybrid-state", "keys and values of the attention beside the states of the layers", "hybrid", HYBRID, 5,
             "GEN/hybrid-hybrid 67", (3,), 3.0),
    ]  # fmt: skip
