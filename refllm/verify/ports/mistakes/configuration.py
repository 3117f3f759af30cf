"""Entries of the configuration that a port has otherwise: it takes a number of another model, or leaves a form out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from refllm.verify.ports.candidates import Candidate, Diff
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.program import Program, Step

# numbers that models have, of which one is taken for another
NUMBERS: dict[str, tuple[float, ...]] = {
    "eps": (1e-5, 1e-6, 1e-8, 1e-12, 0.0, 1e-3, 1e-7), "base": (1e4, 5e5, 1e6, 1e5), "farthest": (128, 64, 256, 32),
    "buckets": (32, 16, 64), "scaling_factor": (1.0, 8.0, 32.0, 4.0, 2.0, 16.0), "scaling_low": (1.0, 4.0, 32.0),
    "scaling_high": (4.0, 1.0, 32.0), "scaling_original": (8192, 4096, 2048, 32768), "scaling_scale": (1.0,),
    "score_cap": (0.0, 50.0, 30.0), "logit_cap": (0.0, 30.0, 50.0), "capacity": (64, 128),
}  # fmt: skip
# numbers that are written by hand in twice or half the size, too
SCALED = ("base", "farthest", "buckets", "scaling_factor", "scaling_low", "scaling_high", "scaling_original",
          "score_cap", "logit_cap", "capacity")  # fmt: skip
WORDS: dict[str, tuple[str, ...]] = {
    "activation": ("gelu_erf", "gelu_tanh", "silu", "relu"), "scaling": ("none", "linear"), "positions": ("none",),
    "norm": ("pre", "post"),
}  # fmt: skip
FLAGS = ("scaled_embedding", "scaled_output", "scaled", "query_key_norm", "norms_after", "embedding_norm", "tied")
# as config.json calls it, by the kind of the model
PUBLISHED = {
    "eps": {"llama": "rms_norm_eps", "bert": "layer_norm_eps", "": "layer_norm_epsilon"}, "base": {"": "rope_theta"},
    "farthest": {"": "relative_attention_max_distance"}, "tied": {"": "tie_word_embeddings"},
    "activation": {"llama": "hidden_act", "bert": "hidden_act", "": "activation_function"},
    "scaling": {"": "rope_type"}, "scaling_factor": {"": "factor"}, "score_cap": {"": "attn_logit_softcapping"},
    "scaling_scale": {"": "attention_factor"},
    "scaling_low": {"": "low_freq_factor"}, "scaling_high": {"": "high_freq_factor"},
    "scaling_original": {"": "original_max_position_embeddings"}, "logit_cap": {"": "final_logit_softcapping"},
    "score_width": {"": "query_pre_attn_scalar"}, "windows": {"": "sliding_window"},
    "capacity": {"": "expert_capacity"}, "buckets": {"": "relative_attention_num_buckets"},
    "heads": {"gpt": "n_head", "": "num_attention_heads"},
    "scaled_embedding": {"": "scale_embedding"}, "scaled_output": {"": "scale_decoder_outputs"},
}  # fmt: skip
FORM = "the form of the model, which follows from its model_type"
OR_TIED = "config.json; where the entry is missing, it is as tie_word_embeddings"
ROTATION = "config.json, or its rope_parameters (rope_scaling)"
READ = {
    "tied": "output",
    "scaled_output": "output",
    "logit_cap": "output",
    "scaled_embedding": "embedding",
    "embedding_norm": "embedding",
}
ACTIVATIONS = {"gelu_erf": "gelu (with erf)", "gelu_tanh": "gelu_new (with tanh)"}  # as config.json calls them
TEXT = "refllm/verify/ports/published"
COST, UNLIKELY = 0.5, 0.7  # below every edit of the text
SAID = {  # where the name alone says little
    ("scaled_embedding", False): "the embedding is not multiplied by the root of the width",
    ("scaled_embedding", True): "the embedding is multiplied by the root of the width",
    ("scaled_output", False): "the states are not divided by the root of the width before the output layer",
    ("scaled_output", True): "the states are divided by the root of the width before the output layer",
    ("scaled", True): "the scores are divided by the root of a head's width, which this model does not do",
    ("scaled", False): "the scores are not divided by the root of a head's width",
    ("query_key_norm", False): "the norms of queries and keys are left out",
    ("norms_after", False): "the norms after the sublayers are left out",
    ("embedding_norm", False): "the norm of the embedding is left out",
    ("tied", True): "the output layer is the embedding, and the files have one of its own",
    ("score_cap", 0.0): "the cap of the scores is left out", ("logit_cap", 0.0): "the cap of the logits is left out",
    ("positions", "none"): "no rotation of queries and keys",
    ("scaling", "none"): "the scaling of the rotation's frequencies is left out",
}  # fmt: skip


def mistakes(program: Program) -> Iterator[Candidate]:
    config = program.config
    for name, values in {**NUMBERS, **WORDS}.items():
        if name not in config or not _is_there(name, config):
            continue
        for value in dict.fromkeys((*values, *_near(name, config[name]))):
            if value != config[name] and _fits(program, name, value):
                yield _other(program, name, value, _cost(name, value))
    for name in FLAGS:
        if name in config and (not config[name] if name in ("scaled_embedding", "scaled") else bool(config[name])):
            yield from [_other(program, name, not config[name], COST)] if name != "tied" else []
        if name in ("scaled_embedding", "scaled", "scaled_output") and name in config:
            yield _other(program, name, not config[name], COST if config[name] else UNLIKELY)
    if config.get("scaling") == "yarn":
        yield _other(program, "scaling_rounded", not config["scaling_rounded"], COST)
    if config.get("tied") is False:
        yield _other(program, "tied", True, COST)
    yield from _windows(program)
    yield from _caps_exchanged(program)
    yield from _score_widths(program)
    yield from _rotation_widths(program)
    yield from _narrower_heads(program)
    yield from _heads(program)


def _cost(name: str, value: Any) -> float:
    """An eps of 0 is rare; a scaling that is left out is likelier than numbers with which it does nothing."""
    if name == "eps" and not value:
        return UNLIKELY
    return {"scaling": COST - 0.02, "scaling_original": COST + 0.05}.get(name, COST)


def _near(name: str, value: Any) -> Iterator[Any]:
    """Twice and half of a number, and ten times and a tenth of the base of a rotation."""
    if name in SCALED:
        kind = type(value)
        yield from (kind(value * 2), kind(value / 2))
    if name == "base":
        yield from (value * 10, value / 10)
    if name == "scaling_scale":  # on queries alone, or twice
        yield from (math.sqrt(value), value * value)


def _is_there(name: str, config: Any) -> bool:
    """Whether the model has that form at all: a cap that is none is not another one."""
    if name in ("score_cap", "logit_cap", "capacity"):
        return bool(config[name]) and (name != "capacity" or bool(config["experts"]))
    if name.startswith("scaling_"):
        return bool(config["scaling"] != "none") and bool(config[name])
    if name == "scaling":
        return bool(config["scaling"] != "none")
    if name in ("farthest", "buckets"):
        return bool(config["positions"] == "relative")
    return True


def _fits(program: Program, name: str, value: Any) -> bool:
    if name == "positions":
        return program.model == "llama"
    if name in ("scaling_low", "scaling_high"):  # between them lies a middle
        low, high = (program.config[end] if end != name else value for end in ("scaling_low", "scaling_high"))
        return bool(low < high)
    if name == "farthest":  # beyond the near distances, which have a bucket each
        return bool(value > program.config["buckets"] // 2)
    if name == "norm":
        return value == "post" or program.model in ("bert", "encoder_decoder")
    return not (name == "activation" and value == "silu" and program.model in ("gpt", "bert"))


def _other(program: Program, name: str, value: Any, cost: float) -> Candidate:
    was, called = program.config[name], _called(program, name)
    place = _place(program, name)
    of = " of the rotation's scaling" if name.startswith("scaling") else ""
    right = f"{_shown(was)} is right" if place == FORM else f"config.json says {_shown(was)}"
    said = SAID.get((name, value), f"{called}{of} is {_shown(value)}; {right}")
    lines = [(place, [f"- {called}: {_shown(was)}", f"+ {called}: {_shown(value)}"])]
    return Candidate(said, cost, Change(config={name: value}), partial(_reads, name), lines)


def _reads(name: str, step: Step) -> bool:
    """Whether a step of that kind reads that entry."""
    kind = READ.get(name)
    return kind is None or step.kind.endswith(kind)


def _called(program: Program, name: str) -> str:
    if name not in PUBLISHED or _place(program, name) == FORM:
        return name
    names = PUBLISHED[name]
    return names.get(program.model, names[""])


def _place(program: Program, name: str) -> str:
    """Where the files of the model have an entry. T5 has its activation in a word with its gate, BART no eps."""
    if name.startswith("scaling") or name == "base":
        return ROTATION
    relative = program.config.get("positions") == "relative"
    if name in ("scaled_embedding", "scaled_output"):  # BART has the one in its file, T5 the other
        held = program.model == "encoder_decoder" and relative == (name == "scaled_output")
        return FORM if not held else OR_TIED if relative else "config.json"
    of_other_files = program.model == "encoder_decoder" and ((name == "activation") if relative else (name == "eps"))
    return "config.json" if name in PUBLISHED and not of_other_files else FORM


def _shown(value: Any) -> str:
    if value in ACTIVATIONS:
        return ACTIVATIONS[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _everywhere(step: Step) -> bool:
    return True


def _windows(program: Program) -> Iterator[Candidate]:
    windows = [int(w) for w in program.config.get("windows", [])]
    if not any(windows):
        return
    yield _windowed(program, [0] * len(windows), "the sliding window is left out")
    widest = max(windows)
    if 0 in windows:
        yield _windowed(program, [widest] * len(windows), "the sliding window is in every layer")
        yield _windowed(program, [0 if w else widest for w in windows], "the layers with a window are the other ones")
    seen = [windows, [0] * len(windows), [widest] * len(windows), [0 if w else widest for w in windows]]
    for other, said in _of_other_layers(windows):
        if other not in seen:
            seen.append(other)
            yield replace(_windowed(program, other, said), cost=COST + 0.05)
    for change in (-1, 1):
        said = f"the sliding window has {widest + change} keys; config.json says {widest}"
        lines = [("config.json", [f"- sliding_window: {widest}", f"+ sliding_window: {widest + change}"])]
        yield _windowed(program, [w + change if w else 0 for w in windows], said, lines)


def _of_other_layers(windows: list[int]) -> Iterator[tuple[list[int], str]]:
    """The window in the first or the last layers, or in one of so many, or in all but these."""
    L, widest = len(windows), max(windows)
    for n in range(1, L):
        yield [widest if i < n else 0 for i in range(L)], f"the sliding window is in the first {n} layers"
        yield [widest if i >= n else 0 for i in range(L)], f"the sliding window is in the layers from {n} on"
    for step in range(2, min(L, 6) + 1):
        for first in range(step):
            there = [i % step == first for i in range(L)]
            which = f"every {_ordinal(step)} layer, from layer {first} on"
            yield [widest if one else 0 for one in there], f"the sliding window is in {which}, and in no other"
            yield [0 if one else widest for one in there], f"the sliding window is in all layers but {which}"


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth"}[n]


def _caps_exchanged(program: Program) -> Iterator[Candidate]:
    """The cap of the scores for that of the logits, and the other way round."""
    scores, logits = (program.config.get(name) for name in ("score_cap", "logit_cap"))
    if scores and logits and scores != logits:
        lines = [
            ("config.json", [f"- attn_logit_softcapping: {scores:g}", f"+ attn_logit_softcapping: {logits:g}",
                             f"- final_logit_softcapping: {logits:g}", f"+ final_logit_softcapping: {scores:g}"])
        ]  # fmt: skip
        said = "the caps of the scores and of the logits are exchanged"
        change = Change(config={"score_cap": logits, "logit_cap": scores})
        yield Candidate(said, COST, change, _everywhere, lines)


def _windowed(program: Program, windows: list[int], said: str, lines: Diff | None = None) -> Candidate:
    place = "the windows of the layers, which follow from config.json (0: none)"
    shown = [(place, [f"- {_few(program.config['windows'])}", f"+ {_few(windows)}"])]
    others = [
        f"layers.{n}" for n, (one, own) in enumerate(zip(windows, program.config["windows"], strict=True)) if one != own
    ]
    return Candidate(said, COST, Change(config={"windows": windows}), lambda step: step.place in others, lines or shown)


def _few(windows: Any) -> str:
    return ", ".join(map(str, windows[:8])) + (" ..." if len(windows) > 8 else "")


def _score_widths(program: Program) -> Iterator[Candidate]:
    config = program.config
    if program.model != "llama":
        return
    now = config["score_width"] or config["head_width"]
    others = {
        "a head's width": config["head_width"], "width / heads": config["width"] / config["heads"],
        "the whole width": config["width"],
    }  # fmt: skip
    for what, value in others.items():
        if value != now:
            lines = [_scores(now, value)]
            change = Change(config={"score_width": float(value)})
            yield Candidate(
                f"the scores are divided by the root of {what}, {value:g}", COST, change, _everywhere, lines
            )


def _scores(now: float, value: float) -> tuple[str, list[str]]:
    return f"{TEXT}/parts.py", [f"- s = q @ swap(k) / sqrt({now:g})", f"+ s = q @ swap(k) / sqrt({value:g})"]


def _rotation_widths(program: Program) -> Iterator[Candidate]:
    """A head's width taken for width / heads: in the exponents of the rotation, or in its scores too."""
    config = program.config
    if program.model != "llama" or config["scaling"] != "none" or config["positions"] == "none":
        return
    own, other = config["head_width"], config["width"] / config["heads"]
    if own == other:
        return
    base = config["base"] ** (own / other)  # base^(-2i / other) = (base^(own / other))^(-2i / own)
    lines = [(f"{TEXT}/llama.py", [f"- base ** (-2 * i / {own:g})", f"+ base ** (-2 * i / {other:g})"])]
    said = f"the exponents of the rotation are divided by width / heads, {other:g}, not by a head's width, {own:g}"
    yield Candidate(said, COST, Change(config={"base": base}), _everywhere, lines)
    if not config["score_width"]:
        both = Change(config={"base": base, "score_width": float(other)})
        said = f"width / heads, {other:g}, is taken for a head's width, {own:g}: in the rotation and in the scores"
        yield Candidate(said, COST, both, _everywhere, [*lines, _scores(own, other)])


def _narrower_heads(program: Program) -> Iterator[Candidate]:
    """The columns of queries, keys and values cut by width / heads: more heads, or fewer, than there are."""
    config = program.config
    if program.model != "llama":
        return
    own, other = int(config["head_width"]), int(config["width"] // config["heads"])
    heads, kv_heads = (config[name] * own for name in ("heads", "kv_heads"))
    if own == other or not other or heads % other or kv_heads % other or (heads // other) % (kv_heads // other):
        return
    change = {"heads": heads // other, "kv_heads": kv_heads // other, "head_width": other}
    lines = [("config.json", [f"- head_dim: {own}", f"+ head_dim: {other}"])]
    said = (
        f"width / heads, {other}, is taken for a head's width; config.json says {own}: that makes {heads // other} "
        f"heads of queries and {kv_heads // other} of keys"
    )
    yield Candidate(said, COST, Change(config=change), _everywhere, lines)


def _heads(program: Program) -> Iterator[Candidate]:
    if program.model not in ("gpt", "bert"):
        return
    heads, width = program.config["heads"], program.config["width"]
    for other in dict.fromkeys((heads * 2, heads // 2, 12, 1)):
        if other and other != heads and width % other == 0:
            yield _other(program, "heads", other, UNLIKELY)
