"""What is known of the wrong answers to an operation: which mistakes give them, tensor by tensor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from refllm.verify.kernels import properties, tails
from refllm.verify.kernels.causes import Cause
from refllm.verify.kernels.matching import WAYS
from refllm.verify.kernels.ratios import Scaled
from refllm.verify.sized.cases import SizedCase


@dataclass(frozen=True)
class Match:
    """How a mistake explains a case: by tensor, of those that are wrong."""

    ways: dict[str, str]
    left: tuple[str, ...]  # wrong tensors that it does not explain
    apart: float = 0.0  # of lost digits: how many bits the errors are larger or smaller than those of the mistake
    spared: tuple[str, ...] = ()  # gradients that are right, and that it gets wrong

    @property
    def rank(self) -> tuple[int, int]:
        return len(self.left), max(WAYS.index(way) for way in self.ways.values())


@dataclass(frozen=True)
class Looked:
    """A wrong answer that was looked at."""

    sized: SizedCase
    numbers: properties.Numbers
    matches: dict[Cause, Match]
    where: str
    facts: list[str]
    count: int  # of wrong elements
    starts: tails.Starts = field(default_factory=dict)
    bits: float = 0.0  # that its numbers have, where digits are lost
    factors: dict[str, Scaled] = field(default_factory=dict)  # wrong tensors that are their truth times a number
    zeros: bool = False  # whether all wrong numbers are 0
    steps: list[str] = field(default_factory=list)  # of attention, at which it goes wrong


@dataclass
class Operation:
    """What is known of the answers to an operation."""

    looked: dict[str, Looked] = field(default_factory=dict)
    numbers: dict[str, properties.Numbers] = field(default_factory=dict)  # of every wrong answer
    searches: int = 0
    tried: int = 0  # mistakes, in the order in which they are
    doubted: set[Cause] = field(default_factory=set)  # that would have got right answers wrong
    gradients: bool = True
    right: list[SizedCase] = field(default_factory=list)
    tell_wrong: dict[str, properties.Numbers] = field(default_factory=dict)  # what the wrong cases differ in, by id
    tell_right: dict[str, properties.Numbers] = field(default_factory=dict)  # and the right

    @property
    def causes(self) -> dict[Cause, None]:
        return {cause: None for each in self.looked.values() for cause in each.matches}

    def likely(self, most: int, but: Collection[Cause] = ()) -> list[Cause]:
        """So many mistakes that explain most answers, and most tensors of them, in all sizes of tiles; without some."""
        found: dict[Cause, list[tuple[int, int]]] = {}
        for each in self.looked.values():
            for cause, match in each.matches.items():
                found.setdefault(cause, []).append(match.rank)
        order = sorted(found, key=lambda c: (-len(found[c]), max(found[c]), c in self.doubted))
        best = list(dict.fromkeys(getattr(cause, "mistake", cause) for cause in order))[:most]
        return [cause for cause in order if getattr(cause, "mistake", cause) in best and cause not in but]
