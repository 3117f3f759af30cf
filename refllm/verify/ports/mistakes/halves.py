"""One mistake in both halves of an encoder-decoder, or in self-attention and cross-attention: who writes one function
for all of them makes it in all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations

from refllm.parameters import Tree
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.program import Step

DEARER = 0.01  # than the mistake in one of the places
HALVES = ("encoder.", "decoder.")


def in_both_halves(found: Iterable[Candidate]) -> Iterator[Candidate]:
    """Each mistake in the weights of one half, together with the same one of the other half and of cross-attention."""
    alike: dict[str, list[Candidate]] = {}
    for one in found:
        if one.change.parameters is not None and any(half in line for half in HALVES for line in one.diff[0][1]):
            alike.setdefault(_without_place(one.said), []).append(one)
    for same in alike.values():
        for count in range(len(same), 1, -1):
            for some in combinations(same, count):
                yield _together(some)


def _without_place(said: str) -> str:
    """What is said of it, in whichever half and attention, whether its maps are joined or not."""
    if "decoder." in said:
        said = said.replace("norm3", "last norm")
    elif "encoder." in said:
        said = said.replace("norm2", "last norm")  # that of the feed-forward layer, as norm3 is in the decoder
    said = re.sub("encoder\\.|decoder\\.", "", said).replace("cross_attention", "attention")
    said = re.sub(r"(the bias of|^)\s*(\w) alone, in (\S+)\.([bW])q?kv,", r"\3.\4\2", said)
    return re.sub(r"\.([bW])q?kv\b", r".\1", said)


def _together(some: Sequence[Candidate]) -> Candidate:
    """All of them at once."""
    said = f"{some[0].said}; and so {'are' if len(some) > 2 else 'is'} {' and '.join(_place(one) for one in some[1:])}"
    change = Change(parameters=partial(_changed, some=some))
    lines = [line for one in some for _, held in one.diff for line in held]
    return Candidate(
        said, max(one.cost for one in some) + DEARER, change, partial(_acts, some), [("parameters", lines)]
    )


def _changed(at: Step, own: Tree, whole: Tree, some: Sequence[Candidate]) -> Tree:
    for one in some:
        if one.acts(at) and one.change.parameters is not None:
            own = one.change.parameters(at, own, whole)
    return own


def _acts(some: Sequence[Candidate], step: Step) -> bool:
    return any(one.acts(step) for one in some)


def _place(one: Candidate) -> str:
    """The parameter that it is of, as its first line names it."""
    words = one.diff[0][1][0].split()
    word = next((word for word in words if word.startswith(HALVES)), words[-1])
    return word.partition("[")[0].rstrip(".,")
