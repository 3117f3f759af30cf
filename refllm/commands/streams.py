"""The streams and signals of a command: what is closed, full or has no reader, and what asks it to end."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from refllm.errors import UserError
from refllm.workers import ENDING

INTERRUPTED = 130  # exit status of what was stopped by a signal, whichever
NO_READER = 141  # as a shell says of a process that a closed pipe ended


def fill_closed_streams() -> None:
    """Standard streams that the caller has closed lead nowhere instead, so that no file of ours takes their numbers and
    nothing that is printed fails."""
    missing = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    if not missing:
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in missing:
        setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115


class Lasting(io.TextIOBase):
    """A stream to which writing does not fail: the first error is kept, and what follows is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        with self._kept():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept():
            self.stream.flush()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        if self.error is not None:
            with suppress(OSError):
                yield
            return
        try:
            yield
        except OSError as error:
            self.error = error
            lead_nowhere(self.stream)

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors


@contextmanager
def lasting_output() -> Iterator[None]:
    """Printing cannot fail inside: a training that nobody reads any more is saved before it ends.

    Raises: what writing had raised, in the end.
    """
    before = sys.stdout, sys.stderr
    lasting = [Lasting(stream) for stream in before]
    sys.stdout, sys.stderr = lasting
    try:
        yield
        for stream in lasting:
            stream.flush()
    finally:
        sys.stdout, sys.stderr = before
    for stream in lasting:
        if isinstance(stream.error, BrokenPipeError):
            raise stream.error
        if stream.error is not None:
            raise UserError(f"cannot write the output: {stream.error.strerror}; send it elsewhere, or free some space")


def output_is_lost() -> bool:
    """Whether what is printed reaches nobody any more, within `lasting_output`."""
    return any(isinstance(stream, Lasting) and stream.error is not None for stream in (sys.stdout, sys.stderr))


def lead_nowhere(stream: Any) -> None:
    """What the stream still holds goes nowhere, where Python would complain of it in the end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def ended_politely() -> Iterator[None]:
    """A polite kill and the end of the terminal end a command as Ctrl-C does, so that it tidies up behind it. Who has
    them ignored (nohup) has them ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # `timeout` sends it twice
    raise KeyboardInterrupt
