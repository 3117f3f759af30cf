"""Parameters and their gradients are trees: dicts and lists with arrays at the leaves."""

from collections.abc import Callable
from typing import Any

from refllm.spec.array import Array, Tree


def each(f: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """The tree with f(leaf, the others' leaves at the same place ...) at every leaf."""
    if isinstance(tree, dict):
        return {name: each(f, branch, *(other[name] for other in others)) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [each(f, *branches) for branches in zip(tree, *others, strict=True)]
    return f(tree, *others)


def leaves(tree: Tree) -> list[Array]:
    """All arrays of a tree."""
    if not isinstance(tree, dict | list):
        return [tree]
    branches = tree.values() if isinstance(tree, dict) else tree
    return [leaf for branch in branches for leaf in leaves(branch)]


def plus(a: Tree, b: Tree) -> Tree:
    """The sum of two trees. A gradient that one of them lacks is 0 there."""
    if isinstance(a, dict):
        both = {name: plus(a[name], b[name]) for name in a.keys() & b.keys()}
        return {**a, **b, **both}
    if isinstance(a, list):
        return [plus(x, y) for x, y in zip(a, b, strict=True)]
    return a + b


def complete(gradients: Tree, p: Tree) -> Tree:
    """The gradients in the structure of p, 0 where there are none."""
    return {name: gradients[name] if name in gradients else each(lambda x: 0 * x, p[name]) for name in p}
