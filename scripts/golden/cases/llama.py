"""L2 to L5: the gated layer, grouped queries, Llama under each of its schemes of positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.blocks import parameters
from golden.cases.runs import RATES, writing
from golden.shapes import llama as shapes
from golden.shapes import llama_layer as layer_shapes

LLAMA: dict[str, Any] = {
    "vocabulary": 9,
    "context": 8,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_width": 2,
    "width": 6,
    "hidden": 5,
    "positions": "rotary",
    "base": 10000.0,
    "tied": False,
    "eps": 1e-5,
}
SMALL = {**LLAMA, "vocabulary": 7, "layers": 1, "heads": 2, "kv_heads": 1, "head_width": 4, "width": 4}
INTERLEAVED = {**SMALL, "positions": "rotary_interleaved", "tied": True, "base": 500000.0}
ALIBI = {**LLAMA, "vocabulary": 7, "layers": 1, "heads": 3, "kv_heads": 1, "positions": "alibi", "tied": True}
RELATIVE = {**LLAMA, "vocabulary": 7, "heads": 2, "kv_heads": 2, "positions": "relative"}


def gated_feed_forward() -> list[Case]:
    def case(slug: str, about: str, x: tuple[int, ...], F: int, activation: str) -> Case:
        id = f"FFN/gated-{slug}"
        draw, C = Draw(id), x[-1]
        drawn: dict[str, tuple[int, ...]] = {"Wg": (C, F), "W1": (C, F), "W2": (F, C)}
        inputs = {"x": draw.normal(*x, scale=2.0), **parameters(draw, drawn)}
        return Case(id, "gated_feed_forward", about, inputs, {"activation": activation})

    return [
        case("silu", "SwiGLU: (silu(x Wg) * (x W1)) W2", (3, 4), 6, "silu"),
        case("gelu-tanh", "GEGLU with GELU's tanh form (T5 1.1)", (3, 4), 6, "gelu_tanh"),
        case("relu", "ReGLU", (3, 4), 5, "relu"),
        case("square", "F = C: a transposed matrix has the right shape", (2, 3), 3, "silu"),
        case("batch", "(B, T, C), narrower inside than outside", (2, 2, 4), 3, "gelu_erf"),
    ]


def grouped_attention() -> list[Case]:
    def case(
        slug: str, about: str, x: tuple[int, ...], heads: int, kv_heads: int, D: int, *,
        rotation: str | None = "rotary", positions: Any = None, base: float = 10000.0, causal: bool = True,
        allowed: Any = None,
    ) -> Case:  # fmt: skip
        id = f"LONG/grouped-{slug}"
        draw, C = Draw(id), x[-1]
        all_of_it = layer_shapes(C, heads, kv_heads, D, 1)
        drawn = {name.removeprefix("attention."): s for name, s in all_of_it.items() if name.startswith("attention.")}
        keywords = {
            "heads": heads,
            "kv_heads": kv_heads,
            "rotation": rotation,
            "positions": np.arange(x[-2]) if positions is None else np.array(positions),
            "base": base,
            "causal": causal,
            "allowed": None if allowed is None else np.array(allowed),
        }
        return Case(id, "grouped_attention", about, {"x": draw.normal(*x), **parameters(draw, drawn)}, keywords)

    padding = [[[[True, True, False]]], [[[False, True, True]]]]
    return [
        case("two-of-four", "four heads of queries, two of keys: heads 0 and 1 share the first", (1, 3, 4), 4, 2, 2),
        case("one", "one head of keys and values for all", (1, 3, 4), 2, 1, 2),
        case("all", "as many heads of keys as of queries; queries and keys are turned, values are not", (1, 4, 4), 2, 2,
             2),
        case("wide", "heads * head width = 12, not the width of the model, 4", (1, 2, 4), 3, 1, 4),
        case("interleaved", "the other layout of the pairs", (1, 3, 4), 2, 1, 4, rotation="rotary_interleaved"),
        case("no-rotation", "without positions", (1, 3, 4), 4, 2, 2, rotation=None),
        case("own-positions", "positions (B, T), as under padding on the left", (2, 3, 4), 2, 1, 2,
             positions=[[5, 6, 7], [0, 0, 1]], allowed=padding),
        case("both-sides", "not causal, with padding", (2, 3, 4), 2, 2, 2, causal=False, allowed=padding),
        case("base", "another base", (1, 3, 3), 1, 1, 4, base=100.0, positions=[2, 5, 11]),
    ]  # fmt: skip


def llama_layer() -> list[Case]:
    def case(slug: str, about: str, x: tuple[int, ...], config: dict[str, Any], **more: Any) -> Case:
        id = f"LONG/llama-layer-{slug}"
        draw = Draw(id)
        drawn = layer_shapes(x[-1], config["heads"], config["kv_heads"], config["head_width"], config["hidden"])
        keywords = {
            "heads": config["heads"],
            "kv_heads": config["kv_heads"],
            "rotation": config["positions"],
            "positions": np.arange(x[-2]),
            "base": config["base"],
            "allowed": None,
            "eps": config["eps"],
            **more,
        }
        return Case(id, "llama_layer", about, {"x": draw.normal(*x), **parameters(draw, drawn)}, keywords, taps=True)

    return [
        case("rotary", "x + attention(RMS(x)), then x + SwiGLU(RMS(x))", (1, 4, 4), SMALL),
        case("batch", "(B, T, C), eps = 0.25, interleaved, from position 3", (2, 3, 6),
             {**LLAMA, "positions": "rotary_interleaved"}, eps=0.25, positions=np.array([3, 4, 5])),
    ]  # fmt: skip


def _inputs(name: str, config: dict[str, Any]) -> dict[str, np.ndarray]:
    return parameters(Draw(name), shapes(config))


def llama() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], *ids: int) -> Case:
        id = f"LMHEAD/llama-{slug}"
        drawn = Draw(f"{id} ids").integers(*ids, high=config["vocabulary"])
        return Case(id, "llama", about, _inputs(id, config), {"ids": drawn, "config": config}, taps=True)

    return [
        case("rotary", "rotary positions, two heads of keys for four of queries, its own head; a batch of two", LLAMA,
             2, 4),
        case("interleaved", "the interleaved layout, base 500000, one head of keys, tied head", INTERLEAVED, 1, 5),
        case("alibi", "ALiBi for three heads, no power of two: slopes 1/16, 1/256 and 1/4; tied", ALIBI, 1, 5),
        case("relative", "one table of T5's buckets for both layers: its gradient is the sum", RELATIVE, 1, 4),
        case("none", "no positions but the causal mask", {**SMALL, "positions": "none"}, 1, 3),
        case("one-token", "a single token, ids (T,)", SMALL, 1),
        case("long", "19 tokens, where T5's distances from 16 on share a row", {**RELATIVE, "context": 20, "layers": 1,
             "heads": 1, "kv_heads": 1, "width": 3, "hidden": 2, "vocabulary": 4}, 19),
    ]  # fmt: skip


def llama_loss() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], B: int, T: int, ignored: list[tuple[int, int]]) -> Case:
        id = f"NLL/llama-{slug}"
        draw = Draw(f"{id} batch")
        ids, targets = (draw.integers(B, T, high=config["vocabulary"]) for _ in range(2))
        for place in ignored:
            targets[place] = -100
        keywords = {"ids": ids, "targets": targets, "ignore": -100 if ignored else None, "config": config}
        return Case(id, "llama_loss", about, _inputs(id, config), keywords, taps=True)

    return [
        case("rotary-ignored", "the mean over the targets that are not ignored", LLAMA, 2, 4, [(0, 3), (1, 0)]),
        case(
            "uneven-ignored",
            "per token, not per sentence: 1 + 3 targets count, so the divisor is 4",
            SMALL,
            2,
            3,
            [(0, 0), (0, 2)],
        ),
        case("tied", "a tied head adds its gradient to the embedding's", {**SMALL, "tied": True}, 2, 3, []),
        case("relative", "the gradient of the table of distances", RELATIVE, 2, 3, []),
    ]


# --- L4 and L5 --------------------------------------------------------------------------------------------------------


def training() -> list[Case]:
    """train_step and train of the model "llama"."""

    def state(name: str, config: dict[str, Any], *, fresh: bool) -> dict[str, np.ndarray]:
        draw, scale = Draw(f"{name} moments"), 0.0 if fresh else 0.25
        m = {f"m.{path}": draw.normal(*shape, scale=scale) for path, shape in shapes(config).items()}
        v = {f"v.{path}": np.abs(draw.normal(*shape, scale=scale)) for path, shape in shapes(config).items()}
        return {**_inputs(name, config), **m, **v}

    def case(
        slug: str, about: str, operation: str, config: dict[str, Any], batch: tuple[int, ...], fresh: bool, **more: Any
    ) -> Case:
        id = f"ADAMW/llama-{slug}"
        draw = Draw(f"{id} batch")
        ids, targets = (draw.integers(*batch, high=config["vocabulary"]) for _ in range(2))
        keywords = {"model": "llama", "ids": ids, "targets": targets, "ignore": None, **RATES, **more, "config": config}
        inputs = state(id, config, fresh=fresh)
        return Case(id, operation, about, inputs, keywords, gradient=False, taps=operation == "train_step")

    less = {**RELATIVE, "layers": 1, "tied": True, "width": 4}
    return [
        case("step-2", "the gains do not decay, everything else does", "train_step", SMALL, (2, 4), False, step=2),
        case("step-relative", "the table of distances decays and is clipped with the rest", "train_step", less, (2, 3),
             False, step=3, clip=0.25),
        case("trace", "three steps, each from the state that the last one left", "train", SMALL, (3, 2, 3), True,
             first=1, lr=0.125, clip=1.0),
    ]  # fmt: skip


def generate() -> list[Case]:
    """The model "llama" goes on with a text. Names were chosen so that the words vary and no decision is near a tie."""

    def case(
        slug: str, about: str, name: str, config: dict[str, Any], prompt: tuple[int, ...], new_tokens: int,
        cache: bool = True, uniforms: Any = None,
    ) -> Case:  # fmt: skip
        drawn = parameters(Draw(name), shapes(config), scale=0.25)
        for path in {"p.token", "p.head"} & drawn.keys():
            drawn[path] = drawn[path] * (8 if uniforms is None else 4)
        ids = Draw(f"{name} prompt").integers(*prompt, high=config["vocabulary"])
        keywords = {"model": "llama", **writing(ids, config, new_tokens, uniforms=uniforms, cache=cache)}
        return Case(f"GEN/llama-{slug}", "generate", about, drawn, keywords, gradient=False)

    rotary = ("GEN/llama-rotary 52", {**SMALL, "context": 10}, (3,), 5)
    slopes = ("GEN/llama-alibi 48", {**ALIBI, "tied": False}, (3,), 4)
    table = ("GEN/llama-relative 28", RELATIVE, (2,), 5)
    pairs = ("GEN/llama-interleaved 27", {**INTERLEAVED, "tied": False}, (2,), 5)
    return [
        case("rotary", "rotary positions, one head of keys", *rotary, cache=False),
        case("rotary-cache", "the same with a cache: keys are stored turned, and turned once", *rotary),
        case("interleaved-cache", "the interleaved layout, base 500000", *pairs),
        case("alibi", "ALiBi", *slopes, cache=False),
        case("alibi-cache", "ALiBi: the distances are those of the whole text, of which the cache holds the beginning",
             *slopes),
        case("relative", "T5's buckets in two layers", *table, cache=False),
        case("relative-cache", "the same with a cache", *table),
        case("batch-cache", "a batch of two, two heads of keys for four of queries, two layers", "GEN/llama-batch 43",
             LLAMA, (2, 2), 4),
        case("sampled-cache", "one stored uniform number a token", "GEN/llama-sampled 1", {**SMALL, "context": 10},
             (3,), 4, uniforms=[0.1875, 0.5625, 0.875, 0.4375]),
    ]  # fmt: skip
