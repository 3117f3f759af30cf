"""Low-rank adapters (LoRA): a trained matrix stays, and a product of two thin ones is added to it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from refllm import checkpoint
from refllm.backend import Array, namespace, to_host
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.finetune.tuning import Leaves, TrainedPart, Tuning, begun_leaves, known_leaves, require_trained
from refllm.parameters import NamedLeaf, Tree, named_leaves, require_fit

ATTENTION = r"attention\.W"  # of paths: the matrices of every kind of attention
USUAL = rf"^token$|{ATTENTION}"  # a small model keeps most of what it knows of words in its embedding
MATRICES = r"layers\..*\.W"  # those of the feed-forward layers too


@differentiable
def low_rank(
    W: Array, A: Array, B: Array, *, scale: float
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]:
    """LoRA: y = W + s A B,   s = scale

    Source:  Hu et al. 2021 (arXiv:2106.09685) sec. 4.1, h = W₀ x + B A x with columns for x; here weights are
             (in, out), so that A comes first.
    Shapes:  W (..., I, O); A (..., I, r); B (..., r, O) -> y (..., I, O)
    Back:    dW = dy;  dA = s dy Bᵀ;  dB = s Aᵀ dy
    Special: B = 0 gives y = W to the bit, and then dA = 0 while dB is not.

    >>> y, back = low_rank(zeros((2, 2)), array([[1.0], [2.0]]), array([[3.0, 4.0]]), scale=10.0)
    >>> y.tolist()
    [[30.0, 40.0], [60.0, 80.0]]
    """
    y = W + scale * (A @ B)

    def back(dy: Array) -> tuple[Array, Array, Array]:
        return dy, scale * (dy @ B.swapaxes(-1, -2)), scale * (A.swapaxes(-1, -2) @ dy)

    return y, back


def low_rank_tuning(
    *,
    model: ModuleType,
    config: Any,
    parameters: Tree | None,
    rank: int = 4,
    alpha: float = 16.0,
    pattern: str = USUAL,
    whole: str | None = None,
) -> Tuning:
    """Adapters, `PATH.A` and `PATH.B`, with scale alpha / rank, on every matrix whose path the `pattern` finds.

    Leaves that a pattern `whole` finds are trained in full, like new ones. A starts normal with deviation 1/√I, so that
    x A has the size of x, and B zero: the start is the trained model. A matrix of queries, keys and values in one
    (Wqkv) has one A for the three.
    Source:  Hu et al. 2021 (arXiv:2106.09685) sec. 4.1 (initial values, scale) and 4.2 (there attention alone).
    Raises:  UserError without a trained model, for patterns that find nothing, for a rank below 1, or so high that an
             adapter is not smaller than its matrix, and for an alpha that is not positive.
    """
    require_trained("low-rank", parameters)
    if not 0 < alpha < math.inf:
        raise UserError(f"alpha must be a positive number, got {alpha}")
    structure = model.shapes(config)
    shapes, known = dict(named_leaves(structure)), known_leaves(structure, parameters)
    full = {path for path in shapes if path not in known or (whole is not None and re.search(whole, path))}
    adapted = [p for p, shape in shapes.items() if p not in full and len(shape) > 1 and re.search(pattern, p)]
    if not adapted:
        raise UserError(f"no matrix of the trained model is found by the pattern {pattern!r}; tune all or upper")
    for path in adapted:
        _require_rank(rank, path, shapes[path])
    trained: Leaves = {path: shapes[path] for path in shapes if path in full}
    for path in adapted:
        *lead, rows, columns = shapes[path]
        trained |= {f"{path}.A": (*lead, rows, rank), f"{path}.B": (*lead, rank, columns)}

    def start(generator: Any) -> Iterator[NamedLeaf]:
        yield from begun_leaves(model, config, generator, known)
        for path in adapted:
            shape = trained[f"{path}.A"]
            A = generator.standard_normal(shape) / math.sqrt(shape[-2])
            yield f"{path}.A", A
            yield f"{path}.B", namespace(A).zeros(trained[f"{path}.B"])

    def rebuild(p: Leaves, frozen: Leaves) -> tuple[Leaves, Callable[[Leaves], Leaves]]:
        leaves, backs = frozen | {path: p[path] for path in full}, {}
        for path in adapted:
            leaves[path], backs[path] = low_rank(frozen[path], p[f"{path}.A"], p[f"{path}.B"], scale=alpha / rank)

        def back(dfull: Leaves) -> Leaves:
            gradient = {path: dfull[path] for path in trained if path in full}
            for path, back_adapter in backs.items():
                _, gradient[f"{path}.A"], gradient[f"{path}.B"] = back_adapter(dfull[path])
            return gradient

        return leaves, back

    return Tuning(
        options={"tune": "low-rank", "rank": rank, "alpha": alpha, "pattern": pattern, "whole": whole},
        structure=structure,
        model=TrainedPart(trained, start),
        frozen={path: leaf for path, leaf in known.items() if path not in full},
        rebuild=rebuild,
    )


def _require_rank(rank: int, path: str, shape: tuple[int, ...]) -> None:
    rows, columns = shape[-2:]
    if not 1 <= rank < rows * columns / (rows + columns):
        most = math.ceil(rows * columns / (rows + columns))
        raise UserError(
            f"rank must be at least 1, and below {most} for two matrices to be smaller than {path} {shape}; got {rank}"
        )


def save_adapters(directory: Path, tuning: Tuning, trained: Tree) -> None:
    """The trained leaves alone, and which frozen ones they belong to. UserError if the directory holds anything."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not empty and will not be overwritten; choose another place for the adapters")
    description = {"tuning": tuning.options, "frozen_sha256": _digest(tuning.frozen)}
    checkpoint.save(directory, description, {"adapters": trained}, step=0)


def load_adapters(
    directory: Path, *, model: ModuleType, config: Any, parameters: Tree
) -> tuple[Tuning, dict[str, Array]]:
    """The tuning and its trained leaves (host arrays), on the parameters of the model that they were trained on.

    `tuning.full(trained)` merges the two into an ordinary tree of the model.
    Raises:  UserError for anything missing or damaged, and for parameters that are not those of the training.
    """
    description, read = checkpoint.load(directory)
    try:
        options, digest = dict(description["tuning"]), description["frozen_sha256"]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{directory} holds no adapters; give a directory that save_adapters has written") from None
    trained = read("adapters")
    known = {path: leaf for path, leaf in named_leaves(parameters) if path not in trained}
    options.pop("tune", None)
    tuning = low_rank_tuning(model=model, config=config, parameters=known, **options)
    require_fit(tuning.model.shapes(config), trained)
    if _digest(tuning.frozen) != digest:
        raise UserError(f"the adapters in {directory} were trained on other parameters; give the model they belong to")
    return tuning, trained


def _digest(leaves: Leaves) -> str:
    """Of the names and numbers."""
    digest = hashlib.sha256()
    for path, leaf in sorted(leaves.items()):
        digest.update(f"{path} {leaf.dtype} {leaf.shape}".encode())
        digest.update(to_host(leaf).tobytes())
    return digest.hexdigest()
