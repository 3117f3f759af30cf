"""What the text does for a case: which lines run, forward and backward, and how its functions are called.

An edit of a line that does not run explains nothing, and one of a line that the forward pass runs changes values.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from types import FrameType, FunctionType
from typing import Any

from refllm.spec import array
from refllm.verify import cached as with_cache
from refllm.verify import plain
from refllm.verify.case import Case
from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.partial import LAYER, Call, Where, facts, simple
from refllm.verify.keywords import golden_name

MOST = 4  # different values of one fact, beyond which it tells nothing


@dataclass
class Observed:
    """The lines of the text that run, and the calls of its functions."""

    forward: set[tuple[str, int]] = field(default_factory=set)
    backward: set[tuple[str, int]] = field(default_factory=set)
    calls: dict[Any, list[Call]] = field(default_factory=dict)
    kinds: dict[Any, dict[str, Any]] = field(default_factory=dict)  # of the values that names have, by function

    def runs(self, edit: Edit, *, backward: bool) -> bool:
        """Whether what an edit changes is run."""
        lines = self.backward if backward else self.forward
        code = edit.original.__code__
        inserted = all(first == last for first, last, _ in edit.changes)
        if inserted:
            return edit.original.__code__ in self.calls
        spans = [_span(edit.original, first) for first, *_ in edit.changes]
        return any((code.co_filename, line) in lines for span in spans for line in span)

    def is_plausible(self, edit: Edit) -> bool:
        """Whether a name that stands for another has a value of its kind: nobody takes a tree for a number."""
        first, last, new = edit.changes[0]
        old = source_of(edit.original).encode()[first:last].decode()
        kinds = self.kinds.get(edit.original.__code__, {})
        return old not in kinds or new not in kinds or kinds[old] == kinds[new]

    def is_in_layers(self, function: FunctionType) -> bool:
        """Whether a function is called in layers that have numbers."""
        return any(LAYER.search(call.place) for call in self.calls.get(function.__code__, []))

    def wheres(self, function: FunctionType) -> Iterator[Where]:
        """What tells some calls of a function from the others."""
        calls = self.calls.get(function.__code__, [])
        if len(calls) < 2:
            return
        of_all = [facts(call) for call in calls]
        told = False
        for name in dict.fromkeys(name for known in of_all for name in known):
            if name == "the call" and (told or len(calls) > 2 * MOST):
                continue
            values = sorted(dict.fromkeys(known.get(name) for known in of_all), key=lambda x: x is not True)
            if not 2 <= len(values) <= (MOST if name != "the call" else 2 * MOST):
                continue
            told = True
            yield from (Where(name, value) for value in values)
            if len(values) > 2:
                yield from (Where(name, value, negated=True) for value in (values[0], values[-1]))


def observed(case: Case) -> Observed:
    """What the text does for this case, with its gradient where it has one."""
    found, places = Observed(), {f.__code__.co_filename for f in plain.text().values()}
    with_cache = plain.called_with_cache(case)
    places = (places - {array.__file__}) | {f.__code__.co_filename for f in with_cache}
    codes = {f.__code__ for f in (*plain.called(case.operation), *plain.text().values(), *with_cache)}

    def forward(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in places:
            return None
        if event == "call":
            if frame.f_code in codes:
                caller = frame.f_back
                made = found.calls.setdefault(frame.f_code, [])
                at = ("", 0) if caller is None else (caller.f_code.co_filename, caller.f_lineno)
                made.append(Call(simple(frame.f_locals), array._onlooker.get()[1], at, len(made)))
        elif event == "return":
            found.kinds.setdefault(_outer(frame), {}).update({n: _kind(x) for n, x in frame.f_locals.items()})
        elif event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return forward

    lines = found.forward
    _traced(case.values_alone(), forward)
    if case.gradients:
        lines, found.calls = set[tuple[str, int]](), {}
        _traced(case, forward)
        found.backward = lines - found.forward
    return found


def _outer(frame: FrameType) -> Any:
    """The code of the function of the text that a function stands in, whose names it sees."""
    first, name = frame.f_code.co_firstlineno, frame.f_code.co_filename
    known = [c for c in _codes(name) if c.co_firstlineno <= first]
    return max(known, key=lambda code: code.co_firstlineno, default=frame.f_code)


@cache
def _codes(file: str) -> list[Any]:
    functions = [*plain.text().values(), *with_cache.FUNCTIONS]
    functions += [g for f in plain.text().values() for g in plain.called(golden_name(f.__name__))]
    return list({f.__code__ for f in functions if f.__code__.co_filename == file})


def _kind(x: Any) -> Any:
    """Of an array its axes and whether they count; of anything else its type."""
    if hasattr(x, "ndim") and hasattr(x, "dtype"):
        return ("array", x.ndim, x.dtype.kind)
    return float if isinstance(x, int | float) and not isinstance(x, bool) else type(x)


def _traced(case: Case, f: Any) -> None:
    before = sys.gettrace()
    sys.settrace(f)
    try:
        plain.answer(case, "float64", {}, traced=False)
        if with_cache := plain.called_with_cache(case):
            plain.answer(case, "float64", {f: f for f in with_cache}, traced=False)
    finally:
        sys.settrace(before)


def _span(function: FunctionType, at: int) -> range:
    """The lines in the file of the statement that a byte of a source stands in."""
    source = source_of(function)
    line = source.encode()[:at].count(b"\n") + 1
    first, last = next(((a, b) for a, b in _statements(function) if a <= line <= b), (line, line))
    start = function.__code__.co_firstlineno - 1
    return range(start + first, start + last + 1)


@cache
def _statements(function: FunctionType) -> list[tuple[int, int]]:
    """First and last line of every statement, of compound ones that of their head, the shortest first."""
    found = list[tuple[int, int]]()
    for node in ast.walk(ast.parse(source_of(function))):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.FunctionDef):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
            found.append((node.lineno, max(node.lineno, last)))
    return sorted(found, key=lambda span: span[1] - span[0])
