"""How many standard deviations every element of an answer is away from the truth, under a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy

from refllm.backend import Array
from refllm.numbers.plans import Plan, flattened
from refllm.verify.keywords import from_golden, own_name
from spread.problems import Problem

Function = Callable[..., Any]


@dataclasses.dataclass
class Distances:
    """What was seen of z = |error| / deviation: the number of elements, their mean square, the largest and its place.

    `unjudged` are elements behind an overflow of float16.
    """

    elements: int = 0
    squares: float = 0.0
    largest: float = 0.0
    where: str = ""
    unjudged: int = 0

    @property
    def rms(self) -> float:
        return float(numpy.sqrt(self.squares / max(self.elements, 1)))

    def add(self, z: Array, where: str, unjudged: int = 0) -> None:
        self.elements += z.size
        self.unjudged += unjudged
        self.squares += float((z * z).sum())
        if z.size and z.max() >= self.largest:
            self.largest, self.where = float(z.max()), where

    def join(self, other: Distances) -> None:
        self.elements, self.squares = self.elements + other.elements, self.squares + other.squares
        self.unjudged += other.unjudged
        if other.largest >= self.largest:
            self.largest, self.where = other.largest, other.where


class Expected:
    """The text's answer to a problem under a plan, once for all implementations."""

    def __init__(self, problem: Problem, profile: str, plan: Plan) -> None:
        self.inputs, self.cotangents = problem.drawn(profile)
        self.problem, self.profile, self.plan = problem, profile, plan
        trees = {name: _listed(tree) for name, tree in self.inputs.items()}
        keywords = from_golden(problem.keywords)
        self.values, self.gradients = plan.evaluate(own_name(problem.operation), trees, keywords, self.cotangents)

    def distances(self, function: Function, carrier: str) -> Distances:
        """Of what a function of the golden files' names and keywords makes of it."""
        returned = _called(function, self, carrier)
        found = Distances()
        for named, expected in zip(returned, (self.values, self.gradients), strict=True):
            for name, y in named.items():
                z, unjudged = distances(y, expected[name], self.plan)
                of = f"{self.problem.name}, {self.profile}: {'d' if named is returned[1] else ''}{name}"
                found.add(z, of, unjudged)
        return found


def distances(y: Any, expected: Any, plan: Plan) -> tuple[Array, int]:
    """z of every element that is judged, and how many are not."""
    value, deviation = numpy.asarray(getattr(expected, "value", expected), float), plan.deviation(expected)
    y = numpy.broadcast_to(numpy.asarray(y, float), value.shape)
    judged = numpy.isfinite(deviation)
    with numpy.errstate(all="ignore"):
        error = numpy.abs(y - value)
        z = numpy.where((y == value) | (numpy.isnan(y) & numpy.isnan(value)), 0, error / deviation)
    z = numpy.where(numpy.isnan(z), numpy.inf, z)
    return z[judged], int((~judged).sum())


def _called(function: Function, given: Expected, carrier: str) -> tuple[dict[str, Any], dict[str, Any]]:
    arrays = [_cast(_listed(tree), carrier) for tree in given.inputs.values()]
    with numpy.errstate(all="ignore"):
        returned = function(*arrays, **given.problem.keywords)
        with_back = isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1])
        y, back = returned if with_back else (returned, None)
        values = dict(zip(given.values, flattened(y, list(given.values)).values(), strict=True))
        if back is None or not given.cotangents:
            return values, {}
        gradients = back(*(_cast(dy, carrier) for dy in given.cotangents.values()))
        return values, flattened(gradients, list(given.inputs))


def _listed(tree: Any) -> Any:
    """A tree whose names are numbers is a list."""
    if not isinstance(tree, Mapping):
        return tree
    branches = {name: _listed(branch) for name, branch in tree.items()}
    return list(branches.values()) if all(name.isdigit() for name in branches) else branches


def _cast(tree: Any, dtype: str) -> Any:
    if isinstance(tree, dict):
        return {name: _cast(branch, dtype) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [_cast(branch, dtype) for branch in tree]
    return numpy.asarray(tree).astype(dtype)
