"""refllm summarise: an encoder-decoder learns what texts come down to, and says it."""

from __future__ import annotations

import argparse

from refllm.commands import pairs
from refllm.commands.verbs import run_verb

DESCRIPTION = """Learn summaries from texts with theirs (fit), summarise (predict), and measure it (evaluate).

example: refllm summarise fit articles.jsonl --source body --target headline --out runs/news
         refllm summarise predict runs/news --file today.jsonl --source body
         refllm summarise evaluate runs/news --examples 10"""

run = run_verb
LESS_MEMORY = pairs.LESS_MEMORY

KIND = pairs.Kind(
    name="summarise",
    preset="summarise",
    epochs=15,
    texts=("texts", "summaries"),
    fit="""Learn from a table (.csv, .tsv with a header, .jsonl), or from two parallel files, a text a line.

example: refllm summarise fit articles.jsonl --source body --target headline --out runs/news""",
    predict="""Summarise texts: arguments (right after RUN), a file (lines or a table), or the standard input.
A line is printed for each: line breaks in a summary become spaces; --json keeps them.

example: refllm summarise predict runs/news --file today.jsonl --source body --json""",
    evaluate="""Measure greedy choice and beam search on pairs, beside copying and the first sentence.

example: refllm summarise evaluate runs/news more.jsonl --source body --target headline --examples 10""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pairs.add_arguments(parser, KIND)
