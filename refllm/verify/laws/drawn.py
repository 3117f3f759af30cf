"""Sized cases that are drawn when the run begins: other numbers of the same shapes, and other shapes.

An answer that was stored, that is kept by shape from an earlier call, or that is right for the sizes of the golden
files alone is wrong for them. Of other numbers it is said whether the answer is that of an argument of an earlier call.
Numbers that begin as those of the call before and end as others are told apart by nobody who looks at the first alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy

from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.law import Law
from refllm.verify.laws.fresh import FRESH
from refllm.verify.laws.trial import Trial
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.recipes import shape_of
from refllm.verify.tolerance import UNIT

SIZES = "sizes that nobody has stored"
TRIES = 8  # seeds of which one must leave no choice to rounding
NEAR = 4.0  # roundings by which scores must differ that decide which experts are chosen
GROWS = (2, 4, 6, 8)  # by how much axes grow: an even length stays one, as halves of a head must
NEARBY = 7  # places by which positions that are counted begin earlier
LISTED = ("listed", "documents")  # profiles whose numbers belong to one length
Known = Callable[[Case], Case]  # the case with the truth of its tensors


def drawn(sized: SizedCase, with_truth: Known, dtype: str, C: float) -> Iterator[Trial]:
    """Trials with other numbers of the same shapes, and with others at their end, then one with other shapes; those
    for which there are any."""
    moved = other_places(sized)
    if made := fitting(moved, dtype, C):
        seed, case = made
        case, done = with_truth(case), f"with other numbers of the same shapes (seed {seed})"
        kept = _of_earlier(case, sized, with_truth, dtype, C)
        yield Trial(FRESH, case, done, judging(case, FRESH, done, dtype, C, kept))
        if (ended := _with_another_end(case, moved, dtype, C)) is not None:
            ended, done = (
                with_truth(ended),
                f"with other numbers in the last half of those of an earlier call (seed {seed})",
            )
            yield Trial(FRESH, ended, done, judging(ended, FRESH, done, dtype, C))
    if (grown := other_shapes(sized)) and (made := fitting(grown, dtype, C)):
        seed, case = made
        case, done = with_truth(case), f"with {_in_words(grown)} (seed {seed})"
        yield Trial(SIZES, case, done, judging(case, SIZES, done, dtype, C), refusable=True)


def judging(
    case: Case, law: str, done: str, dtype: str, C: float, more: Callable[[Response], str] | None = None
) -> Callable[[Response], Law | None]:
    from refllm.verify.runner import judge

    def judged(response: Response) -> Law | None:
        wrong = [v.message for v in judge(case, response, dtype, C) if v.wrong not in ("", "dtype")]
        if not wrong:
            return None
        return Law(law, True, f"{done}, {wrong[0]}{more(response) if more else ''}")

    return judged


def fitting(sized: SizedCase, dtype: str, C: float) -> tuple[int, Case] | None:
    """A case whose numbers are drawn here, and their seed; None if the dtype cannot hold them, or none is decided."""
    from refllm.verify.runner import unfit_for

    for _ in range(TRIES):
        seed = secrets.randbits(32)
        case = sized.case(seed)
        if unfit_for(case, dtype, C) is None and _is_decided(case, dtype):
            return seed, case
    return None


def _with_another_end(case: Case, sized: SizedCase, dtype: str, C: float) -> Case | None:
    """The case with the last half of each input from another draw; None if the dtype cannot hold those numbers."""
    from refllm.verify.runner import unfit_for

    made = fitting(sized, dtype, C)
    if made is None:
        return None
    inputs = {name: _begun_and_ended(x, made[1].inputs[name]) for name, x in case.inputs.items()}
    ended = replace(case, inputs=inputs)
    return ended if unfit_for(ended, dtype, C) is None and _is_decided(ended, dtype) else None


def _begun_and_ended(one: Any, other: Any) -> Any:
    x = one.copy()
    x.reshape(-1)[x.size // 2 :] = other.reshape(-1)[x.size // 2 :]
    return x


def _is_decided(case: Case, dtype: str) -> bool:
    """Whether which experts are chosen is no matter of rounding."""
    if case.operation != "top_experts":
        return True
    scores, k = numpy.sort(case.inputs["scores"], axis=-1), case.keywords["k"]
    apart = scores[..., -k] - scores[..., -k - 1]
    return bool((apart > NEAR * UNIT[dtype] * numpy.maximum(1, abs(scores).max(axis=-1))).all())


# --- what is left of an earlier call ----------------------------------------------------------------------------------


def _of_earlier(case: Case, sized: SizedCase, with_truth: Known, dtype: str, C: float) -> Callable[[Response], str]:
    """Says of a wrong answer whether it is right for an argument of the case as it is stored, beside the new others."""

    def said(response: Response) -> str:
        from refllm.verify.runner import is_wrong

        values, stored = replace(response, gradients=None), sized.case()
        arrays = [n for n, x in stored.keywords.items() if isinstance(x, numpy.ndarray)]
        earlier = [*stored.inputs, *arrays]
        ways = [*((f"the {name}", [name]) for name in earlier), ("the keywords", arrays), ("what was given", earlier)]
        for words, names in ways:
            inputs = {**case.inputs, **{n: x for n, x in stored.inputs.items() if n in names}}
            keywords = {**case.keywords, **{n: x for n, x in stored.keywords.items() if n in names}}
            if not is_wrong(
                with_truth(replace(case, inputs=inputs, keywords=keywords).values_alone()), values, dtype, C
            ):
                return f"; it is right for {words} of an earlier call: something of that call is kept and used again"
        return ""

    return said


# --- other borders and lengths of the same shapes ---


def other_places(sized: SizedCase) -> SizedCase:
    """The case with documents that end elsewhere, other lengths, and positions in another order. What is equal stays
    equal: borders of queries and of keys are drawn together."""
    rng = numpy.random.default_rng(secrets.randbits(64))
    drawn: dict[str, list[int]] = {}

    def of(recipe: Any) -> Any:
        if not _recipe(recipe):
            return recipe
        if recipe["profile"] == "count" and recipe.get("start") and "modulus" not in recipe:
            return {**recipe, "start": recipe["start"] - int(rng.integers(1, min(recipe["start"], NEARBY) + 1))}
        for name, draw in PLACES.items():
            values = recipe.get(name)
            if values and (name != "values" or recipe["profile"] == "listed"):
                new = drawn.setdefault(f"{name} {values}", draw(rng, list(values)))
                return {**recipe, name: new}
        return recipe

    return replace(sized, keywords={name: of(x) for name, x in sized.keywords.items()})


def _other_values(rng: numpy.random.Generator, values: list[int]) -> list[int]:
    """Numbers that rise are borders; others are ids or positions, of which every order is one."""
    return _other_borders(rng, values) if values == sorted(values) else rng.permutation(values).tolist()


def _other_borders(rng: numpy.random.Generator, borders: list[int]) -> list[int]:
    """As many documents as before, from the same beginning to the same end."""
    first, *inner, last = borders if len(borders) > 1 else [*borders, *borders]
    if last - first <= len(inner):
        return borders
    drawn = numpy.sort(rng.choice(numpy.arange(first + 1, last), len(inner), replace=False)).tolist()
    return [first, *drawn, last] if len(borders) > 1 else borders


def _other_lengths(rng: numpy.random.Generator, lengths: list[int]) -> list[int]:
    """None longer than the longest, and none empty that was not."""
    return [int(rng.integers(1, max(lengths) + 1)) if n else 0 for n in lengths]


PLACES: dict[str, Callable[[numpy.random.Generator, list[int]], list[int]]] = {
    "borders": _other_borders, "lengths": _other_lengths, "values": _other_values,
}  # fmt: skip


# --- other shapes -----------------------------------------------------------------------------------------------------


def other_shapes(sized: SizedCase) -> SizedCase | None:
    """The case with longer axes: all of them, or where that is none, those of one length. None if no text answers it.

    Axes of one length stay of one length: which of them belong together, their lengths tell.
    """
    if is_of_one_length(sized):
        return None
    by = secrets.choice(GROWS)
    fixed = {n for recipe in _recipes(sized) if "lengths" in recipe for n in recipe["shape"][:-1]}
    lengths = sorted({n for recipe in _recipes(sized) for n in recipe["shape"] if n > 1} - fixed, reverse=True)
    ways = [{n: n + by for n in lengths}]
    if "causal" not in sized.keywords:  # one that grows alone may leave queries without a key
        ways += [{n: n + by} for n in lengths]
    return next((grown for way in ways if (grown := _grown(sized, way))), None)


def is_of_one_length(sized: SizedCase) -> bool:
    """Whether a keyword holds numbers that belong to the lengths which the case has."""
    return any(_recipe(x) and (x["profile"] in LISTED or "modulus" in x) for x in sized.keywords.values())


def _recipe(x: Any) -> bool:
    return isinstance(x, dict)


def _recipes(sized: SizedCase) -> list[Mapping[str, Any]]:
    return [*sized.inputs.values(), *(x for x in sized.keywords.values() if _recipe(x))]


def _grown(sized: SizedCase, by: Mapping[int, int]) -> SizedCase | None:
    def of(recipe: Any) -> Any:
        return {**recipe, "shape": [by.get(n, n) for n in recipe["shape"]]} if _recipe(recipe) else recipe

    inputs, keywords = ({name: of(x) for name, x in held.items()} for held in (sized.inputs, sized.keywords))
    grown = replace(sized, inputs=inputs, keywords=keywords, cotangents={}, known={})
    answer = plain.answer(grown.case(), "float64", {}, traced=False)
    if answer is None:
        return None
    outputs = {name: numpy.shape(x) for name, x in answer.outputs.items()}
    cotangents = {name: {**x, "shape": list(outputs[name])} for name, x in sized.cotangents.items()}
    return replace(grown, outputs=outputs, cotangents=cotangents)


def _in_words(sized: SizedCase) -> str:
    return ", ".join(f"{name} of {'x'.join(map(str, shape_of(x))) or '1'}" for name, x in sized.inputs.items())
