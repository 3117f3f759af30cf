"""A case of the corpus, what an implementation answers to it, and the way between trees and names.

A name with dots is a path in a tree: `p.layers.0.norm1.g` is `p["layers"][0]["norm1"]["g"]`.

    case.arguments("float32")              the positional arguments, in order, as fresh arrays of that dtype
    case.flat_outputs(y)                   {"y": array} of what the operation returned: an array, a tuple, a tree
    case.flat_gradients(back(*case.pull("float32")))   {"q": array, ...} of what its pullback returned
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy

from refllm.backend import Array
from refllm.parameters import Tree
from refllm.verify.law import Law
from refllm.verify.layouts import CONTIGUOUS, laid_out

# The dtype of the arrays that stand for a run's dtype: NumPy has no bfloat16 and no TF32, so float32 carries them.
CARRIERS = {"float64": "float64", "float32": "float32", "tf32": "float32", "float16": "float16", "bfloat16": "float32"}


@dataclass(frozen=True)
class Truth:
    """The exact value rounded to float64, and its condition: the first-order error in units of the unit roundoff.

    Without a condition the value must be met exactly. `wide` is the condition of what is formed in float64 whatever
    the dtype of the run, in units of float64's roundoff. `most` is the largest error that is allowed whatever the
    condition is, where something is known of it (by_plan.py).
    """

    value: Array
    condition: Array | None
    wide: Array | None = None
    most: Array | None = None


@dataclass(frozen=True)
class Answers:
    """The truth under another convention."""

    outputs: dict[str, Truth]
    gradients: dict[str, Truth]

    def response(self) -> Response:
        """These truths as an answer."""
        values, gradients = ({n: t.value for n, t in held.items()} for held in (self.outputs, self.gradients))
        return Response(values, gradients)


@dataclass(frozen=True)
class Manner:
    """How a case is put where the implementation is given arrays; the numbers stay the same."""

    layout: str = CONTIGUOUS  # of refllm.verify.layouts
    alone: str = ""  # the argument that has it, the others do not: "W", or "dy" of a pullback; "" if all have
    poisoned: bool = False  # memory that was freed holds numbers that nobody wrote there
    interleaved: bool = False  # another call comes between the call and its pullback
    twice: bool = False  # the pullback is called twice, and the second answer counts

    def layout_of(self, argument: str) -> str:
        return self.layout if self.alone in ("", argument) else CONTIGUOUS


@dataclass(frozen=True)
class Case:
    """One case of the golden files. Every dictionary keeps the order of the file."""

    id: str
    spec: str
    section: str
    operation: str
    level: int
    about: str
    order: tuple[str, ...]  # names of the positional arguments; `inputs` may hold several leaves of each
    inputs: dict[str, Array]
    keywords: dict[str, Any]  # numbers, strings, None, a config as a dict, integer or boolean arrays
    cotangents: dict[str, Array] = field(default_factory=dict)
    outputs: dict[str, Truth] = field(default_factory=dict)
    gradients: dict[str, Truth] = field(default_factory=dict)
    taps: dict[str, Truth] = field(default_factory=dict)
    conventions: dict[str, str] = field(default_factory=dict)
    alternatives: dict[str, Answers] = field(default_factory=dict)  # "causal_alignment=top-left" -> its truth
    erratum: str | None = None
    margin: float | None = None
    declared: tuple[str, ...] = ()  # conventions that an implementation declares, and under which the truth is another
    seed: int | None = None  # of a sized case, whose tensors are made by `recipes` (refllm/verify/sized)
    recipes: Mapping[str, Any] = field(default_factory=dict)  # by "inputs.x", "keywords.ids", "cotangents.y"
    stored: str | None = None  # L0: the dtype in the file; bfloat16 is carried by float32
    manner: Manner = Manner()

    def arguments(self, dtype: str) -> list[Tree]:
        """Fresh positional arguments for a call; at L0 the tensor in its own dtype."""
        fresh = {name: cast(x, dtype) if self.level else x.copy() for name, x in self.inputs.items()}
        leaves = {name: self._laid_out(x, name) for name, x in fresh.items()}
        return [tree(name, leaves) for name in self.order]

    def keyword_arguments(self) -> dict[str, Any]:
        """Fresh keyword arguments for a call."""
        fresh = {n: x.copy() if isinstance(x, numpy.ndarray | dict) else x for n, x in self.keywords.items()}
        return {name: self._laid_out(x, name) for name, x in fresh.items()}

    def pull(self, dtype: str) -> list[Tree]:
        """What the pullback is called with: a cotangent for every output."""
        leaves = {name: self._laid_out(cast(x, dtype), f"d{name}") for name, x in self.cotangents.items()}
        return [tree(name, leaves) for name in roots(leaves)]

    def pulled(self, made: Callable[[Array], Any]) -> list[Tree]:
        """A cotangent for every output, each as it is made of that of the case."""
        leaves = {name: made(x) for name, x in self.cotangents.items()}
        return [tree(name, leaves) for name in roots(leaves)]

    def _laid_out(self, x: Any, argument: str) -> Any:
        return laid_out(x, self.manner.layout_of(argument))

    def flat_outputs(self, y: Tree) -> dict[str, Any]:
        """What an operation returned, by name. Raises MisshapenError if its structure is another."""
        return flat(y, list(self.outputs), "the operation")

    def flat_gradients(self, dx: Tree) -> dict[str, Any]:
        """What a pullback returned, by name. Raises MisshapenError if its structure is another."""
        return flat(dx, list(self.inputs), "the pullback")

    def under(self, declared: Mapping[str, str]) -> Case | None:
        """The case with the truth under the conventions that an implementation declares; None if it is not known.

        The truth under the convention of the file then stands among the alternatives.
        """
        changed = {name: declared[name] for name, own in self.conventions.items() if declared.get(name, own) != own}
        if not changed:
            return self
        key = ",".join(f"{name}={value}" for name, value in changed.items())
        if key not in self.alternatives:
            return None
        answers = self.alternatives[key]
        others = {other: truth for other, truth in self.alternatives.items() if other != key}
        others[",".join(f"{name}={self.conventions[name]}" for name in changed)] = Answers(self.outputs, self.gradients)
        gradients = answers.gradients
        return replace(
            self, outputs=answers.outputs, gradients=gradients, alternatives=others,
            cotangents=self.cotangents if gradients else {}, conventions={**self.conventions, **changed},
            declared=tuple(changed),
        )  # fmt: skip

    def values_alone(self) -> Case:
        """The case without its gradients."""
        return replace(self, cotangents={}, gradients={})


@dataclass(frozen=True)
class Response:
    """What an implementation answered, by the names of the case and as it came: nothing is checked yet.

    `gradients` is None if it gives none: the operation returned a value without a pullback.
    """

    outputs: dict[str, Any]
    gradients: dict[str, Any] | None
    taps: dict[str, Any] = field(default_factory=dict)
    overwritten: tuple[str, ...] = ()  # outputs of earlier calls for the same case that this call changed
    laws: tuple[Law, ...] = ()  # what the implementation was seen to break, or to do, while it was called


class UnsupportedError(Exception):
    """An implementation does not have what a case needs: the case is skipped, and the message is the reason."""


class FaultError(Exception):
    """An implementation gave no answer that could be judged: it raised, crashed, hung, or what it gave is garbage."""


class RaisedError(FaultError):
    """It raised an exception, and lives on."""


class MisshapenError(ValueError):
    """What came back has another structure than the case asks for; the message is one line."""


def cast(x: Array, dtype: str) -> Array:
    """A copy in the dtype that carries `dtype`; integers and booleans stay what they are."""
    carrier = CARRIERS[dtype]
    if x.dtype.kind != "f" or x.dtype == carrier:
        return x.copy()
    with numpy.errstate(over="ignore"):
        return x.astype(carrier)


def in_dtype(x: Array, dtype: str) -> Array:
    """The same numbers as `cast`, without a copy where they have that dtype already: to be looked at alone."""
    return x if x.dtype.kind != "f" or x.dtype == CARRIERS[dtype] else cast(x, dtype)


def roots(names: Iterable[str]) -> list[str]:
    """The first components, each once, in order."""
    return list(dict.fromkeys(name.partition(".")[0] for name in names))


def tree(root: str, leaves: Mapping[str, Any]) -> Tree:
    """The tree below `root`; the leaf itself if `root` is a leaf."""
    if root in leaves:
        return leaves[root]
    below = {name[len(root) + 1 :]: leaf for name, leaf in leaves.items() if name.startswith(root + ".")}
    children = {name: tree(name, below) for name in roots(below)}
    return list(children.values()) if all(name.isdigit() for name in children) else children


def flat(value: Tree, names: list[str], what: str) -> dict[str, Any]:
    """Leaves of a value by name: a tuple has one entry for each root of `names`, in order."""
    first = roots(names)
    parts = value
    if len(first) == 1:
        parts = (value[0],) if isinstance(value, tuple) and len(value) == 1 else (value,)
    if not isinstance(parts, tuple | list) or len(parts) != len(first):
        count = f"a tuple of {len(parts)}" if isinstance(parts, tuple | list) else _kind(parts)
        raise MisshapenError(f"{what} must return {len(first)} values, ({', '.join(first)}); it returned {count}")
    found = dict(zip(first, parts, strict=True))
    return {name: _descend(found, name, what) for name in names}


def _descend(found: Any, name: str, what: str) -> Any:
    for step in name.split("."):
        try:
            found = found[int(step)] if isinstance(found, list | tuple) else found[step]
        except (KeyError, IndexError, TypeError, ValueError):
            raise MisshapenError(f"{what} returned no {name}: {_kind(found)} has no {step!r}") from None
    return found


def _kind(x: Any) -> str:
    if isinstance(x, dict):
        return f"a dict of {', '.join(str(key) for key in list(x)[:6])}"
    if isinstance(x, list | tuple):
        return f"a {type(x).__name__} of {len(x)}"
    return "nothing (None)" if x is None else f"one {type(x).__name__}"
