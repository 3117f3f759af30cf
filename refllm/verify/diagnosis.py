"""What a wrong answer is equal to: another convention, a known mistake, or the truth but for a factor or an order.

    diagnose(case, response, "float32")
    -> ["equal to attention without the 1/√d_k scale, to 3e-07 (ATT/no-scale)"]

Mutants are asked for their answer to the same input, in float64. One case may fit several of them; the summary of a
run ranks them by how many of its wrong answers each explains.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy

from refllm.backend import Array
from refllm.verify import hints, mutants
from refllm.verify.case import Case, Response, Truth
from refllm.verify.imitations import Imitations, distance
from refllm.verify.mutants import (
    Mutant,
    beam,
    cross_attention,
    earlier,
    encoder_decoder,
    grouped,
    llama,
    optimiser,
    positions,
    sampling,
    schedule,
)
from refllm.verify.mutants import models as whole

LINES = 3
NEAR = 0.1  # an answer this much nearer to a mutant than to the truth is worth a line
_KNOWN = Imitations()
_TOPICS = (
    optimiser,
    schedule,
    sampling,
    positions,
    whole,
    llama,
    grouped,
    earlier,
    cross_attention,
    encoder_decoder,
    beam,
)
_LATE = frozenset(
    mutant.id for topic in _TOPICS for mutant in topic.MUTANTS
)  # asked about on levels 4 and 5: what else goes wrong there shows on the levels below


@dataclass(frozen=True)
class Suspect:
    """A mutant near to an answer: how far, as a share of the largest number, and whether that is rounding."""

    mutant: Mutant
    distance: float
    equal: bool

    def __str__(self) -> str:
        source = self.mutant.id if self.mutant.issue is None else f"{self.mutant.id}, as in {self.mutant.issue}"
        if self.equal:
            return f"equal to {self.mutant.about}, {_how_near(self.distance)} ({source})"
        return f"near to {self.mutant.about}, {self.distance:.1g} away ({source})"


class Explanation(str):
    """A line of a diagnosis that also knows the mutant that it names."""

    mutant: Mutant

    @classmethod
    def of(cls, suspect: Suspect) -> Explanation:
        line = cls(suspect)
        line.mutant = suspect.mutant
        return line


def diagnose(case: Case, response: Response, dtype: str) -> list[str]:
    """The best explanations of a wrong answer, in words; none if nothing fits."""
    lines = _conventions(case, response, dtype)
    found = suspects(case, response, dtype)
    lines += [Explanation.of(suspect) if suspect.equal else str(suspect) for suspect in found[:LINES]]
    if not lines or (found and not found[0].equal):
        lines += hints.hints(case, response, dtype)
    return lines[:LINES]


def suspects(case: Case, response: Response, dtype: str) -> list[Suspect]:
    """The mutants that an answer is equal to, nearest first; where there is none, those that it is near to."""
    if case.level == 0 or not _comparable(case, response):
        return []
    truth = Response(_values(case.outputs), _values(case.gradients))
    wrong, _ = distance(case, response, truth, dtype)
    found = []
    for mutant in _KNOWN.relevant(case):
        if case.level > 3 and mutant.id not in _LATE:
            continue
        far, equal = _KNOWN.distance(case, response, mutant, dtype)
        if far < NEAR * wrong:
            found.append(Suspect(mutant, far, equal))
    best = [suspect for suspect in found if suspect.equal] or found
    return sorted(best, key=lambda suspect: (not suspect.equal, 0.0 if suspect.equal else suspect.distance))


def summary(diagnoses: Iterable[list[str]]) -> list[str]:
    """What explains most of a run's wrong answers, given the diagnosis of each."""
    all_lines = list(diagnoses)
    explained = Counter(line.mutant.id for lines in all_lines for line in lines if isinstance(line, Explanation))
    known = {mutant.id: (order, mutant.about) for order, mutant in enumerate(mutants.MUTANTS)}
    ranked = sorted(explained, key=lambda identity: (-explained[identity], known[identity][0]))
    return [
        f"{explained[identity]} of {len(all_lines)} wrong answers are equal to {known[identity][1]} ({identity})"
        for identity in ranked[:LINES]
    ]


def _comparable(case: Case, response: Response) -> bool:
    """Whether any tensor of the answer is an array as the case asks for."""
    given = [(response.outputs, case.outputs), (response.gradients or {}, case.gradients)]
    return any(
        isinstance(values.get(name), numpy.ndarray) and values[name].shape == truth.value.shape
        for values, truths in given
        for name, truth in truths.items()
    )


def _values(truths: dict[str, Truth]) -> dict[str, Array]:
    return {name: truth.value for name, truth in truths.items()}


def _conventions(case: Case, response: Response, dtype: str) -> list[str]:
    """The alternatives of the case that the answer is equal to."""
    lines = []
    for key, answers in case.alternatives.items():
        other = Response(_values(answers.outputs), _values(answers.gradients))
        far, equal = distance(case, response, other, dtype)
        if equal and _comparable(case, response):
            name, _, value = key.partition("=")
            lines.append(
                f"matches the convention {key}, {_how_near(far)}; the case is under {name}={case.conventions[name]}: "
                f'declare CONVENTIONS = {{"{name}": "{value}"}} if that is meant'
            )
    return lines


def _how_near(far: float) -> str:
    return "exactly" if far == 0 else f"to {far:.1g}"
