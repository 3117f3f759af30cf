"""Laws of a directory that is written: one process at a time's, fresh at first, and nothing in it that nobody wants."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from refllm import directory
from refllm.directory import LOCK, RESUMABLE, is_left, occupied, require_empty
from refllm.errors import UserError
from spec_tests.tiny import contents

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="flock")
UNTIL = "compress.json"


def left_by_another(place: Path, *names: str, until: str = UNTIL) -> None:
    """What a process leaves that is killed while it holds the place, with these files in it."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom refllm.directory import occupied\n"
        "place = Path(sys.argv[1])\n"
        "with occupied(place, until=sys.argv[2], fresh=True):\n"
        "    for name in sys.argv[3:]:\n"
        "        (place / name).parent.mkdir(exist_ok=True)\n"
        "        (place / name).write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place), until, *names], check=False)
    assert done.returncode == -9


OURS = ["metrics.jsonl", "checkpoint/weights-00000001-0123456789abcdef.safetensors.partial"]


def test_what_was_left_before_there_was_anything_to_keep_is_begun_again(tmp_path: Path) -> None:
    place = tmp_path / "run"
    left_by_another(place, *OURS, "checkpoint/state.json")
    assert is_left(place)
    require_empty(place)
    with occupied(place, until=UNTIL, fresh=True):
        assert list(contents(place)) == [LOCK]
        (place / UNTIL).write_text("done")
    assert list(contents(place)) == [UNTIL]


@pytest.mark.parametrize(
    ("names", "until"),
    [
        ([*OURS, UNTIL], UNTIL),
        ([*OURS, "checkpoint/state.json"], RESUMABLE),
        ([*OURS, "notes.txt"], UNTIL),
        ([*OURS, "checkpoint/notes.txt"], UNTIL),
    ],
    ids=["it was done", "it can be gone on with", "a file of somebody else", "another one"],
)
def test_what_somebody_may_want_is_not_removed(tmp_path: Path, names: list[str], until: str) -> None:
    place = tmp_path / "run"
    left_by_another(place, *names, until=until)
    before = contents(place)
    assert not is_left(place)
    with pytest.raises(UserError, match="not empty and will not be overwritten"):
        require_empty(place)
    with (
        pytest.raises(UserError, match="not empty and will not be overwritten"),
        occupied(place, until=UNTIL, fresh=True),
    ):
        pass
    assert contents(place) == before


@pytest.mark.parametrize("lock", [None, b"", b"{", b"[1]", b'{"until": 3}', b"\xff" * 9000])
def test_a_lock_file_that_says_nothing_permits_nothing_but_a_run_to_begin(tmp_path: Path, lock: bytes | None) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    if lock is not None:
        (tmp_path / LOCK).write_bytes(lock)
    assert is_left(tmp_path) is (lock is not None)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / RESUMABLE).write_text("{}")
    assert not is_left(tmp_path)


def failing(place: Path, until: str) -> None:
    with occupied(place, until=until, fresh=True):
        (place / "metrics.jsonl").write_text("x")
        raise ZeroDivisionError


def test_what_fails_leaves_nothing_and_what_has_something_to_keep_leaves_it(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    with pytest.raises(ZeroDivisionError):
        failing(place, UNTIL)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError):
        failing(place, "metrics.jsonl")
    assert list(contents(place)) == ["metrics.jsonl"]


def test_another_thread_is_another_writer_and_the_same_one_may_enter_again(tmp_path: Path) -> None:
    refusals: list[str] = []

    def enter() -> None:
        try:
            with occupied(tmp_path, until=UNTIL, fresh=False):
                refusals.append("")
        except UserError as error:
            refusals.append(str(error))

    with occupied(tmp_path, until=UNTIL, fresh=True), occupied(tmp_path / "." / "", until=UNTIL, fresh=True):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    enter()
    assert refusals[0].startswith(f"{tmp_path} is being written by process {os.getpid()}; wait")
    assert refusals[1] == ""


def test_a_lock_whose_file_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends, and removes its file, between the opening of the file here and the lock on it."""
    flock, calls = directory._flock, []

    def overtaken(descriptor: int, place: Path) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (place / LOCK).unlink()
        flock(descriptor, place)

    monkeypatch.setattr(directory, "_flock", overtaken)
    with occupied(tmp_path, until=UNTIL, fresh=True):
        assert len(calls) == 2
        assert (tmp_path / LOCK).exists()


def test_a_file_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with occupied(tmp_path, until=UNTIL, fresh=True):
        (tmp_path / UNTIL).write_text("done")
    err = capfd.readouterr().err
    assert err == f"{tmp_path} has no lock (No locks available): see to it that no other process writes there\n"
    assert list(contents(tmp_path)) == [UNTIL]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_waited_for_by_nobody(tmp_path: Path, make: Any) -> None:
    make(tmp_path / LOCK)
    assert not is_left(tmp_path)
    with pytest.raises(UserError, match="not empty and will not be overwritten"):
        require_empty(tmp_path)


class Windows:
    """Its module msvcrt, on the locks of this system: a byte is locked where the file stands, and nothing waits."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.places: list[int] = []

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        self.places.append(os.lseek(descriptor, 0, os.SEEK_CUR))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PermissionError(errno.EACCES, "Permission denied") from None


def test_windows_locks_a_byte_behind_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows()
    monkeypatch.setattr(directory, "_fcntl", None)
    monkeypatch.setattr(directory, "_msvcrt", windows)
    test_another_thread_is_another_writer_and_the_same_one_may_enter_again(tmp_path)
    assert min(windows.places) > 1 << 20
    assert list(contents(tmp_path)) == []
    with occupied(tmp_path, until=UNTIL, fresh=True):
        assert b'"pid"' in (tmp_path / LOCK).read_bytes()[:10]
        (tmp_path / UNTIL).write_text("done")
    assert list(contents(tmp_path)) == [UNTIL]


def test_windows_removes_the_file_once_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is open, that is refused there."""
    monkeypatch.setattr(directory, "_fcntl", None)
    monkeypatch.setattr(directory, "_msvcrt", Windows())
    unlink, close, closed = Path.unlink, os.close, list[int]()

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == LOCK and not closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok)

    def closing(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)

    monkeypatch.setattr(Path, "unlink", refused)
    with occupied(tmp_path, until=UNTIL, fresh=True):
        (tmp_path / UNTIL).write_text("done")
        monkeypatch.setattr(os, "close", closing)
    assert list(contents(tmp_path)) == [UNTIL]


def test_a_system_without_locks_is_said_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(directory, "_fcntl", None)
    monkeypatch.setattr(directory, "_msvcrt", None)
    with occupied(tmp_path, until=UNTIL, fresh=True):
        (tmp_path / UNTIL).write_text("done")
    assert "has no lock (this system has none): see to it" in capfd.readouterr().err
    assert list(contents(tmp_path)) == [UNTIL]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")
def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    with occupied(tmp_path, until=UNTIL, fresh=True):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            os.read(read, 1)  # until the parent closes the other end
            os._exit(0)
        os.close(read)
    try:
        with occupied(tmp_path, until=UNTIL, fresh=True):
            pass
    finally:
        os.close(write)
        os.waitpid(child, 0)
