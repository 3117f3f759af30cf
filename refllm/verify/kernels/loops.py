"""A mistake of attention in tiles, asked often and at once: of attention, and of what the plain text makes of it.

answer(mistake, (("TILE", 64),), case, "float64")     the answer to a case
passes(mistake, sizes)                                its ways forward and back, to be called as those of `flash` are

Nothing is exchanged for a while, as in `bank`: the functions are made anew over names of their own. What is edited in
one pass alone (`within`) leaves the other one as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from types import FunctionType
from typing import Any, cast

import numpy

from refllm.spec.attention import attention as attention_of_the_text
from refllm.spec.repeat_heads import repeat_heads as repeat_heads_of_the_text
from refllm.verify import plain, words
from refllm.verify.case import Case, Response
from refllm.verify.kernels import flash, heads, machine
from refllm.verify.kernels.bank import Mistake, with_rows

Sizes = tuple[tuple[str, int], ...]
Names = dict[str, Any]
KINDS = ("capped_attention", "relative_attention", "sink_attention", "attention_with_lse")
OWN = ("attention", "sliding_window_attention", *KINDS)  # that the text with loops has
FUNCTIONS: tuple[FunctionType, ...] = tuple(
    f
    for module in (flash, heads)
    for f in vars(module).values()
    if isinstance(f, FunctionType) and f.__module__ == module.__name__
)
OF_THE_TEXT = {"attention": attention_of_the_text, "repeat_heads": repeat_heads_of_the_text}


@cache
def has(operation: str) -> bool:
    """Whether an operation is attention, or is made of it in the plain text."""
    if operation in OWN:
        return True
    return operation in plain.operations() and attention_of_the_text in plain.called(operation)


@cache
def reaches(mistake: Mistake, operation: str) -> bool:
    """Whether an operation of the plain text calls what a mistake is one of."""
    edited = {each.original for each in mistake.rewritten}
    called = plain.called(operation) if operation in plain.operations() else ()
    in_heads = edited <= {heads.repeat_heads}
    return mistake.is_of(FUNCTIONS) and (repeat_heads_of_the_text if in_heads else attention_of_the_text) in called


def answer(mistake: Mistake, sizes: Sizes, case: Case, dtype: str) -> Response | None:
    """What it makes of a case; None if it raises."""
    names = _names(mistake, sizes)
    if case.operation in OWN:
        function = names[case.operation]
        with numpy.errstate(all="ignore"):
            return plain.respond(function, case, dtype)
    if not reaches(mistake, case.operation):
        return None
    exchanged: dict[Any, Callable[..., Any]] = {}
    for name, original in OF_THE_TEXT.items():
        if any(each.original is not heads.repeat_heads for each in mistake.rewritten) == (name == "attention"):
            exchanged[original] = _as_in_the_text(names[name], name)
    return plain.answer(case, dtype, exchanged, traced=False, values=not case.cotangents)


def _as_in_the_text(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def attention(q: Any, k: Any, v: Any, *, causal: bool, attention_mask: Any) -> Any:
        return function(q, k, v, causal=causal, allowed=attention_mask)

    return attention if name == "attention" else function


def passes(mistake: Mistake, sizes: Sizes, tiles: Callable[..., Any] | None = None) -> tuple[Any, Any]:
    """Its way forward and its way back; `tiles` says which parts of an axis there are."""
    names = _names(mistake, sizes) if tiles is None else _made(mistake, sizes, {"tiles": tiles})
    return names["forward"], names["backward"]


def attended(mistake: Mistake, sizes: Sizes) -> Callable[..., Any]:
    """Its attention of any kind."""
    found: Callable[..., Any] = _names(mistake, sizes)["attended"]
    return found


def attention(mistake: Mistake, sizes: Sizes) -> Callable[..., Any]:
    found: Callable[..., Any] = _names(mistake, sizes)["attention"]
    return found


@lru_cache(2048)
def _names(mistake: Mistake, sizes: Sizes) -> Names:
    return _made(mistake, sizes, {})


def _made(mistake: Mistake, sizes: Sizes, more: Mapping[str, Any]) -> Names:
    edited = list(mistake.codes)
    if not mistake.within:
        return _with(edited, sizes, more)
    forward = _with(edited if mistake.within == "forward" else [], sizes, more)
    backward = _with(edited if mistake.within == "backward" else [], sizes, more)
    forward["backward"] = backward["backward"]
    return forward


def _with(edited: Iterable[Any], sizes: Sizes, more: Mapping[str, Any]) -> Names:
    """The functions over names of their own, in which they find each other."""
    names: Names = {**words.WORDS, **vars(machine), **vars(flash), **with_rows(dict(sizes)), **more}
    for f in FUNCTIONS:
        names[f.__name__] = cast(Any, FunctionType(f.__code__, names, f.__name__, f.__defaults__))
        names[f.__name__].__kwdefaults__ = f.__kwdefaults__
    for each in edited:
        exec(each, names)
    return names
