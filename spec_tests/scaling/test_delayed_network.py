"""Laws of the switch between namespaces, with sockets for network cards: no frame is early, lost or out of order."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from measuring.delayed_network import Switch

EVERYBODY = b"\xff" * 6


def hardware(number: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, number])


def frame(to: bytes, number: int, size: int) -> bytes:
    return to + hardware(number) + b"\0" * (size - 12)


@contextlib.contextmanager
def switched(count: int, *, delay: float, bandwidth: float) -> Iterator[list[socket.socket]]:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)]
    for card, machine in pairs:
        card.setblocking(False)
        machine.settimeout(5)
    switch = Switch([card.fileno() for card, _ in pairs], delay=delay, bandwidth=bandwidth)
    try:
        yield [machine for _, machine in pairs]
    finally:
        switch.stop()
        for both in pairs:
            for end in both:
                end.close()


def waiting_at(machine: Any) -> bool:
    machine.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        machine.recv(1 << 16)
        return True
    return False


@pytest.mark.host
def test_a_frame_is_never_early_and_frames_keep_their_order() -> None:
    delay, bandwidth, size = 0.02, 1e5, 1000
    with switched(2, delay=delay, bandwidth=bandwidth) as (one, other):
        start = time.monotonic()
        for number in range(3):
            one.send(frame(EVERYBODY, number, size))
        for number in range(3):
            assert other.recv(1 << 16) == frame(EVERYBODY, number, size)
            assert time.monotonic() - start >= delay + (number + 1) * size / bandwidth


@pytest.mark.host
def test_a_frame_goes_to_its_card_alone_once_that_is_known() -> None:
    with switched(3, delay=0.0, bandwidth=1e9) as machines:
        machines[1].send(frame(EVERYBODY, 1, 60))
        for other in (0, 2):
            assert machines[other].recv(1 << 16) == frame(EVERYBODY, 1, 60)
        machines[0].send(frame(hardware(1), 0, 60))
        assert machines[1].recv(1 << 16) == frame(hardware(1), 0, 60)
        assert not waiting_at(machines[2])
        assert not waiting_at(machines[0])
