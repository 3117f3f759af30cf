"""From a case to its record: the plain text at two precisions that must agree, rounded once to float64.

The value of a gradient is that of the tape, which knows nothing of the pullback that is written by hand; that pullback
must agree to 300 digits. Its steps are those of an implementation, so the condition of a gradient is theirs.

Where a formula has several customary forms (see forms.py), readings take them in turn, at either precision: the values
must agree all the same, and the condition of an element is the largest of them.

A double can be as small as 5e-324. With 400 digits even a difference that cancels to that size is known, so a number
below what 400 digits resolve is zero in float64 and nothing is left to judgement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden import conventions, forms, lookouts, margins
from golden.case import Case
from golden.changes import Change, compiled
from golden.evaluate import Answer, Arrays, evaluate, furthest
from refllm.numbers import exact
from refllm.numbers.exact import Exact
from refllm.numbers.nodes import Node, conditions
from refllm.parameters import Tree
from refllm.verify import plain

PRECISIONS = (400, 450)  # decimal digits
SLOPES = 40  # decimal digits of the derivatives that conditions are made of
SAME = -300  # the decimal logarithm of what may be between the two gradients
MARGIN = 2**-6  # no sampled decision may be nearer to a tie than this
FEW = 20  # decimal digits that show which conventions a formula meets
GUARD = 12  # digits that the arithmetic of the longest case may lose
UP = Context(prec=3, rounding=ROUND_CEILING)

STATE = ("p", "m", "v")
NAMES = {
    "lstm": ("y", "c"), "sgd": ("p", "v"), "adam": STATE, "adamw": STATE, "clip_by_global_norm": ("norm", "g"),
    "switch_layer": ("y", "balance"), "pretraining_loss": ("masked", "pair"), "train_step": ("loss", "norm", *STATE),
    "train": ("loss", "norm", *STATE), "sample": ("ids",), "generate": ("ids", "logits"),
    "generate_padded": ("ids", "logits"), "translate": ("ids", "logits"), "quantised": ("q", "s"),
    "mask_words": ("ids", "positions", "targets"), "learn_merges": ("merges",), "encode_word": ("ids",),
    "beam_search": ("ids", "scores"), "lion": ("p", "m"), "muon": ("p", "v"), "average_weights": ("a",),
    "attention_with_lse": ("y", "l"), "merge_attention": ("y", "l"), "yarn_frequencies": ("y", "scale"),
    "vocabulary_parallel_sums": ("l", "t"), "sharded_squares": ("s",), "sharded_clip": ("norm", "g"),
    "sharded_adamw": STATE,
    **dict.fromkeys(("gpt", "llama", "switch", "recurrent_lm", "nnlm", "hybrid", "encoder_decoder"), ("logits",)),
}  # fmt: skip
LAWS = ("resume",)  # without numbers
NO_MARGIN = ("train",)  # of its decisions only those of a single step are looked at
_WEIGHTS = "P, softmax_back = softmax(s)"
LOOKS = {  # the names that a case asks for and the text does not give
    "attention": Change(
        "attention.attention",
        {_WEIGHTS: f'{_WEIGHTS}\nfor t in range(T):\n    tap(f"scores.{{t}}", s[t])\n    tap(f"weights.{{t}}", P[t])'},
    ),
}


def names(operation: str, count: int) -> tuple[str, ...]:
    """The names of the outputs: `heads` has as many as it is asked for."""
    if operation == "heads":
        return tuple(f"y{n}" for n in range(count))
    return NAMES.get(operation, ("loss",) if operation.endswith("_loss") else ("y",))


def for_margins(tap: str) -> bool:
    """Whether the text names this for the sake of margins alone: scores of experts, of texts, of a second head."""
    parts = tap.split(".")
    return parts[-1] == "scores" or bool(
        {"pair", "rows", "steps", "sums", "bound", "finished", "turns"}.intersection(parts)
    )


# --- the text ---------------------------------------------------------------------------------------------------------


def answer(
    case: Case, digits: int, changes: Sequence[Change] = (), *, tape: bool = True, words: Tree | None = None
) -> Answer:
    """What the text, with these changes, answers to a case in exact numbers of so many digits."""
    edited = compiled(changes, words)
    text = {name: edited.get(function, function) for name, function in plain.text().items()}
    with exact.digits(digits), plain.exchanged(edited):
        return evaluate(
            plain.interface(text)[case.operation],
            case.inputs,
            case.keywords,
            lambda count: names(case.operation, count),
            case.cotangent if case.gradient else None,
            tape=tape,
        )


def called(case: Case) -> list[Any]:
    """The functions of the text that the case calls, those of the model that it names among them."""
    operations = [case.operation]
    if case.operation in ("train_step", "train"):
        operations.append(f"{case.keywords.get('model', 'gpt')}_loss")
    elif case.operation in ("generate", "generate_padded", "beam_search"):
        operations.append(case.keywords.get("model", "gpt"))
    return [function for operation in operations for function in plain.called(operation)]


# --- values and conditions --------------------------------------------------------------------------------------------


def measure(case: Case, how: Mapping[str, str], precisions: tuple[int, int] = PRECISIONS) -> tuple[Tree, float | None]:
    """{"outputs": {name: {"value", "condition"}}, "gradients": ..., "taps": ...}, correctly rounded, under other
    conventions if asked; and how far the nearest decision is from a tie. Where an output is NaN no gradient is asked
    for: what flows back through NaN is nobody's formula."""
    before = [*_looks(case), *conventions.changes(how)]
    own = forms.of(called(case), case.operation)
    declared = bool(conventions.BY_HAND & {*how.values()})
    first = answer(case, precisions[0], before, tape=not declared)
    if any(mp.isnan(node.value) for node in _nodes({"outputs": first.outputs})):
        case, first = replace(case, gradient=False), Answer(first.outputs, {}, {}, first.taps)
    if not declared:
        _require_the_gradient(case, first)
    parts = _parts(case, first, first.by_tape or first.by_hand)
    values, S, W = _measured(parts, _parts(case, first, first.by_hand), precisions[0])
    for n in range(1, forms.readings(own)):
        digits = precisions[n % 2]
        other = answer(case, digits, [*before, *forms.reading(n, own, before)], tape=False)
        steps = _parts(case, other, other.by_hand)
        other_values, other_S, other_W = _measured(steps, steps, digits)
        if not np.array_equal(other_values, values, equal_nan=True):
            raise ArithmeticError(f"{case.id}: reading {n}, with {digits} digits, gives another float64 value")
        S, W = np.maximum(S, other_S), np.maximum(W, other_W)
    numbers = iter(zip(values, map(round_up, S), map(round_up, W), strict=True))
    truth = {part: {name: _truth(x, numbers) for name, x in arrays.items()} for part, arrays in parts.items()}
    return truth, _margin(case, first, how)


def _looks(case: Case) -> list[Change]:
    return [LOOKS[case.operation]] if case.taps and case.operation in LOOKS else []


def _require_the_gradient(case: Case, found: Answer) -> None:
    for name, gradient in found.by_hand.items():
        if furthest(gradient, found.by_tape[name]) > SAME:
            raise ArithmeticError(f"{case.id}: the pullback by hand is not the gradient for {name}")


def _parts(case: Case, found: Answer, gradients: Arrays) -> dict[str, Arrays]:
    taps = {name: x for name, x in found.taps.items() if not for_margins(name)} if case.taps else {}
    return {"outputs": found.outputs, "taps": taps, "gradients": gradients}


def _measured(
    parts: Mapping[str, Arrays], steps: Mapping[str, Arrays], digits: int
) -> tuple[list[float], np.ndarray, np.ndarray]:
    """The float64 values of all numbers, and the two conditions of the steps that an implementation takes to them."""
    with exact.digits(SLOPES):
        S, W = conditions(list(_nodes(steps)))
    with mp.workdps(digits):
        return [rounded(x.value, s, digits) for x, s in zip(_nodes(parts), S + W, strict=True)], S, W


def _nodes(parts: Mapping[str, Arrays]) -> Iterator[Node]:
    """All exact numbers; tokens that were chosen are integers."""
    arrays = (x for held in parts.values() for x in held.values())
    return (node for x in arrays if isinstance(x, Exact) for node in x.nodes.flat)


def _truth(x: Any, numbers: Iterator[tuple[float, float, float]]) -> dict[str, np.ndarray]:
    """What the file holds of an array: integers as they are, numbers with their conditions, the wide one if there is
    one."""
    if not isinstance(x, Exact):
        return {"value": x}
    value, condition, wide = (np.empty(x.shape) for _ in range(3))
    for i in np.ndindex(x.shape):
        value[i], condition[i], wide[i] = next(numbers)
    return {"value": value, "condition": condition, **({"wide": wide} if wide.any() else {})}


def rounded(x: Any, S: float, digits: int) -> float:
    """The float64 nearest to x (ties to even, subnormals included). What the arithmetic cannot tell from zero is
    S 10^(GUARD - digits), with 400 digits far below the least double, and so rounds to 0."""
    if not mp.isfinite(x):
        return float(x)
    if abs(x) <= mpf(S) * mpf(10) ** (GUARD - digits):
        return 0.0
    sign, mantissa, exponent, _ = x._mpf_
    mantissa = -int(mantissa) if sign else int(mantissa)
    if exponent >= 0:
        return float(mantissa << exponent)
    return float(mantissa / (1 << -exponent))  # division of integers is correctly rounded by Python


def round_up(x: float) -> float:
    """Three significant digits, never less than x."""
    return float(UP.create_decimal(Decimal(float(x))))


# --- the record -------------------------------------------------------------------------------------------------------


def record(case: Case) -> dict[str, Any]:
    """The case as it stands in its file (see golden/README.md); arrays are still NumPy's."""
    found: dict[str, Any] = {
        "id": case.id,
        "spec": case.spec,
        "section": case.operation,
        "operation": case.operation,
        "about": case.about,
        "order": case.order,
        "inputs": dict(case.inputs),
        "keywords": dict(case.keywords),
    }
    if case.operation in LAWS:
        return found
    truth, margin = measure(case, {})
    if margin is not None:
        found["margin"] = margin
    if case.gradient:
        found["cotangents"] = {name: case.cotangent(name, t["value"].shape) for name, t in truth["outputs"].items()}
    found |= {part: truth[part] for part in ("outputs", "gradients", "taps") if truth.get(part)}
    if wide := _wide(truth):
        found["wide"] = wide
    if followed := _followed(case):
        found["conventions"] = followed
        if case.operation in conventions.OF_OPERATION:
            found["alternatives"] = {key: _alternative(case, how) for key, how in conventions.others(followed).items()}
    if case.erratum:
        found["erratum"] = case.erratum
        if case.printed is not None:
            found["printed"] = case.printed
    return found


def _wide(truth: Tree) -> Tree:
    """The wide conditions, taken out of the truth: {"outputs": {name: array}, ...} of those that there are."""
    taken = {part: {n: t.pop("wide") for n, t in held.items() if "wide" in t} for part, held in truth.items()}
    return {part: arrays for part, arrays in taken.items() if arrays}


def _margin(case: Case, found: Answer, how: Mapping[str, str]) -> float | None:
    """How far the nearest decision is from a tie; None where nothing is decided."""
    with exact.digits(PRECISIONS[0]):
        margin = margins.margin(case.operation, case.inputs, case.keywords, found, how)
    if margin == mpf("inf") or case.operation in NO_MARGIN:
        return None
    if margin < MARGIN:
        raise ArithmeticError(f"{case.id}: a decision is {float(margin):.1e} from a tie; draw other uniforms")
    return float(margin)


def _followed(case: Case) -> dict[str, str]:
    """The conventions that the text meets, as it stands or following others."""
    own = conventions.OF_OPERATION.get(case.operation, ())
    forward = replace(case, gradient=False, taps=False)
    met: set[str] = set()

    def meets(name: str, decides: Any) -> None:
        if decides:
            met.add(name)

    functions = called(case)
    looking = [change for change in lookouts.lookouts(case.operation) if change.original in functions]
    if looking:
        for how in ({}, *conventions.others(dict.fromkeys(own, "")).values()):
            answer(forward, FEW, [*looking, *conventions.changes(how)], words={"meets": meets})
    return conventions.followed(met)


def _alternative(case: Case, how: Mapping[str, str]) -> Tree:
    """The answers under other conventions."""
    truth, _ = measure(case, how)
    return {part: truth[part] for part in ("outputs", "gradients") if truth.get(part)}
