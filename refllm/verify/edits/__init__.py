"""Every single edit of a function of the plain text: what somebody might have written instead.

    for edit in edits(attention): edit.function()      the edited function, with the globals of its module
                                  edit.diff()          "- s = q @ swap(k) / sqrt(D)", "+ s = q @ swap(k)"

An edit exchanges the text of one expression, or drops, moves or adds one statement. Nothing is known here about any
operation: which edits there are follows from the grammar, from the names in scope, and from the words of the text.
"""

from __future__ import annotations
import __future__

import ast
import difflib
import inspect
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

from refllm.verify import words
from refllm.verify.bounded import with_ticks
from refllm.verify.edits.compositions import composed_otherwise
from refllm.verify.edits.detached import detached
from refllm.verify.edits.everywhere import word_everywhere
from refllm.verify.edits.expressions import alternatives
from refllm.verify.edits.habits import habits
from refllm.verify.edits.inlined import in_one_place
from refllm.verify.edits.layered import scaled_by_layer
from refllm.verify.edits.made_from import of_one_use, taken_for_what_is_made_from_it
from refllm.verify.edits.masked_too import summed_with_its_factor
from refllm.verify.edits.reductions import reduced_otherwise
from refllm.verify.edits.scaled import scaled_by_numbers, summands_scaled, terms_scaled
from refllm.verify.edits.simpler import simplified
from refllm.verify.edits.source import Changes, Habit, Source, changed, together
from refllm.verify.edits.statements import fixed_arguments, statements_changed
from refllm.verify.edits.unstable import unstable
from refllm.verify.edits.within import factors_within

_LAZY_ANNOTATIONS = __future__.annotations.compiler_flag


@dataclass(frozen=True)
class Edit:
    """A function of the text with one edit; `cost` orders them, what is written more often first."""

    original: FunctionType
    changes: Changes
    cost: float
    in_pullback: bool
    mistakes: int = 1  # that would have to be made for it
    said: str = ""  # what it means, where the lines alone do not say so
    parts: tuple[Edit, ...] = ()  # the edits that it is made of, where there are several
    listed: str = ""  # the id of the known mistake that it is

    @property
    def members(self) -> tuple[Edit, ...]:
        """The edits that it is made of."""
        return self.parts or (self,)

    @property
    def source(self) -> str:
        return changed(source_of(self.original), self.changes)

    def beside(self, other: Edit) -> Edit | None:
        """Both edits of one function; None if they touch each other."""
        both = together(source_of(self.original), self.changes, other.changes)
        if both is None:
            return None
        inside = self.in_pullback and other.in_pullback
        mistakes, said = self.mistakes + other.mistakes, ", and ".join(filter(None, (self.said, other.said)))
        parts = (*self.members, *other.members)
        return Edit(self.original, both, self.cost + other.cost + 1, inside, mistakes, said, parts)

    def function(self) -> Callable[..., Any] | None:
        """The edited function; None if it is not Python."""
        return compiled(self.original, self.source)

    @property
    def line(self) -> int:
        """The line in the file of the text that the edit begins at."""
        old, new = source_of(self.original).splitlines(), self.source.splitlines()
        same = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        return self.original.__code__.co_firstlineno + same

    @property
    def place(self) -> str:
        """`spec/attention.py:24`"""
        path = Path(self.original.__code__.co_filename)
        return f"{path.parent.name}/{path.name}:{self.line}"

    def diff(self) -> list[str]:
        """The lines that go, and those that come."""
        old, new = source_of(self.original).splitlines(), self.source.splitlines()
        lines = list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]
        words = [f"{line[0]} {line[1:].strip()}" for line in lines if line[:1] in "+-" and line[1:].strip()]
        return [simplified(line) if line.startswith("+") else line for line in words]


@cache
def source_of(function: FunctionType) -> str:
    return textwrap.dedent(inspect.getsource(function))


_LOOP = re.compile(r"\b(for|while)\b|\*\*")


@lru_cache(1024)
def compiled(original: FunctionType, source: str) -> Callable[..., Any] | None:
    """The function of this source, which sees what the original sees, and the words of refllm.verify.words."""
    own: dict[str, Any] = {}
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = with_ticks(ast.parse(source)) if _LOOP.search(source) else source
            code = compile(tree, f"<edited {original.__name__}>", "exec", _LAZY_ANNOTATIONS, dont_inherit=True)
        exec(code, _Seen(vars(sys.modules[original.__module__])), own)
    except (SyntaxError, ValueError, NameError):
        return None
    return own.get(original.__name__)


class _Seen(dict[str, Any]):
    """The globals of a module as they are at the moment of a look, and the further words of edited text."""

    def __init__(self, module: dict[str, Any]) -> None:
        super().__init__(__builtins__=module["__builtins__"])
        self.module = module

    def __missing__(self, name: str) -> Any:
        found = self.module if name in self.module else words.WORDS if name in words.WORDS else words.OPERATIONS
        return found[name]


def edits(function: FunctionType) -> Iterator[Edit]:
    """Every single edit, each source once."""
    seen = {source_of(function)}
    for changes, cost, inside, *said in _changes(function):
        edit = Edit(function, changes, cost, inside, said="".join(said))
        if edit.source not in seen:
            seen.add(edit.source)
            yield edit


@dataclass(frozen=True)
class Unstable(Edit):
    """An edit that changes nothing but the rounding: what it is, and what its error grows with."""

    about: str = ""
    grows_with: str = ""


def unstable_forms(function: FunctionType) -> Iterator[Unstable]:
    """The forms of a function that lose digits."""
    for changes, about, grows_with in unstable(Source(source_of(function))):
        yield Unstable(function, changes, 1.0, False, about=about, grows_with=grows_with)


def _changes(function: FunctionType) -> Iterator[tuple[Changes, float, bool] | Habit]:
    text = Source(source_of(function))
    alike: dict[str, list[ast.expr]] = {}  # expressions of the same words, which one changes together
    for node in text.expressions():
        alike.setdefault(text.segment(node), []).append(node)
    for nodes in alike.values():
        for node in nodes:
            for new, cost in alternatives(text, node):
                yield text.exchanged(node, new), cost, text.in_pullback(node)
        if nodes[1:]:
            for new, cost in alternatives(text, nodes[0]):
                yield text.all_exchanged(nodes, new), cost + 0.3, text.in_pullback(nodes[0])
    yield from statements_changed(text)
    yield from composed_otherwise(text)
    yield from habits(text, function)
    yield from in_one_place(text)
    yield from taken_for_what_is_made_from_it(text)
    yield from of_one_use(text)
    yield from word_everywhere(text)
    yield from terms_scaled(text)
    yield from scaled_by_numbers(text)
    yield from summed_with_its_factor(text)
    yield from summands_scaled(text)
    yield from factors_within(text)
    yield from reduced_otherwise(text)
    yield from detached(text)
    yield from scaled_by_layer(text)
    for line, cost in fixed_arguments(text):
        yield text.with_first_line(line), cost, False
