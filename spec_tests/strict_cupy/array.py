"""`cupy.ndarray` over NumPy storage: the members that are not NumPy's under a checked signature (those: calls.py).

No way leads to the host that is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy

from .state import STATE
from .surface import VERSION

DTYPES = frozenset("?bBhHiIlLqQefdFD")
# The types of cupy.add.at in CuPy 14.2.0, from its source: its docstring lists fewer.
SCATTER_DTYPES = frozenset("iIlLqQefd")
SCALARS = (bool, int, float, complex, numpy.generic)
NO_IMPLICIT = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)
NOT_MODELLED = {
    "byteswap", "dump", "dumps", "mdspan", "reduced_view", "scatter_max", "scatter_min", "toDlpack", "tofile",
    "cstruct", "flat",
}  # fmt: skip


class Flags(NamedTuple):
    c_contiguous: bool
    f_contiguous: bool
    owndata: bool


class ndarray:  # noqa: N801 - CuPy's name
    __slots__ = ("__weakref__", "_storage")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    # Tells NumPy's scalars to leave the operator to this class, and its functions to refuse.
    __array_ufunc__ = None
    _storage: numpy.ndarray

    def __init__(self, shape: Any, dtype: Any = float, memptr: None = None, strides: None = None, order: str = "C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the strict double of cupy.ndarray has neither memptr nor strides")
        self._storage = wrap(numpy.empty(shape, dtype, order))._storage  # type: ignore[call-overload]

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(NO_IMPLICIT)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{func.__name__} was called on a device array; call the array's own namespace")

    def __getattr__(self, name: str) -> Any:
        if name in NOT_MODELLED:
            raise NotImplementedError(f"cupy.ndarray.{name} exists, but its strict double does not model it")
        raise AttributeError(f"CuPy {VERSION}: cupy.ndarray has no attribute {name!r}")

    def __getitem__(self, key: Any) -> Any:
        plain, masks, integers = index(key)
        if masks:
            STATE.synchronise()
        return wrap(guarded(lambda: self._storage[plain], wraps=integers))

    def __setitem__(self, key: Any, value: Any) -> None:
        plain, masks, integers = index(key)
        source = operand(value)
        if masks:
            STATE.synchronise()
        if masks or integers:
            count_scalar(source, self)
        if integers and not isinstance(value, SCALARS):
            refuse_repeats(self._storage.shape, plain)
        guarded(lambda: self._storage.__setitem__(plain, source), wraps=integers)

    def __len__(self) -> int:
        return len(self._storage)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> numpy.ndarray:
        """A copy on the host, counted."""
        STATE.to_host(self.nbytes)
        if out is None:
            host: numpy.ndarray = numpy.array(self._storage, order=order)  # type: ignore[call-overload]
            return host
        if type(out) is not numpy.ndarray or (out.dtype, out.shape) != (self.dtype, self.shape):
            raise TypeError("get: out must be a numpy.ndarray of the same dtype and shape")
        out[...] = self._storage
        return out

    def set(self, arr: numpy.ndarray, stream: Any = None) -> None:
        """Copy host values in, counted."""
        if type(arr) is not numpy.ndarray or (arr.dtype, arr.shape) != (self.dtype, self.shape):
            raise TypeError("set: arr must be a numpy.ndarray of the same dtype and shape")
        STATE.to_device(arr.nbytes)
        self._storage[...] = arr

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        return self.get().tobytes(order)

    def __bool__(self) -> bool:
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __complex__(self) -> complex:
        return complex(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, format_spec: str) -> str:
        return format(self.get(), format_spec)

    def __copy__(self) -> Any:
        return wrap(self._storage.copy())

    def __deepcopy__(self, memo: Any) -> Any:
        return self.__copy__()

    def __reduce__(self) -> Any:
        raise NotImplementedError("cupy.ndarray can be pickled, but its strict double does not model it")

    def astype(self, dtype: Any, order: Any = "K", casting: None = None, subok: None = None, copy: bool = True) -> Any:
        if casting is not None or subok is not None:
            raise TypeError(f"CuPy {VERSION}: astype: casting and subok are not supported yet")
        if not copy and numpy.dtype(dtype) == self.dtype and order == "K":
            return self
        return wrap(guarded(lambda: self._storage.astype(dtype, order, copy=copy)))

    def fill(self, value: Any) -> None:
        self._storage.fill(operand(value))

    def scatter_add(self, slices: Any, value: Any) -> None:
        """`numpy.add.at`, in place, for the types that CuPy adds atomically."""
        plain, masks, integers = index(slices)
        source = operand(value)
        if integers and self.dtype.char not in SCATTER_DTYPES:
            raise TypeError(
                f"cupy.add.at only supports int32, int64, float16, float32, float64, uint32, uint64 as "
                f"data type, not {self.dtype}"
            )
        if masks:
            STATE.synchronise()
        if masks or integers:
            count_scalar(source, self)
        addend = numpy.asarray(source).astype(self.dtype, copy=False)
        guarded(lambda: numpy.add.at(self._storage, plain, addend), wraps=integers)

    @property
    def flags(self) -> Flags:
        flags = self._storage.flags
        return Flags(flags.c_contiguous, flags.f_contiguous, flags.owndata)

    @property
    def base(self) -> ndarray | None:
        return None if self._storage.base is None else wrap(self._storage.base)

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self._storage.ctypes.data, device_id=0)

    @property
    def device(self) -> Any:
        return SimpleNamespace(id=0, synchronize=STATE.synchronise)


def wrap(value: Any) -> Any:
    """Results of NumPy as CuPy has them: every array and every scalar is an array on the device."""
    if isinstance(value, numpy.ndarray):
        if value.dtype.char not in DTYPES:
            raise ValueError(f"Unsupported dtype {value.dtype}")
        if value.base is None:
            STATE.allocate(value.nbytes)
        array = ndarray.__new__(ndarray)
        array._storage = value
        return array
    if isinstance(value, SCALARS):
        return wrap(numpy.asarray(value))
    if isinstance(value, (tuple, list)):
        parts = [wrap(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def operand(value: Any) -> Any:
    """What a kernel takes: the storage of a device array, or a Python or NumPy scalar as it is."""
    if type(value) is ndarray:
        return value._storage
    if isinstance(value, SCALARS):
        return value
    raise TypeError(f"Unsupported type {type(value)}: CuPy computes with device arrays and scalars only")


def guarded(call: Callable[[], Any], *, wraps: bool = True) -> Any:
    """CuPy never warns of an overflow, and takes an index out of range modulo the length instead of raising."""
    try:
        with numpy.errstate(all="ignore"):
            return call()
    except IndexError as error:
        if wraps and "out of bounds" in str(error):
            raise RuntimeError(f"{error}: CuPy would wrap it round in silence") from None
        raise


def index(key: Any) -> tuple[Any, bool, bool]:
    """The key for NumPy, whether it holds a mask, whether it holds an integer array. The `...` at its end makes
    NumPy return a 0-d view, as CuPy does, where it would return a scalar."""
    plain: list[Any] = []
    masks = integers = False
    for part in key if isinstance(key, tuple) else (key,):
        if type(part) is ndarray:
            masks |= part.dtype == bool
            integers |= part.dtype != bool
            plain.append(part._storage)
        elif (
            part is None
            or part is Ellipsis
            or (isinstance(part, (slice, int, numpy.integer)) and not isinstance(part, bool))
        ):
            plain.append(part)
        else:
            raise TypeError(f"an index must be on the device: {type(part)} would be transferred in silence")
    if not any(part is Ellipsis for part in plain):
        plain.append(Ellipsis)
    return tuple(plain), masks, integers


def count_scalar(source: Any, array: ndarray) -> None:
    """Under an index array or a mask CuPy turns a scalar into an array: a transfer, tiny but a transfer."""
    if isinstance(source, SCALARS):
        STATE.to_device(array.itemsize)


def refuse_repeats(shape: tuple[int, ...], key: Any) -> None:
    places = numpy.arange(int(numpy.prod(shape))).reshape(shape)
    chosen = guarded(lambda: places[key])
    if numpy.unique(chosen).size < chosen.size:
        raise RuntimeError("an index occurs twice: which of the values CuPy stores there is undefined")
