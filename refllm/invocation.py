"""How the user called the command line, so that the commands that it prints can be typed again."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

_begun: list[float] = []  # of the command that this process is for, until it has been asked for

VARIABLE = "REFLLM_COMMAND"  # in which scripts/refllm says what was typed


def typed() -> str:
    """What a command begins with, as the user typed it and quoted for a shell: ./scripts/refllm, refllm,
    python -m refllm; refllm where it was called from Python."""
    if script := os.environ.get(VARIABLE):
        return shlex.quote(script)
    program = Path(sys.argv[0] if sys.argv else "")
    if program.name == "__main__.py" and program.parent.name == "refllm":
        return _by_module()
    if program.stem == "refllm":
        found = shutil.which(program.name)
        in_the_path = found is not None and os.path.exists(program) and os.path.samefile(found, program)
        return program.stem if in_the_path else shlex.quote(str(sys.argv[0]))
    return "refllm"


def _by_module() -> str:
    """python -m refllm, with the Python and the flags that were typed."""
    given = list(sys.orig_argv)
    words = given[: given.index("-m") + 2] if "-m" in given else [sys.executable, "-m", "refllm"]
    return shlex.join(words)


def begin_command(at: float) -> None:
    """Says when the command that this process was started for began (time.perf_counter)."""
    _begun[:] = [at]


def began() -> float:
    """When the command that asks began (time.perf_counter): with its process, if that was started for it, or now."""
    return _begun.pop() if _begun else time.perf_counter()


def command(*words: str | Path) -> str:
    """A command of refllm as the user would type it: each word is quoted where a shell needs it."""
    return " ".join([typed(), *(shlex.quote(str(word)) for word in words)])


def quoted(path: str | Path) -> str:
    """A path as a shell takes it, for a flag that is named without the command around it."""
    return shlex.quote(str(path))


def retold(help_text: str, *, elsewhere: bool = False) -> str:
    """A help text whose commands begin as the user typed them; only for texts of refllm's own. Of what is run
    `elsewhere`, in another folder, a path is made whole."""
    begin = typed()
    if elsewhere:
        first, *rest = shlex.split(begin)
        begin = shlex.join([str(Path(first).absolute()) if os.sep in first else first, *rest])
    return re.sub(r"(?<![\w/.-])refllm (?=[a-z]+\b)", lambda _: f"{begin} ", help_text)
