"""All sized cases, by the operation whose file they stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

from golden.sized import attentions, products, rows, steps
from golden.sized.recipe import SPECS, Asked

TOPICS: tuple[ModuleType, ...] = (rows, products, attentions, steps)


def operations() -> dict[str, Callable[[], Iterator[Asked]]]:
    """The makers of the cases of every operation."""
    return {name: next(vars(topic)[name] for topic in TOPICS if name in vars(topic)) for name in SPECS}


def cases(operation: str) -> list[Asked]:
    return list(operations()[operation]())
