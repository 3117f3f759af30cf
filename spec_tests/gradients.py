"""Gradients of blocks and models, whose parameters are trees, against differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.parameters import Tree, flatten, map_leaves, named_leaves

# The derivative of f at 0 from f(±h) and f(±2h), over h: exact for polynomials of degree 4.
STENCIL = {1: 2 / 3, 2: -1 / 12}
STEP = 3e-4
RTOL, ATOL = 1e-7, 1e-11


FEW = 3
EVERY_ELEMENT = False  # with --slow


def directions(size: int) -> Any:
    """Along which a gradient of so many numbers is compared with differences: every axis of a small one, and of a
    larger one a few directions that move all its numbers by different amounts, so that no mistake in an element, and
    no two that are exchanged, cancel."""
    if EVERY_ELEMENT or size <= FEW:
        return numpy.eye(size)
    random = numpy.random.default_rng(size)
    return numpy.copysign(random.uniform(0.15, 0.5, (FEW, size)), random.standard_normal((FEW, size)))


def random_tree(shapes: Tree, seed: int, *, scale: float = 0.4) -> Tree:
    """Parameters of which none is special: normal, gains around 1."""
    random = numpy.random.default_rng(seed)
    tree = map_leaves(lambda shape: scale * random.standard_normal(shape), shapes)
    for path, leaf in named_leaves(tree):
        if path.endswith(".g"):
            leaf[...] += 1
    return tree


def shapes_of(tree: Tree) -> Tree:
    return map_leaves(lambda leaf: leaf.shape, tree)


def assert_gradients_agree(
    f: Callable[[Tree], tuple[Any, Callable[[Any], Tree]]], arguments: Tree, *, seed: int = 0
) -> None:
    """f(arguments) -> (y, back), back(dy) shaped as the arguments: every gradient, for a random dy, along `directions`.

    max|a - b| <= 1e-7 max|b| + 1e-11 in each tensor, b from differences of Σ y dy.
    """
    moved = flatten(shapes_of(arguments), arguments)
    y, back = f(moved.tree)
    dy = numpy.random.default_rng(seed).standard_normal(numpy.shape(y))
    gradients = dict(named_leaves(back(dy)))
    assert list(gradients) == [path for path, _ in named_leaves(arguments)], (
        "the gradients do not have the structure of the arguments"
    )

    def rise(leaf: Any, step: Any) -> float:
        """Σ (y(x + step) - y(x - step)) dy: the difference first, so that large values of y do not drown it."""
        start = leaf.copy()
        leaf[...] = start + step
        above = numpy.array(f(moved.tree)[0])
        leaf[...] = start - step
        below = f(moved.tree)[0]
        leaf[...] = start
        return float(numpy.sum((above - below) * dy))

    for path, leaf in moved.views.items():
        assert gradients[path].shape == leaf.shape
        along = directions(leaf.size).reshape(-1 if leaf.size else 0, *leaf.shape)
        exact = numpy.array([sum(w * rise(leaf, n * STEP * v) for n, w in STENCIL.items()) / STEP for v in along])
        found = numpy.array([numpy.sum(gradients[path] * v) for v in along])
        error, bound = abs(found - exact).max(initial=0), RTOL * abs(exact).max(initial=0) + ATOL
        assert error <= bound, f"the gradient of {path} is off by {error:.3g}, at most {bound:.3g} is rounding"


def assert_pure(f: Callable[[Tree], tuple[Any, Callable[[Any], Tree]]], arguments: Tree) -> None:
    """Arguments and dy are only read, and back gives the same bits whenever it is called."""
    before = [leaf.tobytes() for _, leaf in named_leaves(arguments)]
    for _, leaf in named_leaves(arguments):
        leaf.setflags(write=False)
    y, back = f(arguments)
    dy, other = (numpy.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype) for seed in (0, 1))
    dy.setflags(write=False)
    value = y.tobytes()
    gradients = back(dy)
    first = [leaf.tobytes() for _, leaf in named_leaves(gradients)]
    back(other)
    f(map_leaves(lambda leaf: -leaf, arguments))[1](other)
    for _, leaf in named_leaves(gradients):
        leaf[...] = 7  # a gradient belongs to its receiver
    assert [leaf.tobytes() for _, leaf in named_leaves(back(dy))] == first, "back gives two results for one dy"
    assert [leaf.tobytes() for _, leaf in named_leaves(arguments)] == before, "an argument was changed"
    assert y.tobytes() == value, "back changed the value"
