"""The texts that a `predict` is given: arguments, the lines of a file, a column of a table, or the standard input; and
how the answers to them are shown: a line each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from refllm.data.corpus import decoded, lines_of, text_of
from refllm.data.examples import SUFFIXES, rows
from refllm.errors import UserError
from refllm.tokenizers.pieces import LOST


def texts_of(options: argparse.Namespace, *, column: str) -> list[tuple[str, str]]:
    """The texts, each with where it comes from: `FILE:LINE`, or `argument:NUMBER`.

    Raises: UserError, with where it is, for one that is empty or not UTF-8; for none at all; for both of two sources.
    """
    if options.texts and options.file:
        raise UserError("give texts or --file, not both")
    if options.file and Path(options.file).suffix.lower() in SUFFIXES:
        found = [(row[column], where) for row, where in rows(Path(options.file), columns=(column,))]
    elif options.file:
        found = _numbered(lines_of(decoded(Path(options.file))), options.file)
    elif options.texts:
        found = _numbered(options.texts, "argument")
    else:
        found = _numbered(lines_of(text_of(sys.stdin.buffer.read(), "standard input")), "standard input")
    for text, where in found:
        require_text(text, where)
    if not found:
        raise UserError("there is no text; give some after RUN, by --file or on the standard input")
    return found


def require_text(text: str, where: str) -> None:
    """UserError for a text that is empty, and for an argument with bytes that are not UTF-8."""
    if not text.strip():
        raise UserError(f"{where}: the text is empty; fill it in or leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that Python could not decode reach an argument as surrogates
        raise UserError(f"{where}: not UTF-8 text; give it in UTF-8") from None


def tell_broken(written: str, tokenizer: Any) -> None:
    """Says on the standard error why there are signs of replacement in what a model has written, if there are."""
    if count := written.count(LOST):
        print(
            f"{count:,} {LOST} in what was written: this model spells rare characters by several of its "
            f"{tokenizer.size:,} tokens, and got them wrong there; train longer, with a larger --vocabulary or with "
            "--tokenizer character",
            file=sys.stderr,
        )


def on_one_line(text: str) -> str:
    """The text with a space for each line break, so that a line stands for a text."""
    return " ".join(text.splitlines())


def _numbered(texts: Sequence[str], name: str) -> list[tuple[str, str]]:
    return [(text, f"{name}:{number}") for number, text in enumerate(texts, start=1)]
