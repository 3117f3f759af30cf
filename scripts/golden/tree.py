"""Parameter trees (nested dicts and lists) and their flat form, whose names are the path joined by dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Tree = dict[str, Any]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": [x, {"b": y}]} -> {"a.0": x, "a.1.b": y}, in the order of the tree."""
    if isinstance(tree, dict):
        branches = list(tree.items())
    elif isinstance(tree, list):
        branches = [(str(n), branch) for n, branch in enumerate(tree)]
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for name, branch in branches:
        flat |= flatten(branch, f"{prefix}.{name}" if prefix else name)
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`: a level whose names are 0, 1, 2 ... is a list."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split(".")
        branch = tree
        for name in parents:
            branch = branch.setdefault(name, {})
        branch[last] = leaf
    return {name: _lists(branch) for name, branch in tree.items()}


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    branches = {name: _lists(branch) for name, branch in tree.items()}
    if list(branches) == [str(n) for n in range(len(branches))]:
        return list(branches.values())
    return branches
