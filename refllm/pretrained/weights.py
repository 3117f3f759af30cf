"""In which form the weights of a published model are kept in use.

    "stored"      as the file has them: matrices of 16 bits stay in the mapped file, and are widened as they are used
    "float32"     widened when they are read, which is exact
    "bfloat16"    in 16 bits, rounded to the nearest where the file has more
    "int8"        in 8 bits, with a scale for each output channel

What is no factor of a product is float32 in all of them: gains, biases, tables of positions; and so are experts.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from refllm.backend import Array
from refllm.errors import UserError
from refllm.narrow import Narrow, in_8_bits, in_bfloat16, is_finite, joined
from refllm.pretrained.naming import Entry
from refllm.pretrained.tensor_file import Tensor

WEIGHTS = ("stored", "float32", "bfloat16", "int8")
Leaf: TypeAlias = Array | Narrow
_KEPT = {"BF16": "bfloat16", "F16": "float16"}


def require_form(weights: str) -> None:
    if weights not in WEIGHTS:
        raise UserError(f"weights are kept as {', '.join(WEIGHTS)}, not as {weights!r}; choose one of these")


def parameter(entry: Entry, tensors: list[Tensor], weights: str) -> Leaf:
    """One of our parameters in that form. UserError if a number of it is not finite."""
    narrow = _stored(entry, tensors) if weights != "float32" and _is_factor(entry) else None
    leaf: Leaf = entry.joined([tensor.read() for tensor in tensors]) if narrow is None else narrow
    if not _is_finite(leaf):
        raise UserError(
            f"the weights in {tensors[0].path.parent} are not all finite numbers ({entry.path}); get them again"
        )
    if weights in ("stored", "float32") or not _is_factor(entry):
        return leaf
    found = in_bfloat16(leaf) if weights == "bfloat16" else in_8_bits(leaf, axis=-1 if entry.path == "token" else -2)
    if found is not leaf:
        for tensor in tensors:
            tensor.forget()
    return found


def _is_factor(entry: Entry) -> bool:
    """Whether it is a matrix that rows are multiplied with, or taken from by the numbers of tokens."""
    name = entry.path.rpartition(".")[2]
    return (name[0] == "W" or name in ("token", "head")) and not entry.stacked and not entry.skipped


def _stored(entry: Entry, tensors: list[Tensor]) -> Narrow | None:
    """The matrix in the 16 bits that the files have it in; None where they have other ones, or several."""
    kinds = {tensor.dtype for tensor in tensors}
    if len(kinds) > 1 or not kinds <= set(_KEPT):
        return None
    (kind,) = kinds
    return joined([Narrow(one.kept(), form=_KEPT[kind], turned=entry.transposed) for one in tensors])


def _is_finite(leaf: Leaf) -> bool:
    if isinstance(leaf, Narrow):
        return is_finite(leaf.stored, leaf.form)
    return not leaf.size or bool(np.isfinite(leaf.min()) and np.isfinite(leaf.max()))
