"""Laws of what the book takes from the text: it is what stands there, and every line of it is in one part."""

from __future__ import annotations

import pytest

import refllm.spec
from book import text

OPERATIONS = sorted(text.operations())


def test_the_operations_of_the_book_are_those_of_the_text() -> None:
    """Of its vocabulary, refllm/spec/array.py, none is an operation with an ID."""
    found = {name for name, f in refllm.spec.operations().items() if f.__module__ != "refllm.spec.array"}
    assert text.operations().keys() == found


def test_a_function_is_found_at_its_lines() -> None:
    for name in OPERATIONS:
        function = text.find(name)
        lines = text.source(function.module).splitlines()
        written = [line.removesuffix("  # fmt: skip") for line in lines[function.first - 1 : function.last]]
        assert function.part("all").splitlines() == written, name
        assert function.part("all").startswith(f"def {name}(")


def test_code_and_docstring_are_the_whole_function() -> None:
    for name in OPERATIONS:
        function = text.find(name)
        assert '"""' not in function.part("code"), name
        written = set(map(str.strip, function.part("all").replace('"""', "\n").splitlines()))
        parts = {line.strip() for part in ("code", "docstring") for line in function.part(part).splitlines()}
        assert written == parts | {""}, name


def test_forward_and_back_are_the_code() -> None:
    for name in OPERATIONS:
        function = text.find(name)
        both = function.part("forward") + "\n" + function.part("back")
        assert sorted(filter(None, map(str.strip, both.splitlines()))) == sorted(
            filter(None, map(str.strip, function.part("code").splitlines()))
        ), name


def test_the_parts_of_attention() -> None:
    function = text.find("attention")
    assert function.ids == ("ATT", "ATT-MASK")
    assert function.part("formula").startswith("ATT, ATT-MASK: y = P v")
    assert function.part("derivation").startswith("y_te = Σ_s P_ts v_se")
    assert function.part("back").startswith("def attention_back(")
    assert "attention_back(dy" not in function.part("forward")


def test_a_name_that_several_modules_have_needs_its_module() -> None:
    with pytest.raises(LookupError, match=r"has no gpt_on_one_page.py with a function nothing"):
        text.find("gpt_on_one_page.nothing")
    assert text.find("gpt_on_one_page.cut").module == "gpt_on_one_page"
    assert text.find("cut").module == "heads"
    with pytest.raises(LookupError, match="no_such: defined nowhere"):
        text.find("no_such")
