"""Parts of a product in threads of refllm's own, each with a BLAS of one thread: none waits in a loop of a BLAS."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from queue import SimpleQueue
from typing import Any

Task = Callable[[int, int, int], None]
SHARED = 1 << 18  # numbers from which on a product is worth more than one thread


def part_count(work: int, across: int) -> int:
    """In how many parts a product of so many numbers is worth being cut along an axis: as many as BLAS has threads."""
    if work < SHARED:
        return 1
    threads = _blas().threads()
    return threads if across >= 4 * threads else 1


def in_parts(task: Task, across: int, count: int) -> None:
    """`task(part, first, last)` for `count` parts of an axis, at the same time where no other thread is at it."""
    if count == 1:
        task(0, 0, across)
        return
    cuts = [(across * n // count // 2 * 2, across * (n + 1) // count // 2 * 2) for n in range(count)]
    cuts[-1] = (cuts[-1][0], across)  # cut at even places: a word holds two numbers
    if not _sharing().acquire(blocking=False):
        for part, cut in enumerate(cuts):
            task(part, *cut)
        return
    before = _blas().threads()
    try:
        _blas().limit(1)
        helpers = _helpers(count - 1)
        for part in range(1, count):
            helpers.begin(task, part, *cuts[part])
        failures: list[BaseException] = []
        try:
            task(0, *cuts[0])
        finally:  # what they write to stays until they are done
            failures += [failure for _ in range(1, count) if (failure := helpers.ended()) is not None]
        for failure in failures:
            raise failure
    finally:
        _blas().limit(before)
        _sharing().release()


@contextlib.contextmanager
def one_thread_of_blas() -> Iterator[None]:
    """In this context BLAS has one thread: where products stand between much other work, the threads of a BLAS wait for
    the next in a loop, and on a machine that has other work they wait for each other longer than they compute."""
    if not _sharing().acquire(blocking=False):  # who has it has set the threads
        yield
        return
    before = _blas().threads()
    try:
        _blas().limit(1)
        yield
    finally:
        _blas().limit(before)
        _sharing().release()


class _Helpers:
    """Threads that wait for work. Of a product a thread has a tenth of a millisecond to do: futures are too slow."""

    def __init__(self, count: int) -> None:
        self.tasks: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()
        for n in range(count):
            threading.Thread(target=self._work, name=f"refllm-product-{n}", daemon=True).start()

    def begin(self, task: Task, *part: int) -> None:
        self.tasks.put((task, *part))

    def ended(self) -> BaseException | None:
        """Waits for one of them: what it raised, or None."""
        return self.done.get()

    def _work(self) -> None:
        while True:
            task, *part = self.tasks.get()
            failure: BaseException | None = None
            try:
                task(*part)
            except BaseException as raised:  # handed on to who waits
                failure = raised
            del task  # and with it the arrays that it holds
            self.done.put(failure)


class _Blas:
    """How many threads BLAS has, and how to give it another number of them, in a microsecond."""

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController  # here, since few that import this need it

        self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers

    def threads(self) -> int:
        return max((library.get_num_threads() for library in self._libraries), default=1)

    def limit(self, threads: int) -> None:
        for library in self._libraries:
            library.set_num_threads(threads)


@lru_cache(maxsize=1)
def _blas() -> _Blas:
    return _Blas()


@lru_cache(maxsize=1)
def _helpers(count: int) -> _Helpers:
    return _Helpers(count)


@lru_cache(maxsize=1)
def _sharing() -> Any:
    """The threads of BLAS are a setting of the whole process: one product at a time changes it."""
    return threading.Lock()


def _forget_threads() -> None:
    """A forked process has none of its parent's threads."""
    _sharing.cache_clear()
    _helpers.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
