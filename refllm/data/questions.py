"""From questions about contexts to the batches of a model that points at answers, and back to text. (DATA, TASKS)"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.data.examples import Question
from refllm.data.padding import LengthBuckets, padded, padded_batch
from refllm.data.sentences import marked
from refllm.tokenizers.vocabulary import SpecialIds, is_chinese, is_punctuation

SPACED = re.compile(r"\S+")
MARKS = 3  # [CLS], [SEP] and [SEP]


@dataclass(frozen=True)
class Asked:
    """[CLS] question [SEP] context [SEP]: ids and segments; where the context begins among them, and the characters
    (start, end) of the context that each of its tokens belongs to."""

    ids: NDArray[np.int64]
    segments: NDArray[np.int64]
    begin: int
    characters: tuple[tuple[int, int], ...]

    def places_of(self, start: int, length: int) -> tuple[int, int]:
        """The first and the last token of an answer, from its characters."""
        inside = [i for i, (a, b) in enumerate(self.characters) if a < start + length and b > start]
        return self.begin + inside[0], self.begin + inside[-1]

    def text_of(self, context: str, first: int, last: int) -> str:
        """The characters from one token to another."""
        return context[self.characters[first - self.begin][0] : self.characters[last - self.begin][1]]


def words_of(context: str) -> list[tuple[int, int]]:
    """Where the words of a text stand: what has no space inside, each sign of punctuation apart, as tokenizers/
    vocabulary.py cuts it. So the ids of the words are those of the text."""
    found: list[tuple[int, int]] = []
    for run in SPACED.finditer(context):
        place = run.start()
        for apart, characters in groupby(run[0], key=lambda c: is_punctuation(c) or is_chinese(c)):
            length = len(list(characters))
            size = 1 if apart else length
            found += [(place + i, place + i + size) for i in range(0, length, size)]
            place += length
    return found


def asked(context: str, question: str, *, tokenizer: Any) -> Asked:
    """What the model reads of a question about a context."""
    special = tokenizer.special
    about = tokenizer.encode(question)
    characters: list[tuple[int, int]] = []
    ids: list[int] = []
    for start, end in words_of(context):
        word = tokenizer.encode(context[start:end]).tolist()
        ids += word
        characters += [(start, end)] * len(word)
    both, segments = marked(about, np.array(ids, np.int64), cls=special.cls, sep=special.sep)
    return Asked(both, segments, len(about) + 2, tuple(characters))


def question_batch(
    read: Sequence[Asked], targets: Sequence[tuple[int, int]] | None, *, special: SpecialIds
) -> dict[str, NDArray[Any]]:
    """The batch of objectives/span.py: ids, segments (B, T), attention_mask (B, 1, 1, T), answer_mask bool (B, T),
    which is true within the context, and targets (B, 2) if they are known."""
    made = padded_batch([(one.ids, one.segments) for one in read], pad=special.pad)
    inside = [np.isin(np.arange(len(one.ids)), one.begin + np.arange(len(one.characters))) for one in read]
    made["answer_mask"] = padded(inside, value=0).astype(bool)
    if targets is not None:
        made["targets"] = np.array(targets, np.int64)
    return made


def answered(questions: Sequence[Question], *, tokenizer: Any, context: int) -> tuple[list[tuple[Asked, Any]], int]:
    """The questions that fit `context` tokens, with the tokens of their answers; and how many do not fit, or have an
    answer that the tokenizer does not see."""
    found: list[tuple[Asked, Any]] = []
    for one in questions:
        read = asked(one.context, one.question, tokenizer=tokenizer)
        seen = any(a < one.start + len(one.answer) and b > one.start for a, b in read.characters)
        if len(read.ids) <= context and seen:
            found.append((read, read.places_of(one.start, len(one.answer))))
    return found, len(questions) - len(found)


class QuestionBatches:
    """Batches of questions of similar lengths in an order that can be stopped and gone on with."""

    def __init__(
        self, questions: Sequence[tuple[Asked, tuple[int, int]]], *, special: SpecialIds, order: LengthBuckets
    ) -> None:
        self.questions, self.special, self.order = questions, special, order

    @classmethod
    def of(
        cls,
        questions: Sequence[tuple[Asked, tuple[int, int]]],
        *,
        special: SpecialIds,
        batch: int,
        order: np.random.Generator,
        state: Mapping[str, Any] | None,
    ) -> QuestionBatches:
        """Batches in the order of a Generator, or going on from a state."""
        lengths = [len(read.ids) for read, _ in questions]
        buckets = LengthBuckets.of(lengths, batch=batch, generator=order, state=state)
        return cls(questions, special=special, order=buckets)

    def next_batch(self) -> dict[str, NDArray[Any]]:
        """The next batch; at the end of an epoch perhaps of fewer questions."""
        read, targets = zip(*(self.questions[i] for i in self.order.next_batch()), strict=True)
        return question_batch(read, targets, special=self.special)

    def state(self) -> dict[str, Any]:
        """What a run needs to go on, ready for JSON."""
        return self.order.state()
