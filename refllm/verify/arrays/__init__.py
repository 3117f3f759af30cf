"""Arrays of other libraries, given and taken as they are: one file a library, imported only when it is asked for.

`bridge` calls a function of their arrays with NumPy's and differentiates it, where the library can.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Protocol

import numpy

from refllm.backend import Array
from refllm.errors import UserError
from refllm.verify.case import CARRIERS, FaultError

LIBRARIES = ("numpy", "torch", "jax", "cupy", "tinygrad")
_OWNERS = {"torch": "torch", "jax": "jax", "jaxlib": "jax", "cupy": "cupy", "tinygrad": "tinygrad"}
_BY_NUMPY = ("float64", "float32", "float16")


class Library(Protocol):
    """What a file of this folder has."""

    DTYPES: tuple[str, ...]  # the precisions that its arrays have

    def given(self, x: Array, dtype: str, device: str | None) -> Any:
        """A NumPy array as the library's own: of floating-point numbers in that dtype, of others in their own."""

    def taken(self, x: Any) -> Array:
        """An array of the library as NumPy's; what NumPy has no dtype for as float32."""

    def dtype_of(self, x: Any) -> str: ...

    def watched(self, x: Any) -> Any:
        """The array in a form whose use is recorded for the gradient."""

    def pullback(self, f: Any, inputs: list[Any], outputs: list[Any]) -> Any:
        """From gradients of the outputs to those of the inputs, of which f is a function; None if there is none."""

    def using(self, dtype: str) -> Any:
        """A context in which the library computes in that precision."""


def library(name: str) -> Library:
    """The file of a library. UserError if there is none, or the library is not installed."""
    if name not in LIBRARIES:
        raise UserError(f"arrays are those of {', '.join(LIBRARIES)}; got {name!r:.40}")
    if importlib.util.find_spec(name) is None:
        raise UserError(f"arrays of {name} need {name}, which this Python does not have: install it there")
    return importlib.import_module(f"refllm.verify.arrays.{name}_arrays")


def owner(x: Any) -> Library | None:
    """The library whose array this is; None of anything else, and of NumPy's."""
    if isinstance(x, numpy.ndarray | numpy.generic | bool | int | float | str) or x is None:
        return None
    for kind in type(x).__mro__:  # a subclass, such as torch.nn.Parameter or one of the user's
        name = _OWNERS.get(kind.__module__.partition(".")[0])
        if name is not None and hasattr(x, "dtype") and hasattr(x, "shape"):
            return library(name)
    return None


def arrived(x: Any, dtype: str) -> Any:
    """An array of any of the libraries as NumPy's; everything else as it is. FaultError if a run in `dtype` cannot
    take it."""
    own = owner(x)
    if own is None:
        return x
    kind = own.dtype_of(x)
    if (kind == "bfloat16" and dtype != "bfloat16") or kind.startswith("float8"):
        raise FaultError(f"an array of {kind} was returned in a run of {dtype}; return {CARRIERS[dtype]}")
    return own.taken(x)


def all_arrived(tree: Any, dtype: str) -> Any:
    """The same for every leaf of dicts, lists and tuples."""
    if isinstance(tree, dict):
        return {name: all_arrived(branch, dtype) for name, branch in tree.items()}
    if isinstance(tree, list | tuple):
        branches = [all_arrived(branch, dtype) for branch in tree]
        return branches if isinstance(tree, list) else tuple(branches)
    return arrived(tree, dtype)


def own_dtype(x: Array, dtype: str) -> str:
    """The dtype that an array has in a run of `dtype`: that of the run, where this is what carries it."""
    return dtype if x.dtype.kind == "f" and str(x.dtype) == CARRIERS[dtype] else str(x.dtype)
