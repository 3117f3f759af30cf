"""Laws of padding and of batches of similar lengths. (DATA)"""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.padding import LengthBuckets, attended, bucketed, padded, padded_batch
from refllm.errors import UserError

many_lengths = st.lists(st.integers(1, 50), min_size=1, max_size=60)
sizes = st.integers(1, 7)


@given(st.lists(st.lists(st.integers(5, 9), max_size=6), min_size=1, max_size=5).filter(any))
def test_rows_are_the_texts_filled_up_to_the_longest_of_the_batch(texts: list[list[int]]) -> None:
    rows = padded([np.array(text, int) for text in texts], value=0)
    assert rows.shape == (len(texts), max(map(len, texts)))
    inside = attended([len(text) for text in texts], longest=rows.shape[1])
    assert inside.shape == (len(texts), 1, 1, rows.shape[1])
    for row, mask, text in zip(rows, inside[:, 0, 0], texts, strict=True):
        assert row[mask].tolist() == text
        assert (row[~mask] == 0).all()


def test_a_batch_for_an_encoder_has_ids_segments_and_allowed_keys() -> None:
    examples = [(np.array([2, 7, 3]), np.zeros(3, int)), (np.array([2, 7, 3, 8, 3]), np.array([0, 0, 0, 1, 1]))]
    batch = padded_batch(examples, pad=9)
    assert batch["ids"].tolist() == [[2, 7, 3, 9, 9], [2, 7, 3, 8, 3]]
    assert batch["segments"].tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]
    assert batch["attention_mask"][:, 0, 0].tolist() == [[True, True, True, False, False], [True] * 5]


@pytest.mark.parametrize("texts", [[], [np.zeros(0, int)]])
def test_a_batch_of_nothing_is_refused(texts: list[Any]) -> None:
    with pytest.raises(UserError, match="needs a text with at least one token"):
        padded(texts, value=0)


@given(many_lengths, sizes, st.integers(0, 99))
def test_an_epoch_holds_every_example_once(lengths: list[int], batch: int, seed: int) -> None:
    batches = bucketed(np.array(lengths), batch=batch, generator=np.random.default_rng(seed))
    assert sorted(i for indices in batches for i in indices) == list(range(len(lengths)))
    assert sorted(map(len, batches))[1:] == [batch] * (len(batches) - 1)


def test_batches_hold_texts_of_similar_lengths_in_random_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 4000)
    batches = bucketed(lengths, batch=8, generator=np.random.default_rng(1))
    padding = [len(b) * lengths[b].max() - lengths[b].sum() for b in batches]
    assert sum(padding) / lengths.sum() < 0.03
    means = np.array([lengths[b].mean() for b in batches])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.2


def test_an_example_has_other_companions_in_another_epoch() -> None:
    buckets = LengthBuckets([7] * 20, batch=4, generator=np.random.default_rng(0))
    first, second = ({frozenset(buckets.next_batch().tolist()) for _ in range(5)} for _ in range(2))
    assert first != second


@given(many_lengths, sizes, st.integers(0, 99), st.integers(0, 30))
def test_a_run_that_resumes_draws_what_an_unbroken_one_draws(
    lengths: list[int], batch: int, seed: int, steps: int
) -> None:
    unbroken = LengthBuckets(lengths, batch=batch, generator=np.random.default_rng(seed))
    for _ in range(steps):
        unbroken.next_batch()
    saved = json.loads(json.dumps(unbroken.state()))
    resumed = LengthBuckets.from_state(lengths, saved, batch=batch)
    assert resumed.state() == saved
    for _ in range(20):
        np.testing.assert_array_equal(resumed.next_batch(), unbroken.next_batch())


@pytest.mark.parametrize(
    ("changes", "lengths", "batch", "message"),
    [
        ({}, [1, 2, 4], 2, "not those that the run began with; resume with the same data"),
        ({}, [1, 2, 3], 3, "began with batch 2, not 3; resume with the same"),
        ({"next": 99}, [1, 2, 3], 2, "damaged"),
        ({"next": True}, [1, 2, 3], 2, "damaged"),
        ({"random": {}}, [1, 2, 3], 2, "damaged"),
    ],
)
def test_an_order_that_does_not_belong_is_refused_in_one_line(
    changes: dict[str, Any], lengths: list[int], batch: int, message: str
) -> None:
    state = LengthBuckets([1, 2, 3], batch=2, generator=np.random.default_rng(0)).state()
    with pytest.raises(UserError, match=message) as caught:
        LengthBuckets.from_state(lengths, {**state, **changes}, batch=batch)
    assert len(str(caught.value).splitlines()) == 1


def test_sizes_that_make_no_sense_are_refused() -> None:
    for lengths, batch in (([], 1), ([3], 0)):
        with pytest.raises(UserError, match="need examples and a size of at least 1"):
            LengthBuckets(lengths, batch=batch, generator=np.random.default_rng(0))
    with pytest.raises(TypeError, match="default_rng"):
        LengthBuckets([3], batch=1, generator=np.random.Generator(np.random.MT19937(0)))
