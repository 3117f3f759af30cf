"""JSON files of strangers: bounded, without a name twice, and with one line for what is wrong."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from refllm.errors import UserError

MOST_CONFIG = 1 << 24  # bytes of config.json; the largest known, with a thousand labels, has 60 kB
MOST_INDEX = 1 << 26  # of an index of shards
MOST_LEVELS = 64  # values within each other


def read_bytes(path: Path, *, most: int) -> bytes:
    """The contents of a file of at most so many bytes. A pipe is not waited for."""
    try:
        found = require_file(path)
        if found.st_size > most:
            raise UserError(f"{path} has {found.st_size:,} bytes, more than the {most:,} that such a file may have")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the directory of a published model") from None
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}); check the path and its permissions") from None


def require_file(path: Path) -> os.stat_result:
    """What the system says of a file. UserError for a folder, a device, or a pipe, which would be waited for."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a file; give the directory of a published model")
    return found


def read_text(path: Path, *, most: int) -> str:
    """As `read_bytes`, of a file in UTF-8."""
    try:
        return read_bytes(path, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: byte {error.start} cannot be decoded; get the file again") from None


def read_object(path: Path, *, most: int) -> dict[str, Any]:
    """The object that a JSON file holds."""
    return parsed_object(read_text(path, most=most), what=str(path))


def parsed_object(text: str | bytes, *, what: str) -> dict[str, Any]:
    """The object that a JSON text holds. UserError for anything else, a name that occurs twice, or deep nesting."""
    try:
        found = json.loads(text, object_pairs_hook=_pairs)
    except RecursionError:
        raise UserError(f"{what} nests values too deeply to be what it should be; get the file again") from None
    except (ValueError, OverflowError) as error:
        raise UserError(f"{what} cannot be read as JSON ({error}); get the file again") from None
    if not isinstance(found, dict):
        raise UserError(f"{what} must hold an object, not a {type(found).__name__}; get the file again")
    level: list[Any] = [found]
    for _ in range(MOST_LEVELS):
        level = [child for value in level for child in _children(value)]
        if not level:
            return found
    raise UserError(f"{what} has more than {MOST_LEVELS} values within each other; get the file again")


def _children(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in children if isinstance(child, (dict, list))]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r} occurs twice")
    return found
