"""Ranks with a GPU each: the bits of ranks on the host, whichever way their vectors go."""

from __future__ import annotations

import sys
from typing import Any

import numpy
import pytest

from refllm import exchange, ranks
from refllm.errors import UserError
from refllm.exchange import DeviceExchange, HostExchange, NcclExchange, StagedExchange
from refllm.ranks import Ranks
from spec_tests.devices import DOUBLE, replaced
from spec_tests.ranks_in_threads import Nccl, on_ranks
from spec_tests.test_ranks import together

WAYS: dict[str, type[HostExchange]] = {"staged": StagedExchange, "device": DeviceExchange, "nccl": NcclExchange}


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The GPUs that ranks have taken, each with how many share the machine."""
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(ranks, "use_gpu", lambda number, sharing: taken.append((number, sharing)))
    return taken


def settled(way: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a rank choose that way by itself, from what there is."""
    nccl = Nccl()
    monkeypatch.setitem(sys.modules, "nccl.core", nccl)
    monkeypatch.setattr(exchange, "has_nccl", lambda: way == "nccl")

    def settle(workers: Ranks) -> None:
        nccl.meeting = workers.world.meeting
        workers.world.takes_device_arrays = way == "device"
        workers.settle("cuda")
        assert type(workers.exchange) is WAYS[way]

    return settle


@pytest.mark.one_in(4)
@pytest.mark.parametrize("shard", [None, "optimizer"])
@pytest.mark.parametrize("way", WAYS)
def test_ranks_on_a_device_have_the_bits_of_ranks_on_the_host(
    way: str, shard: str | None, used: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with replaced():
        expected, _ = together("gpt", 3, 2, shard=shard, clip=0.05, dtype="float32")
    with DOUBLE.present():
        found, _ = together(
            "gpt", 3, 2, shard=shard, clip=0.05, dtype="float32", device="cuda", settled=settled(way, monkeypatch)
        )
    for one, other in zip(expected, found, strict=True):
        numpy.testing.assert_array_equal(one, other)
    assert sorted(used) == [(0, 3), (1, 3), (2, 3)]


def test_a_way_that_one_rank_lacks_is_nobodys(used: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def life(workers: Ranks) -> Any:
        workers.world.takes_device_arrays = workers.world.rank != 1
        workers.settle("cuda")
        return type(workers.exchange)

    monkeypatch.setattr(exchange, "has_nccl", lambda: False)
    with DOUBLE.present():
        found, _ = on_ranks(3, life)
    assert found == [StagedExchange] * 3
    assert len(used) == 3


def test_more_ranks_than_gpus_are_refused_by_all_of_them() -> None:
    def life(workers: Ranks) -> Any:
        with pytest.raises(UserError, match="2 ranks on a machine with one GPU: each needs one of its own"):
            workers.settle("cuda")

    with DOUBLE.present():
        on_ranks(2, life)
