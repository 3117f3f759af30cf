"""What a mistake is in words, with the other sizes of tiles and the other numbers that fit the answers as well."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from refllm.verify.kernels.causes import Cause, OfBank, in_other_sizes
from refllm.verify.kernels.known import Looked

WRITTEN = re.compile(r"\b\d[\d,]*\b")  # a number in words


def about(
    cause: Cause, looked: Sequence[Looked], order: Sequence[Cause], conditional: Container[Cause], way: str
) -> str:
    """Its words, with the sizes of its tiles or blocks that explain the same as well, unless all do. Where it explains
    a part of an answer alone, its tiles are not those of the answer.

    `order` has the mistakes that explain the answers that were looked at, `conditional` those that do so under a
    condition, and `way` tells how this one does.
    """
    explained = [each for each in looked if cause in each.matches]
    if not getattr(cause, "sizes", ()) and (numbers := _in_other_numbers(cause, explained, order, conditional)):
        return f"{cause.about} ({numbers})"
    if not isinstance(cause, OfBank) or cause.sized is None:
        return cause.about
    if not cause.sizes and way == "partly":
        return cause.mistake.about
    made = in_other_sizes(looked[0].sized.operation, cause)
    others = [c for c in made if c.sized is not None and c.sized[0] == cause.sized[0]]  # of tiles, or of blocks
    alike = [c for c in others if c in order and _fits_as_well(c, cause, explained)]
    return cause.in_sizes([cause, *alike]) if len(alike) < len(others) else cause.mistake.about


def _fits_as_well(other: Cause, cause: Cause, explained: Sequence[Looked]) -> bool:
    """Whether another mistake explains each of these answers no worse."""
    return all(other in each.matches and each.matches[other].rank <= each.matches[cause].rank for each in explained)


def _in_other_numbers(
    cause: Cause, explained: Sequence[Looked], order: Sequence[Cause], conditional: Container[Cause]
) -> str:
    """Which numbers in the place of that in its words explain the same: an answer may not tell them apart."""
    alike = [
        c for c in order
        if c.id == cause.id and c not in conditional and not getattr(c, "sizes", None)
        and _without_numbers(c) == _without_numbers(cause)
        and getattr(c, "mistake", c) is not getattr(cause, "mistake", cause)
        and _fits_as_well(c, cause, explained)
    ]  # fmt: skip
    own = set(WRITTEN.findall(cause.about))
    numbers = {n for c in alike for n in set(WRITTEN.findall(c.about)) - own}
    found = sorted(numbers, key=lambda n: int(n.replace(",", "")))
    return f"{' and '.join(found)} fit{'' if found[1:] else 's'} as well" if found else ""


def _without_numbers(cause: Cause) -> str:
    return WRITTEN.sub("", cause.about)
