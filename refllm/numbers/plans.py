"""What an implementation stores in which type: its plan, and how far a right one may be from the truth under it.

    plan = plans.plan("fused", "bfloat16")
    values, gradients = plan.evaluate("attention", {"q": q, "k": k, "v": v}, {"causal": True, "attention_mask": None},
                                      {"y": dy})
    z = abs(y - values["y"].value) / plan.deviation(values["y"])       right while z <= plan.limit

A plan says in which type each named intermediate value of the text is stored, in which type sums are accumulated, how
many terms one accumulator takes, and which type the factors of matrix products are rounded to:

    {"stored": {"probabilities": "bfloat16"}, "accumulate": "float32", "chain": 512, "factors": "bfloat16"}
    {"accumulate": {"over rows": "bfloat16", "products": {"type": "bfloat16", "block": 512}}}

The type "dtype" is that of the run. Each kind of sum may be added up in a type of its own (`SUMS`).

`eager` stores every named value in the dtype of the run, as an implementation does that calls one operation after the
other. `fused` stores the probabilities and the gradients that pass through them, and keeps the rest in float32. Inputs
and outputs are stored in the dtype in either. `narrow` is `eager` with sums over rows, and by index, added up in the
dtype, and the mean of a row kept in it for the pullback, as PyTorch does on a CPU. Names are those that the lines of
refllm/spec give (P, dP, s), those of `tap`, or the words of `WORDS`; "*" is every name.
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
from refllm.numbers.formats import FORMATS
from refllm.numbers.planned import CHAIN, SUMS, Accumulator, Planned
from refllm.numbers.spread import lift
from refllm.numbers.spread_value import Spread
from refllm.spec.array import watched

LIMIT = 12.0  # standard deviations
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
MEANS = "means"  # of rows, as they are kept for the pullback; the text has no name for them
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
    sums: Mapping[str, Accumulator] = dataclasses.field(default_factory=dict)  # of kinds that have one of their own

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
        kept = self.stored.get(MEANS)
        return Planned(self.chain, lost, accumulate.unit, self.factors, self.carrier, products, kept, self.sums)

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
        raise UserError(f"{where} must be {_IN_WORDS} or a dict, as {_EXAMPLE}; it is {said!r:.80}")
    if unknown := sorted(set(said) - set(_KEYS)):
        raise UserError(f"{where} says {unknown[0]!r:.40}; a plan has {', '.join(_KEYS)}, as in {_EXAMPLE}")
    chain = _terms(said.get("chain", CHAIN), f"{where}: chain")
    accumulate, sums = _accumulated(said.get("accumulate", _accumulator(dtype)), dtype, f"{where}: accumulate")
    factors = None if said.get("factors") is None else _type(said["factors"], dtype, f"{where}: factors")
    stored = _stored(said.get("stored", {}), dtype, where)
    return Plan("own", dtype, stored, accumulate, chain, factors, sums=sums)


NAMES = ("eager", "fused", "narrow")
_IN_WORDS = '"eager", "fused", "narrow"'
_EXAMPLE = '{"stored": {"probabilities": "bfloat16"}, "accumulate": "float32", "chain": 64}'


def _by_name(name: str, dtype: str, where: str) -> Plan:
    if name not in NAMES:
        raise UserError(f"{where} is {name!r:.40}; plans with a name are {_IN_WORDS}, or say {_EXAMPLE}")
    stored = dict.fromkeys(_THROUGH_PROBABILITIES, dtype) if name == "fused" else {EVERY: dtype}
    factors = None if FORMATS[dtype].unit <= FORMATS[_accumulator(dtype)].unit else dtype
    if dtype == "tf32":  # a type of the factors alone: what is stored is float32
        stored = {}
    if name != "narrow" or dtype == "tf32":
        return Plan(name, dtype, stored, _accumulator(dtype), CHAIN, factors)
    sums = {kind: Accumulator(dtype) for kind in ("over rows", "scattered")}
    return Plan(name, dtype, {**stored, MEANS: dtype}, _accumulator(dtype), CHAIN, factors, sums=sums)


def _accumulator(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _accumulated(found: Any, dtype: str, where: str) -> tuple[str, dict[str, Accumulator]]:
    """The type of all sums, and what kinds of sums have of their own."""
    if not isinstance(found, Mapping):
        return _type(found, dtype, where), {}
    if unknown := [kind for kind in found if kind not in SUMS]:
        raise UserError(f"{where} names {unknown[0]!r:.40}; sums are {', '.join(SUMS)}")
    return _accumulator(dtype), {kind: _of_kind(said, dtype, f"{where}[{kind!r}]") for kind, said in found.items()}


def _of_kind(said: Any, dtype: str, where: str) -> Accumulator:
    """ "bfloat16", or {"type": "bfloat16", "chain": 64, "block": 512}."""
    if not isinstance(said, Mapping):
        return Accumulator(_type(said, dtype, where))
    if unknown := [key for key in said if key not in ("type", "chain", "block")]:
        raise UserError(f"{where} says {unknown[0]!r:.40}; an accumulator has type, chain, block")
    chain = _terms(said.get("chain", CHAIN), f"{where}: chain")
    block = _terms(said["block"], f"{where}: block") if "block" in said else 0
    return Accumulator(_type(said.get("type"), dtype, f"{where}: type"), chain, block)


def _terms(found: Any, what: str) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise UserError(f"{what} must be a whole number of terms, 1 or more; it is {found!r:.40}")
    return found


def _stored(found: Any, dtype: str, where: str) -> dict[str, str]:
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise UserError(f'{where}: stored must be a dict of types by name, as {{"probabilities": "bfloat16"}}')
    types = {name: _type(each, dtype, f"{where}: stored[{name!r:.40}]") for name, each in found.items()}
    known = named.names() | set(WORDS) | {EVERY, MEANS}
    if unknown := [name for name in found if name.rpartition(".")[2] not in known]:
        raise UserError(
            f"{where}: stored names {unknown[0]!r:.40}, and no line of the text does; names are those of refllm/spec, "
            f"such as P or dP, or {', '.join([*WORDS, MEANS])}"
        )
    return types


def _type(found: Any, dtype: str, what: str) -> str:
    if not isinstance(found, str) or found not in (*FORMATS, _OWN):
        known = ", ".join(FORMATS)
        raise UserError(f'{what} must be one of {known}, or "{_OWN}" for that of the run; it is {found!r:.40}')
    return dtype if found == _OWN else found
