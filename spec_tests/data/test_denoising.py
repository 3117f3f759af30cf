"""Laws of the windows that an encoder-decoder is pre-trained on."""

from __future__ import annotations

import json
from typing import Any

import numpy
import pytest

from refllm.data.denoising import InfilledWindows
from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SpecialIds

SPECIAL = SpecialIds(100, 101, 102, 103, 104)
TOKENS = numpy.random.default_rng(0).integers(0, 100, 500)


def windows(seed: int = 0, **changes: Any) -> InfilledWindows:
    how = {"context": 12, "batch": 5, "special": SPECIAL, **changes}
    return InfilledWindows(TOKENS, **how, generator=numpy.random.default_rng(seed))


@pytest.mark.parametrize("context", [2, 3, 12])
def test_the_target_is_a_stretch_of_the_text_and_the_source_what_masks_leave_of_it(context: int) -> None:
    batches = windows(context=context)
    for _ in range(30):
        batch = batches.next_batch()
        for source, attention_mask, ids in zip(batch["source"], batch["attention_mask"], batch["ids"], strict=True):
            read = source[attention_mask].tolist()
            assert ids[-1] == read[-1] == SPECIAL.sep
            assert len(ids) == context >= len(read)
            assert any(ids[:-1].tolist() == TOKENS[i : i + context - 1].tolist() for i in range(len(TOKENS)))
            kept = iter(ids[:-1].tolist())
            assert all(one in kept for one in read[:-1] if one != SPECIAL.mask)  # in their order
            assert SPECIAL.mask in read
        assert batch["counted"].all()


def test_a_window_is_corrupted_otherwise_each_time() -> None:
    batches = windows(context=100, batch=4)
    seen: dict[bytes, set[bytes]] = {}
    for _ in range(200):
        batch = batches.next_batch()
        for source, ids in zip(batch["source"], batch["ids"], strict=True):
            seen.setdefault(ids.tobytes(), set()).add(source.tobytes())
    assert max(map(len, seen.values())) > 1


def test_batches_go_on_where_they_were_left_to_the_bit() -> None:
    batches = windows(seed=3)
    for _ in range(23):
        batches.next_batch()
    state = json.loads(json.dumps(batches.state()))
    again = InfilledWindows.from_state(TOKENS, state, context=12, batch=5, special=SPECIAL)
    for _ in range(30):
        one, other = batches.next_batch(), again.next_batch()
        assert all(numpy.array_equal(one[name], other[name]) for name in one)


def test_another_text_or_a_damaged_state_is_refused() -> None:
    state = windows().state()
    with pytest.raises(UserError):
        InfilledWindows.from_state(TOKENS + 1, state, context=12, batch=5, special=SPECIAL)
    for damaged in ({}, {**state, "draws": 3}, {**state, "draws": {}}):
        with pytest.raises(UserError, match="damaged"):
            InfilledWindows.from_state(TOKENS, damaged, context=12, batch=5, special=SPECIAL)


def test_a_context_without_room_is_refused() -> None:
    with pytest.raises(UserError, match="no room for a token and its end"):
        windows(context=1)
