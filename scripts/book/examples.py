"""Code of a page, run while it is rendered, and the numbers that the page states: they are what is computed."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import numpy

_NUMBER = re.compile(r"[-−]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
HALF = 0.5 + 1e-6  # of a unit in the last digit that is stated; the rest is for a tie


def agree(stated: str, computed: str) -> bool:
    """Whether the words are the same, and each number is the computed one, rounded to the digits that are stated."""
    if _without_numbers(stated) != _without_numbers(computed):
        return False
    pairs = zip(_NUMBER.findall(stated), _NUMBER.findall(computed), strict=True)
    return all(_rounds_to(one, other) for one, other in pairs)


def _without_numbers(text: str) -> str:
    return re.sub(r"\s+", "", _NUMBER.sub("#", text))


def _rounds_to(stated: str, computed: str) -> bool:
    said, found = (float(number.replace("−", "-")) for number in (stated, computed))
    return abs(said - found) <= HALF * _unit(stated)


def _unit(number: str) -> float:
    """Of its last digit; 0 for a whole number, which must be met exactly. An array prints `0.` for a zero among others
    with more digits: that is a zero to three of them."""
    mantissa, _, exponent = number.lower().partition("e")
    _, point, decimals = mantissa.partition(".")
    if not point and not exponent:
        return 0.0
    if point and not decimals and not exponent:
        return 1e-3
    return 10.0 ** (int(exponent or 0) - len(decimals))


class Session:
    """What the code of a page has defined so far."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}

    def faults(self, code: str) -> Iterator[str]:
        """Runs code in the form of a Python session. What it does not compute as it is stated is told."""
        examples = doctest.DocTestParser().get_examples(code)
        if not examples:
            yield "an example has no line that begins with >>>"
        for example in examples:
            computed = self._run(example.source)
            stated = example.want
            if example.exc_msg is not None:  # the last line of a traceback is what is stated
                stated = example.exc_msg
            if not agree(stated, computed):
                yield f">>> {example.source.strip()}\nstates\n{stated.rstrip()}\nbut computes\n{computed.rstrip()}"

    def _run(self, source: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), shown_as_text(), numpy.printoptions(precision=12, legacy="1.25"):
            try:
                exec(compile(source, "<page>", "single"), self.names)
            except Exception as error:
                return out.getvalue() + "".join(traceback.format_exception_only(error))
        return out.getvalue()

    def value(self, expression: str) -> Any:
        return eval(compile(expression, "<page>", "eval"), self.names)

    def shapes(self, code: str) -> set[tuple[int, ...]]:
        """Runs one statement `name = expression`, or `name, name = expression`; the shapes of what it assigns."""
        exec(compile(code, "<page>", "exec"), self.names)
        names = code.partition("=")[0].split(",")
        return {tuple(numpy.shape(self.names[name.strip()])) for name in names}

    def size(self, letters: str) -> tuple[int, ...]:
        """`B, T, 3 C, K C` in the sizes that the page has given these letters."""
        wanted = [part.strip() for part in letters.strip("() ").split(",") if part.strip()]
        return tuple(int(eval(re.sub(r"(?<=\w) +(?=\w)", "*", part), self.names)) for part in wanted)


@contextlib.contextmanager
def shown_as_text() -> Iterator[None]:
    """In this context a value alone in a line prints itself, as in a session."""
    before = sys.displayhook
    sys.displayhook = lambda value: print(repr(value)) if value is not None else None
    try:
        yield
    finally:
        sys.displayhook = before
