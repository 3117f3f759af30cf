"""Numbers that a model multiplies by, rounded to a narrow type or made of another width."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy

from refllm.parameters import Tree
from refllm.verify.ports.candidates import Candidate, acting_through, called
from refllm.verify.ports.evaluation import NOTHING, Change
from refllm.verify.ports.mistakes.habit import COST, edited
from refllm.verify.ports.mistakes.leaves import UNLIKELY
from refllm.verify.ports.program import Program, Step
from refllm.verify.ports.published import encoder_decoder, gpt, llama, parts
from refllm.verify.words import to_bfloat16

EMBEDDING, OUTPUT, SCORES = 'x * sqrt(config["width"])', 'h / sqrt(config["width"])', "s = q @ swap(k) / sqrt(width)"


def mistakes(program: Program) -> Iterator[Candidate]:
    config = program.config
    width = float(config["width"])
    if config.get("scaled_embedding"):
        for function in (llama.llama_embedding, gpt.gpt_embedding, encoder_decoder.stack_embedding):
            for value, what in _others(math.sqrt(width), config):
                yield from _edited(
                    program, function, EMBEDDING, f"x * {value!r}", f"the embedding is multiplied by {what}"
                )
    if config.get("scaled_output"):
        for value, what in _others(1 / math.sqrt(width), config):
            said = f"the states before the output layer are multiplied by {what}"
            yield from _edited(program, encoder_decoder.sequence_logits, OUTPUT, f"h * {value!r}", said)
    scale = _scale_of_scores(config)
    for value, what in _rounded(scale):
        said = f"the scores are multiplied by {what}"
        yield from _edited(program, parts.attended, SCORES, f"s = q @ swap(k) * {value!r}", said)
    yield from _by_the_number_of_the_layer(program)


def _by_the_number_of_the_layer(program: Program) -> Iterator[Candidate]:
    """GPT-2's scale_attn_by_inverse_layer_idx, in queries: it is the same in the scores."""
    if program.model != "gpt":
        return

    def change(at: Step, own: Tree, whole: Tree) -> Tree:
        attention, C = own["attention"], int(program.config["width"])
        times = numpy.where(numpy.arange(3 * C) < C, 1 / (int(at.own[-1]) + 1), 1).astype("float32")
        scaled = {name: leaf * times if name.endswith("qkv") else leaf for name, leaf in attention.items()}
        return {**own, "attention": scaled}

    said = "the scores are divided by the number of the layer too, 1, 2, 3 ..."
    lines = [("config.json", ["- scale_attn_by_inverse_layer_idx: False", "+ scale_attn_by_inverse_layer_idx: True"])]
    yield Candidate(said, UNLIKELY, Change(parameters=change), _is_later_layer, lines)


def _is_later_layer(step: Step) -> bool:
    """Whether it is a layer whose number is not 1, by which nothing is divided."""
    return step.kind == "layer" and int(step.own[-1]) > 0


def _scale_of_scores(config: Any) -> float:
    if not config.get("scaled", True):
        return 1.0
    head = config.get("head_width") or config["width"] / config["heads"]
    return float(1 / math.sqrt(config.get("score_width") or head))


def _others(right: float, config: Any) -> Iterator[tuple[float, str]]:
    """Other numbers for the root of the width, or for one over it."""
    yield from _rounded(right)
    width = float(config["width"])
    head = float(config.get("head_width") or width / config["heads"])
    power = 1 if right > 1 else -1
    for value, what in ((width, "the width"), (math.sqrt(head), "the root of a head's width")):
        lead = what if power == 1 else f"one over {what}"
        if value**power != right:
            yield value**power, f"{lead}, {value**power:.5g} for {right:.5g}"


def _rounded(right: float) -> Iterator[tuple[float, str]]:
    """The number in 16 bits, or with few decimals, where it is another one there."""
    one = numpy.asarray(right, "float32")
    seen = {float(one), right}
    cut = (one.view("uint32") & numpy.uint32(0xFFFF0000)).view("float32")
    ways: list[tuple[str, Any]] = [
        ("rounded to bfloat16", to_bfloat16(one)), ("rounded to float16", one.astype("float16")),
        ("cut off to bfloat16", cut), ("rounded to a whole number", round(right)), ("rounded down", int(right)),
        *((f"rounded to {n} decimal{'s' if n > 1 else ''}", round(right, n)) for n in (1, 2, 3)),
    ]  # fmt: skip
    for way, x in ways:
        if float(x) and float(x) not in seen:
            seen.add(float(x))
            yield float(x), f"a number that is {way}, {float(x):.6g} for {right:.6g}"


def _edited(program: Program, function: Any, old: str, new: str, said: str) -> Iterator[Candidate]:
    if any(function in called(step.text) for step in program.steps):
        yield Candidate(said, COST, NOTHING, acting_through(function), [], edited(function, old, new, said))
