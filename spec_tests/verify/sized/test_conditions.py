"""The sized cases meet every condition of the plain text that kernels have, and every keyword with several values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from refllm.verify import corpus
from refllm.verify.case import Case
from refllm.verify.sized import cases
from refllm.verify.sized.work import work
from spec_tests.verify.sized.conditions import Seen

KNOWN: dict[str, list[cases.SizedCase]] = {}
for case in cases.load(corpus.folder(None)).values():
    KNOWN.setdefault(case.operation, []).append(case)
LARGEST = 400_000  # the work of a case that is asked
# Conditions of the text that no kernel of the operation has, or that change nothing.
UNMET = {
    "clip_by_global_norm": ("norm == clip",),  # it is scaled by 1 either way
    "cross_entropy": ("Z == 0",),  # a row of only -∞ has no loss; so below
    "smoothed_cross_entropy": ("Z == 0", "float('-inf')", "nothing", "smoothing == 0 alone"),
    "feed_forward": ("b not in p", "x == 0"),  # of maps that have no bias
    "gated_feed_forward": ("b not in p", "relu: "),
    "grouped_attention": ("masked: ", "r is None", "rotation is None"),  # of a bias, and of no rotation
    "lstm": ("not dz",),  # of no steps
    "rnn": ("not dz",),
    "packed_attention": ("attention: ",),  # which is asked with a mask alone
    "sliding_window_attention": ("attention: arange", "attention: causal", "attention: attention_mask is not None"),
}
ATTENTION = [name for name in KNOWN if name.endswith(("attention", "attention_with_lse"))]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("operation", list(KNOWN))
def test_every_condition_of_the_text_is_met_both_ways(operation: str) -> None:
    seen = Seen()
    small = [sized for sized in sorted(KNOWN[operation], key=work) if work(sized) < LARGEST]
    for sized in small or KNOWN[operation][:1]:
        seen.ask(sized.case())
    unmet = UNMET.get(operation, ())
    missing = seen.missing(operation)
    assert [line for line in missing if not any(words in line for words in unmet)] == []
    assert [words for words in unmet if not any(words in line for line in missing)] == []


def test_a_condition_that_no_case_meets_is_missed() -> None:
    seen = Seen()
    [sized] = [each for each in KNOWN["top_experts"] if each.id.endswith("33x8-2-renormalised")]
    seen.ask(sized.case())
    assert "top_experts: renormalise is never false" in seen.missing("top_experts")
    assert "among_largest: other > one is never true" not in seen.missing("top_experts")


def _numbers() -> Iterator[tuple[str, Any]]:
    for operation, held in KNOWN.items():
        for sized in held:
            yield from ((f"{operation}.{n}", x) for n, x in sized.keywords.items() if isinstance(x, int | float))


def test_no_keyword_that_is_a_number_always_has_the_same_value() -> None:
    """A kernel that has a number in the place of a keyword fails a case."""
    values: dict[str, set[Any]] = {}
    for name, value in _numbers():
        values.setdefault(name, set()).add(value)
    few = {name for name, held in values.items() if len(held) == 1 and len(KNOWN[name.partition(".")[0]]) > 1}
    assert few == {"grouped_attention.base"}  # that of the rotation, which has several


@pytest.mark.parametrize("operation", [name for name in ATTENTION if name != "grouped_attention"])
def test_attention_has_fewer_queries_than_keys_and_more_and_rows_without_a_key(operation: str) -> None:
    lengths = [(s.inputs["q"]["shape"][-2], s.inputs["k"]["shape"][-2]) for s in KNOWN[operation]]
    assert {True, False} <= {T < S for T, S in lengths}
    assert operation == "packed_attention" or any(T > S for T, S in lengths)
    assert any("empty_row" in sized.conventions for sized in KNOWN[operation])


def test_the_choice_of_experts_is_among_equal_scores() -> None:
    ties = [sized.case() for sized in KNOWN["top_experts"] if "ties" in sized.id]
    assert {case.keywords["renormalise"] for case in ties} == {True, False}
    assert all(_ties(case) for case in ties)


def _ties(case: Case) -> bool:
    x, k = numpy.sort(case.inputs["scores"], axis=-1)[..., ::-1], case.keywords["k"]
    return bool((x[..., k - 1] == x[..., k]).any())


def test_documents_have_other_keys_than_queries_by_another_number_in_each() -> None:
    offsets = []
    for sized in KNOWN["packed_attention"]:
        borders, keys = (numpy.diff(sized.keywords[name]["values"]) for name in ("borders", "key_borders"))
        offsets.append(set((keys - borders).tolist()) if sized.keywords["causal"] else set())
    assert any(len(each) > 2 and min(each) < 0 < max(each) for each in offsets)
