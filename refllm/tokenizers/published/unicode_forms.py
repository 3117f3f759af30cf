"""The forms NFC, NFD, NFKC and NFKD as changes of single characters, which say what each new character comes from.

Source: Unicode Standard Annex 15; the order of the steps is that of the library that `tokenizers` normalises with.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Literal, TypeAlias

from refllm.tokenizers.published.runs import class_of
from refllm.tokenizers.published.traced_text import Traced

Form: TypeAlias = Literal["NFC", "NFD", "NFKC", "NFKD"]
Changes: TypeAlias = list[tuple[str, int]]  # as `Traced.changed` takes them


def normal_form(text: str, form: Form) -> str:
    """The normal form of a text; characters that are newer than the library's tables stay, and nothing passes them."""
    if unicodedata.is_normalized(form, text) and not _opaque().search(text):
        return text
    return "".join(
        part if place % 2 else unicodedata.normalize(form, part) for place, part in enumerate(_opaque().split(text))
    )


def traced_form(text: Traced, form: Form) -> Traced:
    """The same of a text that remembers."""
    if normal_form(text.text, form) == text.text and unicodedata.is_normalized(form, text.text):
        return text
    changes: Changes = []
    for place, part in enumerate(_opaque().split(text.text)):
        changes += [(part, 0)] if place % 2 else _changes(part, form)
    return text.changed(changes)


@cache
def _opaque() -> re.Pattern[str]:
    ranges = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in class_of("OPAQUE").ranges())
    return re.compile(f"([{ranges}])")


def _changes(text: str, form: Form) -> Changes:
    found = list(_decomposed(text, "NFKD" if "K" in form else "NFD"))
    return list(_composed(found)) if form.endswith("C") else found


def _decomposed(text: str, form: Form) -> Iterator[tuple[str, int]]:
    """Each character's own decomposition, then the marks between two starters in the order of their classes."""
    marks: Changes = []
    for character in text:
        for n, part in enumerate(unicodedata.normalize(form, character)):
            if unicodedata.combining(part):
                marks.append((part, min(n, 1)))
                continue
            yield from sorted(marks, key=lambda mark: unicodedata.combining(mark[0]))
            marks = []
            yield part, min(n, 1)
    yield from sorted(marks, key=lambda mark: unicodedata.combining(mark[0]))


def _composed(decomposed: Changes) -> Iterator[tuple[str, int]]:
    """Starters joined with what follows them and is not blocked."""
    starter: tuple[str, int] | None = None
    waiting: Changes = []
    for character, change in decomposed:
        order = unicodedata.combining(character)
        if starter is None:
            if order:
                yield character, change
            else:
                starter = character, change
            continue
        last = unicodedata.combining(waiting[-1][0]) if waiting else None
        if last is None or last < order:
            joined = unicodedata.normalize("NFC", starter[0] + character)
            if len(joined) == 1:
                starter = joined, starter[1] + change - 1
                continue
        if order:
            waiting.append((character, change))
            continue
        yield starter
        yield from waiting
        starter, waiting = (character, change), []
    if starter is not None:
        yield starter
        yield from waiting
