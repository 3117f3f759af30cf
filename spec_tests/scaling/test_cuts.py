"""Laws of cuts: the bytes of each formula are what the operations of L7 give to others."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.scaling import cuts
from refllm.scaling.cuts import Cut, allreduced
from refllm.scaling.workloads import Workload
from refllm.spec import data_parallel, expert_parallel, pipeline_parallel, sequence_parallel, tensor_parallel
from refllm.spec.shard import shard

B, T, C, F, E = 2, 4, 4, 8, 4
WORKLOAD = Workload(
    parameters=24, looked_up=0, layers=1, width=C, kv_width=C, context=T, vocabulary=7, batch=B, tokens=1e3, number=8
)
RANDOM = numpy.random.default_rng(0).standard_normal
x = RANDOM((B, T, C))


def summed(parts: Any, n: int) -> float:
    """Bytes a rank sends so that all have the sum of what it has."""
    return sum(allreduced(part.nbytes, n) for part in parts)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_tensors_send_four_parts_of_the_hidden_state_a_layer(n: int) -> None:
    attention = {"Wqkv": RANDOM((C, 3 * C)), "bqkv": RANDOM(3 * C), "Wo": RANDOM((C, C)), "bo": RANDOM(C)}
    feed = {"W1": RANDOM((C, F)), "b1": RANDOM(F), "W2": RANDOM((F, C)), "b2": RANDOM(C)}
    here = {"ranks": n, "rank": n - 1}
    y, back = tensor_parallel.head_parallel_attention(x, attention, heads=C, causal=True, attention_mask=None, **here)
    z, feed_back = tensor_parallel.parallel_feed_forward(x, feed, activation="relu", **here)
    sent = [y, back(y)[0], z, feed_back(z)[0]]  # parts of sums; what else a rank has nobody needs
    assert summed(sent, n) == cuts.tensor_bytes(WORKLOAD, n, B)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_ring_sends_each_block_but_ones_own_twice_and_its_gradient_home(n: int) -> None:
    sequence_parallel.ring_attention(x, x, x, causal=True, attention_mask=None, ranks=n, rank=0)
    blocks = [x[:, shard(T, ranks=n, rank=rank)].nbytes for rank in range(n)]
    turns = n - 1  # after which everybody has seen all blocks
    there_and_again = 2 * sum(blocks[:turns])
    gradients_home = sum(blocks) if n > 1 else 0
    assert 2 * (there_and_again + gradients_home) == cuts.ring_bytes(WORKLOAD, n, B)  # keys, and values


def test_a_stage_sends_what_it_computed_and_the_gradient_of_what_it_got() -> None:
    layer = {"W1": RANDOM((C, F)), "b1": RANDOM(F), "W2": RANDOM((F, C)), "b2": RANDOM(C)}
    y, back = pipeline_parallel.pipeline_stage(x, {"layers": [layer] * 3}, activation="relu", ranks=3, rank=1)
    assert y.nbytes + back(y)[0].nbytes == cuts.pipeline_bytes(WORKLOAD, B)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_tokens_go_to_experts_elsewhere_and_back_on_both_ways(n: int) -> None:
    p = {"W1": RANDOM((E, C, F)), "b1": RANDOM((E, F)), "W2": RANDOM((E, F, C)), "b2": RANDOM((E, C))}
    chosen = numpy.tile(numpy.arange(E), (B, 1))  # every expert gets as many
    parts = [
        expert_parallel.expert_parallel_layer(
            x, numpy.ones((B, T)), p, chosen=chosen, capacity=T, activation="relu", ranks=n, rank=rank
        )
        for rank in range(n)
    ]
    came_back = [y for y, _ in parts]
    elsewhere = sum(y[y != 0].nbytes for y in came_back[1:])  # of the tokens that rank 0 had, all of them, by others
    ways = 4 * elsewhere  # there and back, and the gradients of both
    assert ways == cuts.expert_bytes(WORKLOAD, n, B)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_gradients_or_new_weights_send_as_much_with_moments_cut_or_not(n: int) -> None:
    p, g = RANDOM(24), RANDOM((n, 24))
    scattered = gathered = 0
    for rank in range(n):
        own = shard(24, ranks=n, rank=rank)
        m = numpy.zeros(own.stop - own.start)
        new, _, _ = data_parallel.sharded_adamw(
            p, g, m, m, decayed=p > 9, step=1, lr=0.1, beta1=0.9, beta2=0.9, eps=1.0, decay=0.0, ranks=n, rank=rank
        )
        scattered += g[0].nbytes - g[0][own].nbytes  # a rank's gradients of all stretches but its own
        gathered += (n - 1) * new.nbytes
    assert (scattered + gathered) / n == cuts.data_bytes(WORKLOAD, n)
    assert cuts.sharded_bytes(WORKLOAD, n) == 1.5 * cuts.data_bytes(WORKLOAD, n)


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Cut(data=3), "2 texts a batch are too few for 3 processes"),
        (Cut(pipeline=2), "1 layers are too few"),
        (Cut(tensor=5), "lower tensor"),
        (Cut(sequence=5), "lower sequence"),
    ],
)
def test_a_cut_that_leaves_processes_without_work_is_refused(cut: Cut, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cut.require_fit(WORKLOAD)


@pytest.mark.parametrize("wrong", [{"data": 0}, {"micro": -1}, {"state": "half"}])
def test_a_cut_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Cut(**wrong)
