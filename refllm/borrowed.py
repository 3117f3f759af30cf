"""Layers whose parameters lie elsewhere: brought before they are used, dropped after, their gradients handed over.

What goes through a list of layers, there and back, says when it uses which (`at_hand`) and gives away what it has found
(`handed_over`). Of a plain list all is there, and what is found is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from refllm.parameters import Tree


class Lender(Protocol):
    """Who has the layers, by their numbers."""

    def bring(self, unit: int) -> None:
        """The parameters are where the tree says."""
        ...

    def drop(self, unit: int) -> None:
        """They are used no more for now."""
        ...

    def hand_over(self, unit: int, gradient: Tree) -> None:
        """Takes the gradient of all parameters of a layer."""
        ...


class Borrowed(list[Tree]):
    """Layers, of which the first has the number `first` with the lender."""

    def __init__(self, layers: list[Tree], lender: Lender, first: int) -> None:
        super().__init__(layers)
        self.lender, self.first = lender, first


def in_turn(layers: Sequence[Tree]) -> Iterable[Tree]:
    """The layers from the first to the last, each there while it is the current one."""
    return _brought_in_turn(layers) if isinstance(layers, Borrowed) else layers  # a plain list: each token passes here


def _brought_in_turn(layers: Borrowed) -> Iterator[Tree]:
    for n, layer in enumerate(layers):
        with _brought(layers, n):
            yield layer


_THERE: AbstractContextManager[None] = nullcontext()


def at_hand(layers: Sequence[Tree], n: int) -> AbstractContextManager[None]:
    """The parameters of layer n are there inside."""
    return _brought(layers, n) if isinstance(layers, Borrowed) else _THERE  # always the same: each token passes here


@contextmanager
def _brought(layers: Borrowed, n: int) -> Iterator[None]:
    layers.lender.bring(layers.first + n)
    yield
    layers.lender.drop(layers.first + n)


def handed_over(layers: Sequence[Tree], n: int, gradient: Tree) -> Tree:
    """The gradient of layer n, or nothing where the lender has taken it."""
    if not isinstance(layers, Borrowed):
        return gradient
    layers.lender.hand_over(layers.first + n, gradient)
    return {}
