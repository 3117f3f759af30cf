"""Forms in which weights take less room on the disk than 32 bits each. In use they are float32 again.

    "int8"     a matrix as `PATH.int8`, whole numbers of 8 bits, and `PATH.scale`, a float32 an output channel
    "sparse"   a matrix as `PATH.kept`, a bit a weight, `PATH.values`, those that are not zero, and `PATH.shape`

Biases and gains stay as they are, in float32 beside "int8". Products are not computed in 8 bits, and zeros are
multiplied like other numbers: a form saves room, not time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from refllm.backend import Array, namespace
from refllm.checkpoint import Declared
from refllm.errors import UserError
from refllm.finetune.tuning import Leaves
from refllm.parameters import Tree, is_decayed, named_leaves, require_fit
from refllm.piecewise import Piecewise, pieces_of

FORMS = ("int8", "sparse")
PARTS = ("int8", "scale", "kept", "values", "shape")  # of a matrix
TABLES = ("token", "position", "segment")  # whose output channels are rows: a token's vector, or, tied, its logit


def quantised(W: Array, *, axis: int) -> tuple[Array, Array]:
    """q = round(W / s),   s = max|W| / 127 along `axis`: 8-bit weights, symmetric, with a scale an output channel

    Source:  Jacob et al. 2018 (arXiv:1712.05877) sec. 2.1 with zero-point 0; Krishnamoorthi 2018 (arXiv:1806.08342)
             sec. 3.1 (a scale a channel); Dettmers et al. 2022 (arXiv:2208.07339) sec. 2 (absmax).
    Shapes:  W (..., I, O) -> q like W, int8; s, with 1 for `axis`, in the dtype of W
    Special: |W - s q| <= s / 2; a channel of zeros gives zeros.

    >>> q, s = quantised(array([[127.0], [-63.5], [0.4]]), axis=0)
    >>> q.ravel().tolist(), s.tolist()
    ([127, -64, 0], [[1.0]])
    """
    xp = namespace(W)
    largest = abs(W).max(axis=axis, keepdims=True)
    s = largest / 127
    s[s == 0] = 1  # a channel of zeros
    return xp.clip(xp.rint(W / s), -127, 127).astype("int8"), s


def dequantised(q: Array, s: Array) -> Array:
    """W = s q, in float32.

    >>> dequantised(array([[127], [-64]], np.int8), array([[0.5]], np.float32)).tolist()
    [[63.5], [-32.0]]
    """
    return q.astype("float32") * s


def packed(leaves: Leaves, form: str) -> Leaves:
    """The leaves of a model as those of a form. UserError for another form."""
    _require_form(form)
    arrays: Leaves = {}
    for path, leaf in leaves.items():
        if not is_decayed(leaf.shape):
            arrays[path] = leaf.astype("float32") if form == "int8" else leaf
        elif form == "int8":
            axis = -1 if path.rpartition(".")[2] in TABLES else -2
            arrays[f"{path}.int8"], arrays[f"{path}.scale"] = quantised(leaf.astype("float32"), axis=axis)
        else:
            xp, kept = namespace(leaf), leaf.reshape(-1) != 0
            arrays[f"{path}.kept"], arrays[f"{path}.values"] = xp.packbits(kept), leaf.reshape(-1)[kept]
            arrays[f"{path}.shape"] = xp.asarray(leaf.shape)
    return arrays


def weights_of(description: dict[str, Any], read: Callable[[str], dict[str, Array]]) -> dict[str, Array]:
    """The leaves of a model by path, from a checkpoint as `checkpoint.load` gives it, whatever their form. UserError
    where one of them is infinite or not a number: what such a model answers means nothing."""
    leaves = unpacked(read("weights"), description["form"]) if "form" in description else read("weights")
    if description.get("model") != "ngram":
        require_floating(leaves)
    _require_finite(leaves)
    return leaves


def piecewise_weights_of(
    description: dict[str, Any], read: Callable[[str], dict[str, Piecewise]], shapes: Tree
) -> dict[str, Piecewise]:
    """The same of a checkpoint that is read piecewise, for a model of these shapes."""
    arrays = read("weights")
    leaves = _unpacked_piecewise(arrays, description["form"], shapes) if "form" in description else arrays
    require_floating(leaves)
    _require_finite(leaves)
    return leaves


def _require_finite(leaves: dict[str, Any]) -> None:
    for path, leaf in sorted(leaves.items()):
        if not all(namespace(piece).isfinite(piece).all() for piece in pieces_of(leaf)):
            raise UserError(
                f"the weights of the run are not all finite numbers ({path}): its training diverged; give another "
                "run, or train it again with a lower --lr"
            )


def require_floating(leaves: dict[str, Any]) -> None:
    """UserError unless these are numbers that a model computes with."""
    odd = sorted(path for path, leaf in leaves.items() if str(leaf.dtype) not in ("float32", "float64"))
    if odd:
        raise UserError(f"the weights {odd[0]} are {leaves[odd[0]].dtype}, not float32; use another checkpoint")


def require_declared(shapes: Tree, declared: dict[str, Declared], form: Any) -> None:
    """UserError unless the arrays of a file, as its header declares them, are those of the model in that form. Nothing
    of their size has been made until then."""
    if form is None:
        require_fit(shapes, declared)
        return
    _require_form(form)
    for path, shape in named_leaves(shapes):
        stored = declared.get(f"{path}.int8", declared.get(path))
        bits = declared.get(f"{path}.kept")
        if not (stored.shape == shape if stored else bits and bits.shape == (-(-math.prod(shape) // 8),)):
            raise UserError(f"the checkpoint is not one of this model: {path} is not {shape}; use another checkpoint")


def unpacked(arrays: dict[str, Array], form: Any) -> dict[str, Array]:
    """The leaves of a model, from those of a form. UserError for another form, or parts that do not belong together."""
    _require_form(form)
    leaves: dict[str, Array] = {}
    try:
        for name, array in arrays.items():
            path, _, part = name.rpartition(".")
            if part == "int8":
                leaves[path] = dequantised(array, arrays[f"{path}.scale"])
            elif part == "values":
                shape = tuple(arrays[f"{path}.shape"].tolist())
                kept = namespace(array).unpackbits(arrays[f"{path}.kept"])[: math.prod(shape)].astype(bool)
                leaf = namespace(array).zeros(kept.shape, array.dtype)
                leaf[kept] = array
                leaves[path] = leaf.reshape(shape)
            elif part not in ("scale", "kept", "shape"):
                leaves[name] = array
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"the stored weights do not belong together ({error}); use another checkpoint") from None
    return leaves


def _unpacked_piecewise(arrays: dict[str, Piecewise], form: str, shapes: Tree) -> dict[str, Piecewise]:
    """The leaves of a model from those of a form, one unpacked at a time."""

    def leaf_of(path: str, shape: tuple[int, ...]) -> Piecewise:
        parts = [name for name in arrays if name == path or name in {f"{path}.{part}" for part in PARTS}]
        dtypes = [arrays[name].dtype for name in parts if name in (path, f"{path}.scale", f"{path}.values")]

        def pieces() -> Iterator[Array]:
            yield unpacked({name: arrays[name].whole() for name in parts}, form)[path].reshape(-1)

        return Piecewise(shape, dtypes[0], pieces)

    return {path: leaf_of(path, shape) for path, shape in named_leaves(shapes)}


def _require_form(form: Any) -> None:
    if form not in FORMS:
        raise UserError(f"weights are stored as {', '.join(FORMS)}, not as {form!r}; use another version of refllm")
