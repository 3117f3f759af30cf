"""The process in which the functions of an adapter run. It answers one case after the other until its input ends.

    python -c '...; from refllm.verify.serve import main; main(...)'

Answers leave through a private copy of standard output; what the adapter and its libraries print, from C too, goes to
standard error.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
from collections.abc import Callable
from typing import IO, Any

from refllm.errors import UserError
from refllm.verify import adapter, frames
from refllm.verify.case import Case, FaultError, RaisedError, UnsupportedError
from refllm.verify.plugging import Plug


def main(path: str, places: int | None, plug: tuple[str | None, str | None, str | None] = (None, None, None)) -> None:
    """Serves the adapter at `path`, as `plug` says (`plugging.Plug`); `places` is a file to which a crash writes where
    it was."""
    answer_all(lambda: adapter.from_file(path, Plug(*plug), stays=True), places)


def answer_all(made: Callable[[], adapter.Functions], places: int | None) -> None:
    """Answers cases with the functions that `made` gives, until the input ends."""
    questions, answers = private_pipes()
    if places is not None:
        faulthandler.enable(os.fdopen(places, "w"), all_threads=False)
    try:
        functions = made()
    except UserError as error:
        frames.write(answers, ("unusable", str(error)))
        return
    about = {"operations": frozenset(functions.functions), "dtypes": functions.dtypes, "plan": functions.plan}
    frames.write(answers, ("ready", {**about, "conventions": dict(functions.conventions)}))
    with contextlib.suppress(EOFError):
        while True:
            case, dtype = frames.read(questions)
            frames.write(answers, _answer(functions, case, dtype))


def private_pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Copies of standard input and output that nothing but this module writes to or reads from."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    return questions, answers


def _answer(functions: adapter.Functions, case: Case, dtype: str) -> tuple[str, Any]:
    try:
        return "answer", frames.sendable(functions.respond(case, dtype))
    except UnsupportedError as error:
        return "unsupported", str(error)
    except FaultError as error:
        return "raised" if isinstance(error, RaisedError) else "fault", str(error)
    except KeyboardInterrupt:  # nobody's but the adapter's own: this process has a session of its own
        return "fault", f"{case.operation} raised KeyboardInterrupt"
    except MemoryError:
        return "fault", f"{case.operation} returned more than the memory holds"
