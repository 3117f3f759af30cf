"""What a mistake of a kernel is: lines of the text with loops, and what stands in their place.

Mistake("softmax/no-rescale", "the sum is not rescaled …", edit(online, "Z = Z * …", "Z = Z"), issue)
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from types import CodeType, FunctionType
from typing import Any, cast

import numpy

from refllm.verify.adapter import Functions
from refllm.verify.kernels import (
    elementwise,
    flash,
    heads,
    losses,
    machine,
    norms,
    products,
    softmaxes,
    steps,
    tables,
    turns,
    updates,
)
from refllm.verify.mutants.bank import Rewritten

Function = Callable[..., Any]
MODULES = (products, softmaxes, losses, norms, flash, heads, tables, turns, updates, steps, elementwise)
_PLACE = "refllm.verify.kernels."

OPERATIONS: Mapping[str, FunctionType] = {
    f.__name__: cast(FunctionType, f)
    for f in (
        products.matmul, products.linear, softmaxes.softmax, softmaxes.log_softmax, losses.cross_entropy,
        losses.smoothed_cross_entropy, norms.layer_norm, norms.rms_norm, flash.attention,
        flash.sliding_window_attention, flash.capped_attention, flash.relative_attention, flash.sink_attention,
        flash.attention_with_lse, heads.repeat_heads, tables.embedding, turns.rotary_halves,
        turns.rotary_interleaved, updates.adamw, updates.clip_by_global_norm, steps.lstm, elementwise.gelu_tanh,
        elementwise.silu, elementwise.dropout,
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Mistake:
    """`id` begins with the operation that it is measured on; `about` reads on after "equal to"; `issue` is a public
    report of somebody who made it. What it leaves unwritten is NaN, and may be anything in another implementation."""

    id: str
    about: str
    rewritten: tuple[Rewritten, ...]
    issue: str | None = None
    within: str = ""  # the pass of attention that it is made in, "forward" or "backward"; both if it says nothing

    @property
    def operation(self) -> str:
        return self.id.partition("/")[0]

    @property
    def gradients_alone(self) -> bool:
        """Whether the value is right: what is edited is the way back, or the log-sum-exp that nothing else reads."""
        if self.within == "backward":
            return True
        return all(
            each.edit.in_pullback
            or each.original is flash.backward
            or (each.original is flash.forward and all(old.startswith("L[") for old in each.lines[::2]))
            for each in self.rewritten
        )

    @cached_property
    def edits_lse(self) -> bool:
        """Whether it is one of the log-sum-exp alone that attention keeps for the way back."""
        edited = [each for each in self.rewritten if each.original is flash.forward]
        return bool(edited) and all(old.startswith("L[") for each in edited for old in each.lines[::2])

    @cached_property
    def functions(self) -> dict[FunctionType, Function]:
        """The edited functions, by what they are edits of."""
        return self.with_sizes()

    def with_sizes(self, **sizes: int) -> dict[FunctionType, Function]:
        """The edited functions with tiles or blocks of another size: TILE=64."""
        return {each.original: _compiled(each, tuple(with_rows(sizes).items())) for each in self.rewritten}

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        """Where the lines stand, what goes, and what comes."""
        return [(each.edit.place, each.edit.diff()) for each in self.rewritten]

    @cached_property
    def codes(self) -> tuple[CodeType, ...]:
        return tuple(code(each.original, each.edit.source) for each in self.rewritten)

    def is_of(self, functions: Collection[FunctionType]) -> bool:
        """Whether nothing but these is edited."""
        return all(each.original in functions for each in self.rewritten)

    def reaches(self, operation: str) -> bool:
        """Whether the text of an operation calls what is edited."""
        return any(each.original in called(operation) for each in self.rewritten)


def with_rows(sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes with that of a tile of queries, which is as large as a tile of keys unless it says another."""
    return {"ROWS": sizes["TILE"], **sizes} if "TILE" in sizes else dict(sizes)


@lru_cache(4096)
def _compiled(rewritten: Rewritten, sizes: tuple[tuple[str, int], ...]) -> Function:
    """The edited function. It may use every word of `machine`."""
    original = rewritten.original
    names: dict[str, Any] = {**vars(machine), **original.__globals__, **dict(sizes)}
    exec(code(original, rewritten.edit.source), names)
    return cast(Function, names[original.__name__])


@lru_cache(4096)
def code(original: FunctionType, source: str) -> CodeType:
    return compile(source, f"<edited {original.__name__}>", "exec")


def implementation(mistake: Mistake | None = None, *, among: Collection[str] = OPERATIONS, **sizes: int) -> Functions:
    """The operations of the text with loops, with a mistake in them, and with tiles or blocks of another size."""
    edited = mistake.with_sizes(**sizes) if mistake else {}
    made = {name: _with(edited, OPERATIONS[name], sizes) for name in among}
    return Functions("kernels", made, {}, ("float64", "float32"))


def _with(edited: Mapping[FunctionType, Function], function: FunctionType, sizes: Mapping[str, int]) -> Function:
    """An operation whose call, and whose pullback's call, find the edited functions."""

    @functools.wraps(function)
    def run(*arguments: Any, **keywords: Any) -> Any:
        with exchanged(edited, sizes), numpy.errstate(all="ignore"):
            found = edited.get(function, function)(*arguments, **keywords)
        if not isinstance(found, tuple) or not callable(found[-1]):
            return found
        y, back = found

        def run_back(*cotangents: Any) -> Any:
            with exchanged(edited, sizes), numpy.errstate(all="ignore"):
                return back(*cotangents)

        return y, run_back

    return run


@contextmanager
def exchanged(edited: Mapping[FunctionType, Function], sizes: Mapping[str, int] | None = None) -> Iterator[None]:
    """In this context the text with loops calls other functions in the place of these, and has other sizes of tiles and
    blocks. For one thread."""
    places: list[tuple[Any, str, Any]] = [(m, name, f) for f in edited for m, name in _places(f)]
    new: list[Any] = [edited[f] for _, _, f in places]
    for name, size in with_rows(sizes or {}).items():
        held = [module for module in MODULES if hasattr(module, name)]
        places += [(module, name, getattr(module, name)) for module in held]
        new += [size] * len(held)
    try:
        for (module, name, _), other in zip(places, new, strict=True):
            setattr(module, name, other)
        yield
    finally:
        for module, name, original in places:
            setattr(module, name, original)


@cache
def _places(original: FunctionType) -> tuple[tuple[Any, str], ...]:
    modules = [m for m in list(sys.modules.values()) if getattr(m, "__name__", "").startswith(_PLACE)]
    modules = [m for m in modules if m in MODULES]
    return tuple((module, name) for module in modules for name, value in vars(module).items() if value is original)


@cache
def called(operation: str) -> frozenset[FunctionType]:
    """The functions that an operation is made of."""
    found, waiting = set[FunctionType](), [OPERATIONS[operation]]
    while waiting:
        function = waiting.pop()
        if function in found:
            continue
        found.add(function)
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            codes += [c for c in code.co_consts if hasattr(c, "co_names")]
            others = (function.__globals__.get(name) for name in code.co_names)
            waiting += [f for f in others if isinstance(f, FunctionType) and f.__module__.startswith(_PLACE)]
    return frozenset(found)
