"""refllm answer: BERT learns to point at answers in texts."""

from __future__ import annotations

import argparse

from refllm.commands import answering
from refllm.commands.answering import overlapping_sentence, print_table
from refllm.commands.choices import add_architecture_arguments, add_optimiser_arguments
from refllm.commands.fitting import (
    add_run_arguments,
    begun,
    carry_out,
    config_of_the_run,
    fresh_bert,
    held_out_part,
    read_in_time,
    settings_to_fit,
    start_of,
    tuning_of,
)
from refllm.commands.verbs import Verb, add_verbs, run_verb
from refllm.commands.wording import part_of, time_told
from refllm.data.questions import answered
from refllm.errors import UserError
from refllm.invocation import command
from refllm.models import bert
from refllm.presets import ANSWER_SIZES, FIT_EPOCHS
from refllm.run import Run
from refllm.tasks.span import AnswerSpans, quality, read_data

DESCRIPTION = """Learn where in a text the answer to a question stands (fit), answer others (predict), and measure it
(evaluate).

example: refllm answer fit questions.jsonl --from runs/bert --out runs/answers
         refllm answer predict runs/answers --context "The hall opened in 1973." --question "When did it open?"
         refllm answer evaluate runs/answers more_questions.jsonl"""

run = run_verb
LESS_MEMORY = "begin a run with a lower --batch, --context, --width or --layers"

FIT = """Learn from a table (.csv, .tsv with a header, .jsonl) with the columns context, question, answer and, if an
answer stands in its context several times, start (its first character, from 0).

example: refllm answer fit questions.jsonl --from runs/bert --out runs/answers"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verbs(
        parser,
        Verb("fit", "learn from questions and answers", FIT, add_fit_arguments, fit),
        Verb("predict", "answer a question", answering.PREDICT, answering.add_predict_arguments, answering.predict),
        Verb(
            "evaluate", "measure on questions and answers", answering.EVALUATE, answering.add_evaluate_arguments,
            answering.evaluate,
        ),
    )  # fmt: skip


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="*", metavar="DATA", help="tables of questions")
    add_run_arguments(parser, model="bert", validation=0.1, epochs=FIT_EPOCHS, patience=3, reports=10)
    model = parser.add_argument_group("the model; only dropout is free where --from is given")
    model.add_argument("--vocabulary", type=int, help=f"WordPiece tokens (default {ANSWER_SIZES['vocabulary']})")
    add_architecture_arguments(model, bert.CHOICES)
    add_optimiser_arguments(parser)


def fit(options: argparse.Namespace) -> int:
    return carry_out(
        options, command="answer", add_arguments=add_fit_arguments, new_run=lambda: new_run(options),
        conclude=conclude,
    )  # fmt: skip


def new_run(options: argparse.Namespace) -> Run:
    if not options.data:
        raise UserError("there is nothing to learn from; give a table with the columns context, question and answer")
    start = start_of(options, model="bert", choices=bert.CHOICES)
    read = read_data(options.data, validation=options.validation)
    if start is None:
        contexts = dict.fromkeys(one.context for one in read.train)
        text = "\n".join([*contexts, *(one.question for one in read.train)])
        config, tokenizer = fresh_bert(options, ANSWER_SIZES, text, outputs=("span",))
    else:
        config, tokenizer = config_of_the_run(options, start, outputs=("span",)), start.tokenizer
    read = read_in_time(
        options, read, lambda some: answered(some, tokenizer=tokenizer, context=config.context),
        length=lambda one: len(one.context) + len(one.question),
    )  # fmt: skip
    task = AnswerSpans(
        config=config, tokenizer=tokenizer, read=read, data=options.data, validation=options.validation, start=start,
        tuning=tuning_of(options),
    )  # fmt: skip
    settings = settings_to_fit(options)
    return begun(options, task=task, settings=settings, examples=len(task.questions), epochs=FIT_EPOCHS)


def _task(prepared: Run) -> AnswerSpans:
    assert isinstance(prepared.task, AnswerSpans)
    return prepared.task


def conclude(prepared: Run) -> None:
    task = _task(prepared)
    asked_about = [one for one, _, _ in held_out_part(task.held_out, prepared)]
    guessed = quality([one.answer for one in asked_about], [overlapping_sentence(one) for one in asked_about])
    summary = prepared.summarise(guessed)
    print(f"\nOn {part_of(summary, 'questions')} (the weights of step {summary['best_step']:,}):\n")
    print_table({"this model": {name: summary[name] for name in guessed}, "likeliest sentence": guessed})
    print(
        f"\n{time_told(summary, prepared)}. "
        f"Ask it: {command('answer', 'predict', prepared.directory)} --context TEXT --question TEXT"
    )
