"""The gains of several norms of a layer read otherwise, where those of its others are right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from refllm.parameters import Tree, named_leaves
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.mistakes.leaves import LIKELY, UNLIKELY, Read, branch_of, read_otherwise
from refllm.verify.ports.program import Step

Said = tuple[str, float, list[str], Read]
WAYS: dict[str, list[Said]] = {
    "g": [
        ("1 + the numbers in the files, where the numbers themselves are right", LIKELY, ["- {}", "+ 1 + {}"],
         lambda g: g + 1),
        ("left out", UNLIKELY, ["- {} n", "+ n"], lambda g: g * 0 + 1),
    ],
    "offset": [
        ("the numbers in the files, where 1 + them is right", LIKELY, ["- 1 + {}", "+ {}"], lambda g: g - 1),
        ("left out", UNLIKELY, ["- (1 + {}) n", "+ n"], lambda g: g * 0),
    ],
}  # fmt: skip


def of_several_gains(step: Step, own: Tree) -> Iterator[Candidate]:
    """Of two norms, and of all."""
    if not step.kind.endswith("layer"):
        return
    for paths in _together([path for path, _ in named_leaves(own) if _last(path) in WAYS]):
        called = [branch_of(step) + path for path in paths]
        for what, cost, each, read in WAYS[_last(paths[0])]:
            said = f"the gains {', '.join(called[:-1])} and {called[-1]} are {what}; those of other norms are right"
            lines = [line.replace("{}", name) for name in called for line in each]
            yield read_otherwise(step, paths, said, cost, lines, read)


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _together(paths: Sequence[str]) -> Iterator[list[str]]:
    for count in {2, len(paths)}:
        if 2 <= count <= len(paths):
            for some in combinations(paths, count):
                if len({_last(path) for path in some}) == 1:
                    yield list(some)
