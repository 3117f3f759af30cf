"""Laws of questions and answers as tokens, and back as text."""

from __future__ import annotations

from itertools import pairwise

import numpy
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.examples import Question
from refllm.data.padding import LengthBuckets
from refllm.data.questions import QuestionBatches, answered, asked, question_batch, words_of
from refllm.tokenizers.wordpiece import WordPieceTokenizer

TEXT = "The old hall, built in 1973, holds 400 people (or more). 中文 Who built it? café"
TOKENIZER = WordPieceTokenizer.train(TEXT, vocabulary=90, lower=True)
texts = st.text(alphabet="ab é,.中文\n\t\u0301\u00ad(", max_size=25) | st.just(TEXT)


@given(text=texts)
def test_the_ids_of_the_words_are_those_of_the_text(text: str) -> None:
    ids = [one for start, end in words_of(text) for one in TOKENIZER.encode(text[start:end]).tolist()]
    assert ids == TOKENIZER.encode(text).tolist()


@given(text=texts)
def test_words_stand_in_order_hold_no_space_and_leave_out_nothing_else(text: str) -> None:
    found = words_of(text)
    assert "".join(text[start:end] for start, end in found) == "".join(text.split())
    assert all(a < b <= c for (a, b), (c, _) in pairwise(found))


def test_an_answer_comes_back_from_its_tokens() -> None:
    words = words_of(TEXT)
    for i, (start, _) in enumerate(words):
        for _, end in words[i:]:
            read = asked(TEXT, "who built it", tokenizer=TOKENIZER)
            first, last = read.places_of(start, end - start)
            assert read.text_of(TEXT, first, last) == TEXT[start:end]
            assert read.ids[first : last + 1].tolist() == TOKENIZER.encode(TEXT[start:end]).tolist()


def test_answers_may_lie_in_the_context_alone() -> None:
    read = [asked(TEXT, question, tokenizer=TOKENIZER) for question in ("who", "who built the old hall")]
    batch = question_batch(read, None, special=TOKENIZER.special)
    for row, one in enumerate(read):
        assert batch["ids"][row][batch["answer_mask"][row]].tolist() == TOKENIZER.encode(TEXT).tolist()
        assert (batch["segments"][row][batch["answer_mask"][row]] == 1).all()
        assert not batch["answer_mask"][row][len(one.ids) - 1 :].any()


def test_questions_that_do_not_fit_are_left_out_and_counted() -> None:
    questions = [Question(TEXT[:cut], "who", "The", 0, f"f:{cut}") for cut in (3, 8, 20, len(TEXT))]
    sizes = [len(asked(one.context, one.question, tokenizer=TOKENIZER).ids) for one in questions]
    found, left_out = answered(questions, tokenizer=TOKENIZER, context=sizes[1])
    assert (len(found), left_out) == (2, 2)
    unseen = Question("a \u00ad b", "who", "\u00ad", 2, "f:1")  # a soft hyphen is no token
    assert answered([unseen], tokenizer=TOKENIZER, context=99) == ([], 1)


def test_batches_go_on_where_they_were_left_to_the_bit() -> None:
    questions = [Question(TEXT, "who " * n, "1973", TEXT.index("1973"), f"f:{n}") for n in range(1, 20)]
    found, _ = answered(questions, tokenizer=TOKENIZER, context=200)
    buckets = LengthBuckets([len(read.ids) for read, _ in found], batch=3, generator=numpy.random.default_rng(0))
    batches = QuestionBatches(found, special=TOKENIZER.special, order=buckets)
    for _ in range(9):
        batches.next_batch()
    again = QuestionBatches.of(
        found, special=TOKENIZER.special, batch=3, order=numpy.random.default_rng(5), state=batches.state()
    )
    for _ in range(9):
        one, other = batches.next_batch(), again.next_batch()
        assert all(numpy.array_equal(one[name], other[name]) for name in one)
        rows = numpy.arange(len(one["ids"]))
        assert [
            TOKENIZER.decode(one["ids"][row, a : b + 1]) for row, (a, b) in zip(rows, one["targets"], strict=True)
        ] == ["1973"] * len(rows)
