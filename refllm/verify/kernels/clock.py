"""How long is searched: seconds of work of this thread, as a machine that others use too gives fewer of them."""

from __future__ import annotations

import time

WALL = 6.0  # times as long by the clock on the wall, at most
SOME = 0.05  # seconds of work that say how fast it goes


class Clock:
    """Work that is left; `lap` says since when it is measured."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._work, self._wall = time.thread_time(), time.monotonic()

    def used(self) -> float:
        return max(time.thread_time() - self._work, (time.monotonic() - self._wall) / WALL)

    @property
    def pace(self) -> float:
        """How many seconds on the wall a second of this thread takes now: of who counts the former alone."""
        work, wall = time.thread_time() - self._work, time.monotonic() - self._wall
        return min(WALL, max(1.0, wall / work)) if work > SOME else 1.0

    @property
    def is_over(self) -> bool:
        return self.used() >= self.seconds
