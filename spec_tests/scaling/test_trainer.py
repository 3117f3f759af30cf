"""Laws of the trainer's own exchanges: what is predicted is what its ranks call."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.models import gpt
from refllm.parameters import count
from refllm.scaling import cuts, links, trainer
from refllm.scaling.links import Link
from refllm.scaling.workloads import Workload
from spec_tests import test_ranks
from spec_tests.ranks_in_threads import World

LINK = Link(1e-3, 1e9)


@pytest.mark.parametrize("shard", [None, "optimizer"])
def test_a_step_asks_as_often_as_predicted_and_sends_the_bytes_of_the_page(
    shard: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("bcast", "gather", "Alltoallv"):
        original = getattr(World, name)

        def counted(world: World, *arguments: Any, name: str = name, original: Any = original) -> Any:
            called.extend([name] * (world.rank == 0))
            return original(world, *arguments)

        monkeypatch.setattr(World, name, counted)
    counts = []
    for steps in (1, 3):
        called.clear()
        _, meeting = test_ranks.together("gpt", 2, steps, shard=shard)
        counts.append(({name: called.count(name) for name in set(called)}, meeting.bytes[0]))
    (few, first), (more, last) = counts
    assert {name: (more[name] - few[name]) / 2 for name in few} == {
        "bcast": trainer.REQUESTS, "gather": trainer.REQUESTS, "Alltoallv": 2,
    }  # fmt: skip
    size = len(test_ranks.together("gpt", 2, 0)[0][1])
    workload = Workload(size, 0, 1, 4, 4, 8, 11, batch=5, tokens=1, number=8)
    assert (last - first) / 2 == pytest.approx(cuts.data_bytes(workload, 2), rel=1e-3)  # a size that 2 does not divide


def test_a_step_that_gathers_layers_calls_as_often_as_predicted_and_sends_no_more_than_the_page_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[int] = []
    original = World.Alltoallv

    def counted(world: World, *arguments: Any) -> None:
        called.extend([1] * (world.rank == 0))
        original(world, *arguments)

    monkeypatch.setattr(World, "Alltoallv", counted)
    found = []
    for steps in (1, 3):
        called.clear()
        _, meeting = test_ranks.together("gpt", 2, steps, shard="parameters")
        found.append((len(called), sum(meeting.bytes)))
    shapes = gpt.shapes(test_ranks.GPT)
    layers = [8 * count(layer) for layer in shapes["layers"]]
    outside = 8 * count(shapes) - sum(layers)
    calls, sent = ((last - first) / 2 for first, last in zip(*found, strict=True))
    assert calls == 2 + 3 * len(layers)
    assert sent / 2 == trainer.exchanged_by_layers(outside, layers, 2, Link(0, 1.0), batch=0)
    workload = Workload(count(shapes), 0, 1, 4, 4, 8, 11, batch=5, tokens=1, number=8)
    assert cuts.data_bytes(workload, 2) < sent / 2 <= cuts.sharded_bytes(workload, 2)


def test_one_rank_exchanges_nothing_and_the_bytes_are_those_of_an_allreduce() -> None:
    assert trainer.exchanged(1e9, 1, LINK, batch=1e6) == 0
    free = Link(0, LINK.bandwidth)
    assert trainer.exchanged(1e9, 8, free, batch=0) == pytest.approx(links.ring_allreduce(1e9, 8, free))


def test_many_messages_at_once_wait_for_fewer_latencies() -> None:
    for n in numpy.random.default_rng(0).integers(2, 1000, 20).tolist():
        assert links.scattered(1e6, n, LINK) <= links.ring_half(1e6, n, LINK)


def test_a_step_of_more_ranks_is_never_faster() -> None:
    seconds = [trainer.step(0.5, 4e6, n, LINK, batch=1e3, spread=0.02) for n in (1, 2, 4, 8, 64, 1024, 16384)]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0.5
