"""What a port has wrong behind values that it gives, and that are right, is found as what it gives not."""

from __future__ import annotations

from typing import Any

import pytest

from refllm.verify.ports.mistakes.after_taps import exchanged_values
from refllm.verify.ports.published import gpt, llama, parts
from spec_tests.verify.ports.test_search import Wrong, named


@pytest.mark.every
def test_two_right_values_that_are_exchanged_where_they_are_used_are_found(published: Any) -> None:
    named(published, Wrong("qwen3", "gate and up exchanged at the product", "activation", "gate and up", taps=True))


@pytest.mark.slow
@pytest.mark.parametrize("taps", [False, True])
def test_keys_and_values_that_are_exchanged_behind_their_taps_are_found(published: Any, taps: bool) -> None:
    operation = "attention scores" if taps else "map of the keys"
    named(published, Wrong("gpt2", "key and value exchanged in the product", operation, "k and v are right", taps=taps))


def test_values_of_which_one_is_made_of_the_other_are_not_exchanged() -> None:
    """Those are residuals and norms, whose mistakes have words of their own."""
    assert not list(exchanged_values(llama.llama_layer))  # type: ignore[arg-type]
    for function in (gpt.self_attention, parts.gated_feed_forward):
        found = list(exchanged_values(function))  # type: ignore[arg-type]
        assert found
        assert all(edit.function() is not None for edit in found)
