"""Inputs and keywords that a kernel takes for others: a step that is late, a turned mask, a subnormal that is 0.

    changes()      (name, words that follow the operation, what makes another case of a case)

A change gives None where the case is as before, and a pair where the answer has to be put right afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.kernels import cached_keys, packed_masks
from refllm.verify.kernels.machine import narrow
from refllm.verify.kernels.other_indices import Change, of_indices
from refllm.verify.kernels.rounded_up import of_counts

SMALLEST = 2.0**-126  # normal numbers of float32 begin here
LOG2_E = math.log2(math.e)
ORDERS = {  # words, bits of a group, its parts that stand in the reverse order
    "bits-reversed": ("the bits of each byte in the reverse order", 8, 8),
    "words-reversed": ("the bits of each 32 in the reverse order", 32, 32),
    "bytes-reversed": ("the bytes of each 32 bits in the reverse order", 32, 4),
    "pairs-of-bytes-reversed": ("the bytes of each 16 bits in the reverse order", 16, 2),
    "long-words-reversed": ("the bits of each 64 in the reverse order", 64, 64),
    "halves-reversed": ("the four bits of each half of a byte in the other one's place", 8, 2),
}


def changes() -> Iterator[tuple[str, str, Change]]:
    yield "subnormals-flushed", "whose subnormal inputs are taken for 0", _floats(_flushed)
    yield from _of_biases()
    yield from _of_steps()
    yield from _of_keywords()
    yield from of_counts()
    yield from of_indices()
    yield from _of_masks()
    yield from _of_heads()
    for digits in (2, 3, 4, 5, 6):
        log2 = float(f"{LOG2_E:.{digits}g}")
        yield "power-of-two-constant", f"by powers of 2 whose log₂ e is {log2:g}", _scaled(log2 / LOG2_E)
    yield "power-of-two", "by powers of 2, without log₂ e", _scaled(math.log(2))


def _of_biases() -> Iterator[tuple[str, str, Change]]:
    for again in (2, 4, 8, 3, 16, 5, 6, 7, 0):
        words = f"whose bias counts {again} times" if again else "without its bias"
        yield "bias-counts-again" if again else "bias-left-out", words, _multiplied("b", again)

    for name, of in (("sink", "sink"), ("r", "bias")):
        for words, id, times in (
            ("in units of log 2, as if its power were of 2, not of e", "to-base-2", math.log(2)),
            ("times log₂ e, as if its power were of e, not of 2", "from-base-2", LOG2_E),
        ):
            yield f"{of}-{id}", f"whose {of} is {words}", _multiplied(name, times)
        yield f"{of}-scaled", f"whose {of} is divided by √D, as the scores are", _scaled_as_scores(name)
        yield f"{of}-left-out", f"without its {of}", _multiplied(name, 0)
    for size in (64, 128, 32, 256, 16, 512, 1024):
        yield "sink-in-every-tile", f"whose sink counts once for each tile of {size:,} keys", _sink_of_tiles(size)


def _sink_of_tiles(size: int) -> Change:
    """A sink that is in the sum so many times: e^sink times that number. Its gradient is that of each time."""

    def changed(case: Case) -> Any:
        tiles = -(-case.inputs["k"].shape[-2] // size) if "sink" in case.inputs and "k" in case.inputs else 1
        if tiles <= 1:
            return None
        return replace(case, inputs={**case.inputs, "sink": case.inputs["sink"] + math.log(tiles)})

    return changed


def _scaled_as_scores(name: str) -> Change:
    return lambda case: _multiplied(name, case.inputs["q"].shape[-1] ** -0.5)(case) if "q" in case.inputs else None


def _multiplied(name: str, times: float) -> Change:
    """An input that counts so many times, and so its gradient."""

    def changed(case: Case) -> Any:
        if name not in case.inputs or not case.inputs[name].any():
            return None

        def back(tensors: dict[str, Array]) -> dict[str, Array]:
            return {n: x * times if n == f"gradients.{name}" else x for n, x in tensors.items()}

        return replace(case, inputs={**case.inputs, name: case.inputs[name] * times}), back

    return changed


# --- keywords that are numbers ----------------------------------------------------------------------------------------


def _keyword(name: str, change: Callable[[Any, Case], Any]) -> Change:
    def changed(case: Case) -> Case | None:
        if name not in case.keywords or isinstance(case.keywords[name], numpy.ndarray):
            return None
        other = change(case.keywords[name], case)
        if other is None or other == case.keywords[name]:
            return None
        return replace(case, inputs=dict(case.inputs), keywords={**case.keywords, name: other})

    return changed


def _of_steps() -> Iterator[tuple[str, str, Change]]:
    yield "step-before", "with the number of the step before", _keyword("step", lambda t, _: t - 1 if t > 1 else None)
    yield "step-after", "with the number of the step after", _keyword("step", lambda t, _: t + 1)
    yield "correction-left-out", "without the bias corrections", _keyword("step", lambda t, _: 1_000_000)
    for name in ("beta1", "beta2"):
        moment = "first" if name == "beta1" else "second"
        yield f"correction-of-{name}", f"without the bias correction of the {moment} moment", _uncorrected(name)
    for limit in (100, 128, 256, 500, 512, 1000, 1024):
        yield "step-cut-off", f"whose step is never above {limit:,}", _keyword("step", _at_most(limit))


def _at_most(limit: int) -> Callable[[Any, Case], Any]:
    return lambda value, _: min(value, limit)


def _uncorrected(name: str) -> Change:
    """The other moment corrected as it should be: the learning rate or the second moment carries what is left out."""

    def changed(case: Case) -> Any:
        if "step" not in case.keywords or name not in case.keywords or "m" not in case.inputs:
            return None
        step, keywords = case.keywords["step"], case.keywords
        other = "beta2" if name == "beta1" else "beta1"
        left, kept = 1 - keywords[name] ** step, 1 - keywords[other] ** step
        p, lr, eps = case.inputs["p"], keywords["lr"], keywords["eps"]

        def uncorrected(tensors: dict[str, Array]) -> dict[str, Array]:
            m, v = tensors["outputs.m"], tensors["outputs.v"]
            m_hat, v_hat = (m, v / kept) if name == "beta1" else (m / kept, v)
            decay = keywords.get("decay", 0)
            new = p * (1 - lr * decay) - lr * m_hat / (numpy.sqrt(v_hat) + eps)
            return {**tensors, "outputs.p": new}

        if left == 1 or case.operation != "adamw":
            return None
        return replace(case, inputs=dict(case.inputs)), uncorrected

    return changed


def _of_keywords() -> Iterator[tuple[str, str, Change]]:
    for eps in (0.0, 1e-3, 1e-5, 1e-6, 1e-8, 1e-12):
        yield "eps-fixed", f"whose eps is always {eps:g}", _keyword("eps", lambda _, __, eps=eps: eps)  # type: ignore[misc]
    yield (
        "smoothing-over-others",
        "whose smoothing is spread over the other V - 1 labels",
        _keyword("smoothing", _others),
    )
    yield "smoothing-unread", "without its smoothing", _keyword("smoothing", lambda *_: 0.0)
    yield "causal-unread", "without its causal mask", _keyword("causal", lambda value, _: False if value else None)
    yield "always-causal", "that is always causal", _keyword("causal", lambda value, _: None if value else True)
    yield "window-longer", "with a window of one key more", _keyword("window", lambda w, _: w + 1)
    yield "window-shorter", "with a window of one key less", _keyword("window", lambda w, _: w - 1 if w > 1 else None)
    yield "ignore-unread", "that ignores no label", _keyword("ignore", lambda x, _: None)
    for base in (10000.0, 500000.0, 100000.0, 1000000.0):
        yield "base-fixed", f"whose base is always {base:,.0f}", _keyword("base", lambda _, __, b=base: b)  # type: ignore[misc]
    for name in ("beta1", "beta2", "lr", "rate", "cap", "decay", "eps", "smoothing", "clip", "base"):
        for dtype in ("bfloat16", "float16", "float32"):
            yield f"{name}-in-{dtype}", f"whose {name} is {dtype}", _keyword(name, _narrowed(dtype))
    for bits in (8, 16):
        for how, of in (("", math.floor), (", rounded", round)):
            words = f"that keeps 1 - rate in {bits} bits{how}"
            yield f"kept-in-{bits}-bits", words, _keyword("rate", _fixed_point(bits, of))
    yield "scalars-in-float32", "whose scalars are all float32", _all_in_float32
    yield "renormalise-unread", "whose weights are not renormalised", _keyword("renormalise", lambda x, _: not x)


def _all_in_float32(case: Case) -> Case | None:
    """All numbers that are keywords in single precision; several, as one alone is another mistake."""
    held = {n: x for n, x in case.keywords.items() if isinstance(x, float)}
    made = {n: float(narrow(x, "float32")) for n, x in held.items()}
    if sum(made[n] != x for n, x in held.items()) < 2:
        return None
    return replace(case, inputs=dict(case.inputs), keywords={**case.keywords, **made})


def _fixed_point(bits: int, of: Callable[[float], int]) -> Callable[[Any, Case], Any]:
    """The rate whose complement is a multiple of 2^-bits."""

    def change(rate: Any, _: Case) -> Any:
        kept = of((1 - rate) * (1 << bits)) / (1 << bits)
        return 1 - kept if kept else None

    return change


def _others(smoothing: float, case: Case) -> float | None:
    V: int = case.inputs["logits"].shape[-1] if "logits" in case.inputs else 0
    return smoothing * V / (V - 1) if V > 1 else None


def _narrowed(dtype: str) -> Callable[[Any, Case], Any]:
    def change(value: Any, _: Case) -> Any:
        return float(narrow(value, dtype)) if isinstance(value, float) else None

    return change


# --- masks, heads, floats ---------------------------------------------------------------------------------------------


def _of_masks() -> Iterator[tuple[str, str, Change]]:
    def masks(change: Callable[[Array], Any]) -> Change:
        def changed(case: Case) -> Case | None:
            held = {n: x for n, x in case.keywords.items() if isinstance(x, numpy.ndarray) and x.dtype.kind == "b"}
            made = {n: change(x) for n, x in held.items()}
            if not made or all(numpy.array_equal(made[n], x) for n, x in held.items()):
                return None
            return replace(case, inputs=dict(case.inputs), keywords={**case.keywords, **made})

        return changed

    yield "mask-unread", "whose mask is not read", masks(numpy.ones_like)
    yield "mask-turned", "whose mask is turned round", masks(lambda x: ~x)
    yield (
        "mask-of-first",
        "in which all read the mask of the first",
        masks(lambda x: numpy.broadcast_to(x[:1], x.shape)),
    )
    for rows, keys in cached_keys.TILES:
        words = f"that counts its tiles of keys without S - T, of {rows:,} queries and {keys:,} keys"
        yield "tiles-without-offset", words, cached_keys.without_offset(rows, keys)
    for order, (words, group, parts) in ORDERS.items():
        yield f"mask-{order}", f"whose mask is read with {words}", masks(_in_order(group, parts, by_row=False))
        yield (
            f"mask-{order}",
            f"whose mask is read with {words}, row by row",
            masks(_in_order(group, parts, by_row=True)),
        )
    for multiple in (8, 32, 64, 16, 128, 4):
        padded = f"rows that are padded to multiples of {multiple}"
        yield (
            "mask-in-padded-rows",
            f"whose mask has {padded}, and is read as if nothing were between them",
            masks(_without_padding(multiple)),
        )
        yield "mask-as-if-padded", f"whose mask is read as if it had {padded}", masks(_as_if_padded(multiple))
    for name, words, change in packed_masks.masks():
        yield f"mask-{name}", f"whose mask {words}", masks(change)
    yield "mask-one-on", "whose mask is read one place on", masks(lambda x: numpy.roll(x, -1, axis=-1))


def _in_order(group: int, parts: int, *, by_row: bool) -> Callable[[Array], Array | None]:
    """Bits that are packed in groups, the last one filled with zeros, and whose parts are read in the reverse order."""

    def change(mask: Array) -> Array | None:
        rows = mask.reshape(-1, mask.shape[-1] if by_row else mask.size) if mask.size else mask.reshape(1, -1)
        if by_row and len(rows) == 1:
            return mask
        padded = numpy.pad(rows, ((0, 0), (0, -rows.shape[1] % group)))
        turned = padded.reshape(len(rows), -1, parts, group // parts)[:, :, ::-1]
        return turned.reshape(len(rows), -1)[:, : rows.shape[1]].reshape(mask.shape)

    return change


def _without_padding(multiple: int) -> Callable[[Array], Array]:
    """Rows that have zeros behind them in memory, read one after the other."""

    def change(mask: Array) -> Array:
        if mask.ndim < 2 or not mask.size:
            return mask
        padded = numpy.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, -mask.shape[-1] % multiple)])
        return padded.reshape(-1)[: mask.size].reshape(mask.shape)

    return change


def _as_if_padded(multiple: int) -> Callable[[Array], Array]:
    """Rows one after the other in memory, of which each is read where it would begin with zeros behind those before;
    behind the end of all there are zeros."""

    def change(mask: Array) -> Array:
        if mask.ndim < 2 or not mask.size:
            return mask
        n = mask.shape[-1]
        rows = numpy.arange(mask.size // n)[:, None] * (-(-n // multiple) * multiple)
        place = rows + numpy.arange(n)
        there = mask.reshape(-1)[numpy.minimum(place, mask.size - 1)] & (place < mask.size)
        return there.reshape(mask.shape)

    return change


def _of_heads() -> Iterator[tuple[str, str, Change]]:
    def changed(case: Case) -> Any:
        heads, shared = case.keywords.get("heads"), case.keywords.get("kv_heads")
        if not isinstance(heads, int) or not isinstance(shared, int) or "p.Wq" not in case.inputs or heads == shared:
            return None
        group = heads // shared
        order = numpy.array([p % group * shared + p // group for p in range(heads)])
        if (order == numpy.arange(heads)).all():
            return None
        Wq, Wo = case.inputs["p.Wq"], case.inputs["p.Wo"]
        columns = numpy.arange(Wq.shape[1]).reshape(heads, -1)[order].reshape(-1)
        back = numpy.argsort(columns)
        inputs = {**case.inputs, "p.Wq": Wq[:, columns], "p.Wo": Wo[columns]}

        def in_order(tensors: dict[str, Array]) -> dict[str, Array]:
            found = dict(tensors)
            if "gradients.p.Wq" in found:
                found["gradients.p.Wq"] = found["gradients.p.Wq"][:, back]
                found["gradients.p.Wo"] = found["gradients.p.Wo"][back]
            return found

        return replace(case, inputs=inputs), in_order

    about = "whose query head h attends the keys of head h % (the number of key heads)"
    yield "heads-by-remainder", about, changed


def _floats(change: Callable[[Array], Array]) -> Change:
    def changed(case: Case) -> Case | None:
        made = {n: change(x) if x.dtype.kind == "f" else x for n, x in case.inputs.items()}
        same = all(numpy.array_equal(x, case.inputs[n], equal_nan=True) for n, x in made.items())
        return None if same else replace(case, inputs=made)

    return changed


def _flushed(x: Array) -> Array:
    return numpy.where(abs(x) < SMALLEST, 0, x)


def _scaled(factor: float) -> Change:
    """The scores, or what a softmax is taken of, times a factor; the gradient goes back through it."""

    def changed(case: Case) -> Any:
        name = "q" if "attention" in case.operation else "x" if case.operation == "softmax" else ""
        return _multiplied(name, factor)(case)

    return changed
