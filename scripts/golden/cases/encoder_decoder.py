"""L2 cross-attention; L3 the encoder-decoder in the forms of 2017, BART and T5, and its loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.blocks import parameters
from golden.shapes import attention as attention_shapes
from golden.shapes import encoder_decoder as shapes

VASWANI: dict[str, Any] = {
    "vocabulary": 7,
    "context": 6,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "heads": 2,
    "head_width": 2,
    "width": 4,
    "hidden": 6,
    "norm": "post",
    "rms": False,
    "positions": "sinusoidal",
    "activation": "relu",
    "gated": False,
    "biases": True,
    "scaled_embedding": True,
    "embedding_norm": False,
    "tied": True,
    "scaled_output": False,
    "eps": 1e-5,
}
BART = {
    **VASWANI,
    "positions": "learned",
    "activation": "gelu_erf",
    "scaled_embedding": False,
    "embedding_norm": True,
}
T5 = {
    **VASWANI,
    "decoder_layers": 2,
    "head_width": 3,
    "norm": "pre",
    "rms": True,
    "positions": "relative",
    "biases": False,
    "scaled_embedding": False,
    "scaled_output": True,
    "buckets": 4,
    "farthest": 5,
    "eps": 1e-6,
}
T5_GATED = {
    **T5,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "activation": "gelu_tanh",
    "gated": True,
    "tied": False,
    "scaled_output": False,
}
PRE = {
    **VASWANI,
    "vocabulary": 5,
    "heads": 1,
    "width": 3,
    "hidden": 2,
    "norm": "pre",
    "biases": False,
}
PRE_LEARNED = {**PRE, "context": 5, "positions": "learned", "embedding_norm": True}
UNTIED = {**VASWANI, "context": 8, "tied": False}
SHORTER = [[True] * 5, [True] * 3 + [False] * 2]  # the second source ends after three tokens


def cross_attention() -> list[Case]:
    def case(
        slug: str,
        about: str,
        *,
        B: int = 2,
        T: int = 2,
        S: int = 3,
        heads: int = 2,
        head_width: int = 2,
        biases: bool = True,
        scaled: bool = True,
        allowed: Any = None,
    ) -> Case:
        id, C = f"XATT/{slug}", 4
        draw = Draw(id)
        maps = attention_shapes(C, heads * head_width, biases, "q", "kv")
        inputs = {"x": draw.normal(B, T, C), "memory": draw.normal(B, S, C), **parameters(draw, maps)}
        mask = None if allowed is None else np.array(allowed, dtype=bool)[:, None, None, :]
        return Case(id, "cross_attention", about, inputs, {"heads": heads, "scaled": scaled, "allowed": mask})

    return [
        case("longer-memory", "two queries of the decoder attend to three states of the encoder", S=3),
        case("shorter-memory", "more queries than states: there is no causal mask here", T=4, S=2),
        case("equal-lengths", "T = S = C: x and memory cannot be told apart by their shapes", T=4, S=4, heads=1,
             head_width=4),
        case("memory-padding", "the padding of a source is read by no query", T=2, S=4,
             allowed=[[True] * 4, [True, True, False, False]]),
        case("nothing-to-read", "a source of padding alone: the output is the bias of the last map", T=2, S=2,
             allowed=[[True, True], [False, False]]),
        case("wider-heads", "H D = 6 beside a width of 4, without biases", head_width=3, biases=False),
        case("unscaled", "scores without 1/sqrt(d_k), as in T5", biases=False, scaled=False),
    ]  # fmt: skip


def _texts(id: str, config: dict[str, Any], T: int, padded: bool) -> dict[str, Any]:
    """A batch of two sources of five tokens, and the targets so far, which begin with token 0."""
    draw, V = Draw(f"{id} texts"), config["vocabulary"]
    source, ids = draw.integers(2, 5, high=V), draw.integers(2, T, high=V)
    ids[:, 0] = 0
    return {"source": source, "allowed": np.array(SHORTER) if padded else None, "ids": ids}


def encoder_decoder() -> list[Case]:
    """The gradients are with the losses."""

    def case(slug: str, about: str, config: dict[str, Any], T: int, *, padded: bool = False, taps: bool = True) -> Case:
        id = f"ENCDEC/{slug}"
        keywords = {**_texts(id, config, T, padded), "config": config}
        drawn = parameters(Draw(id), shapes(config))
        return Case(id, "encoder_decoder", about, drawn, keywords, gradient=False, taps=taps)

    return [
        case("vaswani", "2017: post-norm, sinusoidal, embedding times sqrt(C), head tied to it; a padded source",
             VASWANI, 4, padded=True),
        case("bart", "learned positions of either half, a norm after the embedding, GELU", BART, 3),
        case("t5", "RMS norm, a bias by distance, no biases of maps, attention unscaled, heads wider than the model, "
             "the tied head divided by sqrt(C); a padded source", T5, 5, padded=True),
        case("t5-gated", "gated feed-forward, a head of its own; T = 1", T5_GATED, 1),
        case("pre-norm", "pre-norm and sinusoidal: layer norm at the end of either half", PRE, 2, padded=True,
             taps=False),
        case("mbart", "pre-norm and learned positions: norms after the embedding and at the end", PRE_LEARNED, 2,
             taps=False),
    ]  # fmt: skip


def losses() -> list[Case]:
    """seq2seq_loss and denoising_loss."""

    def case(
        slug: str, about: str, config: dict[str, Any], T: int, smoothing: float, *, padded: bool = False, ends: bool
    ) -> Case:
        """With `ends` the second target is one shorter, and the place behind it is ignored."""
        id = f"ENCDEC/{slug}"
        targets = Draw(f"{id} targets").integers(2, T, high=config["vocabulary"])
        if ends:
            targets[1, -1] = -100
        texts = _texts(id, config, T, padded)
        del texts["ids"]
        keywords = {**texts, "targets": targets, "start": 1, "ignore": -100, "smoothing": smoothing, "config": config}
        return Case(id, "seq2seq_loss", about, parameters(Draw(id), shapes(config)), keywords)

    def denoising(slug: str, about: str, counted: list[list[bool]]) -> Case:
        id = f"DAE/{slug}"
        keywords = {**_texts(id, BART, 4, padded=True), "counted": np.array(counted), "start": 1, "config": BART}
        keywords["ids"] = Draw(f"{id} words").integers(2, 4, high=BART["vocabulary"])
        drawn = parameters(Draw(id), shapes(BART))
        return Case(id, "denoising_loss", about, drawn, keywords, gradient=False)

    return [
        case("loss-vaswani", "label smoothing 0.1 over the targets that are not ignored; the decoder reads the start "
             "token 1 and the targets but the last", VASWANI, 3, 0.1, padded=True, ends=True),
        case("loss-bart", "no smoothing, nothing ignored", BART, 3, 0.0, ends=False),
        case("loss-t5", "the memory collects the gradients of both decoder layers, the tables of distances those of "
             "all layers", T5, 4, 0.0, padded=True, ends=True),
        case("loss-t5-gated", "smoothing 0.25, a head of its own", T5_GATED, 2, 0.25, ends=True),
        denoising("whole-text", "BART: all of the text is written, and counted up to its end",
                  [[True] * 4, [True, True, True, False]]),
        denoising("indicator", "m_t counts the places that were corrupted alone; the source is the corrupted text",
                  [[False, True, False, True], [True, False, False, False]]),
    ]  # fmt: skip


def translate() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], name: str, end: int | None, *, cache: bool,
             padded: bool = True) -> Case:  # fmt: skip
        """`name` names the drawn model and sources, chosen so that words vary and no decision is near a tie."""
        keywords = {
            "source": Draw(f"{name} source").integers(2, 4, high=config["vocabulary"]),
            "allowed": np.array([[True] * 4, [True, True, True, False]]) if padded else None,
            "start": 1,
            "end": end,
            "new_tokens": 5,
            "cache": cache,
            "config": config,
        }
        drawn = parameters(Draw(name), shapes(config), scale=1.0)
        return Case(f"GEN/{slug}", "translate", about, drawn, keywords, gradient=False)

    untied, t5 = "GEN/translate-untied 7", "GEN/translate-t5 "
    return [
        case("translate", "greedy from the start token 1, for two sources, one padded", UNTIED, untied, None,
             cache=False),
        case("translate-cache", "the same with a cache, of the target and of what is read of the sources", UNTIED,
             untied, None, cache=True),
        case("translate-whole", "two sources without padding, and no mask", UNTIED, untied, None, cache=False,
             padded=False),
        case("translate-t5-cache", "distances go on counting in the cache", T5, f"{t5}54", None, cache=True),
        case("translate-end", "each row ends with its own end token 0; nothing stands behind it", T5, f"{t5}52", 0,
             cache=True),
    ]  # fmt: skip
