"""One table says what the golden files call otherwise than Python, in both directions."""

from __future__ import annotations

import inspect
import keyword
from pathlib import Path

import numpy

from refllm import spec
from refllm.verify import corpus, keywords, plain, reference
from spec_tests import subject as subjects


def test_the_table_is_the_same_read_from_either_side() -> None:
    for table in (keywords.KEYWORDS, keywords.OPERATIONS):
        assert len(set(table.values())) == len(table)
        assert not set(table) & set(table.values())
        assert all(name.isidentifier() and not keyword.iskeyword(name) for name in [*table, *table.values()])
    golden = {name: number for number, name in enumerate([*keywords.KEYWORDS, "eps", "causal"])}
    assert keywords.to_golden(keywords.from_golden(golden)) == golden


def test_every_entry_is_used_by_the_golden_files_and_is_a_name_of_the_text() -> None:
    cases = corpus.load(corpus.folder(None)).cases.values()
    assert set(keywords.KEYWORDS) <= {name for case in cases for name in case.keywords}
    assert set(keywords.OPERATIONS) <= {case.operation for case in cases}
    text = spec.operations()
    parameters = {name for function in text.values() for name in inspect.signature(function).parameters}
    assert set(keywords.KEYWORDS.values()) <= parameters
    assert not set(keywords.KEYWORDS) & parameters
    assert set(keywords.OPERATIONS.values()) <= set(text)


def test_the_text_and_refllm_take_the_words_of_the_golden_files_and_no_others() -> None:
    for functions in (plain.operations(), reference.functions()):
        assert set(keywords.OPERATIONS) <= set(functions)
        assert not set(keywords.OPERATIONS.values()) & set(functions)
        y, back = functions["dropout"](numpy.ones(2), keep=numpy.array([True, False]), rate=0.5)
        assert [y.tolist(), back(numpy.ones(2)).tolist()] == [[2, 0], [2, 0]]


def test_the_property_tests_call_an_adapter_with_the_words_of_the_golden_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "def dropout(x, *, keep, rate):\n"
        "    return x * keep / (1 - rate), lambda dy: dy * keep / (1 - rate)\n"
        "def relative_attention(q, k, v, r, *, causal, allowed):\n"
        "    return q, lambda dy: dy\n",
        encoding="utf-8",
    )
    subject, x = subjects.adapter(path), numpy.ones(2)
    y, _ = subject.operation("dropout")(x, dropout_mask=numpy.array([True, False]), rate=0.5)
    assert y.tolist() == [2, 0]
    y, _ = subject.operation("biased_attention")(x, x, x, x, causal=True, attention_mask=None)
    assert y is x
