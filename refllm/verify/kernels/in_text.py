"""A mistake of a kernel that is an edit of the text's lines, and the functions of the text in which it may stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Changes, Source

DEEP = 8  # functions that an operation calls whose lines are edited


class Lines(NamedTuple):
    """Words that follow the operation, an id that follows its name, and what is edited."""

    words: str
    name: str
    changes: Changes


@dataclass(frozen=True, eq=False)
class InText:
    id: str
    about: str
    edit: Edit
    issue: str | None = None
    gradients_alone: bool = False
    traced: bool = False  # its gradient is the true one of what it computes, not what its pullback says

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return [(self.edit.place, self.edit.diff())]

    @cached_property
    def _function(self) -> Any:
        return self.edit.function()

    def answer(self, case: Case, dtype: str) -> Response | None:
        if self._function is None:
            return None
        functions = {self.edit.original: self._function}
        traced = self.traced and bool(case.cotangents)
        return plain.answer(case, dtype, functions, traced=traced, values=not case.cotangents)

    @cached_property
    def with_true_gradient(self) -> InText:
        """The same mistake made on both ways: the gradient is that of the wrong value."""
        return replace(self, about=f"{self.about}, and whose gradient is that of it", traced=True)


@dataclass(frozen=True, eq=False)
class OfGradient(InText):
    """One of a pullback."""

    gradients_alone: bool = True


def in_text(
    operation: str, lines: Callable[[Source], Iterable[Lines]], kind: type[InText], *, in_pullback: bool
) -> Iterator[InText]:
    """Those of an operation itself first, then those of what it calls."""
    if operation not in plain.operations():
        return
    for function in plain.called(operation)[:DEEP]:
        of = "" if function.__name__ == operation else f" (of {function.__name__})"
        for words, name, changes in lines(Source(source_of(function))):
            edit = Edit(function, changes, 0.0, in_pullback)
            yield kind(f"{operation}/{name}", f"{operation} {words}{of}", edit)
