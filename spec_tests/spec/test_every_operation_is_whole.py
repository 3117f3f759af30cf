"""An operation of the text has golden cases, mistakes that they find, an entry in the register, and a line in the page
of the golden files. What is missing is named, with the place where it belongs."""

from __future__ import annotations

import functools
import inspect
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refllm import spec
from refllm.spec.registers import sources
from refllm.verify import corpus, plain, reference
from refllm.verify.keywords import golden_name, own_name
from refllm.verify.mutants import MUTANTS
from spec_tests.operations import operation_functions

ROOT = Path(__file__).parents[2]
TEXT = {name: f for name, f in spec.operations().items() if f.__module__ != "refllm.spec.array"}


@functools.cache
def asked() -> frozenset[str]:
    """The operations that golden cases ask for."""
    return frozenset(own_name(case.operation) for case in corpus.load(corpus.folder(None)).cases.values())


@functools.cache
def reached() -> frozenset[str]:
    """Every function of the text that a golden case runs through."""
    return frozenset(f.__name__ for name in asked() & TEXT.keys() for f in plain.called(golden_name(name)))


@functools.cache
def mistaken() -> frozenset[str]:
    """What the bank has a mistake in: functions of the text, or of refllm that imitate them."""
    return frozenset(function.__name__ for mutant in MUTANTS for function in mutant.originals)


def of_arrays(function: Callable[..., Any]) -> bool:
    """Whether it is an operation on arrays, and not a layer or a model with its parameters p."""
    positional = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
    return bool(positional) and not {"p", "f", "layers"} & {p.name for p in positional}


def operations() -> list[str]:
    """What has cases of its own: an operation on arrays with a pullback, and whatever refllm.ops has a fast form of."""
    fast = {f.__name__ for f in operation_functions()}
    own = {name for name, f in TEXT.items() if "Back:" in (f.__doc__ or "") and of_arrays(f)}
    return sorted(own | (fast & TEXT.keys()))


@pytest.mark.parametrize("name", sorted(TEXT))
def test_a_golden_case_runs_through_every_function(name: str) -> None:
    assert name in reached(), (
        f"add cases for {name} to scripts/golden/cases, and its name to OPERATIONS of scripts/golden/corpus.py"
    )


@pytest.mark.parametrize("name", operations())
def test_an_operation_has_golden_cases_of_its_own(name: str) -> None:
    assert name in asked(), (
        f"add cases for {name} to scripts/golden/cases, and its name to OPERATIONS of scripts/golden/corpus.py"
    )


@pytest.mark.parametrize("name", operations())
def test_an_operation_has_a_mistake_that_its_cases_find(name: str) -> None:
    """That every mistake is found is a test of the bank."""
    assert name in mistaken(), f"add what people get wrong about {name} to refllm/verify/mutants"


@pytest.mark.parametrize("name", sorted(asked() & TEXT.keys()))
def test_what_a_case_asks_for_is_registered_and_documented(name: str) -> None:
    heads = re.findall(r"[A-Z][A-Z0-9]*(?:-[A-Z0-9]+)*", (TEXT[name].__doc__ or "").partition(":")[0])
    assert sources().entries.keys() & set(heads), f"add an ID for {name} to refllm/spec/sources.toml"
    table = (ROOT / "golden/README.md").read_text(encoding="utf-8")
    name = golden_name(name)
    assert re.search(rf"`{name}[`(]|[`,] ?{name}[`(,]", table), (
        f"add {name} to the table of operations in golden/README.md"
    )


@functools.cache
def shown() -> frozenset[str]:
    """What the pages of the book show, or what is planned to be shown."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/book").rglob("*.md")]
    names = {
        name.rpartition(".")[2]
        for page in pages
        for line in re.findall(r"^`{3,}\{text\}(.*)$", page, re.MULTILINE)
        for name in line.split()
    }
    plans = tomllib.loads((ROOT / "docs/book/planned.toml").read_text(encoding="utf-8"))
    return frozenset(names | {name for plan in plans.values() for name in plan.get("operations", ())})


@pytest.mark.parametrize("name", sorted(asked() & TEXT.keys()))
def test_what_a_case_asks_for_is_shown_by_a_page_of_the_book(name: str) -> None:
    """The book's own check looks at every ID, example and derivation; this one needs nothing installed."""
    assert name in shown(), f"show {name} in the chapter of its ID in docs/book: `{{text}} {name}`"


@pytest.mark.parametrize("name", sorted(asked() & TEXT.keys()))
def test_what_a_case_asks_for_is_something_that_refllm_answers(name: str) -> None:
    assert golden_name(name) in reference.functions(), (
        f"add {name} to refllm/ops, or compose it in refllm/verify/reference/further.py"
    )


def test_there_are_operations() -> None:
    assert {"attention", "layer_norm", "low_rank_linear"} <= set(operations())
    assert "llama_layer" not in operations()
