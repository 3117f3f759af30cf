"""From a case to its record: the formula at two precisions that must agree, rounded once to float64.

Where a formula has several customary forms (see forms.py), readings take them in turn, at either precision: the values
must agree all the same, and the condition of an element is the largest of them.

A double can be as small as 5e-324. With 400 digits even a difference that cancels to that size is known, so a number
below what 400 digits resolve is zero in float64 and nothing is left to judgement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden import (
    beam,
    bert,
    conventions,
    earlier,
    encoder_decoder,
    forms,
    formulas,
    llama,
    long,
    model,
    optimisers,
    recurrent,
    sampling,
    switch,
)
from golden.case import Case
from golden.families import LOSSES, MODELS
from golden.tape import Node, conditions, constant, gradients
from golden.tree import Tree, flatten, nest

PRECISIONS = (400, 450)  # decimal digits
MARGIN = 2**-6  # no sampled decision may be nearer to a tie than this
FEW = 20  # decimal digits that show which conventions a formula meets
GUARD = 12  # digits that the arithmetic of the longest case may lose
UP = Context(prec=3, rounding=ROUND_CEILING)

_OPERATIONS = {
    formulas: [
        "matmul",
        "linear",
        "heads",
        "embedding",
        "sinusoidal",
        "add_positions",
        "softmax",
        "log_softmax",
        "cross_entropy",
        "soft_cross_entropy",
        "smoothed_cross_entropy",
        "mean_pool",
        "info_nce",
        "l2_penalty",
        "mean_squared_error",
        "chain_rule",
        "perplexity",
        "attention",
        "layer_norm",
        "relu",
        "gelu_erf",
        "gelu_tanh",
        "dropout",
    ],
    long: [
        *("rms_norm", "silu", "multiply", "rotary_halves", "rotary_interleaved", "repeat_heads"),
        *("t5_bias_causal", "t5_bias_bidirectional", "alibi", "relative_attention"),
    ],
    switch: [
        *("gate", "load_balance", "dispatch", "combine", "expert_matmul", "expert_linear"),
        *("switch_layer", "switch", "switch_loss"),
    ],
    llama: ["gated_feed_forward", "grouped_attention", "llama_layer", "llama", "llama_loss"],
    model: ["feed_forward", "self_attention", "transformer_layer", "gpt", "gpt_loss"],
    optimisers: ["sgd", "adam", "adamw", "clip_by_global_norm", "warmup_cosine", "train_step", "train", "resume"],
    sampling: ["sample", "generate"],
    recurrent: ["tanh", "rnn", "lstm", "window", "bidirectional"],
    beam: ["translate", "beam_search"],
    earlier: ["recurrent_lm", "recurrent_lm_loss", "nnlm", "nnlm_loss", "hybrid", "hybrid_loss", "hybrid_states"],
    encoder_decoder: ["cross_attention", "encoder_decoder", "seq2seq_loss", "denoising_loss"],
    bert: ["bert", "pretraining_loss", "classifier_loss", "span_loss"],
}
OPERATIONS = {name: getattr(module, name) for module, names in _OPERATIONS.items() for name in names}

Truth = dict[str, dict[str, np.ndarray]]  # "outputs", "gradients", "taps" -> name -> array of nodes


def evaluate(case: Case, digits: int, variant: Mapping[str, Any]) -> Truth:
    """The outputs, gradients and taps of a case, as nodes of a tape of this precision."""
    with mp.workdps(digits):
        inputs = {name: as_nodes(array) for name, array in case.inputs.items()}
        taps: dict[str, np.ndarray] = {}
        tapping = {"tap": taps.__setitem__} if case.taps else {}
        keywords = {**case.keywords, **variant, **tapping}
        result = OPERATIONS[case.operation](*nest(inputs).values(), **keywords)
        outputs = flatten(result) if isinstance(result, dict) else {_only_output(case): result}
        truth = {"outputs": outputs, "taps": taps}
        if case.gradient:
            cotangents = [constant(c) for name, y in outputs.items() for c in case.cotangent(name, y.shape).flat]
            slopes = iter(gradients(_nodes(outputs), cotangents, _nodes(inputs)))
            truth["gradients"] = {name: formulas.each(lambda _: next(slopes), array) for name, array in inputs.items()}
        return truth


def _only_output(case: Case) -> str:
    if case.operation in MODELS:
        return "logits"
    return "loss" if case.operation.removesuffix("_loss") in LOSSES else "y"


def as_nodes(array: np.ndarray) -> np.ndarray:
    return np.asarray(formulas.each(constant, array))


def _nodes(arrays: Mapping[str, np.ndarray]) -> list[Node]:
    """All nodes of the arrays; tokens that were chosen are integers, not nodes."""
    return [node for array in arrays.values() if array.dtype == object for node in array.flat]


def measure(case: Case, variant: Mapping[str, Any], precisions: tuple[int, int] = PRECISIONS) -> Tree:
    """{"outputs": {name: {"value", "condition"}}, "gradients": ..., "taps": ...}, correctly rounded."""
    with forms.reading(0) as asked:
        first = evaluate(case, precisions[0], variant)
    values, S, W = _measured(first, precisions[0])
    for n in range(1, forms.readings(asked)):
        digits = precisions[n % 2]
        with forms.reading(n):
            other, other_S, other_W = _measured(evaluate(case, digits, variant), digits)
        if not np.array_equal(other, values, equal_nan=True):
            raise ArithmeticError(f"{case.id}: reading {n}, with {digits} digits, gives another float64 value")
        S, W = np.maximum(S, other_S), np.maximum(W, other_W)
    numbers = iter(zip(values, map(round_up, S), map(round_up, W), strict=True))
    return {part: {name: _truth(array, numbers) for name, array in arrays.items()} for part, arrays in first.items()}


def _measured(truth: Truth, digits: int) -> tuple[list[float], np.ndarray, np.ndarray]:
    """The float64 values of all nodes, and their two conditions."""
    nodes = [node for part in truth.values() for node in _nodes(part)]
    S, W = conditions(nodes)
    return [rounded(node.value, s, digits) for node, s in zip(nodes, S + W, strict=True)], S, W


def _truth(array: np.ndarray, numbers: Iterator[tuple[float, float, float]]) -> dict[str, np.ndarray]:
    """What the file holds of an array: integers as they are, numbers with their conditions, the wide one if there is
    one."""
    if array.dtype != object:
        return {"value": array}
    value, condition, wide = (np.empty(array.shape) for _ in range(3))
    for i in np.ndindex(array.shape):
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
    truth = measure(case, {})
    if "margin" in truth["outputs"]:
        found["margin"] = _margin(case, truth)
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


def _margin(case: Case, truth: Tree) -> float:
    margin = float(truth["outputs"].pop("margin")["value"])
    if margin < MARGIN:
        raise ArithmeticError(f"{case.id}: a decision is {margin:.1e} from a tie; draw other uniforms")
    return margin


def _followed(case: Case) -> dict[str, str]:
    """The conventions that the formula meets, in the reading of the case or in one that follows others."""
    own = conventions.OF_OPERATION.get(case.operation, ())
    forward = replace(case, gradient=False, taps=False)
    with conventions.watched() as met:
        for variant in ({}, *conventions.others(dict.fromkeys(own, "")).values()):
            evaluate(forward, FEW, variant)
    return conventions.followed(met)


def _alternative(case: Case, how: Mapping[str, str]) -> Tree:
    """The answers under other conventions. Where they hold NaN no gradient is asked for: what flows back through NaN
    is nobody's formula."""
    truth = measure(case, how)
    if "margin" in truth["outputs"]:
        _margin(case, truth)
    outputs = truth["outputs"]
    if any(y["value"].dtype.kind == "f" and np.isnan(y["value"]).any() for y in outputs.values()):
        return {"outputs": outputs}
    return {part: truth[part] for part in ("outputs", "gradients") if truth.get(part)}
