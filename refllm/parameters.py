"""Parameters are a plain tree: dicts and lists with arrays at the leaves.

A model states the structure once, in `shapes(config)`; gradients have the structure of their parameters. A leaf's name
is its path, `layers.0.attention.Wqkv`, in the order in which the tree is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from refllm.backend import Array, is_array_class, namespace
from refllm.errors import UserError
from refllm.narrow import Narrow

Tree: TypeAlias = Any  # dict[str, Tree] | list[Tree] | leaf
NamedLeaf: TypeAlias = tuple[str, Any]  # its path, and an array or a shape


def named_leaves(tree: Tree, prefix: str = "") -> list[NamedLeaf]:
    """(path, leaf) for every leaf; a shape, which is a tuple, is a leaf too."""
    if isinstance(tree, dict):
        children: Any = tree.items()
    elif isinstance(tree, list):
        children = enumerate(tree)
    else:
        return [(prefix, tree)]
    leaves = []
    for key, child in children:
        leaves += named_leaves(child, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def any_leaf(operation: str, p: Tree) -> Array:
    """The first array of the parameters, which says where they are and of what dtype; UserError if there is none."""
    for path, leaf in named_leaves(p):
        if not is_array_class(type(leaf)):
            raise UserError(f"{operation}: {path or 'p'} is no array of NumPy or CuPy, but {type(leaf).__name__}")
        return leaf
    raise UserError(f"{operation}: the parameters are empty; give those of the model")


def map_leaves(f: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """The tree with f(leaf, other leaves at the same place ...) at every leaf."""
    if isinstance(tree, dict):
        return {key: map_leaves(f, child, *(other[key] for other in others)) for key, child in tree.items()}
    if isinstance(tree, list):
        return [map_leaves(f, *children) for children in zip(tree, *others, strict=True)]
    return f(tree, *others)


def named_gradients(
    back: Callable[[Array], tuple[Array, ...]], names: tuple[str, ...], dy: Array
) -> tuple[Array, Tree]:
    """The gradient of the input of an operation, and by their names those of its parameters.

    The last names may be of parameters that it was not given, as a bias."""
    dx, *gradients = back(dy)
    return dx, dict(zip(names, gradients, strict=False))


def branch(tree: Tree | None, *path: str | int) -> Any:
    """The part of a tree at that place; None of a tree that is None, as the draws of dropout are in use."""
    if tree is None:
        return None
    for name in path:
        if isinstance(name, str) and not (isinstance(tree, dict) and name in tree):
            held = (
                f"only {', '.join(map(repr, tree)) or 'nothing'}"
                if isinstance(tree, dict)
                else f"a {type(tree).__name__}"
            )
            raise UserError(f"dropout_mask: there must be an entry {name!r} here; got {held}")
        tree = tree[name]
    return tree


def from_names(shapes: Tree, leaves: dict[str, Any]) -> Tree:
    """The tree of the structure of `shapes` whose leaves are looked up by path."""
    paths = iter([path for path, _ in named_leaves(shapes)])
    return map_leaves(lambda _: leaves[next(paths)], shapes)


def count(shapes: Tree) -> int:
    """The number of parameters."""
    return sum(math.prod(shape) for _, shape in named_leaves(shapes))


def require_fit(shapes: Tree, arrays: Mapping[str, Any]) -> None:
    """UserError unless `arrays`, by path, or what has a `shape` for each, are exactly those that `shapes` asks for."""
    wanted = dict(named_leaves(shapes))
    odd = sorted(set(arrays) ^ set(wanted))
    if odd:
        where = "the checkpoint" if odd[0] in arrays else "the model"
        raise UserError(f"the checkpoint is not one of this model: only {where} has {odd[0]}; use another checkpoint")
    for path, shape in wanted.items():
        if arrays[path].shape != shape:
            raise UserError(
                f"the checkpoint is not one of this model: {path} is {arrays[path].shape}, should be {shape}; "
                "use another checkpoint"
            )


def surely_fits(tree: Tree, shapes: Tree, kind: Any, dtype: Any) -> bool:
    """Whether a tree has the structure and the shapes of `shapes`, every leaf being an array of that very class and
    dtype. What a training step can afford to ask; where it says no, `misfit` knows."""
    if shapes.__class__ is tuple:
        return bool(tree.__class__ is kind and tree.shape == shapes and tree.dtype is dtype)
    if tree.__class__ is not shapes.__class__ or len(tree) != len(shapes):
        return False
    if shapes.__class__ is list:
        return all(surely_fits(child, shape, kind, dtype) for child, shape in zip(tree, shapes, strict=True))
    for name, shape in shapes.items():
        if name not in tree or not surely_fits(tree[name], shape, kind, dtype):
            return False
    return True


def misfit(tree: Tree, shapes: Tree) -> str | None:
    """What is wrong with a tree of parameters, in words; None if it fits."""
    wanted, given = dict(named_leaves(shapes)), dict(named_leaves(tree))
    for path in [path for path in wanted if path not in given][:1]:
        return f"{path} is missing"
    for path in [path for path in given if path not in wanted][:1]:
        return f"{path} is too many"
    first: tuple[str, Any] | None = None
    for path, shape in wanted.items():
        leaf = given[path]
        if not is_array_class(type(leaf)):
            return f"{path} is no array of NumPy or CuPy, but {type(leaf).__name__}"
        if leaf.shape != shape:
            return f"{path} is {leaf.shape}, should be {shape}"
        first = first or (path, leaf.dtype)
        if leaf.dtype != first[1]:
            return f"{path} is {leaf.dtype} but {first[0]} is {first[1]}"
    return None if _same_structure(tree, shapes) else "lists and dicts are not where they should be"


def _same_structure(tree: Tree, shapes: Tree) -> bool:
    if isinstance(shapes, dict):
        return isinstance(tree, dict) and all(_same_structure(tree[name], shapes[name]) for name in shapes)
    if isinstance(shapes, list):
        return isinstance(tree, list) and all(map(_same_structure, tree, shapes))
    return True


def for_decoding(p: Tree) -> Tree:
    """The same numbers, with every matrix of a layer that is higher than wide in column order.

    A decoding step multiplies single rows with them: the threads of BLAS share whole columns then, and not short pieces
    of rows (docs/speed.md). Nothing else depends on the order.
    """

    def ordered(path: str, leaf: Array) -> Array:
        if isinstance(leaf, Narrow):  # whose blocks are multiplied in the cache
            return leaf
        high = "layers" in path.split(".") and leaf.ndim == 2 and leaf.shape[0] > leaf.shape[1]
        return namespace(leaf).asfortranarray(leaf) if high else leaf

    return from_names(p, {path: ordered(path, leaf) for path, leaf in named_leaves(p)})


def is_decayed(shape: tuple[int, ...]) -> bool:
    """Weight decay is for matrices: not for biases and norms, which have one axis."""
    return len(shape) >= 2


def placed(shapes: Tree) -> tuple[dict[str, tuple[slice, tuple[int, ...]]], int]:
    """Where each leaf lies in one vector of all, with its shape: the decayed ones first; and where these end."""
    names = sorted(named_leaves(shapes), key=lambda item: not is_decayed(item[1]))  # stable
    places, start, split = {}, 0, 0
    for path, shape in names:
        places[path] = (slice(start, start + math.prod(shape)), shape)
        start += math.prod(shape)
        if is_decayed(shape):
            split = start
    return places, split


class FlatTree:
    """All leaves of a tree in one vector, the decayed ones first; `tree` holds views into `vector`.

    One vector makes an optimiser's step a few long operations instead of many short ones. `decayed` and `rest` are its
    two parts.
    """

    def __init__(self, shapes: Tree, vector: Array) -> None:
        self.shapes, self.vector = shapes, vector
        if vector.shape != (count(shapes),):
            raise ValueError(f"FlatTree: the vector must be ({count(shapes)},) to hold the tree; got {vector.shape}")
        places, self.split = placed(shapes)
        views = {path: vector[place].reshape(shape) for path, (place, shape) in places.items()}
        self.views = views
        self.tree = from_names(shapes, views)

    @property
    def decayed(self) -> Array:
        return self.vector[: self.split]

    @property
    def rest(self) -> Array:
        return self.vector[self.split :]


def flatten(shapes: Tree, tree: Tree) -> FlatTree:
    """A FlatTree with a copy of the arrays of `tree`."""
    arrays = dict(named_leaves(tree))
    any_array = next(iter(arrays.values()))
    flat = FlatTree(shapes, namespace(any_array).empty(count(shapes), any_array.dtype))
    for path, view in flat.views.items():
        view[...] = arrays[path]
    return flat
