"""The flat names and shapes of the parameters of blocks and models, which the cases draw."""

from __future__ import annotations

from typing import Any

Shapes = dict[str, tuple[int, ...]]
BUCKETS = 32  # of the positions "relative" of Llama: those of T5


def gpt(config: dict[str, Any]) -> Shapes:
    """The flat names and shapes of the parameters of `gpt`."""
    C, F, V = config["width"], config["hidden"], config["vocabulary"]
    found: Shapes = {"token": (V, C)}
    if config["positions"] == "learned":
        found["position"] = (config["context"], C)
    for n in range(config["layers"]):
        found |= {f"layers.{n}.{name}": shape for name, shape in transformer_layer(C, F).items()}
    if config["norm"] == "pre":
        found |= {"norm.g": (C,), "norm.b": (C,)}
    if not config["tied"]:
        found["head"] = (C, V)
    return found


def transformer_layer(C: int, F: int) -> Shapes:
    return {
        "norm1.g": (C,),
        "norm1.b": (C,),
        "attention.Wqkv": (C, 3 * C),
        "attention.bqkv": (3 * C,),
        "attention.Wo": (C, C),
        "attention.bo": (C,),
        "norm2.g": (C,),
        "norm2.b": (C,),
        "feed_forward.W1": (C, F),
        "feed_forward.b1": (F,),
        "feed_forward.W2": (F, C),
        "feed_forward.b2": (C,),
    }


def llama(config: dict[str, Any]) -> Shapes:
    """The flat names and shapes of the parameters of `llama`."""
    C, V = config["width"], config["vocabulary"]
    found: Shapes = {"token": (V, C)}
    if config["positions"] == "relative":
        found["relative"] = (BUCKETS, config["heads"])
    of_layer = llama_layer(C, config["heads"], config["kv_heads"], config["head_width"], config["hidden"])
    for n in range(config["layers"]):
        found |= {f"layers.{n}.{name}": shape for name, shape in of_layer.items()}
    found["norm.g"] = (C,)
    if not config["tied"]:
        found["head"] = (C, V)
    return found


def llama_layer(C: int, H: int, G: int, D: int, F: int) -> Shapes:
    return {
        "norm1.g": (C,),
        "attention.Wq": (C, H * D),
        "attention.Wk": (C, G * D),
        "attention.Wv": (C, G * D),
        "attention.Wo": (H * D, C),
        "norm2.g": (C,),
        "feed_forward.Wg": (C, F),
        "feed_forward.W1": (C, F),
        "feed_forward.W2": (F, C),
    }


def switch(config: dict[str, Any]) -> Shapes:
    """The flat names and shapes of the parameters of `switch`."""
    C, F = config["width"], config["hidden"]
    found: Shapes = {"token": (config["vocabulary"], C), "position": (config["context"], C)}
    for n in range(config["layers"]):
        of_layer = transformer_layer(C, F)
        if (n + 1) % config["every"] == 0:
            of_layer = {name: s for name, s in of_layer.items() if not name.startswith("feed_forward")}
            of_layer |= {f"switch.{name}": s for name, s in experts(C, F, config["experts"]).items()}
        found |= {f"layers.{n}.{name}": shape for name, shape in of_layer.items()}
    return {**found, "norm.g": (C,), "norm.b": (C,)}


def experts(C: int, F: int, E: int, *, biases: bool = True) -> Shapes:
    found: Shapes = {"Wr": (C, E), "W1": (E, C, F), "b1": (E, F), "W2": (E, F, C), "b2": (E, C)}
    return {name: shape for name, shape in found.items() if biases or not name.startswith("b")}


def bert(config: dict[str, Any], outputs: list[str]) -> Shapes:
    """The flat names and shapes of the parameters, with the heads of these outputs."""
    V, C = config["vocabulary"], config["width"]
    found = {
        "token": (V, C),
        "position": (config["context"], C),
        "segment": (config["segments"], C),
        "norm.g": (C,),
        "norm.b": (C,),
    }
    for n in range(config["layers"]):
        found |= {f"layers.{n}.{name}": shape for name, shape in transformer_layer(C, config["hidden"]).items()}
    found |= {"pooler.W": (C, C), "pooler.b": (C,)}
    heads: dict[str, Shapes] = {
        "masked": {"W": (C, C), "b": (C,), "norm.g": (C,), "norm.b": (C,), "bias": (V,)},
        "pair": {"W": (C, 2), "b": (2,)},
        "classes": {"W": (C, config["labels"]), "b": (config["labels"],)},
        "span": {"W": (C, 2), "b": (2,)},
    }
    for head in outputs:
        found |= {f"{head}.{name}": shape for name, shape in heads[head].items()}
    return found


def encoder_decoder(config: dict[str, Any]) -> Shapes:
    """The flat names and shapes of the parameters."""
    V, C = config["vocabulary"], config["width"]
    found: Shapes = {"token": (V, C)}
    for half in ("encoder", "decoder"):
        if config["positions"] == "learned":
            found[f"{half}.position"] = (config["context"], C)
        if config["embedding_norm"]:
            found |= _norm(f"{half}.embedding_norm", config)
        if config["positions"] == "relative":
            found[f"{half}.relative"] = (config["buckets"], config["heads"])
        for n in range(config[f"{half}_layers"]):
            found |= _encoder_decoder_layer(f"{half}.layers.{n}", config, reads=half == "decoder")
        if config["norm"] == "pre":
            found |= _norm(f"{half}.norm", config)
    if not config["tied"]:
        found["head"] = (C, V)
    return found


def _norm(name: str, config: dict[str, Any]) -> Shapes:
    parts = ("g",) if config["rms"] else ("g", "b")
    return {f"{name}.{part}": (config["width"],) for part in parts}


def _encoder_decoder_layer(place: str, config: dict[str, Any], *, reads: bool) -> Shapes:
    C, F, inner = config["width"], config["hidden"], config["heads"] * config["head_width"]
    sublayers = {"attention": attention(C, inner, config["biases"], "qkv")}
    if reads:
        sublayers["cross_attention"] = attention(C, inner, config["biases"], "q", "kv")
    gate = {"Wg": (C, F)} if config["gated"] else {}
    sublayers["feed_forward"] = {**gate, **affine(config["biases"], {"1": (C, F), "2": (F, C)})}
    found: Shapes = {}
    for n, (name, shapes) in enumerate(sublayers.items(), start=1):
        found |= _norm(f"{place}.norm{n}", config)
        found |= {f"{place}.{name}.{leaf}": shape for leaf, shape in shapes.items()}
    return found


def attention(C: int, inner: int, biases: bool, *inputs: str) -> Shapes:
    """Of the maps named after the parts they make ("qkv", or "q" and "kv"), and of the output's."""
    maps = {name: (C, len(name) * inner) for name in inputs}
    return affine(biases, {**maps, "o": (inner, C)})


def affine(biases: bool, maps: dict[str, tuple[int, int]]) -> Shapes:
    found: Shapes = {}
    for name, shape in maps.items():
        found[f"W{name}"] = shape
        if biases:
            found[f"b{name}"] = shape[1:]
    return found


def recurrent_lm(config: dict[str, Any]) -> Shapes:
    found = {"token": (config["vocabulary"], config["width"]), **_recurrent_layers(config, config["width"])}
    if not config["tied"]:
        found["head"] = (config["hidden"], config["vocabulary"])
    return found


def nnlm(config: dict[str, Any]) -> Shapes:
    V, N, seen = config["vocabulary"], config["hidden"], (config["order"] - 1) * config["width"]
    found: Shapes = {"token": (V, config["width"]), "H": (seen, N), "d": (N,), "U": (N, V)}
    if config["direct"]:
        found["W"] = (seen, V)
    return {**found, "b": (V,)}


def hybrid(config: dict[str, Any]) -> Shapes:
    V, C = config["vocabulary"], config["width"]
    attention = {"Wqkv": (C, 3 * C), "bqkv": (3 * C,), "Wo": (C, C), "bo": (C,)}
    return {
        "token": (V, C),
        **{f"attention.{name}": shape for name, shape in attention.items()},
        **_recurrent_layers(config, C),
        "head": (config["hidden"] * (1 + config["bidirectional"]), V),
    }


def _recurrent_layers(config: dict[str, Any], inputs: int) -> Shapes:
    """Of the recurrent layers, the first of which reads `inputs` numbers."""
    N, gates = config["hidden"], 4 if config["cell"] == "lstm" else 1
    ways = ["forward.", "backward."] if config.get("bidirectional") else [""]
    found: Shapes = {}
    for n in range(config["layers"]):
        for way in ways:
            place = f"layers.{n}.{way}"
            found |= {f"{place}Wx": (inputs, gates * N), f"{place}Wh": (N, gates * N), f"{place}b": (gates * N,)}
        inputs = N * len(ways)
    return found
