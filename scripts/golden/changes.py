"""The text with lines exchanged: another customary form of a formula, or what follows another convention.

    late = Change("update.adamw", {"return p * (1 - lr * decay) - lr * change, m, v": "return ..."})
    with plain.exchanged(compiled([late])): ...

A change quotes whole lines of a function, each of which stands there exactly once. What is new may be several lines;
they take the indentation of the line that they replace. Changes are made in order: one may quote a line of another.
"""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

from refllm.numbers.exact import ExactMathematics
from refllm.verify import edits

FURTHER = {"erf": ExactMathematics.erf}  # what changed text may say that the text never does


@dataclass(frozen=True)
class Change:
    """Lines of one function of the text, named with its file, and what stands in their place."""

    function: str
    lines: Mapping[str, str]

    @property
    def original(self) -> Any:
        """The function of the text."""
        file, name = self.function.split(".")
        return vars(importlib.import_module(f"refllm.spec.{file}"))[name]

    def applies(self, source: str) -> bool:
        present = [line.strip() for line in source.splitlines()]
        return all(present.count(old) == 1 for old in self.lines)

    def made(self, source: str) -> str:
        if not self.applies(source):
            raise LookupError(f"{self.function} has not each of these lines exactly once: {', '.join(self.lines)}")
        lines = source.splitlines()
        for old, new in self.lines.items():
            place = next(n for n, line in enumerate(lines) if line.strip() == old)
            indentation = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
            lines[place : place + 1] = textwrap.indent(new, indentation).splitlines()
        return "\n".join(lines) + "\n"


def compiled(
    changes: Iterable[Change], words: Mapping[str, Any] | None = None
) -> dict[FunctionType, Callable[..., Any]]:
    """The functions of the text that these changes concern, with all of them made; they see these further words."""
    found: dict[FunctionType, Callable[..., Any]] = {}
    for original, source in _sources(changes).items():
        found[original] = function = _function(original, source)
        function.__globals__.update(words or {})
    return found


def _sources(changes: Iterable[Change]) -> dict[FunctionType, str]:
    found: dict[FunctionType, str] = {}
    for change in changes:
        original = change.original
        found[original] = change.made(found[original] if original in found else edits.source_of(original))
    return found


@cache
def _function(original: FunctionType, source: str) -> FunctionType:
    function = edits.compiled(original, source)
    if not isinstance(function, FunctionType):
        raise SyntaxError(f"not Python: {source}")
    function.__globals__.update(FURTHER)
    return function


def compatible(first: Iterable[Change], then: Iterable[Change]) -> bool:
    """Whether what the later changes quote still stands there once the first have been made."""
    sources = _sources(first)
    return all(change.applies(sources.get(change.original, edits.source_of(change.original))) for change in then)
