"""Ending a program together with everything that it started.

On Linux this process adopts the orphans of a program for as long as it runs (PR_SET_CHILD_SUBREAPER). A child that
left its process group and its session, as a daemon does, becomes a child of ours when its parent ends, and is found.
Elsewhere the process group is ended, and what left it lives on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MARK = "REFLLM_VERIFY"  # in the environment of what is started: by it an orphan is known
_SET_ADOPTS, _GET_ADOPTS = 36, 37  # PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
_LONGEST = 5.0  # seconds after which a program that starts processes faster than they end is left
_LINUX = sys.platform == "linux"

_lock = threading.Lock()
_adopting = {"families": 0, "before": 0}


class Family:
    """A program and what descends from it.

    `alone` says that nothing else in this process starts programs meanwhile: then an orphan that cleared its
    environment is taken for one of these too.
    """

    def __init__(self, *, alone: bool) -> None:
        self._mark, self._alone = f"{os.getpid()}-{secrets.token_hex(8)}", alone
        self._process: subprocess.Popen[bytes] | None = None
        _adopt(1)
        self._before = _children()

    def start(self, parts: list[str], more: Mapping[str, str] | None = None, **how: Any) -> subprocess.Popen[bytes]:
        """Starts the program in a session of its own, with `more` in its environment. OSError if it cannot be."""
        environment = {**os.environ, **(more or {}), _MARK: self._mark}
        self._process = subprocess.Popen(parts, env=environment, start_new_session=True, **how)
        return self._process

    def end(self) -> None:
        """Ends the program and its descendants that are still there."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
        until = time.monotonic() + _LONGEST
        while (orphans := self._orphans()) and time.monotonic() < until:
            for pid in orphans:  # the children of each become orphans in their turn, and are found the next time
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(OSError):
                    os.waitpid(pid, 0)

    def close(self) -> None:
        self.end()
        _adopt(-1)

    def _orphans(self) -> list[int]:
        own = None if self._process is None else self._process.pid
        return [pid for pid in _children() - self._before if pid != own and self._is_mine(pid)]

    def _is_mine(self, pid: int) -> bool:
        found = _mark_of(pid)
        return found == self._mark if found else self._alone


def _mark_of(pid: int) -> str:
    """The mark in the environment of a process; "" if it has none, or it cannot be read."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    start = f"{_MARK}=".encode()
    found = next((entry for entry in environment if entry.startswith(start)), start)
    return found[len(start) :].decode("ascii", "replace")


def _children() -> set[int]:
    """The children of this process; none where there is no /proc."""
    if not _LINUX:
        return set()
    try:
        tasks = [Path(f"/proc/self/task/{task}/children") for task in os.listdir("/proc/self/task")]
    except OSError:
        return set()
    listed = [text for task in tasks if (text := _text(task)) is not None]
    if listed:
        return {int(pid) for text in listed for pid in text.split()}
    found, own = set[int](), str(os.getpid())  # a kernel without these lists: ask every process for its parent
    for pid in filter(str.isdigit, os.listdir("/proc")):
        fields = (_text(Path(f"/proc/{pid}/stat")) or "").rpartition(")")[2].split()
        found |= {int(pid)} if fields[1:2] == [own] else set()
    return found


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _adopt(more: int) -> None:
    """Turns adopting on with the first family, and back to what it was with the last."""
    if not _LINUX:
        return
    with _lock:
        prctl = ctypes.CDLL(None).prctl
        if not _adopting["families"]:
            before = ctypes.c_int()
            prctl(_GET_ADOPTS, ctypes.byref(before), 0, 0, 0)
            _adopting["before"] = before.value
        _adopting["families"] += more
        prctl(_SET_ADOPTS, 1 if _adopting["families"] else _adopting["before"], 0, 0, 0)
