"""Magnitude pruning: the smallest weights become zero, and stay it while the others are trained on."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from refllm.backend import Array, namespace
from refllm.errors import UserError
from refllm.finetune.tuning import Leaves, TrainedPart, Tuning, require_trained
from refllm.parameters import Tree, is_decayed, map_leaves, named_leaves

SCOPES = ("tensor", "global")


def magnitude_masks(p: Tree, *, sparsity: float, scope: str) -> Leaves:
    """True where a weight is kept: all but the floor(sparsity N) weights of least magnitude, of equal ones the first

    of each matrix ("tensor"), or of all matrices together ("global"). Matrices are the leaves with two axes and more;
    biases and gains are left alone.
    Source:  Han et al. 2015 (arXiv:1506.02626) sec. 3.
    Raises:  UserError for a sparsity that is not in [0, 1), or another scope.

    >>> p = {"W": array([[1.0, -4.0], [3.0, 2.0]]), "b": array([0.1])}
    >>> {name: mask.tolist() for name, mask in magnitude_masks(p, sparsity=0.5, scope="tensor").items()}
    {'W': [[False, True], [True, False]]}
    """
    if not 0 <= sparsity < 1:
        raise UserError(f"sparsity must be at least 0 and below 1, got {sparsity}")
    if scope not in SCOPES:
        raise UserError(f"scope must be one of {', '.join(SCOPES)}; got {scope!r}")
    matrices = {path: abs(leaf).reshape(-1) for path, leaf in named_leaves(p) if is_decayed(leaf.shape)}
    if scope == "tensor":
        kept = {path: _kept(sizes, sparsity) for path, sizes in matrices.items()}
    else:
        kept, start = {}, 0
        together = _kept(namespace(next(iter(matrices.values()))).concatenate(list(matrices.values())), sparsity)
        for path, sizes in matrices.items():
            kept[path] = together[start : start + len(sizes)]
            start += len(sizes)
    return {path: kept[path].reshape(leaf.shape) for path, leaf in named_leaves(p) if path in kept}


def _kept(sizes: Array, sparsity: float) -> Array:
    xp = namespace(sizes)
    kept = xp.ones(sizes.shape, bool)
    kept[xp.argsort(sizes, kind="stable")[: int(sparsity * len(sizes))]] = False
    return kept


def pruned(p: Tree, masks: Leaves) -> Tree:
    """The tree with zeros where a mask is false.

    >>> p = {"W": array([[1.0, -4.0]]), "b": array([0.1])}
    >>> q = pruned(p, magnitude_masks(p, sparsity=0.5, scope="tensor"))
    >>> q["W"].tolist(), q["b"].tolist()
    ([[0.0, -4.0]], [0.1])
    """
    paths = iter([path for path, _ in named_leaves(p)])
    return map_leaves(lambda leaf: _masked(leaf, masks.get(next(paths))), p)


def sparsity_of(p: Tree) -> float:
    """The share of zeros among the weights of the matrices.

    >>> sparsity_of({"W": array([[1.0, 0.0, 0.0, 2.0]]), "b": zeros(9)})  # biases do not count
    0.5
    """
    matrices = [leaf for _, leaf in named_leaves(p) if is_decayed(leaf.shape)]
    return sum(int((leaf == 0).sum()) for leaf in matrices) / sum(leaf.size for leaf in matrices)


def pruned_tuning(*, model: ModuleType, config: Any, parameters: Tree, masks: Leaves) -> Tuning:
    """All that is kept is trained, what is pruned stays zero: q = p ⊙ mask, dp = dq ⊙ mask.

    Source:  Han et al. 2015 (arXiv:1506.02626) sec. 3 (retraining).
    """
    require_trained("pruned", parameters)
    structure = model.shapes(config)
    known = dict(named_leaves(pruned(parameters, masks)))

    def rebuild(p: Leaves, frozen: Leaves) -> tuple[Leaves, Callable[[Leaves], Leaves]]:
        def back(dfull: Leaves) -> Leaves:
            return {path: _masked(dfull[path], masks.get(path)) for path in known}

        return {path: _masked(leaf, masks.get(path)) for path, leaf in p.items()}, back

    return Tuning(
        options={"tune": "pruned"},
        structure=structure,
        model=TrainedPart({path: leaf.shape for path, leaf in known.items()}, lambda generator: known.items()),
        frozen={},
        rebuild=rebuild,
    )


def _masked(leaf: Array, mask: Array | None) -> Array:
    return leaf if mask is None else leaf * mask
