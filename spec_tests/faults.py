"""Faults at every event of writing files: the process dies there, the disk is full from there on, Ctrl-C comes."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from refllm import checkpoint, directory, reported


class Dead(BaseException):
    """The process has ended: whatever runs after it, to tidy up, finds that nothing can be done any more."""


Fault = Callable[[int], BaseException | None]  # of the number of an event: what is raised there


def killed(at: int) -> Fault:
    return lambda number: Dead() if number >= at else None


def full(at: int) -> Fault:
    return lambda number: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if number >= at else None


def failing_once(at: int) -> Fault:
    return lambda number: OSError(errno.EIO, os.strerror(errno.EIO)) if number == at else None


def interrupted(at: int) -> Fault:
    return lambda number: KeyboardInterrupt() if number == at else None


class _Writing:
    """A file that is written in two halves, with an event after each."""

    def __init__(self, file: Any, event: Callable[[str, Any], None]) -> None:
        self.file, self.event = file, event

    def write(self, data: Any) -> int:
        for half in (data[: len(data) // 2], data[len(data) // 2 :]):
            self.file.write(half)
            self.file.flush()
            self.event("write", self.file.name)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@contextmanager
def events(fault: Callable[[int], Any] = lambda number: None) -> Iterator[list[str]]:
    """The events inside, as they come: before an open for writing, after each half of a write, before each fsync,
    rename, removal and making of a directory. Nothing is waited for: fsync is an event and no more."""
    seen: list[str] = []
    within = False

    def event(name: str, path: Any) -> None:
        nonlocal within
        if within:  # what the fault itself does
            return
        within = True
        seen.append(f"{name} {Path(path).name if isinstance(path, (str, os.PathLike)) else ''}".rstrip())
        error = fault(len(seen))
        within = False
        frees = name in ("unlink", "rmdir") and isinstance(error, OSError) and error.errno == errno.ENOSPC
        if error is not None and not frees:
            raise error

    def opened(path: Any, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        if not any(sign in mode for sign in "wax"):
            return builtins.open(path, mode, *arguments, **keywords)
        event("open", path)
        return _Writing(builtins.open(path, mode, *arguments, **keywords), event)

    def hooked(name: str, which: int = 0, *, does: bool = True) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            event(name, arguments[which])
            return real(*arguments, **keywords) if does else None

        return call

    def opened_low(path: Any, flags: int, *arguments: Any, **keywords: Any) -> int:
        if flags & os.O_CREAT:
            event("open", path)
        return real_open(path, flags, *arguments, **keywords)

    real_open = os.open
    with pytest.MonkeyPatch.context() as patch:
        for module in (checkpoint, directory, reported):
            patch.setattr(module, "open", opened, raising=False)
        patch.setattr(os, "fsync", hooked("fsync", does=False))
        patch.setattr(os, "open", opened_low)
        for name, which in (("replace", 1), ("unlink", 0), ("mkdir", 0), ("rmdir", 0), ("ftruncate", 0)):
            patch.setattr(os, name, hooked(name, which))
        yield seen
