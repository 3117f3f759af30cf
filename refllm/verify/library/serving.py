"""The process in which a library is called. It answers one case after the other until its input ends."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
from typing import Any

from refllm.verify import frames
from refllm.verify.case import CARRIERS, FaultError, UnsupportedError
from refllm.verify.library.calls import Question, answer
from refllm.verify.serve import private_pipes


def main(path: str, names: list[str], places: int | None) -> None:
    """Serves the library at `path`; `names` are the operations that it may have."""
    questions, answers = private_pipes()
    if places is not None:
        faulthandler.enable(os.fdopen(places, "w"), all_threads=False)
    try:
        library = ctypes.CDLL(os.path.abspath(path))
    except OSError as error:
        frames.write(answers, ("unusable", f"{path} cannot be loaded: {error}"))
        return
    has = frozenset(name for name in names if hasattr(library, f"refllm_{name}"))
    frames.write(answers, ("ready", {"operations": has, "dtypes": tuple(CARRIERS), "conventions": {}, "plan": None}))
    with contextlib.suppress(EOFError):
        while True:
            frames.write(answers, _answer(library, frames.read(questions)))


def _answer(library: ctypes.CDLL, question: Question) -> tuple[str, Any]:
    try:
        return "answer", answer(library, question)
    except UnsupportedError as error:
        return "unsupported", str(error)
    except FaultError as error:
        return "fault", str(error)
