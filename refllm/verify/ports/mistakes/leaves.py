"""The leaves of the parameters that a step reads, and one of them read otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from refllm.backend import Array
from refllm.parameters import Tree, named_leaves
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.program import Step

LIKELY, COST, UNLIKELY = 0.55, 0.6, 0.75  # below every edit of the text
Read = Callable[[Array], Array]
Way = tuple[str, float, list[str], Read]  # what is said of it, what it costs, its lines, and how the leaf is read

# which parts of the whole tree a step without a branch of its own reads
_READ = {
    "embedding": ("token", "position", "segment", "norm"), "norm": ("norm",),
    "encoder embedding": ("token", "encoder.position", "encoder.embedding_norm", "encoder.relative"),
    "decoder embedding": ("token", "decoder.position", "decoder.embedding_norm", "decoder.relative"),
    "encoder norm": ("norm",), "decoder norm": ("norm",),
    "output": ("head", "token", "masked", "pooler", "span", "W", "b"),
}  # fmt: skip


def leaves_of(step: Step, own: Tree) -> Iterator[tuple[str, Array]]:
    """The parameters that a step reads, by their paths in its branch."""
    for path, leaf in named_leaves(own):
        reads = _READ.get(step.kind)
        if reads is None or any(path == name or path.startswith(name + ".") for name in reads):
            yield path, leaf


def is_kind(step: Step, other: Step) -> bool:
    """Whether the other one is of the same kind; an output, whether it is the same one."""
    return other.kind == step.kind and (step.kind != "output" or other.place == step.place)


def branch_of(step: Step) -> str:
    """layers.*. for the branch of a layer."""
    return "".join(f"{'*' if isinstance(name, int) else name}." for name in step.own)


def with_bias(own: Tree, path: str) -> list[str]:
    """A matrix and the bias of the same map."""
    lead, _, name = path.rpartition(".")
    bias = f"{lead}.b{name[1:]}" if lead else f"b{name[1:]}"
    return [path, bias] if name != "Wo" and bias in dict(named_leaves(own)) else [path]


def with_leaf(tree: Tree, names: list[str], read: Read) -> Tree:
    """The tree with one leaf read otherwise; itself where it has none of that name."""
    if not names:
        return read(tree)
    if not isinstance(tree, dict) or names[0] not in tree:
        return tree
    return {**tree, names[0]: with_leaf(tree[names[0]], names[1:], read)}


def read_otherwise(step: Step, paths: list[str], said: str, cost: float, lines: list[str], read: Read) -> Candidate:
    """One parameter, and what goes with it, read otherwise."""

    def change(at: Step, own: Tree, whole: Tree) -> Tree:
        for one in paths:
            own = with_leaf(own, one.split("."), read)
        return own

    path = paths[0]
    named = f"{branch_of(step)}{path}"
    relative = path.endswith(".relative")  # read by every layer of its half
    if relative:
        acts: Callable[[Step], bool] = partial(_reads_relative, path.split(".")[0])
        changed = Change(shared=lambda whole: with_leaf(whole, path.split("."), read))
    else:
        acts, changed = partial(is_kind, step), Change(parameters=change)
    shown = [line.replace("{}", named) for line in lines]
    return Candidate(said.replace("{}", named), cost, changed, acts, [("parameters", shown)])


def _reads_relative(half: str, step: Step) -> bool:
    return step.kind == f"{half} layer"
