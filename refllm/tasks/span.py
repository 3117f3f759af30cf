"""Where in a text an answer stands: BERT with a head that points, from scratch or from a pre-trained run. (TASKS)"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from refllm.backend import to_device, to_host
from refllm.data.batching import evenly
from refllm.data.examples import Question, folded, read_questions, split_examples
from refllm.data.pairs import by_length
from refllm.data.part import Examples, part_of
from refllm.data.questions import Asked, QuestionBatches, answered, question_batch
from refllm.errors import UserError
from refllm.finetune import Tuning, by_name
from refllm.metrics import exact_match, token_f1
from refllm.models import bert
from refllm.objectives.span import Span, best_spans, span_nll
from refllm.parameters import Tree, map_leaves
from refllm.state_file import made_of
from refllm.tasks import part_told
from refllm.tasks.start import Start, restored, tuning_of
from refllm.tokenizers import load as load_tokenizer
from refllm.tokenizers import require_same_vocabulary
from refllm.train import Objective
from refllm.workers import Workers

SPLIT_SEED = 0  # which questions are held out depends on the data alone: runs with other seeds compare
READING_BATCH = 32  # questions that go through the model together
LONGEST = 30  # tokens of an answer: Devlin et al. 2019, code


Questions: TypeAlias = Examples[Question]


def read_data(data: Sequence[str], *, validation: float) -> Questions:
    """The questions of tables, split so that those about the same context stay together.

    Raises: UserError for what refllm/data/examples.py refuses.
    """
    questions = read_questions(data)
    train, held_out = split_examples(
        questions, key=lambda one: folded(one.context), group=lambda one: None, validation=validation, seed=SPLIT_SEED
    )
    digest = hashlib.sha256()
    for one in questions:
        digest.update(f"{len(one.context)} {one.context} {one.question} {one.start} {one.answer}\n".encode())
    name = str(data[0]) + (f" and {len(data) - 1} more" if len(data) > 1 else "")
    return Questions(name, train, held_out, digest.hexdigest())


def read_again(description: dict[str, Any]) -> Questions:
    """The questions of a run, or the part of them that it read.

    Raises: UserError if they are others, and as `read_data`.
    """
    read = read_data(description["data"], validation=description["validation"])
    if read.digest != description["questions_sha256"]:
        raise UserError(f"{read.name} does not hold the questions that the run began with; resume with the same")
    return read.read(part_of(description))


class AnswerSpans:
    """BERT with the head "span", or the part of it that `tuning` names, on questions answered by their contexts.

    `data` and `validation` say where `read` came from, so that a run can be gone on with. `tuning` are the options of
    refllm.finetune.by_name. Questions that do not fit the context of the model are left out.

    Raises:  UserError if the tokenizer is not the model's, or no question fits.
    """

    def __init__(
        self,
        *,
        config: bert.Config,
        tokenizer: Any,
        read: Questions,
        data: Sequence[str],
        validation: float,
        start: Start | None,
        tuning: dict[str, Any],
    ) -> None:
        require_same_vocabulary(tokenizer, config.vocabulary)
        self.config, self.tokenizer, self.read, self.start = config, tokenizer, read, start
        self.name, self.validation = read.name, validation
        self.data = [str(Path(d).resolve()) for d in data]
        begin = None if start is None else start.weights
        self.tuning: Tuning = by_name(**tuning, model=bert, config=config, parameters=begin)
        self.objective: Objective = self.tuning.wrap(Span(bert, config))
        self.questions, left_out = answered(read.train, tokenizer=tokenizer, context=config.context)
        self.held_out = [
            (one, *found[0])
            for one in read.validation
            if (found := answered([one], tokenizer=tokenizer, context=config.context)[0])
        ]
        self.left_out = left_out + len(read.validation) - len(self.held_out)
        if not self.questions or not self.held_out:
            raise UserError(
                f"hardly a question of {read.name} fits the context of {config.context} tokens; "
                "give shorter contexts or a larger --context"
            )

    @property
    def model(self) -> Any:
        return self.tuning.model

    def full(self, trained: Tree) -> Tree:
        """The parameters of the whole model, of those that are trained and those that are not."""
        return self.tuning.full(trained)

    def introduced(self) -> str:
        line = (
            f"{self.name}: {len(self.read.train):,} questions to learn from, {len(self.read.validation):,} held out "
            f"(about other contexts){self.read.told()}"
        )
        if self.left_out:
            how: dict[str, Any] = {"tokenizer": self.tokenizer, "context": self.config.context}
            questions = (*self.read.train, *self.read.validation)
            first = next(one.where for one in questions if not answered([one], **how)[0])
            line += (
                f"\n           (questions that do not fit the context of {self.config.context} tokens, left out: "
                f"{self.left_out:,}, the first in {first})"
            )
        return line

    def describe(self) -> dict[str, Any]:
        return {
            "task": "span", "command": "answer", "model": "bert", "config": self.config.as_dict(),
            "tokenizer": self.tokenizer.to_json(), "data": self.data, "validation": self.validation,
            "questions_sha256": self.read.digest, **self.read.described(),
            "from": None if self.start is None else self.start.as_dict(),
            "tuning": self.tuning.options,
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> QuestionBatches:
        return QuestionBatches.of(self.questions, special=self.tokenizer.special, batch=batch, order=order, state=state)

    def tokens_a_batch(self, batch: int) -> int:
        return round(batch * sum(len(read.ids) for read, _ in self.questions) / len(self.questions))

    @property
    def examples_held_out(self) -> int:
        return len(self.held_out)

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """NLL of a start or an end, and how good the answers are, on the questions held out."""
        full, chosen = self.full(p), evenly(len(self.held_out), most).tolist()
        asked = [self.held_out[i] for i in chosen]
        nll, given = _read(
            full, [(one.context, read) for one, read, _ in asked], [places for _, _, places in asked],
            config=self.config, tokenizer=self.tokenizer, device=device, workers=workers,
        )  # fmt: skip
        return {"val_loss": nll / (2 * len(asked)), **quality([one.answer for one, _, _ in asked], given)}

    def told(self, measured: dict[str, float]) -> str:
        return (
            f"held out{part_told(measured)}: "
            f"loss {measured['val_loss']:.3f}, exact match {measured['exact_match']:.1f} %, "
            f"F1 {measured['f1']:.1f} %"
        )


def quality(wanted: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 of answers, 0 to 100."""
    both = list(zip(wanted, given, strict=True))
    return {
        "exact_match": 100 * sum(exact_match(a, b) for a, b in both) / len(both),
        "f1": 100 * sum(token_f1(a, b) for a, b in both) / len(both),
    }


def answers(
    p: Tree,
    read: Sequence[tuple[str, Asked]],
    *,
    config: bert.Config,
    tokenizer: Any,
    device: str,
    workers: Workers,
) -> list[str]:
    """For each context and what the model reads of it and a question: the text of the best span."""
    return _read(p, read, None, config=config, tokenizer=tokenizer, device=device, workers=workers)[1]


def _read(
    p: Tree,
    read: Sequence[tuple[str, Asked]],
    targets: Sequence[tuple[int, int]] | None,
    *,
    config: bert.Config,
    tokenizer: Any,
    device: str,
    workers: Workers,
) -> tuple[float, list[str]]:
    """Total NLL of the targets, starts and ends, if they are given; and the texts of the best spans."""
    found: dict[int, str] = {}

    def one(piece: list[int]) -> float:
        wanted = None if targets is None else [targets[i] for i in piece]
        batch = question_batch([read[i][1] for i in piece], wanted, special=tokenizer.special)
        there = map_leaves(lambda x: to_device(x, device), batch)
        h, _ = bert.encode(
            p,
            ids=there["ids"],
            segments=there["segments"],
            attention_mask=there["attention_mask"],
            config=config,
            dropout_mask=None,
        )
        logits, _ = bert.span_logits(h, p)
        spans = to_host(best_spans(logits, answer_mask=there["answer_mask"], longest=LONGEST)).tolist()
        for i, (first, last) in zip(piece, spans, strict=True):
            context, known = read[i]
            found[i] = known.text_of(context, first, last)
        if wanted is None:
            return 0.0
        y, _ = span_nll(h, p, model=bert, answer_mask=there["answer_mask"], targets=there["targets"], ignore=None)
        return float(to_host(y))

    nll = sum(workers.map(one, by_length([len(known.ids) for _, known in read], batch=READING_BATCH)))
    return nll, [found[i] for i in range(len(read))]


def load(description: dict[str, Any]) -> AnswerSpans:
    """The task again, from the files of its questions and, if only a part is trained, the run that it began from."""
    return AnswerSpans(
        config=made_of(bert.Config, description["config"]), tokenizer=load_tokenizer(description["tokenizer"]),
        read=read_again(description), data=description["data"], validation=description["validation"],
        start=restored(description), tuning=tuning_of(description),
    )  # fmt: skip
