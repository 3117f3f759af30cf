"""state.json: what a checkpoint says of itself, with a checksum over every byte of it.

    {
     "format": 2,
     ...
     "sha256": "0f3a..."      of all that stands before this line
    }

A flipped bit anywhere is noticed before a value is used. Format 1, which had no checksum, is still read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from refllm.errors import UserError

FORMAT = 2
READ = (1, FORMAT)
MOST_BYTES = 1 << 28  # a tokenizer of a million tokens takes 30 MB
MOST_LEVELS = 32
MOST_STEPS = 1 << 53

_SEAL = re.compile(rb'(,\n "sha256": ")([0-9a-f]{64})("\n}\n?)\Z')
_NO_NAME = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes of a path that is not UTF-8

Made = TypeVar("Made")


def sealed(state: dict[str, Any]) -> bytes:
    """The bytes of a state.json, in ASCII, which holds any path of a file."""
    body = json.dumps({"format": FORMAT, **state}, indent=1).removesuffix("\n}").encode()
    return body + f',\n "sha256": "{hashlib.sha256(body).hexdigest()}"\n}}'.encode()


def read_state(path: Path) -> dict[str, Any]:
    """What was sealed. UserError for anything that is missing, damaged, or no state at all."""
    data = bytes_of(path)
    try:
        state = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({error}); it is damaged: use another one") from None
    known = isinstance(state, dict) and type(state.get("format")) is int and state["format"] in READ
    if not known or not isinstance(state.get("files"), dict):
        raise UserError(
            f"{path} is not a checkpoint of format {' or '.join(map(str, READ))}; it was made by another version or "
            "program"
        )
    seal = _SEAL.search(data)
    if seal is None and state["format"] > 1:
        raise UserError(f"{path} has no checksum at its end; it is damaged or was edited: use another checkpoint")
    if seal is not None and hashlib.sha256(data[: seal.start()]).hexdigest().encode() != seal[2]:
        raise UserError(f"{path} is not as it was saved: its checksum differs; use another checkpoint")
    _require_plain(state, path)
    step = state.get("step", 0)
    if type(step) is not int or not 0 <= step < MOST_STEPS:
        raise UserError(f"{path} is damaged (step {str(step)[:40]}); use another checkpoint")
    state.pop("sha256", None)
    return state


def made_of(cls: type[Made], saved: Any) -> Made:
    """A dataclass of saved values. TypeError where one is not of the field's type, which Python would not notice."""
    if not isinstance(saved, dict):
        raise TypeError(f"{cls.__name__} is not an object")
    types = {field.name: str(field.type) for field in fields(cls)}  # type: ignore[arg-type]
    for name, value in saved.items():
        if name in types and not is_a(value, types[name]):
            raise TypeError(f"{name} is {str(value)[:40]!r}, should be {types[name]}")
    return cls(**saved)


def is_a(value: Any, kind: str) -> bool:
    """Whether a saved value is one of an annotated field: int, float (which may be infinite), bool, str, None, a tuple,
    or one of several."""
    if " | " in kind:
        return any(is_a(value, one) for one in kind.split(" | "))
    if kind == "int":
        return type(value) is int and abs(value) < MOST_STEPS
    if kind == "float":
        return type(value) in (int, float) and (value == math.inf or abs(value) <= sys.float_info.max)
    if kind.startswith("tuple["):
        of = kind.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, (list, tuple)) and all(is_a(one, of) for one in value)
    return type(value) is {"bool": bool, "str": str, "None": type(None)}.get(kind, type(value))


def bytes_of(path: Path) -> bytes:
    """Of a file. UserError where there is none, or more than a state can have; a pipe is not waited for."""
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path} cannot be read as a checkpoint (it is a folder); it is damaged: use another one")
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{path} is not a file; use another checkpoint")
        if found.st_size > MOST_BYTES:
            raise UserError(f"{path} has {found.st_size:,} bytes, which no checkpoint has; use another one")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no checkpoint in {path.parent}: {path} does not exist; give the directory of a run") from None
    except PermissionError:
        raise UserError(f"{path} may not be read; give yourself the permission, or another run") from None
    except (OSError, ValueError) as error:  # a name with a zero byte, or that nothing can have
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as a checkpoint ({error}); it is damaged: use another one") from None


def _require_plain(state: dict[str, Any], path: Path) -> None:
    """UserError for values within too many others, and for what is not text."""
    level: list[Any] = [state]
    for _ in range(MOST_LEVELS):
        children: list[Any] = []
        for value in level:
            if isinstance(value, str) and _NO_NAME.search(value):
                raise UserError(f"{path} is damaged (half of a surrogate pair is no character); use another checkpoint")
            if isinstance(value, dict):
                children += [*value, *value.values()]
            elif isinstance(value, list):
                children += value
        level = children
    if level:
        raise UserError(f"{path} is damaged (more than {MOST_LEVELS} values within each other); use another checkpoint")
