"""refllm answer: BERT learns to point at answers in texts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from refllm.backend import allow_tf32, device_namespace
from refllm.commands.choices import (
    add_architecture_arguments,
    add_device_arguments,
    add_optimiser_arguments,
    settings_of,
)
from refllm.commands.fitting import add_run_arguments, begun, carry_out, length_of
from refllm.data.corpus import decoded
from refllm.data.examples import Question, read_questions
from refllm.data.questions import asked
from refllm.data.sentences import sentences
from refllm.errors import UserError
from refllm.metrics import normalised_answer
from refllm.models import bert
from refllm.parameters import count
from refllm.run import Run, Trained, load_model
from refllm.tasks.span import AnswerSpans, Questions, answers, quality, read_data
from refllm.tasks.start import Start, begun_from
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.workers import Workers, available_cores

HELP = "learn to answer questions about texts, answer, measure it"
DESCRIPTION = """Learn where in a text the answer to a question stands (fit), answer others (predict), and measure it
(evaluate).

example: refllm answer fit questions.jsonl --from runs/001 --out runs/answers
         refllm answer predict runs/answers --context "The hall opened in 1973." --question "When did it open?"
         refllm answer evaluate runs/answers more_questions.jsonl"""

LESS_MEMORY = "begin a run with a lower --batch, --context, --width or --layers"

FIT = """Learn from a table (.csv, .tsv with a header, .jsonl) with the columns context, question, answer and, if an
answer stands in its context several times, start (its first character, from 0).

example: refllm answer fit questions.jsonl --from runs/001 --out runs/answers"""

PREDICT = """Answer a question about a text.

example: refllm answer predict runs/answers --file hall.txt --question "When did it open?" --json"""

EVALUATE = """Measure exact match and F1 of the answers, beside the sentence with most words of the question.

example: refllm answer evaluate runs/answers more_questions.jsonl"""

SETTINGS: dict[str, Any] = {
    "batch": 16, "lr": 5e-4, "warmup": 0.1, "floor": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.01,
    "clip": 1.0,
}  # fmt: skip
SIZES: dict[str, Any] = {"context": 192, "layers": 4, "heads": 4, "width": 128, "dropout": 0.1, "vocabulary": 4096}
EPOCHS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    act: Callable[[argparse.Namespace], int]
    for name, text, description, add, act in (
        ("fit", "learn from questions and answers", FIT, add_fit_arguments, fit),
        ("predict", "answer a question", PREDICT, _add_predict_arguments, predict),
        ("evaluate", "measure on questions and answers", EVALUATE, _add_evaluate_arguments, evaluate),
    ):
        one = actions.add_parser(
            name, help=text, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add(one)
        one.set_defaults(act=act)


def run(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    return int(options.act(options))


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", nargs="*", metavar="DATA", help="tables of questions")
    add_run_arguments(parser, model="bert", validation=0.1, epochs=EPOCHS, patience=3, reports=10)
    model = parser.add_argument_group("the model; only dropout is free where --from is given")
    model.add_argument("--vocabulary", type=int, help=f"WordPiece tokens (default {SIZES['vocabulary']})")
    add_architecture_arguments(model, bert.CHOICES)
    add_optimiser_arguments(parser)


def fit(options: argparse.Namespace) -> int:
    return carry_out(
        options, command="answer", add_arguments=add_fit_arguments, new_run=lambda: new_run(options),
        introduce=introduce, conclude=conclude,
    )  # fmt: skip


def new_run(options: argparse.Namespace) -> Run:
    if not options.data:
        raise UserError("there is nothing to learn from; give a table with the columns context, question and answer")
    read = read_data(options.data, validation=options.validation)
    if options.start is None:
        start, (config, tokenizer) = None, from_scratch(options, read)
    else:
        start = begun_from(Path(options.start), model="bert", device=options.device)
        config, tokenizer = from_run(options, start)
    task = AnswerSpans(
        config=config, tokenizer=tokenizer, read=read, data=options.data, validation=options.validation, start=start
    )
    given = {name: value for name, value in vars(options).items() if value is not None}
    settings = settings_of({**SETTINGS, **given}, options)
    return begun(options, task=task, settings=settings, examples=len(task.questions), epochs=EPOCHS)


def from_scratch(options: argparse.Namespace, read: Questions) -> tuple[bert.Config, WordPieceTokenizer]:
    """Fresh sizes, and pieces of words learnt from the contexts and questions to learn from."""
    given = {name: getattr(options, name) for name in (*bert.CHOICES, "vocabulary")}
    sizes = {**SIZES, **{name: value for name, value in given.items() if value is not None}}
    sizes.setdefault("hidden", 4 * sizes["width"])
    contexts = dict.fromkeys(one.context for one in read.train)
    text = "\n".join([*contexts, *(one.question for one in read.train)])
    tokenizer = WordPieceTokenizer.train(text, vocabulary=sizes.pop("vocabulary"), lower=True)
    return bert.Config(vocabulary=tokenizer.size, **sizes, outputs=("span",)), tokenizer


def from_run(options: argparse.Namespace, start: Start) -> tuple[bert.Config, Any]:
    """The sizes and the tokenizer of the run, with a head that points."""
    for flag in ("vocabulary", *bert.CHOICES):
        if flag != "dropout" and getattr(options, flag) is not None:
            raise UserError(f"--{flag} is that of the run {options.start}; leave it out")
    dropout = start.config.dropout if options.dropout is None else options.dropout
    return replace(start.config, outputs=("span",), dropout=dropout), start.tokenizer


def _task(prepared: Run) -> AnswerSpans:
    assert isinstance(prepared.task, AnswerSpans)
    return prepared.task


def introduce(prepared: Run) -> None:
    settings, task = prepared.settings, _task(prepared)
    config = task.config
    start = "from scratch" if task.start is None else f"from {task.start.directory}"
    print(
        f"data       {task.introduced()}\n"
        f"model      bert {start}, {count(prepared.trainer.shapes):,} parameters: {config.layers} layers, width "
        f"{config.width}, context {config.context}, {task.tokenizer.size} tokens\n"
        f"training   at most {length_of(prepared)}, batch {settings.batch}, {settings.shards} workers, "
        f"seed {settings.seed}\n"
        f"directory  {prepared.directory}",
        flush=True,
    )


def conclude(prepared: Run) -> None:
    task = _task(prepared)
    asked_about = [one for one, _, _ in task.held_out]
    guessed = quality([one.answer for one in asked_about], [overlapping_sentence(one) for one in asked_about])
    summary = prepared.summarise(guessed)
    print(f"\nOn the {len(asked_about):,} questions held out (the weights of step {summary['best_step']:,}):\n")
    print_table({"this model": {name: summary[name] for name in guessed}, "likeliest sentence": guessed})
    print(
        f"\n{summary['steps']:,} steps in {summary['seconds']:.0f} s. "
        f"Ask it: refllm answer predict {prepared.directory} --context TEXT --question TEXT"
    )


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of refllm answer fit")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--context", metavar="TEXT", help="the text that the answer stands in")
    text.add_argument("--file", help="a UTF-8 file that holds it")
    parser.add_argument("--question", required=True, action="append", help="may be given several times")
    parser.add_argument("--json", action="store_true", help="a JSON object a question")
    add_device_arguments(parser)


def _add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of refllm answer fit")
    parser.add_argument("data", metavar="DATA", nargs="+", help="tables of questions with their answers")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--threads", type=int, default=available_cores(), help="batches at a time (default: the cores)")
    add_device_arguments(parser)


def predict(options: argparse.Namespace) -> int:
    context, where = options.context, "--context"
    if options.file:
        context, where = decoded(Path(options.file)), options.file
    for text, name in ((context, where), *((question, "--question") for question in options.question)):
        if not text.strip():
            raise UserError(f"{name}: the text is empty; fill it in")
    run = run_of_answers(options.run_directory, options.device)
    questions = [Question(context, question, "", 0, where) for question in options.question]
    for question, answer in zip(options.question, answered_by(run, questions, options, threads=1), strict=True):
        named = {"question": question, "answer": answer}
        print(json.dumps(named, ensure_ascii=False) if options.json else answer)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    if options.threads < 1:
        raise UserError(f"threads must be at least 1, got {options.threads}")
    questions = read_questions(options.data)
    run = run_of_answers(options.run_directory, options.device)
    given = answered_by(run, questions, options, threads=options.threads)
    wanted = [one.answer for one in questions]
    measured = {
        "this model": quality(wanted, given),
        "likeliest sentence": quality(wanted, [overlapping_sentence(one) for one in questions]),
    }
    if options.json:
        print(json.dumps({"questions": len(questions), "scores": measured}, ensure_ascii=False))
        return 0
    print(f"{len(questions):,} questions by {options.run_directory}\n")
    print_table(measured)
    return 0


def run_of_answers(directory: str, device: str) -> Trained:
    """The model of a run of `fit`. UserError for a run of another kind."""
    run = load_model(Path(directory), device)
    if run.description.get("task") != "span":
        raise UserError(
            f"{directory} is a run of {run.description['model']} that has learnt no answers; "
            "give one of refllm answer fit"
        )
    return run


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
    words = set(normalised_answer(one.question).split())
    return max(sentences(one.context), key=lambda text: len(words & set(normalised_answer(text).split())))


def print_table(measured: dict[str, dict[str, float]]) -> None:
    print(f"{'':<20}{'exact match':>12}{'F1':>9}")
    for name, values in measured.items():
        print(f"{name:<20}{values['exact_match']:12.1f}{values['f1']:9.1f}")
