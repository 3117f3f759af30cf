"""Laws of learning from pairs as a task: what is measured, resuming, and what it begins from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.data.pairs import encoded
from refllm.errors import UserError
from refllm.models import encoder_decoder
from refllm.ops.softmax import log_softmax
from refllm.parameters import from_names, map_leaves, named_leaves
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks import load
from refllm.tasks.seq2seq import SequencePairs, read_data
from refllm.tasks.start import begun_from
from refllm.tokenizers.marked import MarkedTokenizer
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.pairs import PAIRS, written

TOKENIZER = MarkedTokenizer.train(" ".join(" ".join(pair) for pair in PAIRS), vocabulary=290)
CONFIG = encoder_decoder.Config(
    vocabulary=TOKENIZER.size, context=16, encoder_layers=1, decoder_layers=1, heads=2, head_width=4, width=8, hidden=8,
    norm="pre", scaled_embedding=True,
)  # fmt: skip

DEEPER = dataclasses.replace(CONFIG, decoder_layers=2)


def task(folder: Path, **changes: Any) -> SequencePairs:
    data = written(folder / "data", changes.pop("pairs", PAIRS))
    how: dict[str, Any] = {
        "command": "translate", "config": CONFIG, "tokenizer": TOKENIZER, "data": data, "source": "source",
        "target": "target", "validation": 0.1, "smoothing": 0.1, "start": None,
        "tuning": {"tune": "all"}, **changes,
    }  # fmt: skip
    return SequencePairs(read=read_data(data, source="source", target="target", validation=0.1), **how)


def run(folder: Path, name: str, made: SequencePairs, *, steps: int = 8, patience: int | None = None) -> Run:
    plan = Plan(steps=steps, minutes=None, reports=4, patience=patience)
    return Run.begin(folder / name, task=made, settings=tiny.settings(), plan=plan, workers=Workers(1))


def test_the_validation_is_the_loss_of_each_pair_alone_without_padding_or_smoothing(tmp_path: Path) -> None:
    made = task(tmp_path)
    p: Any = map_leaves(
        lambda x: x + 0.3 * numpy.random.default_rng(x.size).standard_normal(x.shape),
        encoder_decoder.initial(CONFIG, numpy.random.default_rng(0)),
    )
    with Workers(2) as workers:
        measured = made.validate(dict(named_leaves(p)), device="cpu", workers=workers)
    nll, tokens = 0.0, 0
    for pair in made.read.validation:
        source, target = (encoded(text, tokenizer=TOKENIZER) for text in (pair.source, pair.target))
        before = numpy.append(TOKENIZER.special.cls, target[:-1])
        logits, _ = encoder_decoder.forward(
            p, source=source[None], attention_mask=None, ids=before[None], config=CONFIG, dropout_mask=None
        )
        nll -= log_softmax(logits)[0][0][numpy.arange(len(target)), target].sum()
        tokens += len(target)
    assert measured == {"val_loss": pytest.approx(nll / tokens)}


def test_a_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = tiny.train(run(tmp_path, "whole", task(tmp_path)))
    tiny.train(run(tmp_path, "parts", task(tmp_path)), stop_after=3)
    parts = tiny.train(Run.resume(tmp_path / "parts", Workers))
    assert tiny.bits(whole) == tiny.bits(parts)
    assert tiny.metrics(tmp_path / "whole") == tiny.metrics(tmp_path / "parts")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run of the same model, which stands for a pre-trained one."""
    return tiny.train(run(tmp_path, "first", task(tmp_path, config=DEEPER), steps=4)).directory


PARTS: list[dict[str, Any]] = [{"tune": "upper", "layers": 1}, {"tune": "low-rank", "rank": 1}]
every_part = pytest.mark.parametrize("tuning", PARTS, ids=lambda tuning: tuning["tune"])


@every_part
def test_a_part_is_trained_from_a_run_and_the_whole_model_is_left(
    tmp_path: Path, first: Path, tuning: dict[str, Any]
) -> None:
    start = begun_from(first, model="encoder_decoder", device="cpu")
    made = task(tmp_path, config=DEEPER, start=start, tuning=tuning)
    assert made.tuning.share < 0.5
    tiny.train(run(tmp_path, "second", made))
    after = dict(named_leaves(load_model(tmp_path / "second", "cpu").parameters))
    assert start.weights is not None
    assert after.keys() == start.weights.keys()
    changed = {path for path, x in after.items() if (x != start.weights[path]).any()}
    if tuning["tune"] == "upper":
        last = {path for path in after if path.startswith("decoder.layers.1")}
        assert last <= changed <= {path for path in after if path.startswith("decoder.")}
        assert not any(path.startswith("decoder.layers.0") for path in changed)
    else:
        assert changed == {path for path in after if path == "token" or "attention.W" in path}
        assert {path.split(".")[0] for path in changed} == {"token", "encoder", "decoder"}


@every_part
def test_a_part_is_resumed_bit_for_bit(tmp_path: Path, first: Path, tuning: dict[str, Any]) -> None:
    made = task(tmp_path, config=DEEPER, start=begun_from(first, model="encoder_decoder", device="cpu"), tuning=tuning)
    whole = tiny.train(run(tmp_path, "whole", made, patience=3))
    tiny.train(run(tmp_path, "parts", made, patience=3), stop_after=3)
    parts = tiny.train(Run.resume(tmp_path / "parts", Workers))
    assert tiny.bits(whole) == tiny.bits(parts)
    assert tiny.metrics(tmp_path / "whole") == tiny.metrics(tmp_path / "parts")
    assert parts.task.describe() == made.describe()
    one, other = (load_model(tmp_path / name, "cpu").parameters for name in ("whole", "parts"))
    assert tiny.largest_difference(one, other) == 0


def test_a_start_that_has_changed_is_refused_where_its_weights_are_needed(tmp_path: Path, first: Path) -> None:
    start = begun_from(first, model="encoder_decoder", device="cpu")
    for tuning in [{"tune": "all"}, *PARTS]:
        made = task(tmp_path, config=DEEPER, start=dataclasses.replace(start, digest="other"), tuning=tuning)
        description = {**made.describe(), "settings": {"device": "cpu"}}
        if tuning["tune"] == "all":
            assert load(description).describe() == made.describe()
        else:
            with pytest.raises(UserError, match="has been trained on since the run began from it; begin a new run"):
                load(description)


@every_part
def test_a_part_of_no_run_is_refused(tmp_path: Path, tuning: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="needs a trained model to start from; give one, or tune all"):
        task(tmp_path, tuning=tuning)


def test_other_pairs_are_refused(tmp_path: Path) -> None:
    description = task(tmp_path).describe()
    task(tmp_path, pairs=[*PAIRS[:-1], ("another", "anderes")])
    with pytest.raises(UserError, match="does not hold the pairs that the run began with"):
        load(description)


def test_a_run_begins_with_the_weights_of_the_one_that_it_is_from(tmp_path: Path, first: Path) -> None:
    start = begun_from(first, model="encoder_decoder", device="cpu")
    assert (start.config, start.tokenizer) == (DEEPER, TOKENIZER)
    second = run(tmp_path, "second", task(tmp_path, config=DEEPER, start=start))
    wanted = load_model(first, "cpu").parameters
    got = from_names(encoder_decoder.shapes(DEEPER), second.trainer.parameters.views)
    assert tiny.largest_difference(wanted, got) == 0
    tiny.train(second, stop_after=2)
    assert Run.resume(tmp_path / "second", Workers).task.describe()["from"] == start.as_dict()


def test_a_run_of_another_model_is_no_start(tmp_path: Path) -> None:
    tiny.train(tiny.begin(tmp_path, "language", steps=1, reports=1))
    with pytest.raises(UserError, match="is a run of gpt, and this one begins from one of encoder_decoder"):
        begun_from(tmp_path / "language", model="encoder_decoder", device="cpu")


def test_pairs_longer_than_the_context_are_left_out_and_told(tmp_path: Path) -> None:
    made = task(tmp_path, pairs=[*PAIRS, *((f"{n} " * 30, f"{n}") for n in range(100, 140))])
    assert made.left_out == 40
    told = made.introduced()
    assert "(pairs longer than the context of 16 tokens, left out: 40, the first in " in told
    assert int(told.rstrip(")").rpartition(":")[2]) > len(PAIRS)  # the line: those that are too long come last
    assert all(max(map(len, pair)) <= 16 for pair in made.pairs)
    with pytest.raises(UserError, match=r"hardly a pair of .* fits the context of 1 tokens"):
        task(tmp_path, config=dataclasses.replace(CONFIG, context=1))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_is_refused(tmp_path: Path, smoothing: float) -> None:
    with pytest.raises(UserError, match="smoothing of the labels must be at least 0 and below 1"):
        task(tmp_path, smoothing=smoothing)
