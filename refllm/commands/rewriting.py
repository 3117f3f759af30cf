"""What `refllm translate` and `refllm summarise` share: what a run writes (predict), and how good it is (evaluate)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from refllm.commands import sequences
from refllm.commands.choices import add_device_arguments
from refllm.commands.texts import on_one_line, tell_broken, texts_of
from refllm.commands.verbs import fitted
from refllm.data.examples import Pair, folded, read_pairs
from refllm.data.sentences import sentences
from refllm.errors import UserError
from refllm.extras import how_to_install, how_to_install_package
from refllm.metrics import bleu_and_chrf, bleu_tokenizer, has_sacrebleu, rouge_l
from refllm.tasks.dictionary import learn_dictionary, word_by_word
from refllm.tasks.seq2seq import Paired, read_again
from refllm.tasks.writing import longest_written, token_counts, written
from refllm.trained import Trained
from refllm.workers import Workers, available_cores, require_threads

NAMES = {"translate": "translation", "summarise": "summary"}  # of what is written, in JSON
COLUMNS = {"bleu": "BLEU", "chrf": "chrF", "rouge_l": "ROUGE-L", "exact": "exact"}
OF_FIT: dict[str, Any] = {"task": "seq2seq", "learns": "pairs", "by": ("translate fit", "summarise fit")}
TOO_SHORT = "(BLEU counts runs of up to 4 tokens, and no wanted text has 4: it is 0 even for the wanted texts)"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--source", default="source", metavar="COLUMN", help="of the texts in a table (default source)")
    add("--json", action="store_true", help="the result as JSON")
    add("--threads", type=int, help="batches that are written at the same time (default: the cores)")
    add_device_arguments(parser)


def add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of fit, or a published encoder-decoder")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="texts to write for (default: the standard input)")
    parser.add_argument("--file", help="texts: a line a text, or a table with a column of texts")
    parser.add_argument("--beams", type=int, default=4, help="of the search; 1 is greedy choice (default 4)")
    _add_arguments(parser)


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="a run of fit, or a published encoder-decoder")
    parser.add_argument(
        "data", metavar="DATA", nargs="*",
        help="two parallel files, or tables with both texts (default: what the run held out)",
    )  # fmt: skip
    parser.add_argument("--target", default="target", metavar="COLUMN", help="of what is wanted (default target)")
    parser.add_argument("--beams", type=int, default=4, help="of the search, beside greedy choice (default 4)")
    parser.add_argument("--examples", type=int, default=0, metavar="N", help="show N of the texts, evenly spread")
    _add_arguments(parser)


def predict(options: argparse.Namespace) -> int:
    _require_beams(options)
    texts = texts_of(options, column=options.source)
    run = _run_of(options)
    lengths = lengths_of([text for text, _ in texts], run)
    for (_, where), length in zip(texts, lengths, strict=True):
        if length > run.config.context:
            raise UserError(
                f"{where}: the text has {length} tokens with its end, and the model reads {run.config.context} at "
                "once; shorten it, or give it in parts"
            )
    with _workers(options) as workers:
        given = written_by(run, [text for text, _ in texts], options, beams=options.beams, workers=workers)
    for (text, _), answer in zip(texts, given, strict=True):
        named = {"text": text, NAMES[options.command]: answer}
        print(json.dumps(named) if options.json else on_one_line(answer))
    sys.stdout.flush()
    tell_broken("".join(given), run.tokenizer)
    return 0


def evaluate(options: argparse.Namespace) -> int:
    _require_beams(options)
    if options.examples < 0:
        raise UserError(f"the number of examples must not be negative, got {options.examples}")
    run = _run_of(options)
    pairs, train, notes = pairs_of(options, run)
    texts, wanted = [pair.source for pair in pairs], [pair.target for pair in pairs]
    given: dict[str, list[str]] = {}
    with _workers(options) as workers:
        for beams in sorted({1, options.beams}):
            name = "greedy" if beams == 1 else f"{beams} beams"
            given[name] = written_by(run, texts, options, beams=beams, workers=workers)
    given |= baselines(texts, train, command=options.command)
    measured = {name: scores(wanted, answers) for name, answers in given.items()}
    shown = [len(pairs) * i // options.examples for i in range(min(options.examples, len(pairs)))]
    if options.json:
        examples = [
            {"source": texts[i], "target": wanted[i], **{name: answers[i] for name, answers in given.items()}}
            for i in shown
        ]
        print(json.dumps({"texts": len(pairs), "scores": measured, **cut_for_bleu(wanted), "examples": examples}))
        print(*notes, sep="\n", file=sys.stderr, end="\n" if notes else "")
        return 0
    print(f"{len(pairs):,} texts by {options.run_directory}\n")
    print_table(measured)
    print(*notes, sep="\n", end="\n" if notes else "")
    for i in shown:
        print()
        for name, answers in {"source": texts, "wanted": wanted, **given}.items():
            print(f"{name:<20}{on_one_line(answers[i])}")
    return 0


def _run_of(options: argparse.Namespace) -> Trained:
    run = fitted(options.run_directory, options.device, **OF_FIT)
    if run.writing is not None:
        sequences.tell_what_is_left_out(run.writing)
    return run


def pairs_of(options: argparse.Namespace, run: Trained) -> tuple[list[Pair], list[Pair] | None, list[str]]:
    """The pairs to measure on, those of the training if they are still there, and notes for people."""
    read, notes = _read_by(run, options)
    if read is not None and not options.data:
        pairs = read.validation
    else:
        pairs = read_pairs(options.data, source=options.source, target=options.target)
    fit = fitting(pairs, lambda texts: lengths_of(texts, run), context=run.config.context)
    if len(fit) < len(pairs):
        left_out = len(pairs) - len(fit)
        notes.append(f"(pairs longer than the context of {run.config.context} tokens, left out: {left_out:,})")
    if not fit:
        raise UserError(f"no pair fits the model, which reads {run.config.context} tokens at once; give shorter ones")
    if read is not None:
        learnt = {folded(pair.source) for pair in read.train}
        if known := sum(folded(pair.source) in learnt for pair in fit):
            notes.append(f"(sources that stand in the training pairs too: {known:,} of {len(fit):,})")
    return fit, None if read is None else read.train, notes + notes_on_bleu([pair.target for pair in fit])


def _read_by(run: Trained, options: argparse.Namespace) -> tuple[Paired | None, list[str]]:
    """The pairs of the training if they are still there, and a note if they are not. A published model has none."""
    if "published" in run.description:
        if not options.data:
            raise UserError(f"{options.run_directory} is a published model without its pairs; give pairs to measure on")
        return None, []
    try:
        return read_again(run.description, remedy=""), []
    except UserError as error:
        if not options.data:
            raise UserError(f"{error}; give pairs to measure on") from None
        return None, [f"(no baseline from the training pairs: {error})"]


def written_by(
    run: Trained, texts: Sequence[str], options: argparse.Namespace, *, beams: int, workers: Workers
) -> list[str]:
    """What the model writes for each text, with so many beams; a published one as its files say."""
    if run.writing is None:
        return written(
            run.parameters, texts, config=run.config, tokenizer=run.tokenizer, beams=beams, device=options.device,
            workers=workers,
        )  # fmt: skip
    search = sequences.Search(beams, None, greedy=True, temperature=1.0, top_k=None, top_p=None, seed=0)
    lengths = lengths_of(texts, run)

    def one(i: int) -> str:
        tokens = longest_written(lengths[i])
        return sequences.answer(run, texts[i], tokens=tokens, search=search, device=options.device)

    return workers.map(one, range(len(texts)))


def lengths_of(texts: Sequence[str], run: Trained) -> list[int]:
    """How many tokens the model reads of each text, the marks with them."""
    if run.writing is None:
        return token_counts(texts, tokenizer=run.tokenizer)
    tokenizer: Any = run.tokenizer
    return [len(tokenizer.marked(text)) for text in texts]


def notes_on_bleu(wanted: Sequence[str]) -> list[str]:
    """How BLEU cut the texts into words; what there is to say where it is missing, or 0 even for the wanted texts."""
    if not has_sacrebleu():
        return [f"(BLEU and chrF need sacrebleu: {how_to_install('eval')})"]
    tokenizer, better = bleu_tokenizer(wanted)
    notes = [f"(BLEU by sacrebleu's tokenizer {tokenizer}, for the script of the wanted texts)"]
    if better:
        library = f"sacrebleu[{better.partition('-')[0]}]"
        notes = [
            f"(BLEU by sacrebleu's tokenizer {tokenizer}; {better} needs MeCab: {how_to_install_package(library)})"
        ]
    return notes if bleu_and_chrf(wanted, wanted)[0] else [*notes, TOO_SHORT]


def cut_for_bleu(wanted: Sequence[str]) -> dict[str, str]:
    """What cut the texts for BLEU, for JSON; nothing where there is no BLEU."""
    return {"bleu_tokenizer": bleu_tokenizer(wanted)[0]} if has_sacrebleu() else {}


def fitting(pairs: Sequence[Pair], lengths: Callable[[list[str]], list[int]], *, context: int) -> list[Pair]:
    """The pairs of which both sides fit the context."""
    sources, targets = lengths([pair.source for pair in pairs]), lengths([pair.target for pair in pairs])
    return [pair for pair, a, b in zip(pairs, sources, targets, strict=True) if max(a, b) <= context]


def baselines(texts: Sequence[str], train: Sequence[Pair] | None, *, command: str) -> dict[str, list[str]]:
    """What needs no model: copying, and the first sentence of a text or a dictionary learnt from the training pairs."""
    found = {"copy of the source": list(texts)}
    if command == "summarise":
        found["first sentence"] = [sentences(text)[0] for text in texts]
    elif train is not None:
        dictionary = learn_dictionary([(pair.source, pair.target) for pair in train])
        found["word by word"] = [word_by_word(text, dictionary) for text in texts]
    return found


def scores(wanted: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """The share of texts that are exactly what is wanted, the mean ROUGE-L, and BLEU and chrF where sacrebleu is
    installed; all of them 0 to 100."""
    found: dict[str, float] = {}
    if has_sacrebleu():
        found["bleu"], found["chrf"] = bleu_and_chrf(wanted, given)
    texts = list(zip(wanted, given, strict=True))
    found["rouge_l"] = 100 * sum(rouge_l(a, b) for a, b in texts) / len(texts)
    found["exact"] = 100 * sum(a.strip() == b.strip() for a, b in texts) / len(texts)
    return found


def print_table(measured: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(measured.values())))
    print(" " * 20 + "".join(f"{COLUMNS[name]:>9}" for name in names))
    for row, values in measured.items():
        print(f"{row:<20}" + "".join(f"{values[name]:9.1f}" for name in names))


def _require_beams(options: argparse.Namespace) -> None:
    if options.beams < 1:
        raise UserError(f"beams must be at least 1, got {options.beams}")


def _workers(options: argparse.Namespace) -> Workers:
    cores = available_cores() if options.device == "cpu" else 1
    if options.threads is not None:
        require_threads(options.threads)
    return Workers(options.threads or cores)
