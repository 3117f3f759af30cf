"""The mutants that one wrong answer looks like.

Mutants are asked for their answer to the same input, in float64, and in the dtype of the run where an answer is not
finite. What other answers say of a candidate is for `diagnosis` to find out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy

from refllm.verify import mutants
from refllm.verify.case import Answers, Case, Response
from refllm.verify.hints import nothing_there
from refllm.verify.imitations import Imitations, distance, is_finite, wrong_in_numbers
from refllm.verify.mutants import Mutant

NEAR = 0.1  # an answer this much nearer to a mutant than to the truth is worth a line
_TOPICS = (
    mutants.optimiser, mutants.schedule, mutants.sampling, mutants.positions, mutants.models, mutants.llama,
    mutants.grouped, mutants.recurrent_models, mutants.cross_attention, mutants.encoder_decoder, mutants.beam,
    mutants.fine_tuning, mutants.masking, mutants.byte_pairs, mutants.padded_generation,
)  # fmt: skip
_LATE = frozenset(
    mutant.id for topic in _TOPICS for mutant in topic.MUTANTS
)  # asked about on levels 4 and 5: what else goes wrong there shows on the levels below


@dataclass(frozen=True)
class Candidate:
    """A mutant near to an answer: how far, as a share of the largest number, and whether that is rounding."""

    mutant: Mutant
    distance: float
    equal: bool
    shared: str  # "numbers"; "places" if nothing but what is not finite is wrong; "overflow" if so in this dtype alone
    against: str = ""  # a case with a right answer that the mutant gets wrong
    explained: tuple[int, int] = (1, 1)  # how many of the wrong answers to the operation are the mutant's, and of which
    nothing: bool = False  # whether it is about rows where nothing is summed, and nothing else is wrong
    sure: bool = True  # whether one of these is more than an overflow, which other formulas have in the same places

    @property
    def holds(self) -> bool:
        """Whether this explains the answer, as far as the run shows."""
        return self.equal and self.sure and not self.against

    def __str__(self) -> str:
        source = self.mutant.id
        if not self.equal:
            return f"near to {self.mutant.about}, {self.distance:.1g} away ({source})"
        if self.against:
            return f"here equal to {self.mutant.about} ({source}), but {self.against} is right, which that gets wrong"
        also = f", as {self.explained[0]} of {self.explained[1]} wrong answers are" if self.explained[1] > 1 else ""
        if self.shared != "numbers":
            return f"not finite in the same places as {self.mutant.about}{also} ({source})"
        return f"equal to {self.mutant.about}, {how_near(self.distance)}{also} ({source})"


def candidates(
    case: Case, response: Response, dtype: str, known: Imitations, among: Collection[str] | None = None
) -> list[Candidate]:
    """The mutants, among those of these ids, that an answer is equal to; where there is none, those it is near to."""
    if case.level == 0 or not comparable(case, response):
        return []
    truth = Answers(case.outputs, case.gradients).response()
    wrong, right = distance(case, response, truth, dtype)
    places_alone = not is_finite(response) and not wrong_in_numbers(case, response, dtype)
    found = []
    with_cache, of_caches = known.of_caches(case)
    asked = [(mutant, case) for mutant in known.relevant(case)] + [(mutant, with_cache) for mutant in of_caches]
    for mutant, as_asked in asked:
        if (among is not None and mutant.id not in among) or (3 < case.level < 7 and mutant.id not in _LATE):
            continue
        far, same = known.distance(as_asked, response, mutant, dtype)
        shared = "places" if places_alone else "numbers"
        if not same and known.overflows_alike(as_asked, response, mutant, dtype):
            far, same, shared = 0.0, True, "overflow" if places_alone else "numbers"
        if (same and not right) or (far < NEAR * wrong < numpy.inf):
            empty = nothing_there(case, response) and mutant.id.endswith("if-nothing")
            found.append(Candidate(mutant, far, same, shared, nothing=empty))
    return [candidate for candidate in found if candidate.equal] or found


def comparable(case: Case, response: Response) -> bool:
    """Whether any tensor of the answer is an array as the case asks for."""
    given = [(response.outputs, case.outputs), (response.gradients or {}, case.gradients)]
    return any(
        isinstance(values.get(name), numpy.ndarray) and values[name].shape == truth.value.shape
        for values, truths in given
        for name, truth in truths.items()
    )


def how_near(far: float) -> str:
    return "exactly" if far == 0 else f"to {far:.1g}"
