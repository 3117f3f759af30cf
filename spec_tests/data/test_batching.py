"""Laws of training batches and evaluation windows."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.batching import IGNORED, Batches, held_out_windows, windows
from refllm.errors import UserError

sizes = st.tuples(st.integers(1, 9), st.integers(0, 80), st.integers(1, 7))  # context, tokens beyond a window, batch


def batches_of(size: tuple[int, int, int], seed: int) -> Batches:
    context, beyond, batch = size
    tokens = np.arange(context + 1 + beyond)
    return Batches(tokens, context=context, batch=batch, generator=np.random.default_rng(seed))


@given(sizes, st.integers(0, 99))
def test_a_batch_holds_contiguous_windows_of_the_tokens(size: tuple[int, int, int], seed: int) -> None:
    context, beyond, batch = size
    drawn = batches_of(size, seed).next_batch()
    assert drawn.shape == (batch, context + 1)
    assert (np.diff(drawn) == 1).all()
    assert drawn.min() >= 0
    assert drawn.max() <= context + beyond


@given(sizes, st.integers(0, 99))
def test_in_an_epoch_no_token_is_a_target_twice_and_few_are_not(size: tuple[int, int, int], seed: int) -> None:
    context, beyond, _ = size
    batches = batches_of((context, beyond, 1), seed)
    epoch = [batches.next_batch()[0, 1:]]
    while True:
        drawn = batches.next_batch()[0, 1:]
        if batches.state()["next"] == 1:
            break
        epoch.append(drawn)
    targets = np.concatenate(epoch)
    assert len(set(targets.tolist())) == len(targets)
    missed = context + beyond - len(targets)
    assert missed < 2 * context


def test_over_the_epochs_every_token_is_a_target_and_every_place_begins_a_window() -> None:
    batches = batches_of((4, 26, 1), seed=0)
    drawn = np.concatenate([batches.next_batch() for _ in range(600)])
    assert set(drawn[:, 1:].ravel().tolist()) == set(range(1, 31))
    assert set(drawn[:, 0].tolist()) == set(range(27))


@given(sizes, st.integers(0, 99), st.integers(0, 40), st.sampled_from([np.uint16, np.int32, np.int64]))
def test_a_run_that_resumes_draws_bit_for_bit_what_an_unbroken_one_draws(
    size: tuple[int, int, int], seed: int, steps: int, kind: type[np.integer[Any]]
) -> None:
    unbroken = batches_of(size, seed)
    for _ in range(steps):
        unbroken.next_batch()
    saved = json.loads(json.dumps(unbroken.state()))
    resumed = Batches.from_state(unbroken.tokens.astype(kind), saved, context=size[0], batch=size[2])
    assert resumed.state() == saved
    for _ in range(40):
        np.testing.assert_array_equal(resumed.next_batch(), unbroken.next_batch())
    assert resumed.state() == unbroken.state()


def test_windows_come_shuffled_and_each_epoch_in_another_order() -> None:
    batches = batches_of((1, 99, 100), seed=0)
    first, second = batches.next_batch()[:, 0].tolist(), batches.next_batch()[:, 0].tolist()
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != second
    assert first != sorted(first)


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    first, again, other = (batches_of((4, 60, 8), seed).next_batch().tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_saved_order_belongs_to_its_tokens_its_context_and_its_batch() -> None:
    batches = batches_of((4, 20, 2), seed=0)
    with pytest.raises(UserError, match="resume with the same data"):
        Batches.from_state(batches.tokens[::-1], batches.state(), context=4, batch=2)
    for context, batch in ((5, 2), (4, 3)):
        with pytest.raises(UserError, match="began with context 4 and batch 2; resume with the same"):
            Batches.from_state(batches.tokens, batches.state(), context=context, batch=batch)


json_values: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=4), st.just([])
)


@given(st.data())
def test_a_damaged_order_is_refused_in_one_line_or_still_draws_windows(data: st.DataObject) -> None:
    batches = batches_of((4, 20, 2), seed=0)
    saved = json.loads(json.dumps(batches.state()))
    place = saved
    key = data.draw(st.sampled_from(sorted(saved)))
    if key == "random" and data.draw(st.booleans()):
        place, key = saved["random"], data.draw(st.sampled_from(sorted(saved["random"])))
        if key == "state" and data.draw(st.booleans()):
            place, key = place["state"], data.draw(st.sampled_from(["state", "inc"]))
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(json_values)
    try:
        resumed = Batches.from_state(batches.tokens, saved, context=4, batch=2)
    except UserError as refusal:
        message = str(refusal)
    else:
        message = "not refused"
        assert (np.diff(resumed.next_batch()) == 1).all()
    assert len(message.splitlines()) == 1


@given(st.integers(1, 9), st.integers(0, 60), st.data())
def test_every_token_but_the_first_is_counted_as_a_target_exactly_once(
    context: int, beyond: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    tokens = np.arange(1000, 1000 + context + 1 + beyond)
    ids, targets = windows(tokens, context=context, stride=stride)
    assert ids.shape == targets.shape == (1 + -(-beyond // stride), context)
    counts = targets != IGNORED
    assert targets[counts].tolist() == tokens[1:].tolist()
    np.testing.assert_array_equal(targets[counts], ids[counts] + 1)
    seen = np.broadcast_to(np.arange(1, context + 1), ids.shape)
    assert (seen[1:][counts[1:]] >= context - stride + 1).all()
    assert (np.diff(ids) == 1).all()


def test_tokens_of_an_unsigned_type_are_counted_too() -> None:
    _, targets = windows(np.arange(8, dtype=np.uint16), context=5, stride=5)
    assert targets.tolist() == [[1, 2, 3, 4, 5], [-1, -1, -1, 6, 7]]


@pytest.mark.parametrize(
    ("length", "remedy"), [(0, "give more text"), (1, "give more text"), (64, "use --context 63 or less")]
)
def test_a_text_shorter_than_one_window_is_refused_with_its_length_and_the_remedy(length: int, remedy: str) -> None:
    tokens = np.zeros(length, np.int64)
    with pytest.raises(UserError, match=rf"validation text has {length} tokens.* needs 65: .*{remedy}"):
        windows(tokens, context=64, stride=64)
    with pytest.raises(UserError, match=rf"training text has {length} tokens.* needs 65: .*{remedy}"):
        Batches(tokens, context=64, batch=1, generator=np.random.default_rng(0))


def test_sizes_that_make_no_sense_are_refused() -> None:
    tokens = np.arange(10)
    for stride in (0, 5):
        with pytest.raises(UserError, match="between 1 and the context 4"):
            windows(tokens, context=4, stride=stride)
    for context, batch in ((0, 1), (1, 0)):
        with pytest.raises(UserError, match="at least 1"):
            Batches(tokens, context=context, batch=batch, generator=np.random.default_rng(0))
    with pytest.raises(TypeError, match="default_rng"):
        Batches(tokens, context=4, batch=1, generator=np.random.Generator(np.random.MT19937(0)))
    with pytest.raises(ValueError, match="one row"):
        windows(tokens.reshape(2, 5), context=4, stride=4)


@given(st.integers(2, 30), st.integers(1, 60), st.integers(1, 5), st.data())
def test_every_held_out_token_is_a_target_once(seen: int, held_out: int, wide: int, data: st.DataObject) -> None:
    context = min(wide, held_out)
    stride = data.draw(st.integers(1, context))
    train, validation = np.arange(seen), np.arange(100, 100 + held_out)
    ids, targets = held_out_windows(train, validation, context=context, stride=stride)
    assert targets[targets != IGNORED].tolist() == validation.tolist()
    assert ids[0, 0] == train[-1]
