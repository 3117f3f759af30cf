"""Parts of what is joined in our parameters and apart in the files of others: the bias of the queries alone is left
out, or the matrix of the keys alone is not transposed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy

from refllm.backend import Array
from refllm.parameters import Tree, named_leaves
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.mistakes.columns import PARTS
from refllm.verify.ports.mistakes.leaves import COST, LIKELY, read_otherwise
from refllm.verify.ports.program import Step

SEPARATE = ("bq", "bk", "bv")  # where each has a leaf of its own


def of_parts(step: Step, own: Tree) -> Iterator[Candidate]:
    """One or some of the parts of a joined matrix or bias; some of the biases of one attention."""
    leaves = dict(named_leaves(own)) if step.kind.endswith("layer") else {}
    for path, leaf in leaves.items():
        letter, parts = path.rpartition(".")[2][:1], PARTS.get(f"W{path.rpartition('.')[2][1:]}", "")
        for some in _some(range(len(parts))):
            which = " and ".join(parts[i] for i in some)
            if letter == "b" and len(some) < len(parts):
                said = f"the bias of {which} alone, in {{}}, is left out"
                read = partial(_left_out, parts=len(parts), some=some)
                yield read_otherwise(step, [path], said, LIKELY, [f"- + {which} of {{}}", "+ "], read)
            square = leaf.ndim == 2 and leaf.shape[0] * len(parts) == leaf.shape[1]
            if letter == "W" and square and len(some) in (1, len(parts)):
                said = f"{which}, in {{}}, {'is' if len(some) == 1 else 'are'} not transposed, or once too often"
                read = partial(_transposed, parts=len(parts), some=some)
                lines = [f"- {which} of {{}}", f"+ {which} of {{}}, transposed"]
                yield read_otherwise(step, [path], said, COST, lines, read)
    for lead in dict.fromkeys(path.rpartition(".")[0] for path in leaves):
        there = [f"{lead}.{name}" for name in SEPARATE if f"{lead}.{name}" in leaves]
        for pair in combinations(there, 2):
            others = " and ".join(path.rpartition(".")[2] for path in pair[1:])
            lines = [f"- + {{}}, + {others}", "+ "]
            yield read_otherwise(step, list(pair), f"{{}} and {others} are left out", COST, lines, lambda b: b * 0)


def _some(numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    for count in range(1, len(numbers) + 1):
        yield from combinations(numbers, count)


def _left_out(b: Array, parts: int, some: Sequence[int]) -> Array:
    found = numpy.split(b, parts, axis=-1)
    return numpy.concatenate([part * 0 if n in some else part for n, part in enumerate(found)], axis=-1)


def _transposed(W: Array, parts: int, some: Sequence[int]) -> Array:
    found = numpy.split(W, parts, axis=-1)
    return numpy.concatenate([part.T if n in some else part for n, part in enumerate(found)], axis=-1)
