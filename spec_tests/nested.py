"""Trees with one thing changed somewhere inside."""

from __future__ import annotations

import copy
from typing import Any

GONE = object()


def changed(tree: dict[str, Any], path: tuple[Any, ...], to: Any) -> dict[str, Any]:
    """A copy with that value at the place; without the entry if that is GONE."""
    tree = copy.deepcopy(tree)
    within: Any = tree
    for key in path[:-1]:
        within = within[key]
    if to is GONE:
        del within[path[-1]]
    else:
        within[path[-1]] = to
    return tree
