"""The plain text as an implementation, as it stands or with functions of it exchanged for edited ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import numpy

from refllm import spec
from refllm.backend import Array
from refllm.numbers.traced import differentiated
from refllm.parameters import Tree
from refllm.verify.adapter import Functions
from refllm.verify.case import Case, FaultError, Response, UnsupportedError
from refllm.verify.keywords import as_golden, own_name
from refllm.verify.runner import respond

Function = Callable[..., Any]


@cache
def text() -> dict[str, FunctionType]:
    """The functions of the text, by name."""
    return spec.operations()  # type: ignore[return-value]


@cache
def operations() -> dict[str, Function]:
    """Every operation of the golden files that the text has, with their names and keywords."""
    return interface(text())


def interface(words: Mapping[str, Function]) -> dict[str, Function]:
    """What these functions are to the golden files, with their names and keywords: models by name, no cache, nothing
    but what a case says."""

    def without_bias(name: str) -> Function:
        return lambda x, p, **how: words[name](x, p, None, **how)

    def with_loss(name: str) -> Function:
        return lambda *state, model="gpt", **how: words[name](*state, loss=words[f"{model}_loss"], **how)

    def with_model(name: str) -> Function:
        """A cache changes the work and not the answer: the text has none."""
        return lambda p, model="gpt", cache=False, **how: words[name](p, model=words[model], **how)

    def classifier_loss(p: Tree, weights: Array | None = None, smoothing: float = 0.0, **how: Any) -> Any:
        return words["classifier_loss"](p, weights=weights, smoothing=smoothing, **how)

    own: dict[str, Function] = {
        **words,
        **{name: without_bias(name) for name in ("grouped_attention", "llama_layer")},
        **{name: with_loss(name) for name in ("train_step", "train")},
        **{name: with_model(name) for name in ("generate", "beam_search")},
        "classifier_loss": classifier_loss,
        "translate": lambda p, cache, **how: words["translate"](p, **how),
    }
    return as_golden(own)


@cache
def called(operation: str) -> tuple[FunctionType, ...]:
    """The functions of the text that an operation is made of: itself first, then those it calls, and so on."""
    found: dict[FunctionType, None] = {}
    waiting: list[Any] = [text()[own_name(operation)]]
    while waiting:
        function = waiting.pop(0)
        if function in found:
            continue
        found[function] = None
        names = _names(function.__code__)
        waiting += [f for f in (function.__globals__.get(name) for name in names) if _is_of_the_text(f)]
    return tuple(found)


def _names(code: CodeType) -> list[str]:
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return [*code.co_names, *(name for c in inner for name in _names(c))]


def _is_of_the_text(x: Any) -> bool:
    return (
        isinstance(x, FunctionType) and x.__module__.startswith("refllm.spec.") and x.__module__ != "refllm.spec.array"
    )


@contextmanager
def exchanged(functions: Mapping[Any, Function]) -> Iterator[None]:
    """In this context the text calls other functions in the place of these. For one thread."""
    try:
        for original, other in functions.items():
            for place, name in _places(original):
                place[name] = other
        yield
    finally:
        for original in functions:
            for place, name in _places(original):
                place[name] = original


@cache
def _places(original: FunctionType) -> tuple[tuple[dict[str, Any], str], ...]:
    """Where the text holds a function: in modules, and in dictionaries of theirs."""
    found: list[tuple[dict[str, Any], str]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("refllm.spec."):
            continue
        for key, value in vars(module).items():
            if value is original:
                found.append((vars(module), key))
            elif isinstance(value, dict) and key.isupper():
                found += [(value, inner) for inner, entry in value.items() if entry is original]
    return tuple(found)


def answer(
    case: Case, dtype: str, functions: Mapping[Any, Function], *, traced: bool, values: bool = False
) -> Response | None:
    """What the text answers with these functions exchanged; None if it raises.

    Traced, its gradient is the true one of what it computes; otherwise that of its own pullbacks. With `values` there
    is no gradient.
    """
    words = {name: functions.get(f, f) for name, f in text().items()} if functions else text()
    function = interface(words)[case.operation]
    if values:
        case = case.values_alone()
    elif traced:
        function = differentiated(function)
    with exchanged(functions), numpy.errstate(all="ignore"):
        try:
            return respond(Functions("the text", {case.operation: function}, {}), case, dtype)
        except (FaultError, UnsupportedError):
            return None
