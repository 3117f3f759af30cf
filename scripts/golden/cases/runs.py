"""L4 training, L5 generation, L6 resuming: what a model does over several steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw
from golden.cases.models import GPT2, SMALL, VASWANI, model
from golden.shapes import gpt as shapes

RATES = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.1, "clip": None}
TINY_POST = {**VASWANI, "layers": 1, "heads": 2, "width": 4, "hidden": 6}
LONGER = {**SMALL, "context": 12}
LONGER_POST = {**VASWANI, "context": 12}


def _state(name: str, config: dict[str, Any], *, fresh: bool) -> dict[str, np.ndarray]:
    """Parameters and moments; a fresh state has zero moments, another one plausible ones (v is not negative)."""
    draw, scale = Draw(f"{name} moments"), 0.0 if fresh else 0.25
    m = {f"m.{path}": draw.normal(*shape, scale=scale) for path, shape in shapes(config).items()}
    v = {f"v.{path}": np.abs(draw.normal(*shape, scale=scale)) for path, shape in shapes(config).items()}
    return {**model(name, config), **m, **v}


def _batch(name: str, config: dict[str, Any], *shape: int) -> dict[str, Any]:
    draw, V = Draw(f"{name} batch"), config["vocabulary"]
    return {"ids": draw.integers(*shape, high=V), "targets": draw.integers(*shape, high=V), "ignore": None}


def train_step() -> list[Case]:
    def case(slug: str, about: str, step: int, config: dict[str, Any] = SMALL, **more: Any) -> Case:
        id = f"ADAMW/{slug}"
        batch = _batch(id, config, 2, 4)
        if more.pop("padded", False):
            batch["targets"][1, 2:] = -100
            batch["ignore"] = -100
        keywords = {**batch, "step": step, **RATES, **more, "config": config}
        return Case(id, "train_step", about, _state(id, config, fresh=step == 1), keywords, gradient=False, taps=True)

    return [
        case("step-1", "the first step, from zero moments; matrices and tables decay, gains and biases do not", 1),
        case("step-2", "from step 1 to step 2", 2),
        case("step-7", "from step 6 to step 7", 7, lr=0.125),
        case(
            "step-clipped",
            "the norm of ALL gradients exceeds 0.25: every one is scaled before the moments see it",
            3,
            clip=0.25,
        ),
        case("step-not-clipped", "a limit that is not reached changes nothing", 3, clip=1024.0),
        case("step-padded", "ignored targets, without decay", 2, padded=True, decay=0.0),
        case("step-post-untied", "post-norm, sinusoidal positions, its own head; clipped", 2, TINY_POST, clip=0.5),
    ]


def train() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], *, first: int = 1, steps: int = 4, **more: Any) -> Case:
        id = f"ADAMW/{slug}"
        keywords = {**_batch(id, config, steps, 2, 4), "first": first, **RATES, **more, "config": config}
        return Case(id, "train", about, _state(id, config, fresh=first == 1), keywords, gradient=False)

    return [
        case("trace-of-four", "four steps, each from the state that the last one left", SMALL, lr=0.125, clip=1.0),
        case("trace-post", "four steps of the post-norm model, no clipping", TINY_POST),
        case(
            "trace-from-step-3",
            "a training that goes on: the first of two steps is number 3, and so are its corrections of the moments",
            SMALL,
            first=3,
            steps=2,
        ),
        case(
            "trace-post-from-step-2",
            "a training that goes on after its first step, post-norm, clipped",
            TINY_POST,
            first=2,
            steps=2,
            clip=0.5,
        ),
    ]


def _lively(name: str, config: dict[str, Any], factor: float) -> dict[str, np.ndarray]:
    """A model whose tables are large beside its layers, so that the text does not settle on one word at once."""
    drawn = model(name, config, scale=0.25)
    for path in {"p.token", "p.position", "p.head"} & drawn.keys():
        drawn[path] = drawn[path] * factor
    return drawn


def writing(
    ids: np.ndarray, config: dict[str, Any], new_tokens: int, *, uniforms: Any = None, **more: Any
) -> dict[str, Any]:
    """What `generate` is told: the most probable of all words, with a cache, unless something else is said."""
    return {
        "ids": ids, "config": config, "new_tokens": new_tokens, "temperature": 1.0, "top_k": None, "top_p": None,
        "uniforms": None if uniforms is None else np.array(uniforms), "cache": True, **more,
    }  # fmt: skip


def going_on(slug: str, about: str, new_tokens: int, name: str, config: dict[str, Any], **more: Any) -> Case:
    """`name` names the drawn model and prompt. They and the uniforms were chosen so that the words vary, that leaving
    out temperature, top-k or top-p would change some of them, and that no decision is near a tie."""
    erratum = more.pop("erratum", None)
    ids = Draw(f"{name} prompt").integers(*more.pop("prompt", (3,)), high=config["vocabulary"])
    keywords = writing(ids, config, new_tokens, **{"cache": False, **more})
    parameters = _lively(name, config, 8 if keywords["uniforms"] is None else 4)
    return Case(f"GEN/{slug}", "generate", about, parameters, keywords, gradient=False, erratum=erratum)


def generate() -> list[Case]:
    untied = {**LONGER, "tied": False}
    gpt, post = ("GEN/greedy 37", untied), ("GEN/post 31", LONGER_POST)
    sampled = {"uniforms": [0.5625, 0.8125, 0.875, 0.0625]}
    return [
        going_on("greedy", "the largest logit, six times", 6, *gpt),
        going_on("greedy-cache", "the same with a cache: the same tokens and logits", 6, *gpt, cache=True),
        going_on(
            "greedy-post-cache",
            "post-norm, sinusoidal: the position goes on counting in the cache",
            7,
            *post,
            prompt=(2,),
            cache=True,
        ),
        going_on(
            "greedy-two-layers",
            "two layers, tied, up to the end of the context",
            5,
            "GEN/two-layers 31",
            GPT2,
            prompt=(1,),
        ),
        going_on(
            "batch",
            "a batch of two prompts: each row goes on with its own words",
            4,
            "GEN/batch 69",
            untied,
            prompt=(2, 2),
        ),
        going_on(
            "batch-cache",
            "a batch, post-norm, with a cache: each row has its own past",
            4,
            "GEN/batch 2",
            LONGER_POST,
            prompt=(2, 2),
            cache=True,
        ),
        going_on(
            "batch-sampled-cache",
            "a batch with uniform numbers (B, new tokens) and a cache",
            4,
            "GEN/batch 11",
            untied,
            prompt=(2, 2),
            uniforms=[[0.1875, 0.0625, 0.75, 0.875], [0.125, 0.75, 0.875, 0.375]],
            cache=True,
        ),
        going_on(
            "e6-first-step",
            "the first step embeds x_T, the last token of the prompt; a loop that starts with "
            "x_(T+1) never predicts it",
            1,
            *gpt,
            erratum="E6",
        ),
        going_on("sampled", "one stored uniform number a token", 4, "GEN/sampled 11", untied, **sampled),
        going_on("sampled-cache", "the same with a cache", 4, "GEN/sampled 11", untied, **sampled, cache=True),
        going_on(
            "temperature",
            "temperature 2 flattens",
            4,
            "GEN/sampled 10",
            untied,
            temperature=2.0,
            uniforms=[0.9375, 0.4375, 0.6875, 0.8125],
        ),
        going_on(
            "cold",
            "temperature 0.5 sharpens",
            4,
            "GEN/sampled 4",
            untied,
            temperature=0.5,
            uniforms=[0.125, 0.875, 0.5, 0.1875],
        ),
        going_on(
            "top-k",
            "only the three largest",
            4,
            "GEN/sampled 11",
            untied,
            top_k=3,
            uniforms=[0.75, 0.625, 0.9375, 0.0625],
        ),
        going_on(
            "top-p",
            "the shortest prefix that reaches 0.75",
            4,
            "GEN/sampled 10",
            untied,
            top_p=0.75,
            uniforms=[0.8125, 0.375, 0.4375, 0.875],
        ),
        going_on(
            "all-three",
            "temperature, then top-k, then top-p",
            4,
            "GEN/sampled 8",
            LONGER_POST,
            temperature=1.5,
            top_k=4,
            top_p=0.75,
            uniforms=[0.1875, 0.5625, 0.75, 0.9375],
            cache=True,
        ),
        going_on(
            "top-p-after-temperature",
            "the shortest prefix that reaches a half, of the distribution that temperature 2 has left",
            4,
            "GEN/sampled 184",
            untied,
            temperature=2.0,
            top_p=0.5,
            uniforms=[0.5625, 0.8125, 0.9375, 0.6875],
        ),
    ]


def sample() -> list[Case]:
    draw = Draw("GEN/sample")

    def case(slug: str, about: str, logits: Any, uniforms: Any, **more: Any) -> Case:
        keywords = {"temperature": 1.0, "top_k": None, "top_p": None, **more, "uniforms": np.array(uniforms)}
        inputs = {"logits": np.array(logits, dtype=np.float64)}
        return Case(f"GEN/sample-{slug}", "sample", about, inputs, keywords, gradient=False)

    x = draw.normal(5)
    quarters = [0.125, 0.375, 0.625, 0.875]
    return [
        case(
            "index-order",
            "cumulative sums run in index order, not by size",
            [[0.0, 1.0, 0.0, 2.0]] * 4,
            [0.0625, 0.1875, 0.34375, 0.75],
        ),
        case(
            "uniform-zero", "u = 0 takes the first token that is possible at all", [[-1000.0, 0.0, 1.0]], [0.0], top_k=2
        ),
        case(
            "first-impossible",
            "u = 0 where a filter has taken the first token out: the first that is left, not the first of all",
            [[-np.inf, 0.0, 1.0]],
            [0.0],
        ),
        case(
            "temperature",
            "divide by the temperature, do not multiply",
            [x] * 4,
            [0.125, 0.3125, 0.5, 0.6875],
            temperature=2.0,
        ),
        case(
            "large-logits",
            "logits of 1000: exp without the shift overflows",
            [[1004.0, 1004.0, 1000.0]] * 4,
            [0.125, 0.4375, 0.8125, 0.9375],
        ),
        case(
            "temperature-then-top-p",
            "top_p is of the distribution that the temperature left",
            [[0.5, 2.0, 1.25, 0.0, -1.0]] * 4,
            quarters,
            temperature=3.0,
            top_p=0.6875,
        ),
        case("top-k-one", "top_k = 1 is greedy", [np.roll(x, 2)] * 4, quarters, top_k=1),
        case(
            "top-k-more-than-all",
            "top_k beyond the vocabulary keeps everything",
            [x] * 4,
            [0.125, 0.5, 0.6875, 0.875],
            top_k=9,
        ),
        case(
            "top-k-tie",
            "two equal logits at the boundary: the lower index stays",
            [[1.0, 2.0, 1.0, 0.0]] * 4,
            quarters,
            top_k=2,
        ),
        case("top-p", "the token that crosses 0.5 is kept", [[1.0, 0.0, 2.0, -1.0]] * 4, quarters, top_p=0.75),
        case("top-p-small", "at least one token stays", [[1.0, 0.0, 2.0, -1.0]] * 4, quarters, top_p=0.125),
        case(
            "top-p-tiny",
            "top_p = 2^-10 is below every probability: the first token stays",
            [[1.0, 0.0, 2.0, -1.0]] * 4,
            quarters,
            top_p=2.0**-10,
        ),
        case(
            "top-p-least",
            "top_p = 2^-60, where 1 - top_p is 1 in every precision: the first token stays",
            [[0.0, 1.0, 0.5, -1.0]] * 4,
            quarters,
            top_p=2.0**-60,
        ),
        case(
            "top-p-tie",
            "equal probabilities: the lower index counts as larger",
            [[0.0, 0.0, 0.0, 0.0, 0.0]] * 4,
            quarters,
            top_p=0.5,
        ),
        case(
            "top-p-exact",
            "0.25 + 0.25 reaches 0.5 exactly, in every precision: two tokens stay",
            [[1.0] * 4] * 4,
            quarters,
            top_p=0.5,
        ),
        case("top-p-one", "top_p = 1 keeps everything", [[1.0, 0.0, 2.0, -1.0]] * 4, quarters, top_p=1.0),
        case(
            "top-k-then-top-p",
            "top_p is of the distribution that top_k left",
            [[2.0, 1.75, 1.5, 1.25, 1.0]] * 4,
            quarters,
            top_k=3,
            top_p=0.6875,
        ),
        case(
            "top-k-cuts-much",
            "what top_k cut away is not counted by top_p: neither first nor last",
            [[1.0, 2.0, 1.0, 1.5, 1.25, 1.0]] * 4,
            [0.25, 0.5625, 0.6875, 0.875],
            top_k=3,
            top_p=0.5625,
        ),
    ]


def resume() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], **more: Any) -> Case:
        id = f"ADAMW/{slug}"
        keywords = {**_batch(id, config, 4, 2, 4), "first": 1, "stop": 2, **RATES, **more, "config": config}
        return Case(id, "resume", about, _state(id, config, fresh=True), keywords, gradient=False)

    return [
        case(
            "resume",
            "steps 1 to 4 equal steps 1 and 2, the state written and read, steps 3 and 4, bit for bit",
            SMALL,
            clip=1.0,
        ),
        case("resume-after-one", "stopped after the first step, where the corrections are largest", TINY_POST, stop=1),
    ]
