#!/usr/bin/env python3
"""Labelled short texts, and unlabelled ones to pre-train on, from the fortunes that Debian packages.

    apt download fortunes fortunes-min
    for package in fortunes*.deb; do dpkg-deb -x $package fortunes; done
    scripts/data/fortunes.py fortunes train.csv test.csv text.txt more.csv

The label of a fortune is the file that it stands in, one of six. An eighth of them, chosen by a digest of the text, is
for testing; a text that stands under two labels is left out. The unlabelled text holds the training part and the
fortunes of all other files but pictures, nothing of the testing part, four line feeds between any two; more.csv
is a table of the fortunes of those other files.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

LABELS = ("computers", "definitions", "politics", "science", "songs-poems", "zippy")
PICTURES = ("ascii-art", "translate-me")
FEWEST = 3  # words


def fortunes(file: Path) -> list[str]:
    """The texts of a file, with single spaces."""
    text = file.read_text(encoding="utf-8", errors="replace")
    found = (" ".join(one.split()) for one in text.split("\n%\n"))
    return [one.removesuffix(" %") for one in found if len(one.split()) >= FEWEST]


def folded(text: str) -> str:
    """The same for two copies of a text, whatever their signs and capitals."""
    return "".join(c for c in text.lower() if c.isalnum())


def is_test(text: str) -> bool:
    return hashlib.sha256(folded(text).encode()).digest()[0] % 8 == 0


def write_table(path: str, rows: list[tuple[str, ...]]) -> None:
    """A row has a text and perhaps its label."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label")[: len(rows[0])], *rows])


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((__doc__ or "").strip())
        return
    if len(sys.argv) != 6:
        sys.exit(f"usage: {sys.argv[0]} FOLDER TRAIN.csv TEST.csv TEXT.txt MORE.csv")
    folder, train_file, test_file, text_file, more_file = sys.argv[1:]
    files = {file.name: file for file in sorted(Path(folder).rglob("games/fortunes/*")) if "." not in file.name}
    if missing := [label for label in LABELS if label not in files]:
        sys.exit(f"{folder} holds no fortunes called {missing[0]}; unpack the packages fortunes and fortunes-min there")
    labelled: dict[str, tuple[str, set[str]]] = {}
    for label in LABELS:
        for text in fortunes(files[label]):
            labelled.setdefault(folded(text), (text, set()))[1].add(label)
    rows: list[tuple[str, ...]] = [(text, min(labels)) for text, labels in labelled.values() if len(labels) == 1]
    train, test = ([row for row in rows if is_test(row[0]) is side] for side in (False, True))
    others = [text for name, file in files.items() if name not in (*LABELS, *PICTURES) for text in fortunes(file)]
    known = {folded(text) for text, _ in rows}
    more = [text for text in others if folded(text) not in known]
    unlabelled = [text for text, _ in train] + more
    write_table(train_file, train)
    write_table(test_file, test)
    write_table(more_file, [(text,) for text in more])
    Path(text_file).write_text("\n\n\n\n".join(unlabelled), encoding="utf-8")
    print(f"{len(train):,} texts to learn from, {len(test):,} to test with, {len(unlabelled):,} without labels")


if __name__ == "__main__":
    main()
