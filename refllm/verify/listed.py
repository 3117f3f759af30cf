"""Known mistakes as edits of the search: two of them, or one and an edit that nobody listed, are tried together.

for edits in of_pairs(case, known): ...     each two known mistakes of what answers the case
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from types import FunctionType

from refllm.verify import plain
from refllm.verify.case import Case, Response
from refllm.verify.edits import Edit, source_of
from refllm.verify.edits.source import Changes
from refllm.verify.imitations import Imitations
from refllm.verify.mutants import MUTANTS, Edited

MOST = 40  # known mistakes whose pairs are tried: 780 of them
Edits = tuple[Edit, ...]
_WORD = re.compile(r"\w+|\s+|.", re.DOTALL)


@cache
def as_edits(mutant: Edited) -> Edits:
    """What a known mistake changes, in as few words as it can be said: two of one line may then stand together."""
    found = list[Edit]()
    for each in mutant.rewritten:
        first = not found
        said, name = (mutant.about, mutant.id) if first else ("", "")
        changes = _narrow(source_of(each.original), each.edit.source)
        found.append(replace(each.edit, changes=changes, mistakes=int(first), said=said, listed=name))
    return tuple(found)


def _narrow(old: str, new: str) -> Changes:
    """The words that differ."""
    a, b = _WORD.findall(old), _WORD.findall(new)
    before = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    after = next((n for n, (x, y) in enumerate(zip(a[:before:-1], b[:before:-1], strict=False)) if x != y), 0)
    offsets = [len("".join(a[:before]).encode())]
    a, b = a[before : len(a) - after], b[before : len(b) - after]
    for word in a:
        offsets.append(offsets[-1] + len(word.encode()))
    found = list[tuple[int, int, str]]()
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        first, last, words = offsets[i], offsets[j], "".join(b[k:m])
        if found and found[-1][1] == first:
            first, words = found[-1][0], found.pop()[2] + words
        found.append((first, last, words))
    return tuple(found)


def joined(one: Edits, other: Edits) -> Edits | None:
    """Both; None if they touch each other."""
    found = {edit.original: edit for edit in one}
    for edit in other:
        known = found.get(edit.original)
        both = edit if known is None else known.beside(edit)
        if both is None:
            return None
        found[edit.original] = both
    return tuple(found.values())


def with_each(one: Edits, others: Iterable[Edits]) -> Iterator[Edits]:
    """This, and each of the others beside it."""
    for other in others:
        both = joined(one, other)
        if both is not None:
            yield both


def of_case(case: Case, known: Imitations) -> list[Edits]:
    """The known mistakes of what answers a case: those of the operation itself first, then those of what it calls."""
    return [as_edits(mutant) for mutant in _of_the_text(case, known)]


def with_answers(case: Case, known: Imitations) -> Iterator[tuple[Edits, Response]]:
    """The same, each with what it answers."""
    for mutant in _of_the_text(case, known):
        answer = known.response(mutant, case, "float64")
        if answer is not None:
            yield as_edits(mutant), answer


def _of_the_text(case: Case, known: Imitations) -> list[Edited]:
    order = {f: n for n, f in enumerate(plain.called(case.operation))}
    mutants = [m for m in known.relevant(case) if isinstance(m, Edited) and all(f in order for f in m.originals)]
    return sorted(mutants, key=lambda mutant: min(order[f] for f in mutant.originals))


def of_pairs(edits: Sequence[Edits]) -> Iterator[Edits]:
    """Each two of these, as far as they are near to the operation."""
    for one, other in combinations(edits[:MOST], 2):
        yield from with_each(one, [other])


@cache
def _of_lines() -> dict[tuple[FunctionType | str, ...], str]:
    """The known mistakes of one function, by the lines that go and come: a search may come upon one by itself."""
    alone = [m for m in MUTANTS if isinstance(m, Edited) and len(m.rewritten) == 1]
    return {(m.originals[0], *m.rewritten[0].edit.diff()): m.id for m in alone}


def of_which(found: Edits) -> tuple[list[str], int]:
    """The ids of the known mistakes among edits, and how many others there are."""
    members = [member for edit in found for member in edit.members if member.mistakes]
    ids = [member.listed for member in members if member.listed]
    return ids, len(members) - len(ids)


def recognised(found: Edits) -> tuple[list[str], int]:
    """The same, those too that the search came upon by itself."""
    members = [member for edit in found for member in edit.members if member.mistakes]
    ids = [id for member in members if (id := member.listed or _of_lines().get((member.original, *member.diff()), ""))]
    return ids, len(members) - len(ids)
