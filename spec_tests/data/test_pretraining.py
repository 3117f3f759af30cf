"""Laws of the batches that BERT is pre-trained on. (MLM, NSP, SOP)"""

import json
from typing import Any

import numpy as np
import pytest

from refllm.data.pretraining import PretrainingBatches
from refllm.data.sentences import encoded, split_documents
from refllm.errors import UserError
from refllm.models import bert
from refllm.objectives.pretraining import Pretraining
from refllm.tokenizers import WordPieceTokenizer

TEXT = "\n\n".join(
    " ".join(f"The {animal} number {n} eats {food}." for n in range(1, 8))
    for animal, food in [("cat", "fish"), ("dog", "bones"), ("cow", "grass"), ("owl", "mice")]
)
TOKENIZER = WordPieceTokenizer.train(TEXT, vocabulary=90, lower=True)
DOCUMENTS = encoded(split_documents(TEXT), TOKENIZER)
SETTINGS: dict[str, Any] = {
    "context": 24, "batch": 3, "special": TOKENIZER.special, "vocabulary": TOKENIZER.size, "pairing": "next",
}  # fmt: skip


def batches(seed: int = 0, **changes: Any) -> PretrainingBatches:
    return PretrainingBatches(DOCUMENTS, **{**SETTINGS, **changes}, generator=np.random.default_rng(seed))


def restored(batch: Any) -> Any:
    """The ids before the corruption."""
    ids = batch["ids"].copy()
    for row in range(len(ids)):
        for position, target in zip(batch["positions"][row], batch["targets"][row], strict=True):
            if target >= 0:
                ids[row, position] = target
    return ids


@pytest.mark.parametrize("pairing", ["next", "order"])
def test_every_text_is_two_marked_segments_within_the_context(pairing: str) -> None:
    feed, special = batches(pairing=pairing), TOKENIZER.special
    for _ in range(30):
        batch = feed.next_batch()
        inside = batch["attention_mask"][:, 0, 0]
        assert batch["ids"].shape[1] == inside.sum(axis=1).max() <= 24
        for ids, segments, attention_mask in zip(restored(batch), batch["segments"], inside, strict=True):
            text = ids[attention_mask].tolist()
            assert text[0] == special.cls
            ends = [place for place, i in enumerate(text) if i == special.sep]
            assert ends[1] == len(text) - 1
            assert len(ends) == 2
            assert segments[attention_mask].tolist() == [0] * (ends[0] + 1) + [1] * (ends[1] - ends[0])
            assert (ids[~attention_mask] == special.pad).all()


def test_pairs_carry_their_label_through_the_batches() -> None:
    """In this text the animals of two documents differ."""
    feed = batches()
    animals = [int(TOKENIZER.encode(name)[0]) for name in ("fish", "bones", "grass", "mice")]
    seen = set()
    for _ in range(40):
        batch = feed.next_batch()
        for ids, segments, label in zip(restored(batch), batch["segments"], batch["pair"], strict=True):
            first, second = (set(ids[segments == s].tolist()) & set(animals) for s in (0, 1))
            if first and second:
                assert (first == second) == (label == 0)
                seen.add(int(label))
    assert seen == {0, 1}


def test_each_epoch_draws_other_pairs_and_other_masks() -> None:
    feed = batches(batch=1000)
    first, second = feed.next_batch(), feed.next_batch()
    assert first["ids"].shape != second["ids"].shape or (restored(first) != restored(second)).any()


@pytest.mark.parametrize("steps", [0, 1, 7, 40])
def test_a_run_that_resumes_draws_bit_for_bit_what_an_unbroken_one_draws(steps: int) -> None:
    unbroken = batches()
    for _ in range(steps):
        unbroken.next_batch()
    saved = json.loads(json.dumps(unbroken.state()))
    resumed = PretrainingBatches.from_state(DOCUMENTS, saved, **SETTINGS)
    assert resumed.state() == saved
    for _ in range(20):
        one, other = resumed.next_batch(), unbroken.next_batch()
        assert list(one) == list(other)
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])
    assert resumed.state() == unbroken.state()


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"context": 25}, "began with context 24, not 25"),
        ({}, {"pairing": "order"}, "began with pairing next, not order"),
        ({"documents_crc32": 0}, {}, "resume with the same data"),
        ({"next": -1}, {}, "damaged"),
        ({"random": None}, {}, "damaged"),
        ({"epoch": {"bit_generator": "PCG64"}}, {}, "damaged"),
    ],
)
def test_a_saved_order_belongs_to_its_documents_and_settings(
    changes: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    state = {**batches().state(), **changes}
    with pytest.raises(UserError, match=message) as caught:
        PretrainingBatches.from_state(DOCUMENTS, state, **{**SETTINGS, **settings})
    assert len(str(caught.value).splitlines()) == 1


def test_documents_cut_into_other_sentences_are_other_documents() -> None:
    state = batches().state()
    merged = [[np.concatenate(document[:2]), *document[2:]] for document in DOCUMENTS]
    with pytest.raises(UserError, match="resume with the same data"):
        PretrainingBatches.from_state(merged, state, **SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"batch": 0}, "batch must be at least 1"), ({"pairing": "none"}, "one of next, order"), ({"context": 4}, "to 5")],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        batches(**changes)


def test_a_batch_is_what_the_objective_takes() -> None:
    config = bert.Config(vocabulary=TOKENIZER.size, context=24, layers=1, heads=1, width=4, hidden=4)
    objective, batch = Pretraining(bert, config), batches().next_batch()
    p = bert.initial(config, np.random.default_rng(0))
    loss, _ = objective.loss(p, batch, totals=objective.totals(batch), dropout_mask=None)
    assert loss == pytest.approx(np.log(TOKENIZER.size) + np.log(2), abs=0.5)
