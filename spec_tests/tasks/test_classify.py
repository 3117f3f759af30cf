"""Laws of classification as a task: what is measured, what is trained, resuming, and what is refused. (CLS)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.metrics import confusion_matrix, macro_scores
from refllm.models import bert
from refllm.objectives.classification import Classification
from refllm.parameters import from_names, named_leaves
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks import load
from refllm.tasks.classify import Classify, read_data
from refllm.tasks.start import begun_from
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny

FRUIT, STONE, CITY = "apple pear plum fig", "marble slate flint chalk", "rome oslo lima bonn"
ROWS = [
    (f"{a} {b} and {c}", label)
    for label, names, n in (("fruit", FRUIT, 2), ("stone", STONE, 3), ("city", CITY, 2))
    for a in names.split()
    for b in names.split()
    for c in names.split()[:n]
]
LABELS = ["city", "fruit", "stone"]
HOW: dict[str, Any] = {"text": "text", "label": "label", "validation": 0.25}


def written(folder: Path, rows: list[tuple[str, str]] = ROWS) -> str:
    path = folder / "data.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return str(path)


def task(
    folder: Path, *, start: Any = None, balanced: bool = False, smoothing: float = 0.0, context: int = 8, **tuning: Any
) -> Classify:
    data = written(folder)
    read = read_data([data], **HOW)
    tokenizer = WordPieceTokenizer.train("\n".join(text for text, _ in ROWS), vocabulary=200, lower=True)
    config = bert.Config(
        vocabulary=tokenizer.size, context=context, layers=2, heads=2, width=8, hidden=8, outputs=("classes",),
        labels=3, dropout=0.1,
    )  # fmt: skip
    return Classify(
        config=config, tokenizer=tokenizer, read=read, data=[data], **HOW, balanced=balanced, start=start,
        tuning={"tune": "all", **tuning}, smoothing=smoothing,
    )  # fmt: skip


def begin(directory: Path, made: Classify, *, steps: int = 8, patience: int | None = 3, **changes: Any) -> Run:
    settings = tiny.settings(**changes)
    plan = Plan(steps=steps, minutes=None, reports=4, patience=patience)
    return Run.begin(directory, task=made, settings=settings, plan=plan, workers=Workers(settings.shards))


def random_parameters(config: bert.Config) -> Any:
    p = bert.initial(config, numpy.random.default_rng(0))
    draws = numpy.random.default_rng(1)
    return {path: x + 0.3 * draws.standard_normal(x.shape) for path, x in named_leaves(p)}


def logits_of(p: Any, ids: Any, config: bert.Config) -> Any:
    h, _ = bert.encode(p, ids=ids, segments=0 * ids, attention_mask=None, config=config, dropout_mask=None)
    return bert.class_logits(h, p, dropout_mask=None, rate=0.0)[0]


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """A classifier's run stands for a pre-trained one: its weights, its head apart, are what counts."""
    tiny.train(begin(tmp_path / "first", task(tmp_path), steps=4, seed=7))
    return tmp_path / "first"


@pytest.mark.parametrize(("balanced", "smoothing"), [(False, 0.0), (True, 0.0), (True, 0.3)])
def test_the_measures_are_those_of_each_text_by_itself(tmp_path: Path, balanced: bool, smoothing: float) -> None:
    """Without padding, text by text, and without smoothing; the loss weighs a text as the labels of the training part
    say."""
    made = task(tmp_path, balanced=balanced, smoothing=smoothing)
    flat = random_parameters(made.config)
    p = from_names(bert.shapes(made.config), flat)
    held_out = [numpy.array([[2, *made.tokenizer.encode(one.text), 3]]) for one in made.read.validation]
    logits = numpy.concatenate([logits_of(p, ids, made.config) for ids in held_out])
    flat["classes.b"] -= logits.mean(axis=0)  # so that every label is given to some
    logits -= logits.mean(axis=0)
    with Workers(2) as workers:
        measured = made.validate(flat, device="cpu", workers=workers)
    wanted = [str(one.label) for one in made.read.validation]
    given = [LABELS[place] for place in logits.argmax(axis=1)]
    places = [LABELS.index(label) for label in wanted]
    counts = {label: sum(one.label == label for one in made.read.train) for label in LABELS}
    mean = sum(counts.values()) / len(LABELS)
    weights = [mean / counts[label] if balanced else 1.0 for label in wanted]
    losses = numpy.log(numpy.exp(logits).sum(axis=1)) - logits[range(len(places)), places]
    assert measured["val_loss"] == pytest.approx(numpy.average(losses, weights=weights), rel=1e-10)
    wrong = sum(w for w, a, b in zip(weights, wanted, given, strict=True) if a != b)
    assert wrong < measured["criterion"] < wrong + 1
    assert measured["accuracy"] == numpy.mean([a == b for a, b in zip(wanted, given, strict=True)])
    assert measured["macro_f1"] == macro_scores(confusion_matrix(wanted, given, LABELS)).f1
    assert len(set(given)) > 1
    assert (" without smoothing, " in made.told(measured)) == (smoothing > 0)


def test_copies_of_a_text_are_on_one_side_and_every_label_on_both(tmp_path: Path) -> None:
    copies = [(text.upper().replace(" ", "  "), label) for text, label in ROWS]
    read = read_data([written(tmp_path, ROWS + copies)], **HOW)
    sides = [{" ".join(one.text.lower().split()) for one in side} for side in (read.train, read.validation)]
    assert not sides[0] & sides[1]
    assert read.labels == LABELS == sorted({str(one.label) for one in read.validation})


def test_texts_longer_than_the_context_are_counted_and_cut(tmp_path: Path) -> None:
    assert "cut off" not in task(tmp_path).introduced()
    made = task(tmp_path, context=4)
    told = made.introduced()
    first = made.read.train[0].where
    assert f"(texts longer than the context of 4 tokens, cut off there: {len(ROWS)}, the first in {first})" in told
    assert max(len(ids) for ids, _ in made.texts) == 4


def test_labels_that_words_tell_are_learnt(tmp_path: Path) -> None:
    run = tiny.train(begin(tmp_path / "run", task(tmp_path), steps=120, lr=0.03, decay=0.0))
    with run.trainer.workers:
        assert run.validate()["accuracy"] > 0.9


TUNINGS: list[dict[str, Any]] = [{"tune": "all"}, {"tune": "upper", "layers": 1}, {"tune": "low-rank", "rank": 1}]


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: tuning["tune"])
def test_fine_tuning_begins_at_the_run_changes_its_part_and_leaves_a_whole_model(
    tmp_path: Path, pretrained: Path, tuning: dict[str, Any]
) -> None:
    start = begun_from(pretrained, model="bert", device="cpu")
    assert start.weights is not None
    run = begin(tmp_path / "run", task(tmp_path, start=start, **tuning))
    made: Any = run.task
    before = {path: x.copy() for path, x in named_leaves(made.full(run.trainer.parameters.tree))}
    head = {"classes.W", "classes.b"}
    assert before.keys() - start.weights.keys() | head == head
    for path in start.weights.keys() - head:
        assert (before[path] == start.weights[path]).all()
    tiny.train(run)
    after = dict(named_leaves(load_model(tmp_path / "run", "cpu").parameters))
    assert after.keys() == before.keys()
    changed = {path for path, x in after.items() if (x != before[path]).any()}
    lower = {path for path in after if path.startswith(("token", "position", "segment", "norm", "layers.0"))}
    assert "classes.W" in changed
    if tuning["tune"] == "all":
        assert lower & changed
    elif tuning["tune"] == "upper":
        assert "layers.1.attention.Wqkv" in changed
        assert not lower & changed
    else:
        assert changed == {"classes.W", "classes.b", "token", *(p for p in after if ".attention.W" in p)}


def test_the_head_is_fresh_and_the_seeds(tmp_path: Path, pretrained: Path) -> None:
    made = task(tmp_path, start=begun_from(pretrained, model="bert", device="cpu"))
    heads = []
    for seed in (7, 7, 8):
        run = begin(tmp_path / "run", made, seed=seed)
        heads.append(run.trainer.parameters.views["classes.W"].tobytes())
    assert heads[0] == heads[1] != heads[2]
    old = load_model(pretrained, "cpu").parameters["classes"]["W"]
    assert old.tobytes() not in heads


@pytest.mark.one_in(8)
@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda tuning: tuning["tune"])
@pytest.mark.parametrize("balanced", [False, True])
def test_a_classifier_is_resumed_bit_for_bit(
    tmp_path: Path, pretrained: Path, tuning: dict[str, Any], balanced: bool
) -> None:
    made = task(tmp_path, start=begun_from(pretrained, model="bert", device="cpu"), balanced=balanced, **tuning)
    whole = tiny.train(begin(tmp_path / "whole", made, shards=2))
    for stop in (3, 5):
        tiny.train(begin(tmp_path / f"{stop}", made, shards=2), stop_after=stop)
        again = tiny.train(Run.resume(tmp_path / f"{stop}", Workers))
        assert tiny.bits(again) == tiny.bits(whole)
        assert tiny.metrics(tmp_path / f"{stop}") == tiny.metrics(tmp_path / "whole")
        assert again.task.describe() == made.describe()


def test_a_smoothed_classifier_learns_what_it_is_asked_for_and_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    made = task(tmp_path, smoothing=0.3)
    batch = made.feed(batch=4, order=numpy.random.default_rng(0), state=None).next_batch()
    p = random_parameters(made.config)
    wanted, _ = Classification(bert, made.config, 0.3).loss(
        from_names(bert.shapes(made.config), p), batch, totals=4.0, dropout_mask=None
    )
    assert made.objective.loss(p, batch, totals=4.0, dropout_mask=None)[0] == wanted
    whole = tiny.train(begin(tmp_path / "whole", made))
    tiny.train(begin(tmp_path / "parts", made), stop_after=3)
    again = tiny.train(Run.resume(tmp_path / "parts", Workers))
    assert tiny.bits(again) == tiny.bits(whole)
    assert again.task.describe()["smoothing"] == 0.3
    plain = tiny.train(begin(tmp_path / "plain", task(tmp_path)))
    assert tiny.bits(plain) != tiny.bits(whole)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_is_refused(tmp_path: Path, smoothing: float) -> None:
    with pytest.raises(UserError, match="smoothing of the labels must be at least 0 and below 1"):
        task(tmp_path, smoothing=smoothing)


def test_other_examples_are_refused(tmp_path: Path) -> None:
    description = {**task(tmp_path).describe(), "settings": {"device": "cpu"}}
    load(description)
    written(tmp_path, [*ROWS[:-1], (ROWS[-1][0], "fruit")])
    with pytest.raises(UserError, match="does not hold the examples that the run began with; resume with the same"):
        load(description)


def test_a_start_that_has_changed_is_refused_where_its_weights_are_needed(tmp_path: Path, pretrained: Path) -> None:
    start = begun_from(pretrained, model="bert", device="cpu")
    for tuning in TUNINGS:
        made = task(tmp_path, start=replace(start, digest="other"), **tuning)
        description = {**made.describe(), "settings": {"device": "cpu"}}
        if tuning["tune"] == "all":
            assert load(description).describe() == made.describe()
        else:
            with pytest.raises(UserError, match="has been trained on since the run began from it; begin a new run"):
                load(description)


def test_a_classifier_begins_from_bert_alone(tmp_path: Path) -> None:
    tiny.train(tiny.begin(tmp_path, "gpt", steps=1))
    with pytest.raises(UserError, match="gpt is a run of gpt, and this one begins from one of bert; make one by"):
        begun_from(tmp_path / "gpt", model="bert", device="cpu")


def test_a_model_for_other_labels_is_refused(tmp_path: Path) -> None:
    made = task(tmp_path)
    with pytest.raises(UserError, match="the data has 3 labels, the model 2; give the same data"):
        Classify(
            config=replace(made.config, labels=2), tokenizer=made.tokenizer, read=made.read, data=made.data, **HOW,
            balanced=False, start=None, tuning={"tune": "all"},
        )  # fmt: skip
