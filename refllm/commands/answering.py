"""refllm answer predict and evaluate: answers to questions, and how good they are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from refllm.commands.choices import add_device_arguments
from refllm.commands.texts import on_one_line, require_text
from refllm.commands.verbs import fitted
from refllm.data.corpus import decoded
from refllm.data.examples import Question, read_questions
from refllm.data.questions import asked
from refllm.data.sentences import sentences
from refllm.errors import UserError
from refllm.metrics import answer_words
from refllm.tasks.span import answers, quality
from refllm.trained import Trained
from refllm.workers import Workers, available_cores, require_threads

OF_FIT: dict[str, Any] = {"task": "span", "learns": "answers", "by": ("answer fit",)}

RUN = "a run of refllm answer fit, or a published BertForQuestionAnswering"

PREDICT = """Answer questions about a text, a line each: line breaks in an answer become spaces; --json keeps them.

example: refllm answer predict runs/answers --file hall.txt --question "When did it open?" --json"""

EVALUATE = """Measure exact match and F1 of the answers, beside the sentence with most words of the question.

example: refllm answer evaluate runs/answers more_questions.jsonl"""


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help=RUN)
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--context", metavar="TEXT", help="the text that the answer stands in")
    text.add_argument("--file", help="a UTF-8 file that holds it")
    parser.add_argument("--question", required=True, action="append", help="may be given several times")
    parser.add_argument("--json", action="store_true", help="a JSON object a question")
    add_device_arguments(parser)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help=RUN)
    parser.add_argument("data", metavar="DATA", nargs="+", help="tables of questions with their answers")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--threads", type=int, default=available_cores(), help="batches at a time (default: the cores)")
    add_device_arguments(parser)


def predict(options: argparse.Namespace) -> int:
    context, where = options.context, "--context"
    if options.file:
        context, where = decoded(Path(options.file)), f"{options.file}:1"
    for text, name in ((context, where), *((question, "--question") for question in options.question)):
        require_text(text, name)
    run = fitted(options.run_directory, options.device, **OF_FIT)
    questions = [Question(context, question, "", 0, where) for question in options.question]
    for question, answer in zip(options.question, answered_by(run, questions, options, threads=1), strict=True):
        named = {"question": question, "answer": answer}
        print(json.dumps(named) if options.json else on_one_line(answer))
    return 0


def evaluate(options: argparse.Namespace) -> int:
    require_threads(options.threads)
    questions = read_questions(options.data)
    run = fitted(options.run_directory, options.device, **OF_FIT)
    given = answered_by(run, questions, options, threads=options.threads)
    wanted = [one.answer for one in questions]
    measured = {
        "this model": quality(wanted, given),
        "likeliest sentence": quality(wanted, [overlapping_sentence(one) for one in questions]),
    }
    if options.json:
        print(json.dumps({"questions": len(questions), "scores": measured}))
        return 0
    print(f"{len(questions):,} questions by {options.run_directory}\n")
    print_table(measured)
    return 0


def answered_by(run: Trained, questions: list[Question], options: argparse.Namespace, *, threads: int) -> list[str]:
    """The model's answers. UserError for a question that it cannot read at once."""
    read = []
    for one in questions:
        known = asked(one.context, one.question, tokenizer=run.tokenizer)
        if len(known.ids) > run.config.context:
            raise UserError(
                f"{one.where}: context and question have {len(known.ids)} tokens with their marks, and the model "
                f"reads {run.config.context} at once; shorten the context"
            )
        if not known.characters:
            raise UserError(f"{one.where}: the context has no word; give a text that the answer stands in")
        read.append((one.context, known))
    with Workers(threads) as workers:
        return answers(
            run.parameters, read, config=run.config, tokenizer=run.tokenizer, device=options.device, workers=workers
        )


def overlapping_sentence(one: Question) -> str:
    """The sentence of the context that shares most words with the question; of equal ones the first."""
    words = set(answer_words(one.question))
    return max(sentences(one.context), key=lambda text: len(words & set(answer_words(text))))


def print_table(measured: dict[str, dict[str, float]]) -> None:
    print(f"{'':<20}{'exact match':>12}{'F1':>9}")
    for name, values in measured.items():
        print(f"{name:<20}{values['exact_match']:12.1f}{values['f1']:9.1f}")
