"""What a search may take is work of its own thread: waiting for the processor takes nothing of it, up to a bound."""

from __future__ import annotations

import time

import pytest

from refllm.verify.kernels.clock import WALL, Clock


def test_a_busy_machine_leaves_the_search_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    work, wall = [0.0], [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: work[0])
    monkeypatch.setattr(time, "monotonic", lambda: wall[0])
    held = Clock(10)
    wall[0] = 9 * WALL
    assert not held.is_over
    wall[0] = 10 * WALL
    assert held.is_over


def test_work_that_is_done_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    work = [0.0]
    monkeypatch.setattr(time, "thread_time", lambda: work[0])
    held = Clock(10)
    work[0] = 10.0
    assert held.is_over
    assert held.used() == 10.0
