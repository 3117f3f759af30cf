"""What a wrong tensor has in common with its truth where no known mistake explains it: a factor, another row's numbers,
old contents, a border.

    lines = relations(case, {"outputs.y": y}, truth, wrong)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy

from refllm.backend import Array
from refllm.verify.case import Case
from refllm.verify.kernels import axes, ratios
from refllm.verify.kernels.growth import growth
from refllm.verify.kernels.places import places
from refllm.verify.kernels.ratios import Scaled
from refllm.verify.tolerance import UNIT

SLACK = 256.0  # roundings that a common factor may be off by
EXPLAINED = 0.05  # the share of the error that a fit may leave
APPROXIMATE = 0.5  # the share of the truth that the error of an approximation may be
ROWS = 8  # wrong rows that are looked for among the right ones
DIFFERENT = 1e-5  # the share by which factors of cases are others
LISTED = 4  # factors that are said one by one
CONSTANTS = {
    1 / math.log(2): "1 / ln 2", math.log(2): "ln 2", math.sqrt(2): "√2", 1 / math.sqrt(2): "1 / √2",
    math.log(10): "ln 10", 1 / math.log(10): "1 / ln 10", math.pi: "π", 2 / math.pi: "2 / π", math.e: "e",
    math.sqrt(2 / math.pi): "√(2/π)",
}  # fmt: skip
BORDER = "wrong index of axis"
SEVERAL = 2  # cases of which a formula explains all answers
TILE = 16  # the smallest whose borders are said


def relations(case: Case, name: str, x: Array, truth: Array, wrong: Array, unit: float = UNIT["float32"]) -> list[str]:
    """A sentence for each relation of a tensor ("outputs.y") to its truth, the first that hold."""
    x, words = x.astype("float64"), said(name)
    with numpy.errstate(all="ignore"):
        for find in (_contents, _elsewhere, _factor, _of_rows, _of_the_input):
            if line := find(case, words, x, truth, wrong, unit):
                return [line, *_border(words, wrong)]
        line = growth(words, x, truth, unit)
    return [line] * bool(line) + _border(words, wrong)


def said(name: str) -> str:
    group, _, rest = name.partition(".")
    return f"{'output' if group == 'outputs' else 'gradient of'} {rest}"


def _contents(case: Case, words: str, x: Array, truth: Array, wrong: Array, unit: float) -> str:
    """What the wrong elements hold, if it is nothing that was computed."""
    held = x[wrong]
    share = "every wrong element" if held.size > 1 else "the wrong element"
    if not held.any():
        return f"{words}: {share} is 0: not written, or left out"
    if numpy.isnan(held).all():
        return f"{words}: {share} is NaN: memory that was not written, ∞ - ∞ or 0 / 0"
    if held.size > 1 and (held == held[0]).all():
        return f"{words}: {share} is {held[0]:.6g}"
    for other, values in case.inputs.items():
        if values.shape == x.shape and held.size > 1 and numpy.array_equal(held, values[wrong].astype("float32")):
            return f"{words}: {share} is that of the input {other}: not renewed"
    return ""


def _elsewhere(case: Case, words: str, x: Array, truth: Array, wrong: Array, unit: float) -> str:
    """That wrong rows or columns hold what belongs into others."""
    for axis, name in ((-1, "row"), (-2, "column")):
        if x.ndim < 2:
            return ""
        mine, right, off = (numpy.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in (x, truth, wrong))
        rows = numpy.flatnonzero(off.any(axis=1))[:ROWS]
        if mine.shape[1] < 3 or len(mine) < 2 or right.size > 1 << 22 or not len(rows):
            continue
        found = [(int(r), _like(mine[r], right, int(r), unit)) for r in rows]
        pairs = [(r, other) for r, other in found if other is not None and other != r]
        if len(pairs) < max(1, (len(rows) + 1) // 2):
            continue
        [(step, times)] = Counter(other - r for r, other in pairs).most_common(1)
        if times > 1 and 4 * times >= 3 * len(rows):
            beside = f"{abs(step):,} {'behind' if step > 0 else 'before'} them"
            return f"{words}: wrong {name}s hold what belongs into the {name} {beside}"
        if len(pairs) > 1 and len({other for _, other in pairs}) == 1:
            return f"{words}: wrong {name}s hold what belongs into {name} {pairs[0][1]:,}"
        r, other = pairs[0]
        more = f", {name} {pairs[1][0]:,} that of {pairs[1][1]:,}" if len(pairs) > 1 else ""
        return f"{words}: {name} {r:,} holds what belongs into {name} {other:,}{more}"
    return ""


def _like(row: Array, right: Array, own: int, unit: float) -> int | None:
    """The row of the truth that a wrong row is, if it is much nearer to it than to its own."""
    size, away = float(abs(row).max()), float(abs(right[own] - row).max())
    if not size or not math.isfinite(size) or (row == row[0]).all():
        return None
    near = (abs(right - row) <= min(SLACK * unit * size, EXPLAINED * away)).all(axis=1)
    return int(numpy.argmax(near)) if near.any() else None


def _factor(case: Case, words: str, x: Array, truth: Array, wrong: Array, unit: float) -> str:
    """That the wrong elements are the truth times a number, or plus one."""
    here = wrong & numpy.isfinite(x) & numpy.isfinite(truth)
    if here.sum() < min(3, wrong.size) or here.sum() < wrong.sum():
        return ""
    got, want = x[here], truth[here]
    where = "the answer" if 2 * wrong.sum() > wrong.size else "the wrong part"
    top = float(abs(want).max())
    factor = float(got @ want / (want @ want)) if top else 0.0
    if factor and got.size > 2 and _fits(got, want, factor * want, SLACK * unit * abs(factor) * top):
        return f"{words}: {where} is {factor:.6g} times the truth{_named(factor, case)}"
    by = float((got - want).mean())
    if got.size > 2 and _fits(got, want, want + by, SLACK * unit * max(top, abs(by))):
        return f"{words}: {where} is the truth and {by:.6g} more{_named(by, case)}"
    if got.size > 8:
        middle = want - want.mean()
        slope = float(middle @ got / (middle @ middle)) if middle.any() else math.nan
        added = float((got - slope * want).mean())
        if _fits(got, want, slope * want + added, SLACK * unit * (abs(slope) * top + abs(added))):
            return f"{words}: {where} is {slope:.6g} times the truth and {added:.6g} more"
    return ""


def factors(
    wrong: dict[str, Array], given: dict[str, Array], truth: Callable[[str], Array], unit: float
) -> dict[str, tuple[float, int]]:
    """Of each wrong tensor whose wrong elements are their truth times one number, that number, and of how many."""
    found = {}
    for name, off in wrong.items():
        got, want = given[name][off].astype("float64"), truth(name)[off]
        if got.size < 1 or not numpy.isfinite(got).all() or not numpy.isfinite(want).all() or not want.any():
            continue
        factor = float(got @ want / (want @ want))
        if factor and _fits(got, want, factor * want, SLACK * unit * abs(factor) * float(abs(want).max())):
            found[name] = factor, got.size
    return found


@dataclass(frozen=True)
class Factor:
    """That answers are their truth times a number which a formula gives, as a cause."""

    about: str
    id: str = ""
    issue: str | None = None
    gradients_alone: bool = False

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return []

    def answer(self, case: Case, dtype: str) -> None:
        return None


def formulas(all_factors: list[dict[str, Scaled]], unit: float) -> list[str]:
    """For each tensor the formula of its number, if there is one for all and they are of several cases."""
    lines = list[str]()
    for name in dict.fromkeys(name for each in all_factors for name in each):
        cases = [each[name] for each in all_factors if name in each]
        formula = ratios.said(cases, unit)
        if not formula or len(cases) < SEVERAL:
            return []
        lines.append(f"{said(name)}: the answer is the truth times {formula}")
    return lines


def said_of_factors(all_factors: list[dict[str, Scaled]], unit: float) -> list[str]:
    """What cases have in common whose answers are their truth times a number: a formula of it, or several numbers."""
    lines = list[str]()
    for name in dict.fromkeys(name for each in all_factors for name in each):
        cases = [each[name] for each in all_factors if name in each]
        held = sorted(each.factor for each in cases)
        several = held[-1] - held[0] > DIFFERENT * abs(held[-1]) and all(each.elements > 1 for each in cases)
        of = f"in {len(held)} of {len(all_factors)} cases that were compared "
        if formula := ratios.said(cases, unit):
            only = of if len(held) < len(all_factors) else ""
            lines.append(f"{said(name)}: {only}the answer is the truth times {formula}")
        elif several:
            listed = ", ".join(f"{x:.6g}" for x in held)
            numbers = listed if len(held) <= LISTED else f"from {held[0]:.6g} to {held[-1]:.6g}"
            lines.append(f"{said(name)}: {of}the answer is the truth times a number, {numbers}")
    return lines


def _fits(got: Array, want: Array, fitted: Array, allowed: Array | float) -> bool:
    """Whether every number is the fitted one, and nearly all of the error is explained by it."""
    left, error = got - fitted, got - want
    return bool((abs(left) <= allowed).all()) and float((left**2).sum()) <= EXPLAINED**2 * float((error**2).sum())


def _named(factor: float, case: Case) -> str:
    """What the factor is, as far as constants and the sizes of the case tell it."""

    def is_it(value: float) -> bool:
        return abs(factor - value) <= 1e-4 * abs(value)

    if float(f"{factor:.3g}") == float(f"{factor:.6g}") and abs(factor) in (2, 0.5, 1, 4, 0.25):
        return ""
    for value, words in CONSTANTS.items():
        if is_it(value):
            return f" ({words})"
    for letter, n in axes.sizes(case).items():
        forms = {n: letter, 1 / n: f"1 / {letter}", math.sqrt(n): f"√{letter}", 1 / math.sqrt(n): f"1 / √{letter}"}
        if n > 2:
            forms |= {n / (n - 1): f"{letter} / ({letter} - 1)", (n - 1) / n: f"({letter} - 1) / {letter}"}
        for value, words in forms.items():
            if n > 1 and is_it(value):
                return f" ({words}, {letter} = {n:,})"
    return ""


def _of_rows(case: Case, words: str, x: Array, truth: Array, wrong: Array, unit: float) -> str:
    """That each wrong row is its truth times a number of its own, or that and no more: its sum or its mean is wrong."""
    if x.ndim < 1 or x.shape[-1] < 4 or not numpy.isfinite(x).all() or not numpy.isfinite(truth).all():
        return ""
    rows = wrong.reshape(-1, x.shape[-1]).any(axis=1)
    got, want = x.reshape(-1, x.shape[-1])[rows], truth.reshape(-1, x.shape[-1])[rows]
    size = abs(want).max(axis=1, keepdims=True)
    factors = (got * want).sum(axis=1, keepdims=True) / (want * want).sum(axis=1, keepdims=True)
    if not _are_multiples(truth, unit) and _fits(got, want, factors * want, SLACK * unit * abs(factors) * size):
        low, high = float(factors.min()), float(factors.max())
        between = f"({low:.6g} to {high:.6g})"
        return f"{words}: each wrong row is its truth times a number of its own {between}: a sum of the row is wrong"
    added = (got - want).mean(axis=1, keepdims=True)
    if _fits(got, want, want + added, SLACK * unit * (size + abs(added))):
        between = f"({added.min():.6g} to {added.max():.6g})"
        return f"{words}: each wrong row is its truth and a number of its own more {between}"
    return ""


def _are_multiples(truth: Array, unit: float) -> bool:
    """Whether the rows of the truth are multiples of one row, as the gradient of keys is that one query attends: then
    so are wrong ones, whatever is wrong with them."""
    if truth.ndim < 2 or truth.shape[-2] < 2:
        return False
    largest = numpy.argmax((truth * truth).sum(axis=-1), axis=-1)[..., None, None]
    one = numpy.take_along_axis(truth, largest, axis=-2)
    squares = (one * one).sum(axis=-1, keepdims=True)
    factors = (truth * one).sum(axis=-1, keepdims=True) / numpy.where(squares == 0, 1, squares)
    return bool((abs(truth - factors * one) <= SLACK * unit * abs(truth).max(initial=0)).all())


def _of_the_input(case: Case, words: str, x: Array, truth: Array, wrong: Array, unit: float) -> str:
    """That the error is a function of the number alone, as that of an approximation is."""
    inputs = [values for values in case.inputs.values() if values.dtype.kind == "f"]
    if len(inputs) != 1 or inputs[0].shape != x.shape or not words.startswith("output"):
        return ""
    of, got = inputs[0][wrong], x[wrong]
    order = numpy.argsort(of, kind="stable")
    of, got, want = of[order], got[order], truth[wrong][order]
    again = of[1:] == of[:-1]
    if again.sum() < 8 or 4 * wrong.sum() < wrong.size or (got[1:][again] != got[:-1][again]).any():
        return ""
    if float(((got - want) ** 2).sum()) > APPROXIMATE**2 * float((want**2).sum()):
        return ""
    if _differs(inputs[0].reshape(-1), truth.reshape(-1)):
        return ""  # the truth is no function of the number alone either
    error = abs(got - want)
    at = int(error.argmax())
    relative = error[at] / abs(want[at]) if want[at] else math.inf
    return (
        f"{words}: the error is a function of the number alone, at most {error[at]:.3g} ({relative:.2g} of the "
        f"truth) at x = {of[at]:.6g}: an approximation of the exponential, tanh or erf, or a constant of few digits"
    )


def _differs(of: Array, value: Array) -> bool:
    """Whether equal numbers have several values."""
    order = numpy.argsort(of, kind="stable")
    of, value = of[order], value[order]
    return bool(((of[1:] == of[:-1]) & (value[1:] != value[:-1])).any())


def _border(words: str, wrong: Array) -> list[str]:
    """Where the wrong elements begin or end, if that is at the border of a tile: other places say nothing."""
    if wrong.size < 2 or wrong.all() or not wrong.any():
        return []
    lines = []
    for axis in range(wrong.ndim):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        places = numpy.flatnonzero(wrong.any(axis=others))
        n, first, last = wrong.shape[axis], int(places[0]), int(places[-1])
        if n < TILE or len(places) < 3:
            continue
        if first >= max(TILE, n // 64) and first % TILE == 0 and len(places) > (n - first) // 8:
            lines.append(f"the first {BORDER} {axis} is {first:,} of {n:,}{_multiple(first)}")
        elif n - 1 - last >= max(4, n // 64) and (last + 1) % TILE == 0 and len(places) > last // 8:
            lines.append(f"the last {BORDER} {axis} is {last:,} of {n:,}{_multiple(last + 1, ' - 1')}")
    return [f"{words}: {' and '.join(lines)}"] if lines else []


def _multiple(n: int, more: str = "") -> str:
    for part in (1024, 512, 256, 128, 64, 32, 16):
        if n and n % part == 0:
            return f" ({n // part:,} × {part:,}{more})" if n != part else ""
    return ""


def lines_of(
    case: Case, wrong: dict[str, Array], given: dict[str, Array], truth: Callable[[str], Array], unit: float
) -> Iterator[str]:
    """The relations of every wrong tensor, the outputs first."""
    for name, off in wrong.items():
        where = [f"{said(name)}: wrong {words}" for words in places(case, name, off)]
        found = relations(case, name, given[name], truth(name), off, unit)
        yield from [line for line in found if not where or BORDER not in line] + where
