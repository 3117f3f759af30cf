"""The directory that a command writes: empty at first, and one process at a time's.

Who writes it holds the lock of the file `refllm.lock` in it (flock; on Windows that of a byte of it), which the system
gives back when the process ends, however it ends. The file goes when the work ends. Where it is left, its process was
killed; if that was before there was anything to go on with, the directory can be begun again: what it holds then is
removed first.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from refllm import checkpoint
from refllm.errors import UserError
from refllm.invocation import quoted


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


_fcntl, _msvcrt = _module("fcntl"), _module("msvcrt")  # the second on Windows

LOCK = "refllm.lock"
RESUMABLE = f"checkpoint/{checkpoint.STATE}"  # once it is there, a training can be gone on with
_WRITTEN = re.compile(
    r"(metrics\.jsonl|summary\.json|compress\.json|report\.html)(\.partial)?"
)  # beside the checkpoint, by commands
_ATTEMPTS = 100  # at a lock file that others remove
_FAR = 1 << 30  # the byte of the file that is locked on Windows, which hides it from others: what is written stays read

_held: dict[tuple[str, int], int] = {}  # directories that this process holds, by path and thread; the open lock file


@contextmanager
def occupied(directory: Path, *, until: str, fresh: bool) -> Iterator[None]:
    """The directory is there inside, and of this process alone. `fresh`: it must be empty.

    If nothing worth keeping is there in the end, that is if not the file `until`, all that was written goes, with the
    directories that were made for it.
    Raises: UserError if another process has it, or it is to be fresh and is not.
    """
    key = (os.path.realpath(directory), threading.get_ident())
    if key in _held:
        yield
        return
    with directory_made(directory):
        descriptor = _locked(directory)
        try:
            if fresh:
                _make_fresh(directory)
        except BaseException:
            os.close(descriptor)
            raise
        _held[key] = descriptor
        try:
            _sign(descriptor, until)
            yield
        finally:
            try:
                if not (directory / until).exists():
                    _clear(directory)
                with suppress(OSError):
                    (directory / LOCK).unlink()
            finally:
                _held.pop(key, None)
                os.close(descriptor)
                if _fcntl is None:  # Windows removes no file that is open, and none that another process has opened
                    with suppress(OSError):
                        (directory / LOCK).unlink()


@contextmanager
def directory_made(directory: Path) -> Iterator[None]:
    """The directory is there inside. If what is done inside fails, those that were made for it go unless they hold
    something."""
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the first that is not empty
            for path in made:
                path.rmdir()
        raise


def require_empty(directory: Path, *, resumes: bool = False) -> None:
    """UserError if the directory holds anything, or cannot be made; of a run it is said that the command resumes it, if
    it does. What a process has left that was killed before it had anything to keep does not count."""
    if os.path.isfile(directory) or (os.path.isdir(directory) and os.listdir(directory) and not is_left(directory)):
        what = "a file" if os.path.isfile(directory) else "not empty"
        run = resumes and checkpoint.is_there(directory / "checkpoint")
        go_on = f", or go on with the run by --resume {quoted(directory)}" if run else ""
        raise UserError(f"{directory} is {what} and will not be overwritten; choose another --out{go_on}")
    require_place(directory, within=next(path for path in (directory, *directory.parents) if os.path.exists(path)))


def require_free(path: Path, *suffixes: str) -> None:
    """UserError unless a file of that name can be written where there is none yet; with suffixes, unless it has one of
    them."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{path} must end in {' or '.join(suffixes)}; name it so")
    if path.exists():
        raise UserError(f"{path} is there already and will not be overwritten; choose another name")
    require_place(path, within=path.parent)


def require_place(path: Path, *, within: Path) -> None:
    """UserError if nothing can be written at the path: its folder is missing, not a folder, or read-only."""
    if not os.path.isdir(within):
        raise UserError(f"{path} cannot be written: {within} is not a folder; make it one or choose another place")
    if not os.access(within, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written: {within} does not permit it; change that or choose another place")


def is_left(directory: Path) -> bool:
    """Whether the directory was left by a process that was killed before it had anything to keep. If a file of
    somebody else is in it, it was not."""
    until = _owner(directory).get("until")
    if not (directory / LOCK).is_file() or (directory / (until if isinstance(until, str) else RESUMABLE)).exists():
        return False
    return all(_is_ours(path) for path in directory.iterdir())


def require_not_held(directory: Path) -> None:
    """UserError if another process has the directory."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        _flock(descriptor, directory)
    finally:
        os.close(descriptor)


def _is_ours(path: Path) -> bool:
    if path.name == "checkpoint" and path.is_dir():
        return all(checkpoint.is_own(one.name) for one in path.iterdir())
    return path.name == LOCK or _WRITTEN.fullmatch(path.name) is not None


def _make_fresh(directory: Path) -> None:
    """As `require_empty`, once the directory is ours: another process may have been here in between. What was left by
    one that was killed goes."""
    if any(path.name != LOCK for path in directory.iterdir()):
        if not is_left(directory):
            raise UserError(f"{directory} is not empty and will not be overwritten; choose another --out")
        _clear(directory)


def _clear(directory: Path) -> None:
    """Removes what was written, but for the lock."""
    with suppress(OSError):
        for path in list(directory.iterdir()):
            if path.name != LOCK and _is_ours(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _locked(directory: Path) -> int:
    """The lock file, open and held."""
    for _ in range(_ATTEMPTS):
        try:
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # who had made the directory has just removed it
            directory.mkdir(parents=True, exist_ok=True)
            continue
        try:
            _flock(descriptor, directory)
            if os.path.exists(directory / LOCK) and os.path.samestat(os.stat(directory / LOCK), os.fstat(descriptor)):
                return descriptor  # else who had it has removed the file, and it locks nothing
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise UserError(f"{directory} is being written by other processes; wait until they end, or choose another --out")


def _sign(descriptor: int, until: str) -> None:
    """Writes into the lock file whose it is."""
    with suppress(OSError):  # on a full disk it says nothing
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "until": until}).encode())


def _flock(descriptor: int, directory: Path) -> None:
    """Takes the lock of an open file. UserError if another process has it."""
    try:
        if _fcntl is not None:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        elif _msvcrt is not None:
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            try:
                _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            raise OSError(errno.ENOTSUP, "this system has none")
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise UserError(
                f"{directory} is being written by {_named(_owner(directory))}; wait until it ends, or stop it"
            ) from None
        print(
            f"{directory} has no lock ({error.strerror}): see to it that no other process writes there",
            file=sys.stderr,
        )


def _owner(directory: Path) -> dict[str, Any]:
    """What the lock file says; nothing where it is empty, no file, or somebody else's."""
    if not (directory / LOCK).is_file():  # reading a pipe would wait for who writes into it
        return {}
    try:
        with open(directory / LOCK, "rb") as file:
            found = json.loads(file.read(1 << 12))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(owner: dict[str, Any]) -> str:
    pid, host = owner.get("pid"), owner.get("host")
    if type(pid) is not int:
        return "another process"
    return f"process {pid}" + (f" on {host}" if isinstance(host, str) and host != socket.gethostname() else "")


def _let_go_in_a_fork() -> None:
    """A worker that held the lock too would keep it when its parent has been killed."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_a_fork)
