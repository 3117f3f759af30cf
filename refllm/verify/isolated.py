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
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refllm.errors import UserError
from refllm.verify import adapter, frames
from refllm.verify.case import Case, FaultError, RaisedError, Response, UnsupportedError
from refllm.verify.plugging import NOTHING_SAID, Plug
from refllm.verify.server import EndedError, Server

IMPORT = 60.0  # seconds that importing may take at least; a large library takes as long as many cases
_ERRORS: dict[str, type[Exception]] = {"unsupported": UnsupportedError, "raised": RaisedError}
_PROGRAM = (
    "import sys; sys.path[:] = {paths!r}; from refllm.verify.serve import main; main({file!r}, {places!r}, {plug!r})"
)


def search_path() -> list[str]:
    """sys.path for a process that is started elsewhere: "" is the folder of work of this one."""
    return [place or os.getcwd() for place in sys.path]


class Isolated:
    """An implementation made of the functions of a Python file, which run in another process."""

    sees = adapter.Functions.sees
    taken = "imported"  # what a file of this kind is, in words

    def __init__(self, path: Path, timeout: float, plug: Plug = NOTHING_SAID, *, alone: bool = False) -> None:
        """The path may be the import name of a module. UserError if it cannot be imported. `alone`: see
        `processes.Family`."""
        self.path, self.timeout, self.plug, self._alone = path, timeout, plug, alone
        self.name = path.name
        self._server: Server | None = None
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
            kind, content = self._server.asked(self._question(case, dtype), self.timeout)
        except EndedError as error:
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

    def _words(self, places: int | None) -> list[str]:
        """The command of the process, which writes to the file `places` where it crashed."""
        plug = dataclasses.astuple(self.plug)
        return [
            sys.executable,
            "-c",
            _PROGRAM.format(paths=search_path(), file=str(self.path), places=places, plug=plug),
        ]

    def _question(self, case: Case, dtype: str) -> Any:
        return frames.question(case), dtype

    def _started(self) -> dict[str, Any]:
        """Starts the process. UserError if the file cannot be imported."""
        self._server = Server(self._words, frames, self.path.resolve().parent, alone=self._alone)
        longest = max(IMPORT, self.timeout)
        try:
            kind, content = self._server.told(longest)
        except EndedError as error:
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
        raise UserError(f"{self.path} cannot be {self.taken}: {problem}")

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


@contextlib.contextmanager
def from_file(path: Path, timeout: float, plug: Plug = NOTHING_SAID) -> Iterator[Isolated | adapter.Functions]:
    """The functions of a file in another process; in this one where no Python can be started."""
    if not sys.executable:
        yield adapter.from_file(path, plug)
        return
    with Isolated(path, timeout, plug, alone=True) as found:
        yield found
