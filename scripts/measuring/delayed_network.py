"""A slow network on one machine: network namespaces of Linux, joined by a switch in this process that delays frames.

Each namespace has a network card of its own (TAP) with the address 10.77.0.N. A frame leaves its card when those before
it have left, at so many bytes a second, and arrives `delay` seconds later. It needs root, and no module of the kernel
but tun: `tc netem` does the same where the kernel has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

_TUNSETIFF, _TAP_WITHOUT_HEADER = 0x400454CA, 0x0002 | 0x1000  # linux/if_tun.h
MTU = 9000
CARD = "card0"


def address(number: int) -> str:
    return f"10.77.0.{number + 1}"


def name(number: int) -> str:
    return f"refllm-{os.getpid()}-{number}"


def why_not() -> str | None:
    """Why there can be no such network here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "this kernel has no /dev/net/tun"
    return None


@contextlib.contextmanager
def network(count: int, *, delay: float, bandwidth: float) -> Iterator[None]:
    """So many namespaces, for as long as it is open."""
    with contextlib.ExitStack() as closing:
        cards = []
        for number in range(count):
            _ip("netns", "add", name(number))
            closing.callback(_ip, "netns", "del", name(number))
            cards.append(_card(number))
            closing.callback(os.close, cards[-1])
        switch = Switch(cards, delay=delay, bandwidth=bandwidth)
        closing.callback(switch.stop)
        yield


def _card(number: int) -> int:
    """A TAP of this process, whose other end is the network card of the namespace."""
    card, here = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK), f"rtap{number}"
    fcntl.ioctl(card, _TUNSETIFF, struct.pack("16sH22x", here.encode(), _TAP_WITHOUT_HEADER))
    _ip("link", "set", here, "netns", name(number), "name", CARD)
    inside = ("netns", "exec", name(number))
    _ip("-n", name(number), "link", "set", "lo", "up")
    _ip("-n", name(number), "link", "set", CARD, "mtu", str(MTU), "txqueuelen", "10000", "up")
    _ip("-n", name(number), "addr", "add", f"{address(number)}/24", "dev", CARD)
    # a connection that has rested begins slowly again otherwise, and every step would measure that
    _ip(*inside, "sh", "-c", "echo 0 > /proc/sys/net/ipv4/tcp_slow_start_after_idle")
    return card


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


class Switch:
    """Passes frames on by their destination, each when it is due."""

    def __init__(self, cards: list[int], *, delay: float, bandwidth: float) -> None:
        self.cards, self.delay, self.bandwidth = cards, delay, bandwidth
        self._free = [0.0] * len(cards)  # when a card has sent what it was given
        self._behind: dict[bytes, int] = {}  # the card of a hardware address
        self._due: list[tuple[float, int, int, bytes]] = []
        self._number = 0
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        poll = select.epoll()
        by_descriptor = {card: number for number, card in enumerate(self.cards)}
        for card in self.cards:
            poll.register(card, select.EPOLLIN)
        while not self._ended:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 0.05
            for descriptor, _ in poll.poll(min(wait, 0.05)):
                self._take(by_descriptor[descriptor])
            self._deliver()
        poll.close()

    def _take(self, number: int) -> None:
        """All frames that a card has."""
        while True:
            try:
                frame = os.read(self.cards[number], MTU + 64)
            except BlockingIOError:
                return
            self._behind[frame[6:12]] = number
            self._free[number] = max(self._free[number], time.monotonic()) + len(frame) / self.bandwidth
            to = self._behind.get(frame[:6])
            for other in range(len(self.cards)) if to is None else [to]:
                if other != number:
                    self._number += 1
                    heapq.heappush(self._due, (self._free[number] + self.delay, self._number, other, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, number, frame = heapq.heappop(self._due)
            with contextlib.suppress(BlockingIOError):  # a full card loses frames, as a real one does
                os.write(self.cards[number], frame)
