"""Calls that NumPy computes once they are known to be CuPy's: functions, ufuncs, and most of the array's members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from .array import NOT_MODELLED, SCALARS, guarded, ndarray, operand, wrap
from .state import STATE
from .surface import SURFACE, signature_check

# The parameters that hold arrays: the first of a call must be on the device, the others may also be scalars. A device
# array for any other parameter (an axis, a shape, a length) would have to be read by the host.
ARRAYS = frozenset({
    "a", "a1", "a2", "a_max", "a_min", "ar", "ar1", "ar2", "arr", "arr1", "arr2", "args", "array", "ary", "arys",
    "b", "bins", "choicelist", "choices", "condition", "condlist", "dst", "element", "f", "fill_value", "filt",
    "fp", "ind", "indices", "keys", "m", "mask", "max", "min", "multi_index", "operands", "out", "p", "prototype",
    "q", "repeats", "self", "sorter", "src", "test_elements", "tup", "v", "val", "vals", "values", "weights",
    "where", "x", "x1", "x2", "xi", "xp", "y",
})  # fmt: skip
CREATORS = {
    "arange", "bartlett", "blackman", "diag_indices", "empty", "eye", "full", "hamming", "hanning", "identity",
    "indices", "kaiser", "linspace", "logspace", "ones", "tri", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
HOST_RESULTS = {
    "base_repr", "binary_repr", "broadcast_shapes", "can_cast", "common_type", "iscomplexobj", "isfortran",
    "isrealobj", "isscalar", "may_share_memory", "min_scalar_type", "ndim", "result_type", "shape", "shares_memory",
    "size",
}  # fmt: skip
# Those whose documentation says so, and those that call one of them.
WAITING = {
    *SURFACE["modules"]["cupy"]["synchronises"], "argwhere", "choose", "intersect1d", "percentile", "quantile",
    "repeat", "setdiff1d", "setxor1d", "trim_zeros", "union1d", "unique_all", "unique_counts", "unique_inverse",
    "unique_values",
}  # fmt: skip
# The ufunc methods that CuPy has implemented, ufunc by ufunc.
IMPLEMENTED = {"reduce": {"add", "multiply"}, "accumulate": {"add", "multiply"}, "reduceat": {"add"}, "at": {"add"}}
OPERATORS = {
    "add": numpy.add,
    "sub": numpy.subtract,
    "mul": numpy.multiply,
    "truediv": numpy.true_divide,
    "floordiv": numpy.floor_divide,
    "mod": numpy.remainder,
    "pow": numpy.power,
    "divmod": numpy.divmod,
    "matmul": numpy.matmul,
    "and": numpy.bitwise_and,
    "or": numpy.bitwise_or,
    "xor": numpy.bitwise_xor,
    "lshift": numpy.left_shift,
    "rshift": numpy.right_shift,
}
COMPARISONS = {
    "lt": numpy.less,
    "le": numpy.less_equal,
    "eq": numpy.equal,
    "ne": numpy.not_equal,
    "gt": numpy.greater,
    "ge": numpy.greater_equal,
}
UNARY = {"neg": numpy.negative, "pos": numpy.positive, "abs": numpy.absolute, "invert": numpy.invert}


def delegate(full_name: str, signature: str, numpys: Callable[..., Any]) -> Callable[..., Any]:
    """A call with CuPy's signature, its array arguments checked, its waiting counted, computed by NumPy's function."""
    bind = signature_check(full_name, signature)
    name = full_name.rpartition(".")[2]

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = bind(*args, **kwargs)
        if name in HOST_RESULTS:
            return numpys(*plain(args), **{key: plain(value) for key, value in kwargs.items()})
        check_arguments(full_name, bound, first=name not in CREATORS)
        if name in WAITING and waits(name, bound):
            STATE.synchronise()
        if name in {"sort", "argsort"}:
            if bound["kind"] not in {None, "stable"}:
                raise ValueError("kind can only be None or 'stable'")
            args, kwargs = args[:2], {**kwargs, "kind": "stable"}
        return run(numpys, args, kwargs)

    call.__name__ = name
    return call


def check_arguments(name: str, bound: dict[str, Any], *, first: bool) -> None:
    """Arrays on the device, everything else on the host; `first`: the next array may not be a scalar."""
    for key, value in bound.items():
        if key not in ARRAYS:
            if type(value) is ndarray or (isinstance(value, (tuple, list)) and any(type(v) is ndarray for v in value)):
                raise TypeError(f"{name}: {key} is on the device, and the host needs it: read it where that is seen")
        elif type(value) is ndarray:
            first = False
        elif value is not None or first:
            several = isinstance(value, (tuple, list))
            for part in value if several else (value,):
                if type(part) is not ndarray and (first or several or not isinstance(part, SCALARS)):
                    raise TypeError(f"{name}: {key} has {type(part)}: CuPy computes with device arrays and scalars")
            first = False


def waits(name: str, bound: dict[str, Any]) -> bool:
    """Whether this call of a function that may wait for the device does."""
    if name == "where":
        return bound["x"] is None
    if name == "average":
        return bound["weights"] is not None
    return name != "repeat" or type(bound["repeats"]) is ndarray


def plain(value: Any) -> Any:
    """Storage for device arrays, also inside a tuple or a list; a NumPy array anywhere is refused."""
    if type(value) is ndarray:
        return value._storage
    if isinstance(value, numpy.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: CuPy computes with device arrays and scalars")
    if type(value) in {tuple, list}:
        return type(value)(plain(part) for part in value)
    return value


def run(numpys: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """NumPy's function on the storage; the result is on the device, and is `out` itself where that was given."""
    named = {key: plain(value) for key, value in kwargs.items()}
    if "newshape" in named:
        named["shape"] = named.pop("newshape")  # NumPy 2 renamed reshape's
    positional = plain(args)
    result = guarded(lambda: numpys(*positional, **named))
    out = kwargs.get("out")
    return out if type(out) is ndarray else wrap(result)


class UFunc:
    """`cupy.ufunc`: `out`, `dtype` and `casting`, and nothing else, computed by NumPy's ufunc."""

    def __init__(self, name: str, numpys: Any) -> None:
        self.name, self._numpy = name, numpys
        self._bind = signature_check(name, SURFACE["ufunc"]["call"])

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        if kwargs:
            self._bind(*inputs, **kwargs)
        for value in inputs:
            operand(value)
        return run(self._numpy, inputs, kwargs)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        self._implemented("at")
        a.scatter_add(indices, b)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        self._implemented("reduce")
        return run(self._numpy.reduce, (array, axis, dtype), {"out": out, "keepdims": keepdims})

    def accumulate(self, array: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        self._implemented("accumulate")
        return run(self._numpy.accumulate, (array, axis, dtype), {"out": out})

    def reduceat(self, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        self._implemented("reduceat")
        return run(self._numpy.reduceat, (array, indices, axis, dtype), {"out": out})

    def outer(self, A: Any, B: Any, **kwargs: Any) -> Any:
        return run(self._numpy.outer, (A, B), kwargs)

    def _implemented(self, method: str) -> None:
        if self.name.rpartition(".")[2] not in IMPLEMENTED[method]:
            raise NotImplementedError(f"`{self.name}.{method}` is not supported yet")


def binary(numpys: Callable[..., Any], *, swapped: bool = False) -> Callable[[ndarray, Any], Any]:
    def method(self: ndarray, other: Any) -> Any:
        left, right = self._storage, operand(other)
        if swapped:
            left, right = right, left
        return wrap(guarded(lambda: numpys(left, right)))

    return method


def in_place(numpys: Any) -> Callable[[ndarray, Any], ndarray]:
    def method(self: ndarray, other: Any) -> ndarray:
        right = operand(other)
        guarded(lambda: numpys(self._storage, right, out=self._storage))
        return self

    return method


def unary(numpys: Callable[[Any], Any]) -> Callable[[ndarray], Any]:
    return lambda self: wrap(guarded(lambda: numpys(self._storage)))


def attribute(name: str) -> property:
    def read(self: ndarray) -> Any:
        value = getattr(self._storage, name)
        return wrap(value) if isinstance(value, numpy.ndarray) else value

    return property(read)


def equip() -> None:
    """Give `ndarray` the rest of CuPy's operators, attributes and methods, and nothing that CuPy lacks."""
    listed = SURFACE["ndarray"]
    for name, numpys in OPERATORS.items():
        made = {
            f"__{name}__": binary(numpys),
            f"__r{name}__": binary(numpys, swapped=True),
            f"__i{name}__": in_place(numpys),
        }
        for operator_name in made.keys() & set(listed["operators"]):
            setattr(ndarray, operator_name, made[operator_name])
    for name, numpys in COMPARISONS.items():
        setattr(ndarray, f"__{name}__", binary(numpys))
    for name, numpys in UNARY.items():
        setattr(ndarray, f"__{name}__", unary(numpys))
    missing = NOT_MODELLED | vars(ndarray).keys()
    for name in set(listed["attributes"]) - missing:
        setattr(ndarray, name, attribute(name))
    for name in listed["methods"].keys() - missing:
        numpys = getattr(numpy.ndarray, name, None) or getattr(numpy, name)  # ptp left the array in NumPy 2
        setattr(ndarray, name, delegate(f"ndarray.{name}", listed["methods"][name], numpys))


equip()
