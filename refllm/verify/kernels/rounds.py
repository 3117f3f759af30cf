"""The k largest of a row as kernels choose them, round by round a maximum or by a threshold: what they do with numbers
that are equal to each other."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.spec.top_experts import among_largest
from refllm.verify import plain
from refllm.verify.mutants import Edited
from refllm.verify.mutants.bank import edit

LARGER = "larger = (other > one) | ((other == one) & (place < place[:, None]))"
KEPT = "return larger.sum(axis=-1) < k"
AGAIN = "again = ((other == one) & (place < place[:, None])).any(axis=-1)\n"  # whether an equal one stands before

EDITED = (
    Edited("ties-of-each-round", "k rounds, each of which chooses all that share the largest number left",
           edit(among_largest, LARGER, AGAIN + "larger = (other > one) & ~again[..., None, :]")),
    Edited("ties-left-out", "k rounds, each of which leaves out all that are equal to the one that it chooses",
           edit(among_largest, LARGER, AGAIN + "larger = (other > one) & ~again[..., None, :]",
                KEPT, "return (larger.sum(axis=-1) < k) & ~again")),
    Edited("above-threshold", "those above the (k + 1)-th number alone, and of equal ones there none",
           edit(among_largest, LARGER, "larger = (other >= one) & (place != place[:, None])")),
)  # fmt: skip


def rounds(operation: str) -> Iterator[Edited]:
    """Those of an operation that chooses the largest."""
    if operation in plain.operations() and among_largest in plain.called(operation):
        for each in EDITED:
            yield Edited(f"{operation}/{each.id}", f"{operation} of {each.about}", each.rewritten)
