"""What an implementation stores in which type: its plan, and how far a right one may be from the truth under it.

    plan = plans.plan("fused", "bfloat16")
    values, gradients = plan.evaluate("attention", {"q": q, "k": k, "v": v}, {"causal": True, "attention_mask": None},
                                      {"y": dy})
    z = abs(y - values["y"].value) / plan.deviation(values["y"])       right while z <= plan.limit

A plan says in which type each named intermediate value of the text is stored, in which type sums are accumulated, how
many terms one accumulator takes, and which type the factors of matrix products are rounded to:

    {"stored": {"probabilities": "bfloat16"}, "accumulate": "float32", "chain": 512, "factors": "bfloat16"}

The type "dtype" is that of the run.

`eager` stores every named value in the dtype of the run, as an implementation does that calls one operation after the
other. `fused` stores the probabilities and the gradients that pass through them, and keeps the rest in float32. Inputs
and outputs are stored in the dtype in either. Names are those that a line of refllm/spec gives (P, dP, s), those of
`tap`, or the words of `WORDS`; "*" is every name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from refllm.backend import Array
from refllm.errors import UserError
from refllm.numbers import named
from refllm.numbers.formats import FORMATS, Format
from refllm.numbers.spread import Arithmetic, lift
from refllm.numbers.spread_value import Source, Spread
from refllm.spec.array import watched

LIMIT = 12.0  # standard deviations
CHAIN = 1 << 20  # terms that one accumulator takes: all of a sum, as in a plain loop
KEPT = 256  # terms of a mean that is kept up to date term by term, where a sum would round nothing
EVERY = "*"
_OWN = "dtype"  # the type of the run
WORDS = {
    "probabilities": ("P", "p"),
    "gradient of the probabilities": ("dP", "dp"),
    "scores": ("s",),
    "gradient of the scores": ("ds",),
    "exponentials": ("e",),
    "normalised": ("n",),
}
_THROUGH_PROBABILITIES = ("P", "p", "dP", "dp", "ds")
_LARGE, _REACH = 2.0**-9, 3.0  # from which error on a function is not straight, and as how many deviations it counts
_KEYS = ("stored", "accumulate", "chain", "factors")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan for a run in one dtype."""

    name: str
    dtype: str
    stored: Mapping[str, str]
    accumulate: str = "float32"
    chain: int = CHAIN
    factors: str | None = None
    limit: float = LIMIT

    def evaluate(
        self,
        operation: str | Callable[..., Any],
        inputs: Mapping[str, Any],
        keywords: Mapping[str, Any],
        cotangents: Mapping[str, Any] | None = None,
        outputs: Sequence[str] = (),
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of a function of the text and its gradients, by the names of its outputs and of its inputs.

        Inputs come in the order of the function's arguments; trees are flattened, "p.W1". Without cotangents there
        are no gradients. `outputs` names what is returned where no cotangent does.
        """
        function = self.functions()[operation] if isinstance(operation, str) else operation
        with self.running() as enter, numpy.errstate(all="ignore"):
            returned = function(*(enter(x) for x in inputs.values()), **keywords)
            with_back = isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])
            y, back = returned if with_back else (returned, None)
            gradients = back(*(enter(x) for x in cotangents.values())) if back and cotangents else None
        values = self.stored_leaves(flattened(y, list(outputs or cotangents or ())))
        return values, {} if gradients is None else self.stored_leaves(flattened(gradients, list(inputs)))

    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions of the text that show what they name, to be called while the plan is `running`."""
        return named.functions()

    def running(self) -> _Running:
        """A context in which these functions store what the plan says; as a variable, what makes inputs of arrays."""
        return _Running(self)

    def deviation(self, y: Any) -> Array:
        """The standard deviation of every element, infinite where nothing can be said: beyond an overflow."""
        if not isinstance(y, Spread):
            return numpy.zeros(numpy.shape(y))
        with numpy.errstate(all="ignore"):
            found = numpy.sqrt(y.variance)
        return numpy.where(numpy.isnan(found), math.inf, found)

    def stored_leaves(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs in the dtype of the run."""
        return {name: self.arithmetic.stored(x, self.carrier) for name, x in leaves.items()}

    @property
    def carrier(self) -> str:
        """The type of inputs and outputs: tf32 is one of the factors of products alone."""
        return "float32" if self.dtype == "tf32" else self.dtype

    @functools.cached_property
    def arithmetic(self) -> Planned:
        accumulate = FORMATS[self.accumulate]
        lost = accumulate.smallest * (accumulate.unit if accumulate.gradual else 1)
        products = self.stored.get(EVERY)
        return Planned(self.chain, lost, accumulate.unit, self.factors, self.carrier, products)

    @functools.cached_property
    def types(self) -> dict[str, str]:
        """The type that each name of the text is stored in."""
        return {own: dtype for name, dtype in self.stored.items() for own in WORDS.get(name, (name,))}

    def type_of(self, name: str) -> str | None:
        """The type that a name of the text is stored in; of a part's, `layers.0.norm`, the last word will do."""
        return self.types.get(name) or self.types.get(name.rpartition(".")[2]) or self.types.get(EVERY)


class _Running:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._watch = watched(self._seen)

    def __enter__(self) -> Callable[[Any], Any]:
        self._watch.__enter__()
        return self._entered

    def __exit__(self, *problem: Any) -> None:
        self._watch.__exit__(*problem)

    def _entered(self, x: Any) -> Any:
        """An input: a number of the dtype."""
        return _over(lambda leaf: self.plan.arithmetic.stored(leaf, self.plan.carrier), lift(x, self.plan.arithmetic))

    def _seen(self, name: str, x: Any) -> Any:
        dtype = self.plan.type_of(name)
        return x if dtype is None else _over(lambda leaf: self.plan.arithmetic.stored(leaf, dtype), x)


@dataclasses.dataclass(frozen=True)
class Planned(Arithmetic):
    """The arithmetic of the type that sums are accumulated in; values that are stored are rounded to their own type.

    Variances are absolute. Where a value overflows the type that it is stored in, an implementation goes on with an
    infinity, and of what depends on it nothing can be said: the variance is infinite there.
    """

    factors: str | None = None
    carrier: str = "float32"  # of the outputs
    products: str | None = None  # of the results of matrix products, where every value is stored

    def steepness(self, f: Callable[[Array], Array], x: Spread, slope: Array) -> Array:
        """The largest mean slope about x, where its error is too large to go by the derivative."""
        deviations = numpy.sqrt(x.variance)
        if not (deviations > _LARGE).any():
            return slope
        reach = _REACH * deviations
        mean = numpy.abs(f(x.value + reach) - f(x.value - reach)) / (2 * reach)
        found: Array = numpy.where(deviations > _LARGE, numpy.fmax(numpy.abs(slope), mean), slope)
        return found

    def stored(self, x: Any, dtype: str) -> Any:
        """x as a number of that type."""
        if not isinstance(x, Spread) or x.held == dtype or FORMATS[dtype].unit <= self.unit:
            return x
        return Spread(x.value, x.own + _of_storing(x, FORMATS[dtype]), self, dtype, x.shared, x.kinds)

    def over(self, a: Spread, b: Spread) -> Spread:
        """Of a divisor that may be near to 0 nothing is known, and what it divides may be anything."""
        y = super().over(a, b)
        with numpy.errstate(all="ignore"):
            nearest = 1 - _REACH * numpy.sqrt(b.variance) / numpy.abs(b.value)
            if not (nearest < 1 - _LARGE).any():
                return y
            more = y.value / b.value * numpy.sqrt(b.variance) * (1 / numpy.fmax(nearest, 0) - 1)
            further = numpy.where((b.variance == 0) | (y.value == 0), 0, more * more)
        return Spread(y.value, y.own + further, self, None, y.shared, y.kinds)

    def sum(self, x: Spread, axis: int, keepdims: bool) -> Spread:
        """Where every partial sum is a number of the type, in whatever order, no digits are cut off, so none are cut
        off alike; a mean that is kept up to date term by term (Welford) still rounds."""
        y = super().sum(x, axis, keepdims)
        if math.isinf(x.kinds) or x.shared or x.own.any() or not numpy.isfinite(x.value).all():
            return y
        kept = dataclasses.replace(self, chain=min(self.chain, KEPT))
        apart = Arithmetic.sum(kept, Spread(x.value, 0.0, self), axis, keepdims)
        exact = numpy.abs(x.value).sum(axis=axis, keepdims=keepdims) * self.unit <= _step(x.value)
        return Spread(y.value, numpy.where(exact, apart.own, y.own), self, None, None, y.kinds)

    def matmul(self, a: Spread, b: Spread) -> Spread:
        if self.factors is not None:
            a, b = self.stored(a, self.factors), self.stored(b, self.factors)
        y = super().matmul(a, b)
        return y if self.products is None else self.stored(y, self.products)

    def through_softmax(self, ds: Spread, dP: Spread, P: Spread, dy: Spread, y: Spread) -> Spread:
        """ds = P (dP - D), where D = Σ P dP may have been found as Σ dy y from the stored output."""
        D = self.sum(self.times(P, dP), -1, True)
        read = self.sum(self.times(dy, self.stored(y, self.carrier)), -1, True)
        with numpy.errstate(all="ignore"):
            further = numpy.sqrt(numpy.maximum(read.variance - D.variance, 0))
            return Spread(ds.value, ds.own, self, ds.held, {**ds.shared, Source(): -P.value * further}, ds.kinds)


def _step(x: Array) -> float:
    """The largest power of two of which all numbers are multiples."""
    mantissa, exponent = numpy.frexp(x[x != 0])
    if not mantissa.size:
        return math.inf
    digits = numpy.ldexp(mantissa, 53).astype(numpy.int64)
    lowest = numpy.frexp((digits & -digits).astype(float))[1] - 1
    return math.ldexp(1.0, int((lowest + exponent - 53).min()))


def _of_storing(x: Spread, format: Format) -> Array:
    """The variance that rounding to the type adds."""
    y = x.value
    with numpy.errstate(all="ignore"):
        exact = (x.variance == 0) & format.holds(y)
        lost = 0.0 if format.gradual else format.smallest**2
        rounding = Arithmetic(unit=format.unit).of_rounding(y * y) + lost
        if format.gradual:  # below the smallest normal number the spacing is that above it, every error being as likely
            rounding = numpy.where(abs(y) < format.smallest, (format.unit * format.smallest) ** 2 / 3, rounding)
        own = numpy.where(exact, 0, rounding)
        beyond = numpy.isfinite(y) & (numpy.abs(y) > format.largest * (1 + format.unit / 2))
        return numpy.where(beyond, math.inf, numpy.where(numpy.isfinite(y), own, 0))


def _over(f: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, dict):
        return {name: _over(f, branch) for name, branch in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(_over(f, branch) for branch in x)
    return f(x)


def flattened(found: Any, names: Sequence[str]) -> dict[str, Any]:
    """Leaves by name: a tuple has one entry for each name, in order."""
    parts = found if isinstance(found, tuple) else (found,)
    own = names if len(names) == len(parts) else ["y", *(f"y{n}" for n in range(1, len(parts)))]
    leaves: dict[str, Any] = {}
    for name, part in zip(own, parts, strict=True):
        _flatten(name, part, leaves)
    return leaves


def _flatten(name: str, x: Any, leaves: dict[str, Any]) -> None:
    if isinstance(x, dict | list):
        for key, branch in x.items() if isinstance(x, dict) else enumerate(x):
            _flatten(f"{name}.{key}", branch, leaves)
    else:
        leaves[name] = x


# --- what a plan may say ---------------------------------------------------------------------------------------------


def plan(said: str | Mapping[str, Any], dtype: str, where: str = "PLAN") -> Plan:
    """The plan of that name, or the one that a mapping describes, for runs in the dtype. UserError if it is none."""
    if isinstance(said, str):
        return _by_name(said, dtype, where)
    if not isinstance(said, Mapping) or not all(isinstance(key, str) for key in said):
        raise UserError(f'{where} must be "eager", "fused" or a dict, as {_EXAMPLE}; it is {said!r:.80}')
    if unknown := sorted(set(said) - set(_KEYS)):
        raise UserError(f"{where} says {unknown[0]!r:.40}; a plan has {', '.join(_KEYS)}, as in {_EXAMPLE}")
    chain = said.get("chain", CHAIN)
    if not isinstance(chain, int) or isinstance(chain, bool) or chain < 1:
        raise UserError(f"{where}: chain must be a whole number of terms, 1 or more; it is {chain!r:.40}")
    accumulate = _type(said.get("accumulate", _accumulator(dtype)), dtype, f"{where}: accumulate")
    factors = None if said.get("factors") is None else _type(said["factors"], dtype, f"{where}: factors")
    return Plan("own", dtype, _stored(said.get("stored", {}), dtype, where), accumulate, chain, factors)


_EXAMPLE = '{"stored": {"probabilities": "bfloat16"}, "accumulate": "float32", "chain": 64}'


def _by_name(name: str, dtype: str, where: str) -> Plan:
    if name not in ("eager", "fused"):
        raise UserError(f'{where} is {name!r:.40}; plans with a name are "eager" and "fused", or say {_EXAMPLE}')
    stored = dict.fromkeys(_THROUGH_PROBABILITIES, dtype) if name == "fused" else {EVERY: dtype}
    factors = None if FORMATS[dtype].unit <= FORMATS[_accumulator(dtype)].unit else dtype
    if dtype == "tf32":  # a type of the factors alone: what is stored is float32
        stored = {}
    return Plan(name, dtype, stored, _accumulator(dtype), CHAIN, factors)


def _accumulator(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _stored(found: Any, dtype: str, where: str) -> dict[str, str]:
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise UserError(f'{where}: stored must be a dict of types by name, as {{"probabilities": "bfloat16"}}')
    types = {name: _type(each, dtype, f"{where}: stored[{name!r:.40}]") for name, each in found.items()}
    known = named.names() | set(WORDS) | {EVERY}
    if unknown := [name for name in found if name.rpartition(".")[2] not in known]:
        raise UserError(
            f"{where}: stored names {unknown[0]!r:.40}, and no line of the text does; names are those of refllm/spec, "
            f"such as P or dP, or {', '.join(WORDS)}"
        )
    return types


def _type(found: Any, dtype: str, what: str) -> str:
    if not isinstance(found, str) or found not in (*FORMATS, _OWN):
        known = ", ".join(FORMATS)
        raise UserError(f'{what} must be one of {known}, or "{_OWN}" for that of the run; it is {found!r:.40}')
    return dtype if found == _OWN else found
