"""L7: what one of several ranks computes and sends. The whole is given; a rank takes its own part of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw, bfloat16


def of_weights() -> list[Case]:
    return [*_linear("column", "columns"), *_linear("row", "rows"), *_feed_forward(), *_heads()]


def _linear(name: str, cut: str) -> list[Case]:
    def case(slug: str, about: str, x: tuple[int, ...], outputs: int, ranks: int, rank: int) -> Case:
        id = f"PAR/{name}-{slug}"
        draw = Draw(id)
        inputs = {"x": draw.normal(*x), "W": draw.normal(x[-1], outputs), "b": draw.normal(outputs)}
        return Case(id, f"{name}_parallel_linear", about, inputs, {"ranks": ranks, "rank": rank})

    return [
        case("first", f"the first of two ranks has the first half of the {cut}", (2, 4), 4, 2, 0),
        case("last", f"the last of two ranks: the other half of the {cut}", (3, 4), 4, 2, 1),
        case("uneven", f"five {cut} over three ranks: two, two and one", (2, 5), 5, 3, 2),
        case("middle", "the middle one of three, with a batch", (2, 1, 3), 3, 3, 1),
        case("alone", "one rank: the linear map itself", (1, 2), 2, 1, 0),
    ]


def _feed_forward() -> list[Case]:
    def case(slug: str, about: str, activation: str, ranks: int, rank: int) -> Case:
        id = f"PAR/feed-forward-{slug}"
        draw = Draw(id)
        shapes = {"W1": (2, 4), "b1": (4,), "W2": (4, 2), "b2": (2,)}
        inputs = {"x": draw.normal(3, 2), **{f"p.{name}": draw.normal(*shape) for name, shape in shapes.items()}}
        keywords = {"activation": activation, "ranks": ranks, "rank": rank}
        return Case(id, "parallel_feed_forward", about, inputs, keywords)

    return [
        case("first", "columns of the first map, rows of the second, and the bias of the second", "gelu_erf", 2, 0),
        case("last", "the last rank does not add the second bias", "relu", 2, 1),
        case("uneven", "four inner numbers over three ranks: two, two and none; here two", "gelu_tanh", 3, 1),
    ]


def _heads() -> list[Case]:
    def case(slug: str, about: str, heads: int, D: int, ranks: int, rank: int, causal: bool,
             allowed: Any = None) -> Case:  # fmt: skip
        id = f"PAR/heads-{slug}"
        draw, C = Draw(id), heads * D
        shapes = {"Wqkv": (C, 3 * C), "bqkv": (3 * C,), "Wo": (C, C), "bo": (C,)}
        inputs = {"x": draw.normal(3, C), **{f"p.{name}": draw.normal(*shape) for name, shape in shapes.items()}}
        mask = None if allowed is None else np.array(allowed)
        keywords = {"heads": heads, "causal": causal, "allowed": mask, "ranks": ranks, "rank": rank}
        return Case(id, "head_parallel_attention", about, inputs, keywords)

    return [
        case("first", "a head of two: three pieces of the columns, not the first half of them", 2, 2, 2, 0, True),
        case("last", "the other head, without the bias of the output", 2, 1, 2, 1, False,
             [[[True, False, True]]]),
        case("uneven", "three heads over two ranks: two and one", 3, 1, 2, 1, True),
    ]  # fmt: skip


def of_the_vocabulary() -> list[Case]:
    def of_rows(slug: str, about: str, shape: tuple[int, int], ids: Any, ranks: int, rank: int) -> Case:
        id = f"PAR/embedding-{slug}"
        keywords = {"ids": np.array(ids), "ranks": ranks, "rank": rank}
        return Case(id, "vocabulary_parallel_embedding", about, {"E": Draw(id).normal(*shape)}, keywords)

    def sums(
        slug: str, about: str, shape: tuple[int, ...], targets: Any, ranks: int, rank: int, scale: float = 2.0
    ) -> Case:
        id = f"PAR/sums-{slug}"
        inputs = {"logits": Draw(id).normal(*shape, scale=scale)}
        keywords = {"targets": np.array(targets), "ranks": ranks, "rank": rank}
        return Case(id, "vocabulary_parallel_sums", about, inputs, keywords)

    def loss(slug: str, about: str, shape: tuple[int, ...], targets: Any, ignore: int | None = None,
             l: Any = None) -> Case:  # fmt: skip
        id = f"PAR/vocabulary-loss-{slug}"
        draw = Draw(id)
        inputs = {"l": draw.normal(*shape, scale=2.0) if l is None else np.array(l), "t": draw.normal(*shape)}
        keywords = {"targets": np.array(targets), "ignore": ignore}
        return Case(id, "vocabulary_parallel_cross_entropy", about, inputs, keywords)

    return [
        of_rows("first", "rows of the other rank give zeros", (4, 2), [3, 0, 1, 0], 2, 0),
        of_rows("last", "an id counts from the first own row", (4, 2), [[3, 0], [2, 3]], 2, 1),
        of_rows("uneven", "five rows over two ranks: three and two", (5, 2), [2, 3, 4, 2], 2, 1),
        of_rows(
            "none", "four rows over three ranks: the last has none", (4, 2), [3, 0, 1], 3, 2
        ),
        sums("first", "targets of the other rank: 0, and no gradient", (3, 4), [0, 3, 1], 2, 0),
        sums("last", "a target counts from the first own logit", (3, 4), [0, 3, 2], 2, 1),
        sums("uneven", "five words over three ranks: the last has one", (2, 5), [4, 1], 3, 2),
        sums("ignored", "a target that is no word is nobody's", (2, 4), [-100, 1], 2, 0),
        sums("large", "logits that overflow without the shift", (2, 4), [3, 2], 2, 1, 512.0),
        sums("none", "a rank without a word sends -∞, which adds nothing, and 0", (2, 4), [0, 3], 3, 2),
        loss("two", "the mean over three places of what two ranks sent", (2, 3), [0, 1, 2]),
        loss("three", "three ranks, one target ignored: the count is two", (3, 3), [5, -1, 0], -1),
        loss("texts", "texts of several places", (2, 2, 2), [[0, 1], [-1, 2]], -1),
        loss(
            "none", "the third rank has no word and sent -∞", (3, 2), [0, 1], l=[[1.0, -2.0], [0.5, 3.0], [-np.inf] * 2]
        ),
        loss("large", "sums whose exponentials overflow", (2, 2), [0, 1], l=[[1000.0, -1000.0], [996.0, -992.0]]),
    ]  # fmt: skip


def of_places() -> list[Case]:
    def norm(slug: str, about: str, shape: tuple[int, ...], ranks: int, rank: int) -> Case:
        id = f"PAR/norm-{slug}"
        draw, C = Draw(id), shape[-1]
        inputs = {"x": draw.normal(*shape), "g": draw.normal(C, offset=1.0), "b": draw.normal(C)}
        return Case(id, "sequence_parallel_norm", about, inputs, {"eps": 1e-5, "ranks": ranks, "rank": rank})

    def dropout(slug: str, about: str, shape: tuple[int, ...], rate: float, ranks: int, rank: int) -> Case:
        id = f"PAR/dropout-{slug}"
        draw = Draw(id)
        keywords = {"keep": draw.mask(*shape, true=1 - rate), "rate": rate, "ranks": ranks, "rank": rank}
        return Case(id, "sequence_parallel_dropout", about, {"x": draw.normal(*shape)}, keywords)

    def ring(slug: str, about: str, lead: tuple[int, ...], T: int, ranks: int, rank: int, causal: bool,
             allowed: Any = None) -> Case:  # fmt: skip
        id = f"PAR/ring-{slug}"
        draw = Draw(id)
        inputs = {"q": draw.normal(*lead, T, 2), "k": draw.normal(*lead, T, 2), "v": draw.normal(*lead, T, 3)}
        mask = None if allowed is None else np.array(allowed)
        keywords = {"causal": causal, "allowed": mask, "ranks": ranks, "rank": rank}
        return Case(id, "ring_attention", about, inputs, keywords)

    return [
        norm("first", "gain and bias get the gradient of the own places alone", (4, 3), 2, 0),
        norm("last", "the last places of each text", (2, 3, 2), 2, 1),
        norm("square", "as many places as entries: the cut is over places", (4, 4), 2, 1),
        dropout("last", "the draws for the last places, not those for the first", (4, 3), 0.25, 2, 1),
        dropout("batch", "two texts, the middle one of three ranks", (2, 3, 3), 0.5, 3, 1),
        ring("all", "two ranks: the own keys, then those of the other", (), 4, 2, 0, False),
        ring("causal-last", "the last of three ranks sees all keys before it, from its place in the text", (), 6, 3, 2,
             True),
        ring("causal-first", "the first rank sees nothing of what comes round: its weight is 0", (2,), 4, 2, 0, True),
        ring("masked", "a block without an allowed key, and one query without any", (), 4, 2, 1, False,
             [[True, True, True, True], [True, True, True, True], [False, True, False, False], [False] * 4]),
        ring("uneven", "five places over two ranks, causal: two queries", (), 5, 2, 1, True),
    ]  # fmt: skip


def of_experts_and_layers() -> list[Case]:
    def experts(slug: str, about: str, chosen: Any, count: int, capacity: int, ranks: int, rank: int,
                activation: str = "relu") -> Case:  # fmt: skip
        id = f"PAR/experts-{slug}"
        draw, who = Draw(id), np.array(chosen)
        shapes = {"W1": (count, 2, 1), "b1": (count, 1), "W2": (count, 1, 2), "b2": (count, 2)}
        inputs = {"x": draw.normal(*who.shape, 2), "g": draw.normal(*who.shape, offset=0.5)}
        inputs |= {f"p.{name}": draw.normal(*shape) for name, shape in shapes.items()}
        keywords = {"chosen": who, "capacity": capacity, "activation": activation, "ranks": ranks, "rank": rank}
        return Case(id, "expert_parallel_layer", about, inputs, keywords)

    def stage(slug: str, about: str, shape: tuple[int, ...], layers: int, ranks: int, rank: int) -> Case:
        id = f"PAR/stage-{slug}"
        draw, C = Draw(id), shape[-1]
        shapes = {"W1": (C, 2), "b1": (2,), "W2": (2, C), "b2": (C,)}
        inputs = {"x": draw.normal(*shape)}
        inputs |= {f"p.layers.{n}.{name}": draw.normal(*s) for n in range(layers) for name, s in shapes.items()}
        keywords = {"activation": "gelu_erf", "ranks": ranks, "rank": rank}
        return Case(id, "pipeline_stage", about, inputs, keywords)

    return [
        experts("first", "two of four experts; a token of the others gets zeros here", [0, 3, 1, 0], 4, 2, 2, 0),
        experts("last", "an expert is known by its number among all", [2, 3, 0, 3, 2], 4, 2, 2, 1, "gelu_tanh"),
        experts("full", "room for one token of each text: the second is dropped", [[1, 1, 0], [1, 0, 1]], 2, 1, 2, 1),
        experts("uneven", "three experts over two ranks: the last has one", [2, 0, 2, 1], 3, 2, 2, 1),
        stage("first", "two micro-batches through the first of two layers", (2, 1, 2), 2, 2, 0),
        stage("last", "two layers of four: the last ones, in their order", (3, 1, 2), 4, 2, 1),
        stage("uneven", "three layers over two ranks: two and one", (2, 2, 2), 3, 2, 1),
    ]


def of_the_batch() -> list[Case]:
    def loss(slug: str, about: str, shape: tuple[int, ...], counts: Any, ranks: int, rank: int,
             ignore: int | None = -100) -> Case:  # fmt: skip
        """`counts`: how many targets of each text count; the rest is padding."""
        id = f"PAR/data-{slug}"
        draw = Draw(id)
        logits, targets = draw.normal(*shape, scale=2.0), draw.integers(*shape[:-1], high=shape[-1])
        for row, count in zip(targets, counts, strict=True):
            row[count:] = -100
        keywords = {"targets": targets, "ignore": ignore, "ranks": ranks, "rank": rank}
        return Case(id, "data_parallel_cross_entropy", about, {"logits": logits}, keywords)

    def squares(slug: str, about: str, cut: list[bool], ranks: int, rank: int) -> Case:
        id = f"PAR/squares-{slug}"
        draw = Draw(id)
        inputs = {f"g.{n}": draw.normal(4, 2) if is_cut else draw.normal(3) for n, is_cut in enumerate(cut)}
        keywords = {"cut": np.array(cut), "ranks": ranks, "rank": rank}
        return Case(id, "sharded_squares", about, inputs, keywords, gradient=False)

    def clip(slug: str, about: str, squares: list[float], clip: float) -> Case:
        id = f"PAR/clip-{slug}"
        draw = Draw(id)
        inputs = {"g.0": draw.normal(2, 2), "g.1": draw.normal(2), "squares": np.array(squares)}
        return Case(id, "sharded_clip", about, inputs, {"clip": clip}, gradient=False)

    def adamw(slug: str, about: str, size: int, ranks: int, rank: int, **how: Any) -> Case:
        id = f"PAR/adamw-{slug}"
        draw = Draw(id)
        mine = len(range(size)[-(-size // ranks) * rank : -(-size // ranks) * (rank + 1)])
        inputs = {"p": draw.normal(size), "g": draw.normal(ranks, size), "m": draw.normal(mine)}
        inputs["v"] = bfloat16(draw.normal(mine) ** 2)
        keywords = {"decayed": np.arange(size) % 3 != 1, "step": 3, "lr": 0.125, "beta1": 0.75, "beta2": 0.875,
                    "eps": 1e-3, "decay": 0.5, "ranks": ranks, "rank": rank, **how}  # fmt: skip
        return Case(id, "sharded_adamw", about, inputs, keywords, gradient=False)

    return [
        loss("first", "four targets here and one there: both are divided by five", (2, 4, 3), [4, 1], 2, 0),
        loss("last", "the share of the short texts", (3, 3, 3), [3, 2, 1], 2, 1),
        loss("padding", "a rank without a target adds nothing, and does not divide by it", (2, 2, 4), [1, 0], 2, 1),
        loss("even", "equal counts: the mean of the means would be the same", (2, 2, 3), [2, 2], 2, 0),
        loss("all", "no target is ignored: divided by all of them", (3, 2, 3), [2, 2, 2], 2, 1, None),
        squares("first", "what all ranks have is counted on the first", [True, False, True], 2, 0),
        squares("last", "and not on the last", [False, True, True], 2, 1),
        squares("whole", "nothing is cut: a rank after the first sends 0, one before it all", [False, False], 3, 0),
        clip("above", "three ranks sent 9, 4 and 3: a norm of 4 is brought to 1", [9.0, 4.0, 3.0], 1.0),
        clip("below", "a norm of 4 is left below a clip of 5", [10.0, 6.0], 5.0),
        clip("at", "just at the clip: nothing changes", [9.0, 16.0], 5.0),
        adamw("first", "the first half; moments of nothing else", 6, 2, 0),
        adamw("last", "the decay of the own parameters, not of the first ones", 5, 2, 1),
        adamw("one-step", "the first step of three ranks", 6, 3, 1, step=1),
    ]
