"""An edit that holds in a part of the calls, or for the gradient alone: layers and their copies are written apart.

An implementation that copies a line for every layer, norm or projection may have a mistake in one copy; one with a
pullback by hand may have a formula there that its forward pass does not have.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import FunctionType
from typing import Any, cast

from refllm.spec import array
from refllm.verify.edits import Edit

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
NUMBERED = {"the call": "call", "layer": "layer"}
LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Call:
    """What is known of a call of a function of the text."""

    arguments: tuple[tuple[str, Any], ...]  # those that are short words or small numbers, and whether others are None
    place: str  # "decoder.layers.1.": where the text says that it is
    caller: tuple[str, int]  # the file and the line
    number: int  # how many calls there were before


@dataclass(frozen=True)
class Where:
    """Some calls of a function: those of which `name` is `value`."""

    name: str
    value: Any
    negated: bool = False

    def holds(self, call: Call) -> bool:
        return (facts(call).get(self.name) == self.value) is not self.negated

    def __str__(self) -> str:
        """In words: "in the first layer alone"."""
        shown = f'"{self.value}"' if isinstance(self.value, str) else str(self.value)
        which = f"the {ORDINALS[self.value]}" if self.name in NUMBERED and self.value in range(len(ORDINALS)) else None
        place = {"half": f"the {self.value}", "called at": f"the call at {self.value}"}.get(self.name)
        if which is not None:
            place = f"{which} {NUMBERED[self.name]}"
        if place is not None:
            return f"everywhere but in {place}" if self.negated else f"in {place} alone"
        return f"only where {self.name} {'is not' if self.negated else 'is'} {shown}"


def facts(call: Call) -> dict[str, Any]:
    """What tells calls of one function apart."""
    found = dict(call.arguments)
    layer = LAYER.search(call.place)
    if layer is not None:
        found["layer"] = int(layer[1])
    if call.place.startswith(("encoder.", "decoder.")):
        found["half"] = call.place.partition(".")[0]
    folder, _, name = call.caller[0].rpartition("/")
    found["called at"] = f"{folder.rpartition('/')[2]}/{name}:{call.caller[1]}"
    found["the call"] = call.number
    return found


def described(function: FunctionType, arguments: tuple[Any, ...], keywords: dict[str, Any], number: int) -> Call:
    """The call that is being made, by whoever called the caller of this."""
    frame = sys._getframe(2)
    code = function.__code__
    given = {**dict(zip(code.co_varnames, arguments, strict=False)), **keywords}
    return Call(simple(given), array._onlooker.get()[1], (frame.f_code.co_filename, frame.f_lineno), number)


def simple(given: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """What short words and small numbers there are among arguments, which are None, and which have one entry."""
    found: dict[str, Any] = {}
    for name, x in given.items():
        if isinstance(x, str | int | bool):
            found[name] = x
        elif x is None or hasattr(x, "shape"):
            found[f"{name} given"] = x is not None
        if getattr(x, "ndim", 0):
            found[f"len({name}) == 1"] = x.shape[0] == 1
        if isinstance(x, dict):
            found |= {f'{name}["{key}"] > 0': n > 0 for key, n in x.items() if isinstance(n, int)}
    return tuple(found.items())


@dataclass(frozen=True)
class Partial(Edit):
    """An edit in some calls, or in their pullbacks alone."""

    where: Where | None = None
    backward: bool = False  # the value is that of the text, the gradient of the edited function
    gradient: str | None = None  # of this argument alone
    forward: bool = False  # the value is that of the edited function, the gradient that of the text

    @classmethod
    def of(cls, edit: Edit, cost: float, **how: Any) -> Partial:
        given = {field.name: getattr(edit, field.name) for field in fields(edit)}
        return cls(**{**given, "cost": edit.cost + cost, **how})

    def function(self) -> Callable[..., Any] | None:
        edited, original = super().function(), cast(FunctionType, self.original)
        if edited is None:
            return None
        chosen = _backward_of(original, edited, self.gradient) if self.backward else edited
        chosen = _backward_of(edited, original, None) if self.forward else chosen
        return chosen if self.where is None else Dispatch(original, chosen, self.where)

    @property
    def place(self) -> str:
        notes = ["in the pullback alone"] if self.backward else []
        notes = ["in the value alone"] if self.forward else notes
        notes = [f"for the gradient of {self.gradient} alone"] if self.gradient is not None else notes
        notes += [f"{self.where}"] if self.where is not None else []
        return f"{super().place} ({', '.join(notes)})"

    def beside(self, other: Edit) -> Edit | None:
        same = isinstance(other, Partial) and (other.where, other.backward, other.gradient) == (
            self.where, self.backward, self.gradient,
        )  # fmt: skip
        both = super().beside(other) if same else None
        return (
            None
            if both is None
            else replace(
                self, changes=both.changes, cost=both.cost, mistakes=both.mistakes, said=both.said, parts=both.parts
            )
        )


def _backward_of(original: Any, edited: Callable[..., Any], gradient: str | None) -> Callable[..., Any]:
    """The value of the one, and the gradient, or that of one argument, of the other."""

    def with_other_pullback(*arguments: Any, **keywords: Any) -> Any:
        (y, back), (_, other) = original(*arguments, **keywords), edited(*arguments, **keywords)
        if gradient is None:
            return y, other
        place = original.__code__.co_varnames.index(gradient)

        def back_of_both(*dy: Any) -> Any:
            found, exchanged = list(back(*dy)), other(*dy)
            found[place] = exchanged[place]
            return tuple(found)

        return y, back_of_both

    return with_other_pullback


class Dispatch:
    """A function that is edited in some calls."""

    def __init__(self, original: FunctionType, edited: Callable[..., Any], where: Where) -> None:
        self.original, self.edited, self.where, self.number = original, edited, where, 0
        self.__name__ = original.__name__

    def begin(self) -> None:
        """Calls are counted anew."""
        self.number = 0

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        call = described(self.original, arguments, keywords, self.number)
        self.number += 1
        return (self.edited if self.where.holds(call) else self.original)(*arguments, **keywords)
