"""A condition tells all wrong cases from all right ones, and says a limit that people choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.verify.kernels.conditions import clean, separating
from refllm.verify.kernels.properties import Numbers

NUMBERS = st.fixed_dictionaries(
    {"T": st.integers(1, 5000), "step": st.integers(1, 2000), "causal": st.booleans(), "name": st.sampled_from("ab")}
)


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ([{"K": 1025}, {"K": 4097}], [{"K": 31}, {"K": 1023}], "K > 1,024"),
        ([{"K": 31}], [{"K": 65}, {"K": 129}], "K ≤ 64"),
        ([{"T": 1, "S": 9}], [{"T": 9, "S": 9}, {"T": 5, "S": 7}], "T = 1"),
        ([{"step": 1000}], [{"step": 1}, {"step": 100}], "step > 512"),
        ([{"causal": True, "T": 5}], [{"causal": False, "T": 5}], "causal = True"),
        ([{"T": 3, "S": 9}, {"T": 9, "S": 11}], [{"T": 3, "S": 3}, {"T": 11, "S": 11}], "T < S"),
    ],
)
def test_the_condition_is_the_limit_between_right_and_wrong(
    wrong: list[Numbers], right: list[Numbers], words: str
) -> None:
    condition = separating(wrong, right)
    assert condition is not None
    assert condition.words == words


def test_there_is_none_where_cases_are_alike() -> None:
    assert separating([{"T": 5}], [{"T": 5}]) is None
    assert separating([{"T": 3}, {"T": 9}], [{"T": 5}]) is None


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(NUMBERS, min_size=1, max_size=6))
def test_a_condition_holds_for_every_wrong_case_and_for_no_right_one(
    wrong: list[Numbers], right: list[Numbers]
) -> None:
    condition = separating(wrong, right)
    if condition is not None:
        assert all(map(condition.holds, wrong))
        assert not any(map(condition.holds, right))


@pytest.mark.parametrize(
    ("wrong", "right", "words"),
    [
        ([{"V": 33}, {"V": 50257}], [{"V": 32000}, {"V": 128256}], "V is no multiple of 64 (2 to 256 fit as well)"),
        ([{"V": 96}, {"V": 40}], [{"V": 64}, {"V": 128}], "V is no multiple of 64"),
        ([{"C": 1025}, {"C": 2049}, {"C": 16383}], [{"C": 33}, {"C": 1023}, {"C": 1024}, {"C": 2048}, {"C": 16384}],
         "C is above 1,024 and no multiple of it"),
        ([{"F": 344}, {"F": 1025}], [{"F": 33}, {"F": 127}], "F > 256 (right up to 127, wrong from 344)"),
        (
            [{"T": 3, "S": 9, "causal": True}, {"T": 9, "S": 11, "causal": True}],
            [{"T": 3, "S": 9, "causal": False}, {"T": 5, "S": 5, "causal": True}, {"T": 11, "S": 11, "causal": True}],
            "causal = True and T < S",
        ),
        # the number of keys decides, that no case is near to does not
        ([{"T": 4097, "D": 20, "S": 300}, {"T": 9001, "D": 8, "S": 450}],
         [{"T": 129, "D": 3, "S": 200}, {"T": 65, "D": 70, "S": 17}],
         "S > 256 (right up to 200, wrong from 300)"),
        ([{"V": 128000, "the number of elements": 256000}, {"V": 150000, "the number of elements": 300000}],
         [{"V": 50000, "the number of elements": 150000}, {"V": 9, "the number of elements": 90}],
         "V > 65,536 (right up to 50,000, wrong from 128,000)"),
        ([{"V": 9000, "C": 40}, {"V": 40000, "C": 9}], [{"V": 900, "C": 70}, {"V": 70, "C": 600}],
         "V · C > 65,536 (right up to 63,000, wrong from 360,000)"),
        ([{"kv_heads": 5, "T": 9}, {"kv_heads": 3, "T": 5}], [{"kv_heads": 8, "T": 5}, {"kv_heads": 6, "T": 7}],
         "the number of kv_heads is odd"),
        ([{"T": 9, "S": 9}, {"T": 20, "S": 20}], [{"T": 8, "S": 8}, {"T": 4, "S": 4}],
         "T > 8 (right up to 8, wrong from 9), or as well S > 8"),
        ([{"N": 1025}, {"N": 2049}], [{"N": 1024}, {"N": 32}],
         "N > 1,024 (right up to 1,024, wrong from 1,025), or as well N is no multiple of 32 (2 to 32 fit as well)"),
        ([{"there are places with valid = false": True, "T": 9}, {"there are places with valid = false": True, "T": 5}],
         [{"there are places with valid = false": False, "T": 3}] * 2, "there are places with valid = false"),
        ([{"there are targets that do not count": False}] * 2, [{"there are targets that do not count": True}] * 2,
         "there are no targets that do not count"),
        ([{"the largest number of q": 8.0}] * 2, [{"the largest number of q": 3.5}] * 2,
         "the largest number of q > 3.5 (right up to 3.5, wrong from 8.0)"),
    ],
)  # fmt: skip
def test_what_tells_wrong_cases_apart_is_said_with_its_ground(
    wrong: list[Numbers], right: list[Numbers], words: str
) -> None:
    condition = clean(wrong, right)
    assert condition is not None
    assert condition.words == words
    assert clean(wrong[:1], right) is None
    assert clean(wrong, right[:1]) is None
    assert clean(wrong, [*right, wrong[0]]) is None


def test_a_limit_without_cases_near_it_is_not_said() -> None:
    wrong, right = [{"V": 32000}, {"V": 50257}], [{"V": 33}, {"V": 1024}]
    assert clean(wrong, right) is None
    assert separating(wrong, right) is not None


def test_a_limit_of_the_numbers_needs_cases_that_differ_in_them_alone() -> None:
    """Of shapes of their own each has its largest number, and some limit between them there always is."""
    wrong = [{"T": 33, "the largest number of c": 2.875}, {"T": 9, "the largest number of c": 3.5}]
    right = [{"T": 5, "the largest number of c": 2.656}, {"T": 129, "the largest number of c": 2.0}]
    assert clean(wrong, right) is None
    found = clean(wrong, [*right, {"T": 33, "the largest number of c": 2.5}])
    assert found is not None
    assert found.words.startswith("the largest number of c > 2.656")


def test_of_one_place_a_mistake_may_show_nothing() -> None:
    wrong = [{"T": n, "S": n + 64, "causal": True} for n in (5, 33, 65)]
    right = [{"T": n, "S": n, "causal": True} for n in (31, 128)] + [{"T": 5, "S": 69, "causal": False}]
    condition = clean(wrong, [*right, *({"T": 1, "S": n, "causal": True} for n in (129, 1025))])
    assert condition is not None
    assert condition.words == "causal = True and T > 1 and T < S"


def test_one_right_case_may_meet_how_lengths_compare_in_many() -> None:
    wrong = [{"T": n, "S": n + 64} for n in (1, 33, 65, 129, 255)]
    right = [{"T": n, "S": n} for n in (31, 128, 257)] + [{"T": 3, "S": 5}]
    condition = clean(wrong, right)
    assert condition is not None
    assert condition.words.startswith("T < S")
    assert clean(wrong[:4], right) is None or "which one right case" not in str(clean(wrong[:4], right))


def test_lengths_above_a_limit_that_are_no_multiples_of_another_tile() -> None:
    wrong = [{"V": n} for n in (1100, 1300, 2100, 4100)]
    right = [{"V": n} for n in (31, 512, 1000, 1024, 1152, 4096)]
    condition = clean(wrong, right)
    assert condition is not None
    assert condition.words == (
        "V > 1,024 (right up to 1,024, wrong from 1,100) and V is no multiple of 64 (8 to 128 fit as well)"
    )
    assert clean(wrong, [*right, {"V": 3001}]) is None
    assert clean(wrong[:2], right) is None
    assert clean(wrong, [{"V": 31}, {"V": 1000}, {"V": 1152}]) is None
