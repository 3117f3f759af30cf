"""Edits that are one habit and several words: a rule by the names of tensors, a state that is carried on, a value from
before a step, a mask or a factor in one of its places, a part of a batch for all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from types import FunctionType

from refllm.verify.edits.blocks import parts_for_others
from refllm.verify.edits.borders import borders_otherwise
from refllm.verify.edits.by_name import by_name
from refllm.verify.edits.compositions import statements
from refllm.verify.edits.counted import both_ends, counted_elsewhere, one_place_off
from refllm.verify.edits.counted_again import once_for_each_block
from refllm.verify.edits.earlier import (
    before_it_is_changed,
    of_what_comes_later,
    one_after_the_other,
    renewed_too_early,
)
from refllm.verify.edits.factors import factors_of_another_term, scaled_elsewhere
from refllm.verify.edits.foreign import nearest_of_the_own
from refllm.verify.edits.guarded import guarded
from refllm.verify.edits.hoisted import done_once
from refllm.verify.edits.masked_too import masked_too
from refllm.verify.edits.masks import in_one_slice, of_every_place
from refllm.verify.edits.of_callees import taken_unfinished
from refllm.verify.edits.overwritten import overwritten_in_place
from refllm.verify.edits.passed import scaled_on_its_way
from refllm.verify.edits.pullbacks import taken_at_another_value
from refllm.verify.edits.recovered import recovered_from_the_output
from refllm.verify.edits.rounding import ranges
from refllm.verify.edits.scaled import masks_forgotten_going_back, one_count_for_all, parts_that_go_back
from refllm.verify.edits.siblings import filled_otherwise, repeated_in_turn, side_by_side, taken_twice
from refllm.verify.edits.skips import past_another_part
from refllm.verify.edits.source import Habit, Source, calls_of
from refllm.verify.edits.states import carried_on, first_state_forgotten, kept_after_the_work, lost_between_turns

OVER_ROWS = ("rows", "flat", "scatter_add", "sum", "total")  # words that add up over the texts of a batch
UNMASKED = "the pullback goes through a padded step as if it had been taken"
OTHER_HEADS = "texts and heads are counted in another order in the mask than in the scores"
OF_CHUNKS = "the mean of the means of chunks of {} rows, {}, not the mean over all that count"
CHUNKS = (1, 2, 3, 4, 8)
MEANS = "the mean over the texts of each text's own mean, not the mean over all places"
PLACED = "what is counted is counted after the filter: of the tokens that found a place alone"


def habits(text: Source, function: FunctionType) -> Iterator[Habit]:
    """What is one mistake, though it changes several words."""
    yield from by_name(text)
    yield from carried_on(text)
    yield from lost_between_turns(text)
    yield from first_state_forgotten(text)
    yield from _counted_after_the_filter(text)
    yield from before_it_is_changed(text)
    yield from of_what_comes_later(text)
    yield from renewed_too_early(text)
    yield from one_after_the_other(text)
    yield from in_one_slice(text)
    yield from of_every_place(text)
    yield from ranges(text)
    yield from _of_one_text(text)
    yield from _of_each_text(text)
    yield from kept_after_the_work(text)
    yield from scaled_elsewhere(text, function)
    yield from factors_of_another_term(text, function)
    yield from side_by_side(text)
    yield from repeated_in_turn(text)
    yield from taken_twice(text)
    yield from filled_otherwise(text)
    yield from counted_elsewhere(text)
    yield from both_ends(text)
    yield from one_place_off(text)
    yield from taken_at_another_value(text)
    yield from overwritten_in_place(text)
    yield from _mask_forgotten(text)
    yield from borders_otherwise(text)
    yield from recovered_from_the_output(text)
    yield from guarded(text)
    yield from past_another_part(text)
    yield from masks_forgotten_going_back(text)
    yield from one_count_for_all(text)
    yield from parts_that_go_back(text)
    yield from scaled_on_its_way(text)
    yield from nearest_of_the_own(text)
    yield from once_for_each_block(text)
    yield from done_once(text)
    yield from parts_for_others(text)
    yield from masked_too(text)
    yield from _mask_of_other_heads(text)
    yield from taken_unfinished(text, function)


# --- filters ---------------------------------------------------------------------------------------------------------


def _counted_after_the_filter(text: Source) -> Iterator[Habit]:
    """What is counted of all tokens, counted of those that found a place."""
    if "capacity" not in text.keywords or not list(calls_of(text, "slots_of")):
        return
    slots = calls_of(text, "slots_of")
    experts = [text.segment(k.value) for call in slots for k in call.keywords if k.arg == "experts"]
    for call in [node for node in ast.walk(text.definition) if isinstance(node, ast.Call)]:
        for keyword in call.keywords:
            placed = f"slots < {experts[0]} * capacity"
            later = text.segment(call.func) != "slots_of"
            if keyword.arg == "chosen" and later:
                chosen = f"where({placed}, {text.segment(keyword.value)}, -1)"
                yield text.exchanged(keyword.value, chosen), 1.2, False, PLACED
            elif keyword.arg == "token_mask" and later:
                yield text.exchanged(keyword.value, placed), 1.2, False, PLACED


# --- one text of a batch ---------------------------------------------------------------------------------------------


def _of_one_text(text: Source) -> Iterator[Habit]:
    """A gradient that is a sum over the batch, taken from one text."""
    for call in calls_of(text, *OVER_ROWS):
        for argument in call.args:
            if text.in_pullback(argument) and isinstance(argument, ast.Name) and argument.id.startswith("d"):
                for which in ("first", "last"):
                    said = f"the gradient is that of the {which} text of the batch alone, not the sum over all"
                    yield text.exchanged(argument, f"{which}_text({argument.id})"), 1.1, True, said
                said = "the gradient is the mean over the texts of the batch, not the sum over all"
                yield text.exchanged(argument, f"mean_text({argument.id})"), 1.15, True, said


def _of_each_text(text: Source) -> Iterator[Habit]:
    """A mean over all places, taken for each text and then over the texts: all, or those in which something counts."""
    name, arguments = text.definition.name, text.positional
    if arguments == ["p"] or len(arguments) != 1 or not ("reduction" in text.keywords or _gives_a_mean(text)):
        return
    keywords = "".join(f", {k}={k}" for k in text.keywords)
    for word, cost in (("by_text", 1.1), ("by_text_with_any", 1.12)):
        line = f"return {word}({name})({arguments[0]}{keywords})"
        yield text.with_first_line(line), cost, False, MEANS
    for size in CHUNKS:
        for alike in (False, True):
            line = f"return by_chunks({name}, {size}, alike={alike})({arguments[0]}{keywords})"
            weight = "each as heavy as the next" if alike else "each by the number of its rows"
            yield text.with_first_line(line), 1.2, False, OF_CHUNKS.format(size, weight)


def _gives_a_mean(text: Source) -> bool:
    """Whether a function returns a sum over all places by their number."""
    found = [node for node in text.returned() if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)]
    return any("total(" in text.segment(node.left) for node in found)


def _mask_of_other_heads(text: Source) -> Iterator[Habit]:
    """The mask of every text in turn, where heads stand before the texts, or the texts before the heads."""
    if "heads" in text.keywords and "attention_mask" in text.keywords:
        for word in ("of_heads_first", "of_texts_first"):
            yield text.with_first_line(f"attention_mask = {word}(attention_mask, heads)"), 1.1, False, OTHER_HEADS


# --- masks of steps --------------------------------------------------------------------------------------------------


def _mask_forgotten(text: Source) -> Iterator[Habit]:
    """The gradients of a step where there is none: what the step would have left, and one mask of the pullback less."""
    made = dict(_unmasked(text))
    steps = [
        change for node in text.expressions()
        if isinstance(node, ast.Subscript) and text.in_pullback(node) and isinstance(node.value, ast.Name)
        and node.value.id in made and text.segment(node.slice) == "t + 1"
        for change in text.exchanged(node, made[node.value.id])
    ]  # fmt: skip
    for call in calls_of(text, "kept") if steps else ():
        if text.in_pullback(call) and len(call.args) == 4:
            mask, t, new, before = (text.segment(a) for a in call.args)
            for words, cost in ((new, 1.1), (before, 1.25), (f"kept({mask}, {t}, {new}, 0)", 1.2)):
                yield (*text.exchanged(call, words), *steps), cost, True, UNMASKED


def _unmasked(text: Source) -> Iterator[tuple[str, str]]:
    """states: what a step adds to `states`, as it would be without its mask."""
    values = {
        node.targets[0].id: text.segment(node.value)
        for node in statements(text)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not text.in_pullback(node)
    }
    for call in calls_of(text, "kept"):
        parent = text.parents.get(call)
        if isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr == "append":
            new = text.segment(call.args[2])
            yield text.segment(parent.func.value), values.get(new, new)
