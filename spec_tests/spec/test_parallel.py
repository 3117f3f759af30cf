"""PAR: the parts of all ranks together are what one device computes, forward and backward, exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

from golden.case import Draw
from refllm.numbers import exact
from refllm.numbers.exact import lift
from refllm.spec import data_parallel, expert_parallel, pipeline_parallel, sequence_parallel, tensor_parallel
from refllm.spec import vocabulary_parallel as vocabulary
from refllm.spec.activation import dropout
from refllm.spec.array import concatenate, stack
from refllm.spec.array import sum as added
from refllm.spec.attention import attention
from refllm.spec.cross_entropy import cross_entropy
from refllm.spec.embedding import embedding
from refllm.spec.feed_forward import feed_forward
from refllm.spec.layer_norm import layer_norm
from refllm.spec.linear import linear
from refllm.spec.routing import combine, dispatch
from refllm.spec.self_attention import self_attention
from refllm.spec.shard import shard
from refllm.spec.switch_layer import expert_feed_forward, slots_of
from refllm.spec.tree import leaves, plus
from refllm.spec.update import adamw, clip_by_global_norm
from spec_tests.spec.exactly import furthest

DIGITS, SAME = 120, -90
by_ranks = pytest.mark.parametrize("ranks", [1, 2, 3])
with_one_without_a_word = pytest.mark.parametrize("ranks", [1, 2, 3, 4])  # of five words the fourth rank has none


@pytest.fixture(autouse=True)
def _in_exact_numbers() -> Iterator[None]:
    with exact.digits(DIGITS):
        yield


def drawn(name: str, *shape: int) -> Any:
    return lift(Draw(f"spec_tests.spec.test_parallel {name}").normal(*shape))


def parameters(**shapes: tuple[int, ...]) -> dict[str, Any]:
    return {name: drawn(name, *shape) for name, shape in shapes.items()}


def require_same(found: Any, expected: Any) -> None:
    """Trees of exact numbers that differ by less than is left after the last digit but thirty."""
    of_found, of_expected = leaves(list(found)), leaves(list(expected))
    assert len(of_found) == len(of_expected)
    for x, y in zip(of_found, of_expected, strict=True):
        assert x.shape == y.shape
        assert furthest(lift(x), lift(y)) < SAME


def summed(trees: list[Any]) -> Any:
    """The sum of what the ranks give: what an Allreduce makes of it."""
    return list(itertools.accumulate((list(tree) for tree in trees), plus))[-1]


def as_tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def require_beside(part: Callable[..., Any], whole: tuple[Any, Any], size: int, ranks: int, axis: int) -> None:
    """Values beside each other are the whole's, gradients together its gradients."""
    y, back = whole
    dy = drawn("dy", *y.shape)
    parts = [part(ranks=ranks, rank=rank) for rank in range(ranks)]
    require_same([concatenate([y_part for y_part, _ in parts], axis=axis)], [y])
    cuts = [(slice(None),) * (y.ndim + axis) + (shard(size, ranks=ranks, rank=rank),) for rank in range(ranks)]
    gradients = [as_tuple(part_back(dy[cut])) for (_, part_back), cut in zip(parts, cuts, strict=True)]
    require_same(summed(gradients), as_tuple(back(dy)))


def require_sum(part: Callable[..., Any], whole: tuple[Any, Any], ranks: int) -> None:
    """The sum of the values is the whole's, and so is that of the gradients; every rank has the same dy."""
    y, back = whole
    dy = drawn("dy", *y.shape)
    parts = [part(ranks=ranks, rank=rank) for rank in range(ranks)]
    require_same(summed([[y_part] for y_part, _ in parts]), [y])
    require_same(summed([as_tuple(part_back(dy)) for _, part_back in parts]), as_tuple(back(dy)))


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("ranks", range(1, 6))
def test_every_place_belongs_to_one_rank(size: int, ranks: int) -> None:
    own = [shard(size, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert [place for cut in own for place in range(size)[cut]] == list(range(size))


@by_ranks
def test_columns_and_rows_of_a_linear_map(ranks: int) -> None:
    x, W, b = drawn("x", 2, 3, 5), drawn("W", 5, 5), drawn("b", 5)
    whole = linear(x, W, b)
    require_beside(lambda **n: tensor_parallel.column_parallel_linear(x, W, b, **n), whole, 5, ranks, -1)
    require_sum(lambda **n: tensor_parallel.row_parallel_linear(x, W, b, **n), whole, ranks)


@by_ranks
def test_a_feed_forward_layer(ranks: int) -> None:
    x, p = drawn("x", 3, 2), parameters(W1=(2, 5), b1=(5,), W2=(5, 2), b2=(2,))
    whole = feed_forward(x, p, activation="gelu_erf")
    require_sum(lambda **n: tensor_parallel.parallel_feed_forward(x, p, activation="gelu_erf", **n), whole, ranks)


@by_ranks
def test_heads_of_attention(ranks: int) -> None:
    x, p = drawn("x", 2, 3, 6), parameters(Wqkv=(6, 18), bqkv=(18,), Wo=(6, 6), bo=(6,))
    how: dict[str, Any] = {"heads": 3, "causal": True, "attention_mask": None}
    require_sum(
        lambda **n: tensor_parallel.head_parallel_attention(x, p, **how, **n), self_attention(x, p, **how), ranks
    )


@with_one_without_a_word
def test_the_rows_of_an_embedding(ranks: int) -> None:
    E, ids = drawn("E", 5, 2), numpy.array([[0, 4, 4], [2, 3, 1]])
    require_sum(lambda **n: vocabulary.vocabulary_parallel_embedding(E, ids=ids, **n), embedding(E, ids=ids), ranks)


@with_one_without_a_word
@pytest.mark.parametrize("ignore", [None, -1])
def test_what_the_ranks_send_of_their_logits_is_enough_for_the_loss(ranks: int, ignore: int | None) -> None:
    logits, targets = drawn("logits", 2, 3, 5), numpy.array([[0, 4, 2], [1, 3, 3]])
    if ignore is not None:
        targets[0, 1] = targets[1, 2] = ignore
    loss, back = cross_entropy(logits, targets=targets, ignore=ignore, reduction="mean")
    sent = [
        vocabulary.vocabulary_parallel_sums(logits, targets=targets, ranks=ranks, rank=rank) for rank in range(ranks)
    ]
    l, t = (stack([values[n] for values, _ in sent], axis=0) for n in (0, 1))
    y, y_back = vocabulary.vocabulary_parallel_cross_entropy(l, t, targets=targets, ignore=ignore)
    require_same([y], [loss])
    dy = drawn("dy")
    dl, dt = y_back(dy)
    require_same(summed([[sums_back(dl[r], dt[r])] for r, (_, sums_back) in enumerate(sent)]), [back(dy)])


@by_ranks
def test_a_norm_and_dropout_of_places(ranks: int) -> None:
    x, g, b = drawn("x", 2, 5, 3), drawn("g", 3), drawn("b", 3)
    mask = Draw("mask").mask(2, 5, 3, true=0.75)
    norm = layer_norm(x, g, b, eps=1e-5)
    require_beside(lambda **n: sequence_parallel.sequence_parallel_norm(x, g, b, eps=1e-5, **n), norm, 5, ranks, -2)
    dropped = dropout(x, dropout_mask=mask, rate=0.25)
    require_beside(
        lambda **n: sequence_parallel.sequence_parallel_dropout(x, dropout_mask=mask, rate=0.25, **n),
        dropped, 5, ranks, -2,
    )  # fmt: skip


@pytest.mark.one_in(4)
@by_ranks
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_to_which_keys_come_in_turn(ranks: int, causal: bool, masked: bool) -> None:
    q, k, v = drawn("q", 2, 5, 2), drawn("k", 2, 5, 2), drawn("v", 2, 5, 3)
    mask = Draw("allowed").mask(2, 5, 5, true=0.6) if masked else None
    how: dict[str, Any] = {"causal": causal, "attention_mask": mask}
    require_beside(
        lambda **n: sequence_parallel.ring_attention(q, k, v, **how, **n), attention(q, k, v, **how), 5, ranks, -2
    )


@by_ranks
def test_experts_with_room_for_some_tokens(ranks: int) -> None:
    chosen = numpy.array([[0, 2, 2, 2], [1, 0, 1, 1]])
    x, g = drawn("x", 2, 4, 2), drawn("g", 2, 4)
    p = parameters(W1=(3, 2, 3), b1=(3, 3), W2=(3, 3, 2), b2=(3, 2))
    slots = slots_of(chosen, experts=3, capacity=2, token_mask=None)
    came, dispatch_back = dispatch(x, slots=slots, experts=3, capacity=2)
    a, experts_back = expert_feed_forward(came, p, activation="relu")
    y, combine_back = combine(a, g, slots=slots)

    def back(dy: Any) -> tuple[Any, ...]:
        da, dg = combine_back(dy)
        dcame, dp = experts_back(da)
        return dispatch_back(dcame), dg, dp

    require_sum(
        lambda **n: expert_parallel.expert_parallel_layer(
            x, g, p, chosen=chosen, capacity=2, activation="relu", **n
        ),
        (y, back), ranks,
    )  # fmt: skip


@by_ranks
def test_layers_one_rank_after_the_other(ranks: int) -> None:
    """What a rank sends is what the next begins with, and its gradient comes back from there."""
    x = drawn("x", 2, 3, 2)
    p = {"layers": [parameters(W1=(2, 3), b1=(3,), W2=(3, 2), b2=(2,)) for _ in range(5)]}
    y, back = pipeline_parallel.pipeline_stage(x, p, activation="gelu_tanh", ranks=1, rank=0)
    h, backs = x, []
    for rank in range(ranks):
        h, stage_back = pipeline_parallel.pipeline_stage(h, p, activation="gelu_tanh", ranks=ranks, rank=rank)
        backs.append(stage_back)
    require_same([h], [y])
    dy = drawn("dy", *y.shape)
    dh, found = dy, []
    for stage_back in reversed(backs):
        dh, dp = stage_back(dh)
        found.append([dp])
    require_same([dh, *summed(found)], back(dy))


def test_a_pipeline_does_not_mix_micro_batches() -> None:
    """The first layer by itself, of one micro-batch by itself."""
    x, p = drawn("x", 2, 3, 2), parameters(W1=(2, 3), b1=(3,), W2=(3, 2), b2=(2,))
    y, _ = pipeline_parallel.pipeline_stage(x, {"layers": [p]}, activation="relu", ranks=1, rank=0)
    require_same([y[1]], [x[1] + feed_forward(x[1], p, activation="relu")[0]])


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_mean_over_texts_of_unequal_length(ranks: int) -> None:
    """Of four ranks the last has no text."""
    logits, targets = drawn("logits", 3, 4, 3), numpy.array([[0, 1, 2, 0], [1, -1, -1, -1], [2, 2, -1, -1]])
    whole = cross_entropy(logits, targets=targets, ignore=-1, reduction="mean")
    require_sum(
        lambda **n: data_parallel.data_parallel_cross_entropy(logits, targets=targets, ignore=-1, **n), whole, ranks
    )


@by_ranks
@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_the_norm_of_gradients_that_are_cut_and_of_those_that_are_not(ranks: int, clip: float) -> None:
    g, cut = [drawn("a", 5, 2), drawn("b", 3), drawn("c", 6)], numpy.array([True, False, True])
    norm, clipped = clip_by_global_norm(g, clip=lift(clip))
    squares = stack(
        [data_parallel.sharded_squares(g, cut=cut, ranks=ranks, rank=rank) for rank in range(ranks)], axis=0
    )
    for rank in range(ranks):
        own = [x[shard(len(x), ranks=ranks, rank=rank)] if is_cut else x for x, is_cut in zip(g, cut, strict=True)]
        want = [
            x[shard(len(x), ranks=ranks, rank=rank)] if is_cut else x for x, is_cut in zip(clipped, cut, strict=True)
        ]
        found_norm, found = data_parallel.sharded_clip(own, squares, clip=lift(clip))
        require_same([found_norm, *found], [norm, *want])


@by_ranks
def test_the_stretches_of_a_step_are_the_step(ranks: int) -> None:
    p, m, v = drawn("p", 5), drawn("m", 5), drawn("v", 5) * drawn("v", 5)
    g, decayed = drawn("g", ranks, 5), numpy.array([True, False, True, True, False])
    how = {name: lift(x) for name, x in {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8}.items()}
    steps = [adamw(p, added(g, axis=0, keepdims=False), m, v, step=3, decay=lift(decay), **how) for decay in (0.5, 0.0)]
    parts = []
    for rank in range(ranks):
        own = shard(5, ranks=ranks, rank=rank)
        parts.append(
            data_parallel.sharded_adamw(
                p, g, m[own], v[own], decayed=decayed, step=3, decay=lift(0.5), ranks=ranks, rank=rank, **how
            )
        )
    found = [concatenate([part[n] for part in parts], axis=0) for n in range(3)]
    for n, is_decayed in enumerate(decayed):
        require_same([found[0][n : n + 1]], [steps[0 if is_decayed else 1][0][n : n + 1]])
    require_same(found[1:], steps[0][1:])
