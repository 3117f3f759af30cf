"""The modules `cupy`, `cupyx` and `cupyx.scipy.special`, filled from the stored list as they are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy

from .array import ndarray, wrap
from .calls import UFunc, delegate
from .state import NO_DRIVER, STATE, CUDARuntimeError, OutOfMemoryError
from .surface import SURFACE, VERSION

COMPUTED_BY = {"cupy": numpy, "cupy.linalg": numpy.linalg, "cupy.lib.stride_tricks": numpy.lib.stride_tricks}
# What calls back, or reads the device in ways that are not counted here.
NOT_MODELLED = {
    "apply_along_axis", "apply_over_axes", "array2string", "array_repr", "array_str", "asarray_chkfinite",
    "format_float_positional", "format_float_scientific", "from_dlpack", "load", "mask_indices", "piecewise",
    "require", "save", "savetxt", "savez", "savez_compressed", "show_config",
}  # fmt: skip


class Module(ModuleType):
    """A module that makes what the stored list has on first use and refuses every other name."""

    def __init__(self, name: str, **own: Any) -> None:
        super().__init__(name)
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        listed = SURFACE["modules"].get(self.__name__, {})
        full_name = f"{self.__name__}.{name}"
        numpys = getattr(COMPUTED_BY.get(self.__name__), name, None)
        value: Any
        if name in listed.get("numpy", ()):
            value = numpys
        elif name in listed.get("constants", {}):
            value = float(listed["constants"][name])
        elif name in listed.get("ufuncs", {}) and numpys is not None:
            value = UFunc(full_name, numpys)
        elif name in listed.get("functions", {}) and numpys is not None and name not in NOT_MODELLED:
            value = delegate(full_name, listed["functions"][name], numpys)
        elif any(name in listed.get(kind, ()) for kind in ("functions", "ufuncs", "other")):
            raise NotImplementedError(f"{full_name} exists, but its strict double does not model it")
        else:
            reason = SURFACE["left_out"].get(full_name)
            because = f"; the double leaves it out: {reason}" if reason else ""
            raise AttributeError(f"CuPy {VERSION}: module {self.__name__!r} has no attribute {name!r}{because}")
        setattr(self, name, value)
        return value


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True) -> numpy.ndarray:
    return a.get(stream, order, out, blocking) if type(a) is ndarray else numpy.asarray(a, order=order)


def array(
    obj: Any,
    dtype: Any = None,
    copy: bool = True,
    order: Any = "K",
    subok: bool = False,
    ndmin: int = 0,
    *,
    blocking: bool = False,
) -> Any:
    if type(obj) is ndarray:
        return wrap(numpy.array(obj._storage, dtype, copy=copy or None, order=order, ndmin=ndmin))
    host = numpy.array(obj, dtype, order=order, ndmin=ndmin)  # its own copy: the device shares nothing with the host
    STATE.to_device(host.nbytes)
    return wrap(host)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, blocking: bool = False) -> Any:
    if type(a) is not ndarray:
        return array(a, dtype, order=order or "K")
    if not copy and order in {None, "K"} and (dtype is None or numpy.dtype(dtype) == a.dtype):
        return a
    return wrap(numpy.array(a._storage, dtype, copy=copy, order=order or "K"))


def erf_function(name: str, scalar: Callable[[float], float]) -> Callable[..., Any]:
    """`math.erf` for each element in double precision, rounded to CuPy's type: float32 of float32, else float64."""
    loop = numpy.frompyfunc(scalar, 1, 1)

    def compute(x: Any, out: Any = None, *, casting: Any = "same_kind", dtype: Any = None) -> Any:
        kind = dtype or (numpy.float32 if numpy.result_type(x) == numpy.float32 else numpy.float64)
        values = numpy.asarray(loop(x), dtype=numpy.float64).astype(kind)
        if out is None:
            return values
        numpy.copyto(out, values, casting=casting)
        return out

    return UFunc(f"cupyx.scipy.special.{name}", compute)


class Device:
    """`cupy.cuda.Device`."""

    def __init__(self, device: int | None = None) -> None:
        self.id = device or 0

    def use(self) -> None:
        STATE.allocate(0)

    def synchronize(self) -> None:
        runtime_call(STATE.synchronise)

    def __enter__(self) -> Device:
        self.use()
        return self

    def __exit__(self, *exception: object) -> None:
        return None


def runtime_call(call: Callable[[], Any]) -> Any:
    if not STATE.device:
        raise CUDARuntimeError(NO_DRIVER)
    return call()


def cuda() -> ModuleType:
    stream = SimpleNamespace(synchronize=lambda: runtime_call(STATE.synchronise))
    runtime = Module(
        "cupy.cuda.runtime",
        CUDARuntimeError=CUDARuntimeError,
        deviceSynchronize=lambda: runtime_call(STATE.synchronise),
        getDevice=lambda: runtime_call(lambda: 0),
        getDeviceCount=lambda: runtime_call(lambda: 1),
        getDeviceProperties=lambda device: runtime_call(lambda: {"name": b"strict double", "totalGlobalMem": 1 << 34}),
        memGetInfo=lambda: runtime_call(lambda: (1 << 34, 1 << 34)),
    )
    return Module(
        "cupy.cuda",
        Device=Device,
        Stream=SimpleNamespace(null=stream),
        get_current_stream=lambda: stream,
        is_available=lambda: STATE.device,
        memory=Module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError),
        runtime=runtime,
    )


def modules() -> dict[str, ModuleType]:
    """The double's modules under the names that `import` looks for."""
    devices = cuda()
    cupy = Module(
        "cupy",
        __version__=VERSION,
        array=array,
        asarray=asarray,
        asanyarray=asarray,
        asnumpy=asnumpy,
        cuda=devices,
        get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None),
        is_available=devices.is_available,
        lib=Module("cupy.lib", stride_tricks=Module("cupy.lib.stride_tricks")),
        linalg=Module("cupy.linalg"),
        ndarray=ndarray,
        newaxis=None,
        ufunc=UFunc,
    )
    vars(cupy)["get_array_module"] = lambda *args: cupy if any(isinstance(a, ndarray) for a in args) else numpy
    special = Module("cupyx.scipy.special", erf=erf_function("erf", math.erf), erfc=erf_function("erfc", math.erfc))
    scipy = Module("cupyx.scipy", special=special)
    cupyx = Module("cupyx", scipy=scipy, scatter_add=lambda a, slices, value: a.scatter_add(slices, value))
    return {
        "cupy": cupy,
        "cupy.cuda": devices,
        "cupy.linalg": cupy.linalg,
        "cupy.lib": cupy.lib,
        "cupy.lib.stride_tricks": cupy.lib.stride_tricks,
        "cupyx": cupyx,
        "cupyx.scipy": scipy,
        "cupyx.scipy.special": special,
    }
