"""NumPy or CuPy for an array. The only file that knows that CuPy exists.

Operations ask for the functions that belong to the array in their hands, `xp = namespace(x)`, and are otherwise
written once. Where the two libraries differ, the difference is settled here: `scatter_add`, `erfc`, the way to the
device and back, and `known`, which says when a value may steer Python's control flow.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy

from refllm.errors import UserError
from refllm.narrow import Narrow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]
else:
    Array = Any


def namespace(x: Array) -> Any:
    """The module whose functions take `x`: numpy for a NumPy array, cupy for a CuPy array."""
    if isinstance(x, (numpy.ndarray, numpy.generic, Narrow)):
        return numpy
    cupy = sys.modules.get("cupy")  # an array of CuPy can only exist once CuPy has been imported
    if cupy is not None and isinstance(x, cupy.ndarray):
        return cupy
    raise TypeError(f"expected a NumPy or CuPy array, got {type(x).__name__}; convert it first (numpy.asarray)")


def is_array_class(kind: type) -> bool:
    """Whether arrays of this class are what an operation takes: NumPy's and CuPy's own, subclasses that only add to
    them, as memmap does, and matrices in fewer bits. A masked array loses its mask on the way, and `*` of a matrix is
    another product."""
    if kind is Narrow:
        return True
    if issubclass(kind, (numpy.ndarray, numpy.generic)):
        return not (hasattr(kind, "filled") or issubclass(kind, numpy.matrix))
    cupy = sys.modules.get("cupy")
    return cupy is not None and issubclass(kind, cupy.ndarray)


def on_device(x: Array) -> bool:
    """Whether `x` lives on a GPU."""
    return namespace(x) is not numpy


def python_scalar(x: Any) -> Any:
    """A scalar of NumPy as Python's own, which lets float32 arrays be float32; anything else as it is."""
    if isinstance(x, numpy.longdouble):  # which has no other
        return float(x)
    return x.item() if isinstance(x, numpy.generic) else x


def known(flag: Any) -> bool:
    """Whether `flag` is true AND reading it is free: always False on a device, which would have to be waited for.

    Control flow that depends on values goes through here, so that no operation synchronises a GPU unseen. What is
    skipped when `known` is true must be work that would not have changed the result.
    """
    if isinstance(flag, (bool, numpy.bool_)) or not on_device(flag):
        return bool(flag)
    return False


def device_namespace(device: str) -> Any:
    """The module for "cpu" or "cuda"; one clear line if the latter cannot work here."""
    if device == "cpu":
        return numpy
    if device != "cuda":
        raise UserError(f"unknown device {device!r}: use cpu or cuda")
    try:
        import cupy
        import cupyx.scipy.special  # noqa: F401  (erfc lives there)
    except ImportError:
        from refllm.extras import how_to_install  # here, since what it needs takes a tenth of NumPy's time to import

        raise UserError(
            f"--device cuda needs CuPy, which is not installed: {how_to_install('gpu-cuda13', 'cupy-cuda13x>=14')} "
            "(or the same with 12, to match the driver), or use --device cpu"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise UserError(f"--device cuda: CuPy finds no usable GPU ({error}); use --device cpu") from None
    if count == 0:
        raise UserError("--device cuda: no GPU is present on this machine; use --device cpu")
    return cupy


def use_gpu(number: int, sharing: int) -> None:
    """This process works on the GPU of that number from now on. UserError where so many processes share this machine
    and each cannot have one."""
    cupy = device_namespace("cuda")
    found = cupy.cuda.runtime.getDeviceCount()
    if sharing > found:
        gpus = "one GPU" if found == 1 else f"{found} GPUs"
        raise UserError(f"{sharing} ranks on a machine with {gpus}: each needs one of its own; lower --ranks")
    cupy.cuda.Device(number).use()


def wait_for_device(x: Array) -> None:
    """Until what was asked of the device of `x` is done."""
    if on_device(x):
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def allow_tf32(wanted: bool, device: str) -> None:
    """Whether float32 matrix products may take TF32: factors rounded to 11 bits, for speed. Only if asked.

    CuPy reads this variable at the first product of a dtype and then keeps to it, so a process decides once, first.
    """
    if wanted and device != "cuda":
        raise UserError("--tf32 is for a GPU; add --device cuda or leave it out")
    if device == "cuda":
        os.environ["CUPY_TF32"] = "1" if wanted else "0"


def to_device(x: Array, device: str) -> Array:
    """A host array as an array of the device: itself for "cpu", one transfer for "cuda"."""
    return device_namespace(device).asarray(x)


def to_host(x: Array) -> Array:
    """A NumPy array with the values of `x`; from a device this waits for the queue and transfers."""
    return sys.modules["cupy"].asnumpy(x) if on_device(x) else numpy.asarray(x)


def shared_zeros(size: int, dtype: str) -> Array:
    """A vector of zeros on the host in memory that forked processes share."""
    try:
        memory = mmap.mmap(-1, max(1, size * numpy.dtype(dtype).itemsize))
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no {size:,} numbers of {dtype} could be reserved: {error}") from None
    return numpy.frombuffer(memory, dtype, count=size)


class Reservation:
    """A vector on the host whose memory comes where it is written, and goes where it is released.

    The arrays that look at it stay what they are: after a release they are 0 until they are written again.
    """

    def __init__(self, size: int, dtype: str) -> None:
        if not can_release():
            raise UserError("memory that is given back needs Linux; leave --shard parameters out")
        length = max(1, size * numpy.dtype(dtype).itemsize)
        try:
            self._memory = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"no {size:,} numbers of {dtype} could be reserved: {error}") from None
        self.vector = numpy.frombuffer(self._memory, dtype, count=size)

    def release(self, n: slice) -> None:
        """Of these numbers the memory that is of whole pages."""
        itemsize, page = self.vector.itemsize, mmap.PAGESIZE
        start, stop = -(-n.start * itemsize // page) * page, n.stop * itemsize // page * page
        if start < stop:
            self._memory.madvise(mmap.MADV_DONTNEED, start, stop - start)


def can_release() -> bool:
    """Whether the system takes memory back at once from a process that keeps the addresses."""
    return sys.platform.startswith("linux")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the memory of the host or of the device is exhausted."""
    cupy = sys.modules.get("cupy")
    if cupy is None or isinstance(error, MemoryError):
        return isinstance(error, MemoryError)
    if isinstance(error, cupy.cuda.runtime.CUDARuntimeError):  # not even the driver found room
        return "cudaErrorMemoryAllocation" in str(error)
    return isinstance(error, cupy.cuda.memory.OutOfMemoryError)


def scatter_add(target: Array, index: Array, rows: Array) -> None:
    """target[index[i]] += rows[i] for every i, repeated indices included. Writes into `target`, its caller's own.

    Shapes:  target (V, C); index (N,) integers in [0, V); rows (N, C)
    NumPy's own `add.at` takes up to four times as long as sorting the rows and adding each run of equal indices at
    once. A device adds them in any order, so its last bits may vary.
    """
    if on_device(target):
        sys.modules["cupyx"].scatter_add(target, index, rows)
        return
    if not len(index):
        return
    order = numpy.argsort(index, kind="stable")
    ordered = index[order]
    starts = numpy.flatnonzero(numpy.concatenate(([True], ordered[1:] != ordered[:-1])))
    target[ordered[starts]] += numpy.add.reduceat(rows[order], starts, axis=0)


def running_maximum(x: Array) -> Array:
    """y_t = max(x_0 ... x_t) along the last axis. CuPy has no `maximum.accumulate`: there, by doubling distances."""
    if not on_device(x):
        return numpy.maximum.accumulate(x, axis=-1)
    y, distance = x.copy(), 1
    while distance < y.shape[-1]:
        y[..., distance:] = namespace(y).maximum(y[..., distance:], y[..., :-distance])
        distance *= 2
    return y


# erfc(x) = exp(-x^2) / (1 + 2 x) * P((x - 3) / (x + 3)) for x >= 0. P interpolates exp(x^2) erfc(x) (1 + 2 x), a
# smooth function between 1 and 1.3, at the Chebyshev nodes; computed with mpmath at 50 digits, ascending powers.
# Relative error of the formula 1.1e-17 and 7.1e-9.
_ERFC_DOUBLE = (
    1.2530080582697296, -0.13562110612458117, -0.04756229435345087, 0.1296451587027606, -0.11927366341530699,
    0.06830802734397848, -0.023770514918645888, 0.002529391816066239, 0.0018886903591561553, -0.0007798322721083991,
    -0.00010515979981501177, 0.00012509935235563107, 4.949484992570595e-06, -2.0100567931289227e-05,
    -7.315105164159062e-07, 3.472414602875686e-06, 3.5683839153992204e-07, -6.166496077604353e-07,
    -1.4160064940265987e-07, 1.0187000600072885e-07, 4.180784698845582e-08, -1.3326364813003834e-08,
    -8.500397929772615e-09, 9.885798831139365e-10, 8.864219016427092e-10,
)  # fmt: skip
_ERFC_SINGLE = (
    1.2530080563514496, -0.13562110005839803, -0.047562156146354076, 0.12964472091538837, -0.11927528136881008,
    0.06831319671956372, -0.023763559702172088, 0.0025067786718598333, 0.001875060245867973, -0.0007340820503933423,
    -9.25376912641456e-05, 8.007454974776248e-05,
)  # fmt: skip


def erfc(x: Array) -> Array:
    """The complementary error function, 1 - erf(x) = 2 / sqrt(pi) * integral from x to infinity of exp(-t^2).

    erfc and not erf, because the normal distribution's lower tail erfc(-x / sqrt(2)) / 2 keeps its digits where
    1 + erf loses them. NumPy has neither; CuPy has both.
    """
    if on_device(x):
        return sys.modules["cupyx"].scipy.special.erfc(x)
    a = numpy.abs(x)
    u = 1 - 6 / (a + 3)  # (a - 3) / (a + 3), and 1 at infinity
    powers = _ERFC_DOUBLE if x.dtype == numpy.float64 else _ERFC_SINGLE
    y = numpy.full_like(u, powers[-1])
    for c in reversed(powers[:-1]):
        y *= u
        y += c
    y *= numpy.exp(-(numpy.minimum(a, 40) ** 2))  # erfc(40) is below the smallest double, and 40^2 cannot overflow
    y /= 1 + 2 * a
    return numpy.where(x < 0, 2 - y, y)


def zero_where_not(mask: Array, x: Array) -> Array:
    """x where the mask is true, else 0: not their product, which would be NaN where x is NaN or infinite."""
    return namespace(x).where(mask, x, 0).astype(x.dtype, copy=False)


def row_blocks(x: Array, *others: Array, size: int = 1 << 16) -> Iterable[tuple[Array, ...]]:
    """The arrays in blocks of the same rows, about `size` numbers of the first each: a chain of elementwise steps then
    stays in the cache. A device takes all at once. The blocks are views."""
    arrays = (x, *others)
    if x.size <= size or on_device(x):
        return (arrays,) if len(x) else ()
    rows = max(1, size * len(x) // x.size)
    return (tuple([z[i : i + rows] for z in arrays]) for i in range(0, len(x), rows))


@lru_cache(maxsize=256)
def equal_entries(xp: Any, size: int, value: float, dtype: Any) -> Array:
    """A vector (size,) of one value. A row sum is a product with it, two to four times as fast as sum(axis=-1). All
    callers get the same vector; on the host it is read-only."""
    x = xp.full(size, value, dtype)
    if xp is numpy:
        x.setflags(write=False)
    return x


def contents(x: Array, most: int = 4096) -> bytes | None:
    """The bytes of a small array: a key under which what follows from its numbers is kept. None of a large one, and of
    one on a device, which would have to be waited for."""
    return None if x.size > most or on_device(x) else x.tobytes()


@lru_cache(maxsize=16)
def least(xp: Any, dtype: Any) -> float:
    """The most negative number of a dtype."""
    return float(xp.finfo(dtype).min)


def overflow_is_expected() -> Any:
    """A context in which NumPy does not warn of an overflow, because infinity is the answer that is wanted."""
    return numpy.errstate(over="ignore", invalid="ignore")


def generator(seed: int, stream: int = 0) -> Any:
    """A host Generator. Every draw (initial weights, order of the data, dropout, sampling) comes from such a one,
    so that a seed means the same on every device."""
    return numpy.random.Generator(numpy.random.PCG64(numpy.random.SeedSequence([seed, stream])))
