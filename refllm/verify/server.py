"""A process that answers one question after the other through its standard input and output.

What it says on standard error is passed on; if it ends, that and the last it said is in the error.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from refllm.errors import UserError
from refllm.verify.external import ending, printable
from refllm.verify.processes import Family
from refllm.verify.tensors import MalformedError

TAIL = 2000  # characters of what was printed that are kept
Parts = Callable[[int | None], list[str]]


class Language(Protocol):
    """How questions are written and answers are read. `read` raises EOFError at the end, MalformedError at garbage."""

    def write(self, stream: IO[bytes], value: Any) -> None: ...

    def read(self, stream: IO[bytes]) -> Any: ...


class EndedError(Exception):
    """The process is gone; `before`: it was so before it was asked."""

    before = False


class Server:
    """The process, its pipes, and the threads that read them: a pipe is not waited for with a time limit anywhere."""

    def __init__(
        self,
        parts: Parts,
        language: Language,
        folder: Path,
        *,
        alone: bool,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`parts` are the words of the command, given the number of a file to which a crash may write where it was;
        `folder` is where the author's own files lie; `environment` is added to that of the process."""
        self._family, self._folder, self._language = Family(alone=alone), folder, language
        self._places = tempfile.TemporaryFile() if os.name == "posix" else None  # noqa: SIM115  (closed in `close`)
        descriptors = () if self._places is None else (self._places.fileno(),)
        words = parts(descriptors[0] if descriptors else None)
        try:
            self._process = self._family.start(
                words, environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                pass_fds=descriptors,
            )  # fmt: skip
        except OSError as error:
            self._family.close()
            self._close_places()
            raise UserError(f"{words[0]} could not be started: {error.strerror or error}") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._input, self._answers, self._printed = self._process.stdin, queue.SimpleQueue[Any](), ""
        self._threads = [
            threading.Thread(target=read, args=(stream,), daemon=True)
            for read, stream in ((self._read, self._process.stdout), (self._pass_on, self._process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    def asked(self, question: Any, timeout: float) -> Any:
        """The answer. Raises EndedError, TimeoutError."""
        self._printed = ""
        if self._process.poll() is not None:
            error = self._ended()
            error.before = True
            raise error
        writing = threading.Thread(target=self._write, args=(question,), daemon=True)  # a stopped process reads nothing
        writing.start()
        answer = self.told(timeout)
        writing.join()
        return answer

    def told(self, timeout: float) -> Any:
        """The next thing that it says. Raises EndedError, TimeoutError."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                found = self._answers.get(timeout=min(left, 0.1))
                return self._heard(found)
            if self._process.poll() is not None:  # its children may hold the pipe open
                with contextlib.suppress(queue.Empty):
                    return self._heard(self._answers.get(timeout=0.2))
                raise self._ended()
        raise TimeoutError

    def unasked(self) -> bool:
        """Whether it has said something that nobody asked for."""
        with contextlib.suppress(queue.Empty):
            found = self._answers.get_nowait()
            self._answers.put(found)
            return found is not None  # its end is no answer
        return False

    def _heard(self, found: Any) -> Any:
        if found is None:
            raise self._ended()
        if isinstance(found, MalformedError):
            raise found
        return found

    def close(self) -> None:
        self._family.close()
        for thread in self._threads:
            thread.join(1)
        for stream in (self._input, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._close_places()

    def _close_places(self) -> None:
        if self._places is not None:
            self._places.close()

    def _write(self, question: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._language.write(self._input, question)

    def _read(self, stream: IO[bytes]) -> None:
        try:
            while True:
                self._answers.put(self._language.read(stream))
        except MalformedError as error:
            self._answers.put(error)
        except Exception:  # what is cut short is an end
            self._answers.put(None)

    def _pass_on(self, stream: IO[bytes]) -> None:
        """Shows what is printed at once, and keeps the end of it."""
        with contextlib.suppress(ValueError, OSError):
            while chunk := os.read(stream.fileno(), 1 << 16):
                text = chunk.decode("utf-8", "replace")
                self._printed = (self._printed + text)[-TAIL:]
                with contextlib.suppress(AttributeError, ValueError, OSError):  # closed, or not there at all
                    sys.stderr.write(text)
                    sys.stderr.flush()

    def _ended(self) -> EndedError:
        """How the process ended, where it was, and the last that it printed."""
        try:
            how = ending(self._process.wait(0.5))
        except subprocess.TimeoutExpired:
            how = "closed the pipe that its answers go through"
        self._family.end()
        for thread in self._threads:
            thread.join(1)
        return EndedError(f"{how}{self._place()}{self._last_line()}")

    def _place(self) -> str:
        """(mine.py, line 7): the innermost line of what lies beside the adapter, or else of any library."""
        if self._places is None:
            return ""
        self._places.seek(0)
        text = self._places.read(1 << 16).decode("utf-8", "replace")
        found = [(Path(file), line) for file, line in re.findall(r'File "([^"]*)", line (\d+)', text)]
        own = [place for place in found if place[0].resolve().parent == self._folder]
        if not own:
            own = [place for place in found if place[0].parent != Path(__file__).parent]
        return f" ({own[0][0].name}, line {own[0][1]})" if own else ""

    def _last_line(self) -> str:
        lines = self._printed.strip().splitlines()
        return f": {printable(lines[-1])}" if lines else ""
