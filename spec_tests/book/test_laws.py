"""Laws of the search for laws: a test is found by what it uses, and by nothing else of that name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from book import laws
from refllm.spec.registers import sources

FILE = """
import numpy
from refllm.ops import recurrent
from refllm.metrics import accuracy as share
from refllm.tokenizers import train
CELLS = {"lstm": recurrent.lstm}
def cell():
    return CELLS["lstm"]
def test_by_a_table(cell): assert cell
def test_by_another_name(): assert share
def test_of_something_else(): train()
def test_of_nothing(): numpy.zeros(1)
"""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, laws.Law]:
    (tmp_path / "spec_tests").mkdir()
    (tmp_path / "spec_tests/test_mine.py").write_text(FILE)
    monkeypatch.setattr(laws, "ROOT", tmp_path)
    every = laws.laws.__wrapped__()
    monkeypatch.setattr(laws, "laws", lambda: every)
    monkeypatch.setattr(laws, "of", laws.of.__wrapped__)  # not what was found in the repository
    return {law.name: law for law in every}


def test_a_law_is_found_through_fixtures_and_tables(found: dict[str, laws.Law]) -> None:
    assert laws.of("lstm") == [found["test_by_a_table"]]


def test_code_is_found_under_another_name(found: dict[str, laws.Law]) -> None:
    for name in ("refllm.metrics.accuracy", "refllm.metrics"):
        assert laws.of_code(name) == [found["test_by_another_name"]]
    assert laws.of_code("refllm.metrics.acc") == []


def test_a_tokenizer_does_not_count_for_an_operation(found: dict[str, laws.Law]) -> None:
    assert laws.of("train") == []
    assert found["test_of_nothing"].uses == frozenset()


@pytest.mark.every
@pytest.mark.parametrize("name", [name for name, entry in sources().entries.items() if entry.part in "AB"])
def test_every_id_of_the_documents_has_laws(name: str) -> None:
    assert laws.of_id(name)


@pytest.mark.every
def test_the_laws_of_every_operation_are_tests_that_take_one() -> None:
    for law in laws.of_each("attention"):
        (node,) = (
            node
            for node in ast.parse((laws.ROOT / law.path).read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef) and node.name == law.name
        )
        assert "operation" in [argument.arg for argument in node.args.args]
    assert len(laws.of_each("attention")) > 10
    assert laws.of_each("no_operation") == []
