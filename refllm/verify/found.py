"""What the search has found: edits of the text, and how much they explain."""

from __future__ import annotations

from dataclasses import dataclass

from refllm.verify import words
from refllm.verify.edits import Edit

Edits = tuple[Edit, ...]


@dataclass(frozen=True)
class Found:
    """An edit, or several, that give the answers that were given."""

    edits: Edits
    traced: bool  # whether the gradient is the true one of the edited formula; else the pullbacks were left as they are
    explained: frozenset[str]  # the cases whose wrong answers they are
    wrong: int  # how many answers to the operation are wrong
    others: int  # how many more edits give the same answers
    guarded: int  # right answers where the edited text fails or is not finite, which one may have guarded
    gradients: bool  # whether gradients were given
    where: str = ""  # the property of cases without which right answers contradict it
    rivals: int = 0  # more edits than can be told from each other, which mean different things
    common: str = ""  # what these have in common
    values: bool = False  # whether they give the values alone, and the gradient is neither theirs nor the text's
    loose: bool = False  # whether it is known of one answer alone, to which others lead as well

    @property
    def decided(self) -> bool:
        """Whether this is an explanation, and not one of too many."""
        return not self.rivals and not self.loose

    @property
    def rank(self) -> tuple[bool, int, bool, float]:
        """The best first."""
        return (
            bool(self.where),
            -len(self.explained),
            self.guarded > 0,
            sum(edit.cost for edit in self.edits) + len(self.edits),
        )

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        found = [(edit.place, edit.diff()) for edit in self.edits]
        found[-1][1].extend(words.explained([line for _, lines in found for line in lines]))
        return found


def cost(candidate: Edits) -> float:
    return sum(edit.cost for edit in candidate)


def rank(found: Found) -> tuple[bool, int, bool, float]:
    return found.rank
