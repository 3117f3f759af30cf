"""Laws of answering questions as a task."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.data.questions import asked
from refllm.errors import UserError
from refllm.models import bert
from refllm.ops.softmax import log_softmax
from refllm.parameters import map_leaves, named_leaves
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks import load
from refllm.tasks.span import LONGEST, AnswerSpans, answers, read_data
from refllm.tasks.start import begun_from
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny

NAMES, PLACES = ("Ann", "Bob", "Cem", "Dora"), ("Bonn", "Graz", "Bern", "Rome", "Oslo", "Pisa", "Metz", "Nice")
ROWS = [
    {"context": f"{name} lives in {place}. {other} does not.", "question": f"Where does {name} live?", "answer": place}
    for name, other in itertools.permutations(NAMES, 2)
    for place in PLACES
]
TOKENIZER = WordPieceTokenizer.train(" ".join(" ".join(row.values()) for row in ROWS), vocabulary=120, lower=True)
CONFIG = bert.Config(vocabulary=TOKENIZER.size, context=40, layers=2, heads=2, width=8, hidden=8, outputs=("span",))


def written(folder: Path, rows: list[dict[str, str]] = ROWS) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task(folder: Path, **changes: Any) -> AnswerSpans:
    data = [written(folder, changes.pop("rows", ROWS))]
    how: dict[str, Any] = {
        "config": CONFIG, "tokenizer": TOKENIZER, "data": data, "validation": 0.2, "start": None,
        "tuning": {"tune": "all"}, **changes,
    }  # fmt: skip
    return AnswerSpans(read=read_data(data, validation=0.2), **how)


def weights() -> Any:
    p: Any = bert.initial(CONFIG, numpy.random.default_rng(0))
    return map_leaves(lambda x: x + 0.5 * numpy.random.default_rng(x.size).standard_normal(x.shape), p)


def run(folder: Path, name: str, made: AnswerSpans) -> Run:
    plan = Plan(steps=8, minutes=None, reports=4)
    return Run.begin(folder / name, task=made, settings=tiny.settings(), plan=plan, workers=Workers(1))


def test_measures_are_those_of_each_question_alone(tmp_path: Path) -> None:
    made, p = task(tmp_path), weights()
    with Workers(2) as workers:
        measured = made.validate(dict(named_leaves(p)), device="cpu", workers=workers)
    nll, right = 0.0, 0
    for one, read, places in made.held_out:
        h, _ = bert.encode(
            p, ids=read.ids[None], segments=read.segments[None], attention_mask=None, config=CONFIG, dropout_mask=None
        )
        inside = slice(read.begin, read.begin + len(read.characters))
        logits = bert.span_logits(h, p)[0][0][inside]
        log_p = log_softmax(logits.T)[0]
        nll -= sum(log_p[i, place - read.begin] for i, place in enumerate(places))
        spans = [(a, b) for a in range(len(logits)) for b in range(a, min(len(logits), a + LONGEST))]
        a, b = max(spans, key=lambda span: logits[span[0], 0] + logits[span[1], 1])
        given = one.context[read.characters[a][0] : read.characters[b][1]]
        right += given.strip(".").lower() == one.answer.lower()
    assert measured["val_loss"] == pytest.approx(nll / (2 * len(made.held_out)))
    assert measured["exact_match"] == pytest.approx(100 * right / len(made.held_out))
    assert measured["exact_match"] <= measured["f1"] <= 100


def test_an_answer_is_part_of_its_context_and_the_same_alone_or_beside_others() -> None:
    questions = [(row["context"], asked(row["context"], row["question"], tokenizer=TOKENIZER)) for row in ROWS[:40]]
    how: Any = {"config": CONFIG, "tokenizer": TOKENIZER, "device": "cpu"}
    with Workers(2) as workers:
        together = answers(weights(), questions, **how, workers=workers)
        alone = [answers(weights(), [one], **how, workers=workers)[0] for one in questions]
    assert together == alone
    assert all(answer in context for (context, _), answer in zip(questions, together, strict=True))


def test_questions_about_one_context_stay_on_one_side(tmp_path: Path) -> None:
    made = task(tmp_path, rows=[*ROWS, *({**row, "question": "Where?"} for row in ROWS)])
    held_out = {one.context for one in made.read.validation}
    assert not held_out & {one.context for one in made.read.train}
    assert len(made.read.validation) == 2 * len(held_out)


def test_questions_that_do_not_fit_are_left_out_and_the_first_is_told(tmp_path: Path) -> None:
    made = task(tmp_path, rows=[*ROWS, {"context": "Ann " * 50, "question": "Who?", "answer": "Ann"}])
    assert "(questions that do not fit the context of 40 tokens, left out: 1, the first in" in made.introduced()
    assert f"questions.jsonl:{len(ROWS) + 1})" in made.introduced()


def test_a_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    whole = tiny.train(run(tmp_path, "whole", task(tmp_path)))
    tiny.train(run(tmp_path, "parts", task(tmp_path)), stop_after=3)
    assert tiny.bits(whole) == tiny.bits(tiny.train(Run.resume(tmp_path / "parts", Workers)))


def test_a_run_of_answers_begins_from_a_pre_trained_one_but_for_its_head(tmp_path: Path) -> None:
    first = tiny.train(run(tmp_path, "first", task(tmp_path)))
    start = begun_from(tmp_path / "first", model="bert", device="cpu")
    assert start.weights is not None
    before = {path: leaf for path, leaf in start.weights.items() if not path.startswith("span")}
    second = run(tmp_path, "second", task(tmp_path, start=replace(start, weights=before)))
    for path, leaf in first.trainer.parameters.views.items():
        same = numpy.array_equal(leaf, second.trainer.parameters.views[path])
        assert same == (not path.startswith("span."))


PARTS: list[dict[str, Any]] = [{"tune": "upper", "layers": 1}, {"tune": "low-rank", "rank": 1}]


@pytest.mark.parametrize("tuning", PARTS, ids=lambda tuning: tuning["tune"])
def test_a_part_is_trained_resumed_bit_for_bit_and_leaves_a_whole_model(tmp_path: Path, tuning: dict[str, Any]) -> None:
    tiny.train(run(tmp_path, "first", task(tmp_path)))
    start = begun_from(tmp_path / "first", model="bert", device="cpu")
    made = task(tmp_path, start=start, tuning=tuning)
    whole = tiny.train(run(tmp_path, "whole", made))
    tiny.train(run(tmp_path, "parts", made), stop_after=3)
    parts = tiny.train(Run.resume(tmp_path / "parts", Workers))
    assert tiny.bits(whole) == tiny.bits(parts)
    assert parts.task.describe() == made.describe()
    after = dict(named_leaves(load_model(tmp_path / "parts", "cpu").parameters))
    assert start.weights is not None
    assert after.keys() == start.weights.keys()
    changed = {path for path, x in after.items() if (x != start.weights[path]).any()}
    above = {path for path in after if path == "pooler.W" or path.startswith(("layers.1.", "span."))}
    assert changed == (
        above if tuning["tune"] == "upper" else {p for p in after if p == "token" or ".attention.W" in p}
    )
    tiny.train(
        run(tmp_path, "other", task(tmp_path, start=replace(start, digest="other"), tuning=tuning)), stop_after=1
    )
    with pytest.raises(UserError, match="has been trained on since the run began from it; begin a new run"):
        Run.resume(tmp_path / "other", Workers)


def test_other_questions_and_a_context_too_small_are_refused(tmp_path: Path) -> None:
    made = task(tmp_path)
    description = made.describe()
    written(tmp_path, ROWS[1:])
    with pytest.raises(UserError, match="does not hold the questions that the run began with"):
        load(description)
    with pytest.raises(UserError, match=r"hardly a question of .* fits the context of 5 tokens"):
        task(tmp_path, config=bert.Config(**{**CONFIG.as_dict(), "context": 5}))
