"""The functions of a Python file in a process of their own: a crash or a hang there is a fault of its case alone.

    with Isolated(Path("mine.py"), timeout=60) as implementation:
        response = implementation.respond(case, "float32")

The process is the same for all cases, so that what one call leaves behind for the next still shows. After a crash and
after a hang it is started again with the next case.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from refllm.errors import UserError
from refllm.verify import adapter, frames
from refllm.verify.case import Case, FaultError, RaisedError, Response, UnsupportedError
from refllm.verify.external import ending, printable
from refllm.verify.plugging import NOTHING_SAID, Plug
from refllm.verify.processes import Family

IMPORT = 60.0  # seconds that importing may take at least; a large library takes as long as many cases
_TAIL = 2000  # characters of what was printed that are kept
_ERRORS: dict[str, type[Exception]] = {"unsupported": UnsupportedError, "raised": RaisedError}
_PROGRAM = (
    "import sys; sys.path[:] = {paths!r}; from refllm.verify.serve import main; main({file!r}, {places!r}, {plug!r})"
)


class Isolated:
    """An implementation made of the functions of a Python file, which run in another process."""

    sees = adapter.Functions.sees

    def __init__(self, path: Path, timeout: float, plug: Plug = NOTHING_SAID, *, alone: bool = False) -> None:
        """The path may be the import name of a module. UserError if it cannot be imported. `alone`: see
        `processes.Family`."""
        self.path, self.timeout, self.plug, self._alone = path, timeout, plug, alone
        self.name = path.name
        self._server: _Server | None = None
        self._why_not = ""  # why it cannot be started again
        self._last = ""  # the last case that was answered
        start = time.monotonic()
        about = self._started()
        self.seconds_to_start = time.monotonic() - start
        self.operations, self.dtypes = about["operations"], about["dtypes"]
        self.conventions: dict[str, str] = about["conventions"]
        self.plan: Any = about["plan"]

    def respond(self, case: Case, dtype: str) -> Response:
        """What the file's function answers. Raises UnsupportedError, FaultError."""
        adapter.require_served(self.name, self.operations, self.dtypes, case, dtype)
        if self._server is None:
            self._again()
        assert self._server is not None
        try:
            kind, content = self._server.asked((frames.question(case), dtype), self.timeout)
        except _EndedError as error:
            self._end()
            earlier = f" before it was called: {self._last} left something behind that ended it" if error.before else ""
            raise FaultError(f"{case.operation}: the process {error}{earlier}") from None
        except TimeoutError:
            self._end()
            raise FaultError(f"{case.operation} was stopped after {self.timeout:g} s (--timeout)") from None
        self._last = case.id
        if kind == "answer":
            return content
        raise _ERRORS.get(kind, FaultError)(content)

    def fresh(self, timeout: float) -> Isolated:
        """The same file in another process, which has answered nothing yet."""
        return Isolated(self.path, timeout, self.plug, alone=self._alone)

    def close(self) -> None:
        self._end()

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> dict[str, Any]:
        """Starts the process. UserError if the file cannot be imported."""
        self._server = _Server(self.path, self.plug, self._alone)
        longest = max(IMPORT, self.timeout)
        try:
            kind, content = self._server.told(longest)
        except _EndedError as error:
            problem = f"the process {error}"
        except TimeoutError:
            problem = f"it took longer than {longest:g} s (--timeout)"
        except BaseException:  # the user's Ctrl-C
            self._end()
            raise
        else:
            if kind == "ready":
                return content
            self._end()
            raise UserError(content)
        self._end()
        raise UserError(f"{self.path} cannot be imported: {problem}")

    def _again(self) -> None:
        if not self._why_not:
            try:
                self._started()
            except UserError as error:
                self._why_not = f"after a crash or a hang it could not be started again: {error}"
        if self._why_not:
            raise FaultError(self._why_not)

    def _end(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None


class _EndedError(Exception):
    """The process is gone; `before`: it was so before it was asked."""

    before = False


class _Server:
    """The process, its pipes, and the threads that read them: a pipe is not waited for with a time limit anywhere."""

    def __init__(self, path: Path, plug: Plug, alone: bool) -> None:
        self._family, self._folder = Family(alone=alone), path.resolve().parent
        self._places = tempfile.TemporaryFile() if os.name == "posix" else None  # noqa: SIM115  (closed in `close`)
        descriptors = () if self._places is None else (self._places.fileno(),)
        places = descriptors[0] if descriptors else None
        program = _PROGRAM.format(paths=sys.path, file=str(path), places=places, plug=dataclasses.astuple(plug))
        try:
            self._process = self._family.start(
                [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, pass_fds=descriptors,
            )  # fmt: skip
        except OSError as error:
            self._family.close()
            raise UserError(f"{sys.executable} could not be started: {error.strerror or error}") from None
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
        """The answer. Raises _EndedError, TimeoutError."""
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
        """The next thing that it says. Raises _EndedError, TimeoutError."""
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                found = self._answers.get(timeout=min(left, 0.1))
                if found is None:
                    raise self._ended()
                return found
            if self._process.poll() is not None:  # its children may hold the pipe open
                with contextlib.suppress(queue.Empty):
                    if (found := self._answers.get(timeout=0.2)) is not None:
                        return found
                raise self._ended()
        raise TimeoutError

    def close(self) -> None:
        self._family.close()
        for thread in self._threads:
            thread.join(1)
        for stream in (self._input, self._process.stdout, self._process.stderr, self._places):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _write(self, question: Any) -> None:
        with contextlib.suppress(OSError, ValueError):
            frames.write(self._input, question)

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(Exception):  # what is cut short or garbled is an end
            while True:
                self._answers.put(frames.read(stream))
        self._answers.put(None)

    def _pass_on(self, stream: IO[bytes]) -> None:
        """Shows what is printed at once, and keeps the end of it."""
        with contextlib.suppress(ValueError, OSError):
            while chunk := os.read(stream.fileno(), 1 << 16):
                text = chunk.decode("utf-8", "replace")
                self._printed = (self._printed + text)[-_TAIL:]
                with contextlib.suppress(AttributeError, ValueError, OSError):  # closed, or not there at all
                    sys.stderr.write(text)
                    sys.stderr.flush()

    def _ended(self) -> _EndedError:
        """How the process ended, where it was, and the last that it printed."""
        try:
            how = ending(self._process.wait(0.5))
        except subprocess.TimeoutExpired:
            how = "closed the pipe that its answers go through"
        self._family.end()
        for thread in self._threads:
            thread.join(1)
        return _EndedError(f"{how}{self._place()}{self._last_line()}")

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


@contextlib.contextmanager
def from_file(path: Path, timeout: float, plug: Plug = NOTHING_SAID) -> Iterator[Isolated | adapter.Functions]:
    """The functions of a file in another process; in this one where no Python can be started."""
    if not sys.executable:
        yield adapter.from_file(path, plug)
        return
    with Isolated(path, timeout, plug, alone=True) as found:
        yield found
