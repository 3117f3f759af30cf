"""refllm translate: an encoder-decoder learns pairs of sentences in two languages, and translates."""

from __future__ import annotations

import argparse

from refllm.commands import pairs
from refllm.commands.verbs import run_verb

DESCRIPTION = """Learn a translation from pairs of sentences (fit), translate (predict), and measure it (evaluate).

example: refllm translate fit talks.en talks.de --minutes 20 --out runs/en-de
         refllm translate predict runs/en-de "Where is the station?"
         refllm translate evaluate runs/en-de --examples 10"""

run = run_verb
LESS_MEMORY = pairs.LESS_MEMORY

KIND = pairs.Kind(
    name="translate",
    preset="translate",
    epochs=30,
    texts=("sources", "translations"),
    fit="""Learn from two parallel files, a sentence a line, or from a table (.csv, .tsv with a header, .jsonl).

example: refllm translate fit talks.en talks.de --minutes 20 --out runs/en-de
         refllm translate fit talks.csv --source english --target german --out runs/en-de""",
    predict="""Translate texts: arguments (right after RUN), the lines of a file, or those of the standard input.
A line is printed for each: line breaks in a translation become spaces; --json keeps them.

example: refllm translate predict runs/en-de "Where is the station?" --beams 1 --json
         refllm translate predict runs/en-de --file more.en""",
    evaluate="""Measure greedy choice and beam search on pairs, beside copying and a word-by-word dictionary.

example: refllm translate evaluate runs/en-de more.en more.de --examples 10""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pairs.add_arguments(parser, KIND)
