"""Numbers that are drawn when the run begins: an answer that was stored, or is always the same, is wrong for them.

They have the signs and the magnitudes of the numbers of a case, in another order, and 8 significant bits. The text
answers them in float64. How far rounding may take an answer is measured on the text: how much it moves when every input
is off by a small random share of itself; and it is no less than what the case allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy

from refllm.backend import Array
from refllm.verify import plain
from refllm.verify.case import Case, Response, Truth
from refllm.verify.law import Law
from refllm.verify.laws.trial import Base, Trial

FRESH = "numbers that nobody has stored"
SHARE = 2.0**-20  # by which inputs are off; their effect is measured to 2^-33
DRAWS = 6
MARGIN = 4.0  # the largest of so few draws is not the largest that there is
HIGHEST = 3


def fresh(base: Base) -> Iterator[Trial]:
    case = base.case
    if not 1 <= case.level <= HIGHEST or base.declares or not _can_be_drawn(case):
        return
    from refllm.verify.runner import judged, unfit_for

    rng = numpy.random.default_rng([base.seed, *case.id.encode()])
    drawn = _with_truth(_drawn(case, rng), case, rng)
    if drawn is None or unfit_for(drawn, base.dtype, base.C):
        return
    done = f"with inputs that were drawn when this run began (seed {base.seed})"

    def judge(response: Response) -> Law | None:
        wrong = [
            v.message for v in judged(drawn, response, base.dtype, base.C).verdicts if v.wrong not in ("", "dtype")
        ]
        return Law(FRESH, True, f"{done}, {wrong[0]}") if wrong else None

    yield Trial(FRESH, drawn, done, judge)


def _can_be_drawn(case: Case) -> bool:
    """Finite numbers, no decision that a tie could tip, and no number that is formed in float64 in every run."""
    truths = [*case.outputs.values(), *case.gradients.values()]
    return (
        case.operation in plain.operations() and case.margin is None
        and any(x.dtype.kind == "f" and x.any() for x in case.inputs.values())
        and all(numpy.isfinite(x).all() for x in case.inputs.values() if x.dtype.kind == "f")
        and all(t.value.dtype.kind == "f" and t.wide is None and t.condition is not None for t in truths)
    )  # fmt: skip


def _drawn(case: Case, rng: numpy.random.Generator) -> Case:
    def over(arrays: dict[str, Array]) -> dict[str, Array]:
        return {name: redrawn(x, rng) if x.dtype.kind == "f" else x for name, x in arrays.items()}

    return replace(case, inputs=over(case.inputs), cotangents=over(case.cotangents), taps={}, alternatives={})


def redrawn(x: Array, rng: numpy.random.Generator) -> Array:
    """Numbers of 8 significant bits with the signs and exponents of those of x, in another order."""
    mixed = rng.permutation(x.reshape(-1)).reshape(x.shape)
    mantissa, exponent = numpy.frexp(mixed)
    new = rng.integers(128, 256, x.shape) / 256
    kept = numpy.abs(mantissa) == 0.5  # powers of two stay: 1 is often the largest that a number may be
    return numpy.asarray(numpy.ldexp(numpy.where(kept | (mixed == 0), mantissa, numpy.sign(mixed) * new), exponent))


def _with_truth(drawn: Case, like: Case, rng: numpy.random.Generator) -> Case | None:
    """The case with what the text answers; None where the text raises, or its answer is not finite."""
    own = plain.answer(drawn, "float64", {}, traced=False)
    if own is None or not _finite(own):
        return None
    others = [plain.answer(_off(drawn, rng), "float64", {}, traced=False) for _ in range(DRAWS)]
    if any(other is None for other in others):
        return None

    def truths(group: str, stored: dict[str, Truth]) -> dict[str, Truth]:
        found = {}
        for name, truth in stored.items():
            value = getattr(own, group)[name]
            moved = [numpy.abs(getattr(other, group)[name] - value) / SHARE for other in others]
            least = truth.condition.max(initial=0) if truth.condition is not None else 0
            found[name] = Truth(value, MARGIN * (numpy.max(moved, axis=0) + least))
        return found

    gradients = truths("gradients", like.gradients) if own.gradients is not None else {}
    return replace(drawn, outputs=truths("outputs", like.outputs), gradients=gradients)


def _off(case: Case, rng: numpy.random.Generator) -> Case:
    def off(x: Array) -> Array:
        return numpy.asarray(x * (1 + SHARE * rng.uniform(-1, 1, x.shape))) if x.dtype.kind == "f" else x

    inputs, cotangents = ({n: off(x) for n, x in arrays.items()} for arrays in (case.inputs, case.cotangents))
    return replace(case, inputs=inputs, cotangents=cotangents)


def _finite(response: Response) -> bool:
    arrays = [*response.outputs.values(), *(response.gradients or {}).values()]
    return all(numpy.isfinite(x).all() for x in arrays)
