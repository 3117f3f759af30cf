"""A line of a diagnosis, and what stands below it: the edit of the specification, and the public report.

It imports nothing of what explains, so that a report needs the bank of mistakes only where something fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from refllm.verify.keywords import in_adapters

if TYPE_CHECKING:
    from refllm.verify.found import Found
    from refllm.verify.kernels.causes import Cause as KernelCause
    from refllm.verify.mutants import Mutant
    from refllm.verify.noise import Noise

    Cause: TypeAlias = Mutant | Found | Noise | KernelCause


class Explanation(str):
    """A line of a diagnosis that also knows what it names, the edit of the specification, and who made this mistake in
    public."""

    cause: Cause
    diff: list[tuple[str, list[str]]]

    @classmethod
    def of(cls, text: object, cause: Cause, edit: Found | None = None) -> Explanation:
        """The diff is the cause's own; of a patch, which has none, that of the edit which gives the same answers."""
        line = cls(text)
        line.cause, line.diff = cause, cause.diff or (edit.diff if edit is not None else [])
        return line

    @property
    def issue(self) -> str | None:
        return getattr(self.cause, "issue", None)  # what is found by search was reported by nobody


class Elsewhere(Explanation):
    """A line that names what is not the explanation of the answer that it stands below: that of other cases, or one
    that comes near."""


def causes_of(diagnosis: list[str]) -> set[Cause]:
    """What lines of a diagnosis name as the explanation."""
    return {line.cause for line in diagnosis if isinstance(line, Explanation) and not isinstance(line, Elsewhere)}


def unexplained(error: Exception) -> str:
    """What is said where looking for an explanation failed: a fault of this program, which costs no verdict."""
    first = str(error).partition("\n")[0]
    return f"no explanation: looking for one failed ({type(error).__name__}: {first:.100}). The verdicts stand."


def diff_of(line: str) -> list[str]:
    """The edit of the specification that a line of a diagnosis speaks of: its place, what goes, what comes."""
    diff = line.diff if isinstance(line, Explanation) else []
    changed = [text for _, lines in diff for text in lines if text[:1] in "+-"]
    return [*(text for place, lines in diff for text in (place, *lines)), *in_adapters(changed)]


def issue_of(line: str) -> str | None:
    """Where somebody made the mistake in public that a line of a diagnosis speaks of."""
    return line.issue if isinstance(line, Explanation) else None


def below(line: str) -> list[str]:
    """What stands below a line of a diagnosis: the edit of the specification, and the public report."""
    issue = issue_of(line)
    return [*diff_of(line), *([f"as in {issue}"] if issue else [])]


PASSES = "alone this case passes"
ALONE = f"{PASSES}: it fails after an earlier call, of which something is left, or by chance"
OF_CALLS = "depends on what earlier calls left"
OF_LAW = "breaks"
NOT_COMPARED = "not compared with known mistakes"
NOT_TRIED = "an earlier call may be the cause, as it is of others of the operation: alone this case was not tried"
NOTHING_KNOWN = "explained by no known mistake"  # with which a line begins that says so


def of_earlier_calls(diagnosis: list[str], after: str = "") -> list[str]:
    """What explains a failure that its case alone does not have: that, and no word of unknown mistakes."""
    return [alone(after), *(line for line in diagnosis if not line.startswith(NOTHING_KNOWN))]


def alone(after: str = "") -> str:
    """That a case passes alone, and after which earlier case it fails, if that is known."""
    return f"{PASSES}: it fails after {after}, of which something is left" if after else ALONE


def of_calls(diagnosis: list[str], said: str) -> list[str]:
    """What is known of a failure of which a law says that earlier calls leave something behind: that first, and no word
    of unknown mistakes."""
    if diagnosis and not diagnosis[0].startswith(NOTHING_KNOWN):
        return diagnosis
    return [f"{OF_CALLS}: {said}", *diagnosis[1:]]


def of_law(diagnosis: list[str], broken: list[str]) -> list[str]:
    """What is known of a failure that breaks laws with these names, where nothing else is."""
    if diagnosis and not diagnosis[0].startswith(NOTHING_KNOWN):
        return diagnosis
    laws = f"a law, {broken[0]}," if len(broken) == 1 else f"the laws {', '.join(broken)},"
    return [f"{OF_LAW} {laws} which may be the cause; no known mistake gives the same", *diagnosis[1:]]


def is_said(diagnosis: list[str]) -> bool:
    """Whether lines say what a failure is without naming a mistake: a convention, a law, what earlier calls left."""
    return any(
        line.startswith(("matches the convention ", OF_CALLS, OF_LAW, PASSES, NOT_TRIED, NOT_COMPARED))
        for line in diagnosis
    )
