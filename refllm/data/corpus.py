"""The text to learn from, and its split into a training and a validation part. (DATA)"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path

from refllm.errors import UserError

REPEATED = 40  # characters: a shorter paragraph in both parts (a heading, "Note:") is the language, not a leak
BLANK_LINES = re.compile(r"(\n(?:[^\S\n]*\n)+)")


@dataclass(frozen=True)
class Corpus:
    """A text under a name; `skipped` says which files of a folder were left out, and why, one line each."""

    name: str
    text: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """`removed` counts the characters of the training part that were taken out because validation holds them too."""

    train: str
    validation: str
    removed: int


def python_reference() -> Corpus:
    """The Python language reference that every CPython carries: topics in the order of their names, joined as they are.

    Its text is that of the running Python (464 970 characters in 3.11.7), so numbers compare within one version only.

    Raises: UserError if this Python was packaged without it.
    """
    try:
        topics = import_module("pydoc_data.topics").topics
    except ImportError:
        raise UserError("this Python carries no language reference (pydoc_data.topics); give --data PATH") from None
    return Corpus(f"Python {platform.python_version()} language reference", "".join(topics[k] for k in sorted(topics)))


def read_text(paths: Iterable[str | os.PathLike[str]], *, border: str = "") -> Corpus:
    """UTF-8 text files, or folders of them, as one text, with `border` between two files.

    Files are taken in the sorted order of their paths, whatever the order given, each once. A folder stands for every
    file below it, whatever its suffix, but for hidden ones; those of them that are empty, no text, or a copy of one
    read before are left out and listed in `skipped`, while a file named by the user must be readable text. A leading
    byte-order mark goes, every line ending becomes \\n, and a file that does not end its last line is given the \\n.

    Raises: UserError if a path is missing, empty or unreadable, or a named file is no UTF-8 text.
    """
    given = [Path(path) for path in paths]
    folders = {path for path in given if os.path.isdir(path)}
    named = set(given) - folders
    found = sorted(named.union(*map(files_below, folders)))
    texts: dict[str, Path] = {}
    skipped: list[str] = []
    for path in found:
        try:
            text = decoded(path)
        except UserError as reason:
            if path in named:
                raise
            skipped.append(str(reason))
            continue
        if text in texts:
            skipped.append(f"{path} is a copy of {texts[text]}")
        else:
            texts[text] = path
    name = str(given[0]) + (f" and {len(given) - 1} more" if len(given) > 1 else "") if given else "an empty list"
    if not texts:
        raise UserError(f"there is no text in {name}; give a UTF-8 text file or a folder of them")
    return Corpus(name, border.join(texts), tuple(skipped))


def files_below(folder: Path) -> set[Path]:
    """The regular files below a folder; what is hidden (a name with a leading dot) stays hidden.

    Raises: UserError if a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read {error.filename}: {error.strerror}; check its permissions") from None

    files = set()
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files |= {Path(parent, name) for name in names if not name.startswith(".")}
    return {path for path in files if os.path.isfile(path)}


def decoded(path: Path) -> str:
    """The text of one file.

    Raises: UserError if it is missing, unreadable, not a regular file, empty, or not UTF-8 text.
    """
    try:
        if not path.exists():
            raise UserError(f"{path} does not exist; check the path")
        if path.is_dir():
            raise UserError(f"{path} is a folder, and only a file can be read here; give one of its files")
        if not path.is_file():
            raise UserError(f"{path} is neither a file nor a folder; give a UTF-8 text file")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None
    text = text_of(raw, str(path))
    if not text or text.isspace():
        raise UserError(f"{path} is empty; give a file with text")
    return text if text.endswith("\n") else text + "\n"


def text_of(raw: bytes, name: str) -> str:
    """The text of bytes in UTF-8, of a file or of the standard input: a leading byte-order mark goes, every line ending
    becomes \\n.

    Raises: UserError, with the line, if a byte is zero or the bytes are not UTF-8.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        where = f"{name}:{_line_at(raw, error.start)}"
        raise UserError(f"{where} is not UTF-8 text: byte {error.start} cannot be decoded; save it as UTF-8") from None
    if "\0" in text:
        zero = raw.index(0)
        raise UserError(f"{name}:{_line_at(raw, zero)} is binary: byte {zero} is zero; give text")
    return _with_newlines(text.removeprefix("\ufeff"))


def _line_at(raw: bytes, place: int) -> int:
    """The number of the line that a byte stands in."""
    return _with_newlines(raw[:place].decode("latin-1")).count("\n") + 1


def _with_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(text: str) -> list[str]:
    """The lines of a text with the line ending \\n; an empty text has none."""
    return text.removesuffix("\n").split("\n") if text else []


def split(corpus: Corpus, *, validation: float = 0.1) -> Split:
    """The last part of the text is for validation, and nothing that it holds is in the training part.

    The cut is at the first line that starts within the last `validation` of the characters; in a text that has no
    line starting in the first half of that, at the very character. A paragraph (what blank lines enclose) of at least
    40 characters that stands in both parts is taken out of the TRAINING part: validation stays the last tenth, so
    that numbers compare with anybody's who cuts there, and what it measures was never shown.

    Raises: UserError if validation is not between 0 and 1, or the text is too short, or too repetitive, to split.
    """
    if not 0 < validation < 1:
        raise UserError(f"the validation part must be a fraction between 0 and 1, such as 0.1; got {validation}")
    text = corpus.text
    held_out = round(len(text) * validation)
    mark = len(text) - held_out
    newline = text.find("\n", max(mark - 1, 0), mark + held_out // 2)
    cut = mark if newline < 0 else newline + 1
    before, tail = text[:cut], text[cut:]
    if any(not part or part.isspace() for part in (before, tail)):
        raise UserError(f"{corpus.name} is too short to hold out {validation:g} of it; give more text")
    train = without_paragraphs(before, of=tail)
    if not train or train.isspace():
        raise UserError(f"{corpus.name} repeats itself: its end holds all that comes before; give more varied text")
    return Split(train, tail, cut - len(train))


def without_paragraphs(text: str, *, of: str) -> str:
    """The text without those paragraphs of 40 characters or more that also stand in `of`, nor the blank lines after."""
    theirs = {text for text in map(str.strip, BLANK_LINES.split(of)[::2]) if len(text) >= REPEATED}
    kept, start, place = [], 0, 0  # of a large text, where next to nothing goes, long stretches are kept at once
    for blank in chain(BLANK_LINES.finditer(text), [None]):
        end, following = (len(text), len(text)) if blank is None else blank.span()
        if text[place:end].strip() in theirs:
            kept.append(text[start:place])
            start = following
        place = following
    return "".join([*kept, text[start:]]) if kept else text


def spread(text: str, *, most: int, pieces: int = 100) -> str:
    """A text of at most `most` characters as it is; of a longer one as many, in pieces that are evenly spread over it
    and begin where a line or a word does, if one does near there."""
    if len(text) <= most:
        return text
    length, found = most // pieces, []
    for i in range(pieces):
        place = (len(text) - length) * i // max(1, pieces - 1)
        border = max(text.find(" ", place, place + length // 10), text.find("\n", place, place + length // 10))
        found.append(text[max(border, place) if place else 0 : place + length])
    return "".join(found)
