"""Examples with labels, pairs of texts and questions, from the files that people have. (DATA, TASKS)

CSV and TSV with a header, JSON lines, a folder a label, two parallel files. Every example knows the file and the line
that it comes from, and every refusal names them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np

from refllm.data.corpus import decoded, files_below, lines_of
from refllm.errors import UserError

Item = TypeVar("Item")
Row: TypeAlias = tuple[dict[str, str], str]  # texts by column, and FILE:LINE
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Example:
    """A text and its label; None where the data has none. `where` is FILE:LINE."""

    text: str
    label: str | None
    where: str


@dataclass(frozen=True)
class Pair:
    """A text and what it becomes: a translation, a summary."""

    source: str
    target: str
    where: str


@dataclass(frozen=True)
class Question:
    """A question about a context, and its answer, which stands in the context at the character `start`."""

    context: str
    question: str
    answer: str
    start: int
    where: str


def read_labelled(paths: Sequence[str | Path], *, text: str, label: str, needs_label: bool) -> list[Example]:
    """Examples of tables and JSON lines, whose columns are named `text` and `label`, and of folders, each of whose
    subfolders is a label and each file in it a text.

    Raises: UserError, with file and line, for a file that is not such a table, a row without its text or, if
            `needs_label`, its label, for one column as both, and for data without an example.
    """
    _require_two_columns(text, label)
    found: list[Example] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += _of_folders(path)
            continue
        for row, where in rows(path, columns=(text, label) if needs_label else (text,)):
            value = row.get(label, "").strip()
            if not row[text].strip():
                raise UserError(f"{where}: the text is empty; fill it in or take the line out")
            if needs_label and not value:
                raise UserError(f"{where}: there is no label; fill in the column {label!r} or take the line out")
            found.append(Example(row[text], value or None, where))
    if not found:
        raise UserError(
            f"there is no example in {', '.join(map(str, paths)) or 'an empty list'}; give a file with rows"
        )
    return found


def _require_two_columns(a: str, b: str) -> None:
    if a == b:
        raise UserError(f"both sides of the examples are the one column {a!r}; name another one for one of them")


def _of_folders(folder: Path) -> list[Example]:
    labels = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not labels:
        raise UserError(f"{folder} has no subfolders; give a folder with a subfolder a label, or a table")
    for label in labels:
        if SURROGATE.search(label.name):  # bytes that Python could not decode reach a path as surrogates
            shown = os.fsencode(label).decode(errors="backslashreplace")
            raise UserError(f"{shown}: the name of this folder is a label, and it is not UTF-8; rename the folder")
    return [Example(decoded(file), label.name, f"{file}:1") for label in labels for file in sorted(files_below(label))]


def read_pairs(paths: Sequence[str | Path], *, source: str, target: str) -> list[Pair]:
    """Pairs of two parallel files, line by line, or of the columns `source` and `target` of tables.

    Raises: UserError for files of unequal length, an empty line, one file or column for both sides, or data without a
            pair.
    """
    files = [Path(path) for path in paths]
    if len(files) == 2 and not any(file.suffix.lower() in SUFFIXES for file in files):
        return _parallel(*files)
    _require_two_columns(source, target)
    found = []
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise UserError(f"{file}: give two parallel files alone, or .csv or .tsv with a header, or .jsonl")
        for row, where in rows(file, columns=(source, target)):
            for name in (source, target):
                if not row[name].strip():
                    raise UserError(f"{where}: the {name} is empty; fill it in or take the line out")
            found.append(Pair(row[source], row[target], where))
    if not found:
        raise UserError(f"there is no pair in {', '.join(map(str, files)) or 'an empty list'}; give a file with rows")
    return found


def _parallel(source: Path, target: Path) -> list[Pair]:
    if source.resolve() == target.resolve():
        raise UserError(f"{source} is given for both sides; give the file of the other side beside it")
    sides = [lines_of(decoded(path)) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        longer, last = (source, len(sides[1])) if len(sides[0]) > len(sides[1]) else (target, len(sides[0]))
        raise UserError(
            f"{longer}:{last + 1}: the other file ends before this line: {source} has {len(sides[0]):,} lines and "
            f"{target} {len(sides[1]):,}; parallel files need equal lines"
        )
    found = []
    for number, (a, b) in enumerate(zip(*sides, strict=True), start=1):
        for path, line in ((source, a), (target, b)):
            if not line.strip():
                raise UserError(f"{path}:{number}: the line is empty; take it out of both files")
        found.append(Pair(a, b, f"{source}:{number}"))
    return found


def read_questions(paths: Sequence[str | Path]) -> list[Question]:
    """Questions of tables with the columns context, question, answer and, if the answer stands in the context several
    times, start (its first character).

    Raises: UserError, with file and line, if an answer does not stand in its context.
    """
    found = []
    for path in map(Path, paths):
        for row, where in rows(path, columns=("context", "question", "answer")):
            context, answer = row["context"], row["answer"].strip()
            for name in ("context", "question", "answer"):
                if not row[name].strip():
                    raise UserError(f"{where}: the {name} is empty; fill it in or take the line out")
            start, place = context.find(answer), ""
            if given := row.get("start", "").strip():
                before = len(row["answer"]) - len(row["answer"].lstrip())
                start, place = _whole_number(given, where) + before, f" at character {given}"
            if start < 0 or context[start : start + len(answer)] != answer:
                raise UserError(
                    f"{where}: the answer {answer[:40]!r} does not stand in the context{place}; copy it from there"
                )
            found.append(Question(context, row["question"], answer, start, where))
    if not found:
        raise UserError(
            f"there is no question in {', '.join(map(str, paths)) or 'an empty list'}; give a file with rows"
        )
    return found


def _whole_number(text: str, where: str) -> int:
    """The number of 12 and of 12.0, which other programs write in a column of whole numbers where one is missing."""
    try:
        return int(text.removesuffix(".0"))
    except ValueError:
        raise UserError(
            f"{where}: start must be a whole number, the place of the answer's first character; got {text!r}"
        ) from None


def rows(path: Path, *, columns: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a table or of JSON lines as text by column, each with its FILE:LINE; one at a time, since those of a
    large file take many times its size.

    Raises: UserError, with file and line, for another format, a missing column or a row that is not whole.
    """
    text, suffix = decoded(path), path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return _json_rows(path, text, columns)
    if suffix not in (".csv", ".tsv"):
        raise UserError(
            f"{path}: give .csv or .tsv with a header, .jsonl, or a folder; got {path.suffix or 'no suffix'}"
        )
    return _table_rows(path, text, columns, delimiter="\t" if suffix == ".tsv" else ",")


def _table_rows(path: Path, text: str, columns: tuple[str, ...], *, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text may be longer than the module expects
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    before = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        for column in columns:
            if header.count(column) != 1:
                there = "twice" if column in header else f"not among {', '.join(header) or 'those of an empty header'}"
                raise UserError(
                    f"{path}:1: the column {column!r} is {there}; correct the header or name another column"
                )
        before = reader.line_num
        for cells in reader:
            where, before = f"{path}:{before + 1}", reader.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(
                    f"{where}: {len(cells)} cells where the header has {len(header)}; quote what holds a separator"
                )
            yield dict(zip(header, cells, strict=True)), where
    except csv.Error as error:
        raise UserError(f"{path}:{before + 1}: not a table ({error}); quote cells with double quotes") from None


def _json_rows(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: not an object; write one with {', '.join(columns)}")
        for column in columns:
            if row.get(column) is None:
                raise UserError(f"{where}: there is no {column!r}; every line needs it")
            if not isinstance(row[column], str | int):
                raise UserError(f"{where}: {column!r} must be text or a whole number; got {str(row[column])[:40]}")
        texts = {key: _as_text(value) for key, value in row.items() if value is not None}
        if any(SURROGATE.search(texts[column]) for column in columns):
            raise UserError(f"{where}: half of a surrogate pair is no character; write the line as UTF-8 again")
        yield texts, where


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)  # true, not True


def split_examples(
    items: Sequence[Item],
    *,
    key: Callable[[Item], Hashable],
    group: Callable[[Item], Hashable],
    validation: float,
    seed: int,
) -> tuple[list[Item], list[Item]]:
    """Training and validation: about the share `validation` of every group (a label), equal keys on one side.

    With `folded` for a key, texts that are the same but for case and space are on one side: what is tested has not been
    learnt by heart. Items of one key count to the group of the first. Every group keeps an item to learn from.

    Raises: UserError if one of the two sides would be empty.
    """
    if not 0 < validation < 1:
        raise UserError(f"the validation part must be a fraction between 0 and 1, such as 0.1; got {validation}")
    random = np.random.default_rng(seed)
    by_key: dict[Hashable, list[int]] = {}
    for index, item in enumerate(items):
        by_key.setdefault(key(item), []).append(index)
    groups: dict[Hashable, list[list[int]]] = {}
    for indices in by_key.values():
        groups.setdefault(group(items[indices[0]]), []).append(indices)
    held: set[int] = set()
    due = 0.0  # over all groups so far: many small ones give their share too, one here and one there
    for bundles in groups.values():
        size = sum(map(len, bundles))
        due += validation * size
        wanted, taken = min(round(due) - len(held), math.ceil(validation * size)), 0
        for place in random.permutation(len(bundles))[1:]:  # every group keeps something to learn from
            if taken + len(bundles[place]) <= wanted:
                held.update(bundles[place])
                taken += len(bundles[place])
    train = [item for index, item in enumerate(items) if index not in held]
    if not held or not train:
        distinct = ""
        if len(by_key) < len(items):
            distinct = f"distinct ones among them: {len(by_key):,} (those that share a text count as one); "
        raise UserError(f"{len(items)} examples are too few to hold out {validation:g} of them; {distinct}give more")
    return train, [item for index, item in enumerate(items) if index in held]


def folded(text: str) -> str:
    """The key of `split_examples` for texts: without case and with single spaces."""
    return " ".join(text.casefold().split())


def labels_of(examples: Sequence[Example]) -> list[str]:
    """The different labels, sorted.

    Raises: UserError if there is one only.
    """
    found = sorted({example.label for example in examples if example.label is not None})
    if len(found) < 2:
        only = f"all {len(examples)} examples have the one label {found[0]!r}" if found else "no example has a label"
        begin = f"{examples[0].where}: from here on " if examples else ""
        raise UserError(f"{begin}{only}; a classifier needs at least two")
    return found
