"""The plain text as an implementation, as it stands or with functions of it exchanged for edited ones."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from types import CodeType, FunctionType
from typing import Any

import numpy

from refllm import spec
from refllm.backend import Array
from refllm.numbers.traced import differentiated
from refllm.parameters import Tree
from refllm.verify import bounded, words
from refllm.verify import cached as with_cache
from refllm.verify.case import Case, Response
from refllm.verify.keywords import as_golden, golden_name, own_name
from refllm.verify.verdict import as_array

Function = Callable[..., Any]
PUBLISHED = "refllm.verify.ports.published"  # the text of published models


@cache
def text() -> dict[str, FunctionType]:
    """The functions of the text, by name."""
    return spec.operations()  # type: ignore[return-value]


@cache
def operations() -> dict[str, Function]:
    """Every operation of the golden files that the text has, with their names and keywords."""
    return interface(text())


def interface(known: Mapping[str, Function]) -> dict[str, Function]:
    """What these functions are to the golden files, with their names and keywords."""
    return {golden_name(name): implementation(golden_name(name), known) for name in known}


def implementation(
    operation: str, known: Mapping[str, Function], *, traced: bool = False, cached: bool = False
) -> Function:
    """What these functions make of an operation of the golden files: models by name, no cache, nothing but what a case
    says. Traced, training goes down the true gradient of what its loss computes, whatever its pullback says.
    """
    name = own_name(operation)
    f = known[name]

    def without_bias(x: Array, p: Tree, **how: Any) -> Any:
        return f(x, p, None, **how)

    def with_loss(*state: Tree, model: str = "gpt", **how: Any) -> Any:
        loss = known[f"{model}_loss"]
        return f(*state, loss=differentiated(loss) if traced else loss, **how)

    def with_model(p: Tree, model: str = "gpt", cache: bool = False, **how: Any) -> Any:
        """A cache changes the work and not the answer: the text has none, but for the edits of one that has it."""
        if cached and cache and model in with_cache.MODELS:
            return with_cache.generate_cached(p, model=model, **how)
        return f(p, model=known[model], **how)

    def without_cache(p: Tree, cache: bool, **how: Any) -> Any:
        return f(p, **how)

    def unweighted(p: Tree, weights: Array | None = None, smoothing: float = 0.0, **how: Any) -> Any:
        return f(p, weights=weights, smoothing=smoothing, **how)

    own: dict[str, Function] = {
        "grouped_attention": without_bias, "llama_layer": without_bias, "train_step": with_loss, "train": with_loss,
        "generate": with_model, "generate_padded": with_model, "beam_search": with_model,
        "translate": without_cache, "classifier_loss": unweighted,
    }  # fmt: skip
    return as_golden({name: own.get(name, f)})[operation]


def called_with_cache(case: Case) -> Sequence[FunctionType]:
    """The functions with a cache that the answer to a case may be made of."""
    there = case.operation == "generate" and case.keywords.get("cache")
    of_model = with_cache.MODELS.get(case.keywords.get("model", "gpt"))
    if not there or of_model is None:
        return ()
    others = [f for f in with_cache.MODELS.values() if f is not of_model]
    return [f for f in with_cache.FUNCTIONS if f not in others]


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
        waiting += calls_of(function)
    return tuple(found)


def calls_of(function: FunctionType) -> list[FunctionType]:
    """The functions of the text that one of them calls by name."""
    names = _names(function.__code__)
    found: list[Any] = [function.__globals__.get(name) for name in names]
    return [f for f in found if _is_of_the_text(f)]


def _names(code: CodeType) -> list[str]:
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return [*code.co_names, *(name for c in inner for name in _names(c))]


def _is_of_the_text(x: Any) -> bool:
    return (
        isinstance(x, FunctionType)
        and x.__module__.startswith(("refllm.spec.", PUBLISHED))
        and x.__module__ != "refllm.spec.array"
    )


@contextmanager
def exchanged(functions: Mapping[Any, Function]) -> Iterator[None]:
    """In this context the text calls other functions in the place of these. For one thread."""
    try:
        for original, other in functions.items():
            for place, name in _places(original):
                _put(place, name, other)
        yield
    finally:
        for original in functions:
            for place, name in _places(original):
                _put(place, name, original)


def _put(place: Any, name: str, function: Function) -> None:
    if isinstance(place, dict):
        place[name] = function
    else:
        setattr(place, name, function)


@cache
def _places(original: FunctionType) -> tuple[tuple[Any, str], ...]:
    """Where the text holds a function: in modules, in dictionaries of theirs, and, a method, in its class."""
    found: list[tuple[Any, str]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(("refllm.spec.", with_cache.__name__, PUBLISHED)):
            continue
        for key, value in vars(module).items():
            if value is original:
                found.append((vars(module), key))
            elif isinstance(value, dict) and key.isupper():
                found += [(value, inner) for inner, entry in value.items() if entry is original]
            elif isinstance(value, type) and value.__module__ == name:
                found += [(value, inner) for inner, entry in vars(value).items() if entry is original]
    return tuple(found)


def answer(
    case: Case, dtype: str, functions: Mapping[Any, Function], *, traced: bool, values: bool = False
) -> Response | None:
    """What the text answers with these functions exchanged; None if it raises, or takes far more work than the text.

    Traced, its gradient is the true one of what it computes; otherwise that of its own pullbacks. With `values` there
    is no gradient.
    """
    limit = bounded.allowed(_work(case, dtype)) if functions else math.inf
    if values and case.gradients:
        case = _values_of(case)
    with bounded.at_most(limit):
        return _answer(case, dtype, functions, traced=traced)


_values: dict[str, tuple[Case, Case]] = {}


def _values_of(case: Case) -> Case:
    """The case without its gradients."""
    known = _values.get(case.id)
    if known is None or known[0] is not case:
        known = _values[case.id] = (case, case.values_alone())
    return known[1]


def _answer(case: Case, dtype: str, functions: Mapping[Any, Function], *, traced: bool) -> Response | None:
    known: Mapping[str, Function] = text()
    if functions:
        known = {**known, **{name: functions[f] for name, f in text().items() if f in functions}}
    cached = any(f in with_cache.FUNCTIONS for f in functions)
    function = implementation(case.operation, known, traced=traced, cached=cached)
    if traced and case.gradients:
        function = differentiated(function)
    with exchanged(functions), numpy.errstate(all="ignore"):
        words.begin()
        for other in functions.values():
            getattr(other, "begin", _nothing)()
        try:
            return _response(function, case, dtype)
        except Exception:  # whatever an edit makes of the text
            return None


def respond(function: Function, case: Case, dtype: str) -> Response | None:
    """What a function answers that changes nothing that it is given; None if it raises."""
    try:
        return _response(function, case, dtype)
    except Exception:  # whatever an edit makes of it
        return None


def _nothing() -> None:
    """Of functions that count nothing."""


def _response(function: Function, case: Case, dtype: str) -> Response:
    """As `adapter.Functions` does it, without what is for code of strangers."""
    arguments, cotangents = _given(case, dtype)
    returned = function(*(_copied(x) for x in arguments), **case.keyword_arguments())
    with_back = isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])
    y, back = returned if with_back else (returned, None)
    outputs = {n: _array(x, case, n, dtype) for n, x in case.flat_outputs(y).items()}
    if back is None or not case.gradients:
        return Response(outputs, None)
    return Response(outputs, case.flat_gradients(back(*(_copied(x) for x in cotangents))))


def _array(x: Any, case: Case, name: str, dtype: str) -> Any:
    return x if isinstance(x, numpy.ndarray) else as_array(x, case.outputs[name].value, dtype)


def _copied(tree: Any) -> Any:
    """The same arrays in dicts and lists of their own."""
    if isinstance(tree, dict):
        return {name: _copied(branch) for name, branch in tree.items()}
    return [_copied(branch) for branch in tree] if isinstance(tree, list) else tree


_kept: dict[tuple[str, str, bool], tuple[Case, Any]] = {}


def _given(case: Case, dtype: str) -> tuple[list[Any], list[Any]]:
    """The arguments of a case, and what its pullback is called with. The text writes into no array."""
    key = (case.id, dtype, bool(case.cotangents))
    known = _kept.get(key)
    if known is None or known[0].inputs is not case.inputs:
        known = _kept[key] = (case, (case.arguments(dtype), case.pull(dtype)))
    return known[1]


_steps: dict[tuple[str, str], tuple[Case, int]] = {}


def _work(case: Case, dtype: str) -> int:
    """How many steps the text takes for a case."""
    known = _steps.get((case.id, dtype))
    if known is None or known[0].inputs is not case.inputs:
        with bounded.at_most() as work:
            _answer(case, dtype, {}, traced=False)
        known = _steps[case.id, dtype] = (case, work.steps)
    return known[1]


def reached(case: Case, among: Collection[FunctionType]) -> frozenset[FunctionType]:
    """Which of these functions the text calls when it answers a case."""
    if case.operation not in operations():
        return frozenset()
    watch = _watch(frozenset(among))
    watch.called.clear()
    answer(case, "float64", watch.functions, traced=False, values=True)
    return frozenset(watch.called)


class _Watch:
    """Functions that are themselves, and note down that they were called."""

    def __init__(self, originals: Collection[FunctionType]) -> None:
        self.called = set[FunctionType]()
        self.functions = {original: self._watched(original) for original in originals}

    def _watched(self, original: FunctionType) -> Function:
        @wraps(original)
        def through(*arguments: Any, **keywords: Any) -> Any:
            self.called.add(original)
            return original(*arguments, **keywords)

        return through


@cache
def _watch(originals: frozenset[FunctionType]) -> _Watch:
    """Made once, since every case is watched by itself."""
    return _Watch(originals)
