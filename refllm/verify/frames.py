"""What goes through the pipe between the verifier and the process that runs an adapter.

A frame is its length in eight bytes and a pickle. What an adapter returns is put into values of NumPy and Python alone
before: the verifier never imports what an adapter's objects are made of.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Case, FaultError, Response, Truth

LARGEST = 1 << 28  # bytes of an array that are sent; no answer of a case has as many
_UNKNOWN = Truth(numpy.zeros(0), None)


@dataclass(frozen=True)
class Foreign:
    """Something that is no NumPy array of numbers, or one that is too large to be sent."""

    kind: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None


def write(stream: IO[bytes], value: Any) -> None:
    content = pickle.dumps(value, protocol=5)
    stream.write(len(content).to_bytes(8, "little") + content)
    stream.flush()


def read(stream: IO[bytes]) -> Any:
    """The next frame. EOFError if there is none, or it is cut short."""
    length = int.from_bytes(_exactly(stream, 8), "little")
    return pickle.loads(_exactly(stream, length))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


def question(case: Case) -> Case:
    """The case without what a process need not know to answer it: the truth."""
    outputs, gradients = (dict.fromkeys(truths, _UNKNOWN) for truths in (case.outputs, case.gradients))
    return replace(case, outputs=outputs, gradients=gradients, taps={}, alternatives={})


def sendable(response: Response) -> Response:
    """The answer in values of NumPy and Python alone. FaultError if entries of an array are masked."""
    gradients = None if response.gradients is None else _all_sendable(response.gradients)
    return replace(
        response, outputs=_all_sendable(response.outputs), gradients=gradients, taps=_all_sendable(response.taps)
    )


def _all_sendable(values: dict[str, Any]) -> dict[str, Any]:
    return {str(name): _sendable(x) for name, x in values.items()}


def _sendable(x: Any) -> Any:
    if x is None or type(x) in (bool, int, float):
        return x
    if isinstance(x, numpy.ndarray | numpy.generic):
        return _array(plain(x))
    return Foreign(f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins."))


def _array(x: Array) -> Any:
    if x.nbytes > LARGEST or x.dtype.kind not in "fiubc" or not _is_native(x.dtype):
        return Foreign("numpy.ndarray", x.shape, str(x.dtype))
    return x


def _is_native(dtype: Any) -> bool:
    """One of NumPy's own, in this machine's order of bytes. After a pipe it is equal to NumPy's, and another object."""
    return bool(dtype.isnative and numpy.dtype(dtype.str) == dtype)


def plain(value: Any) -> Array:
    """A NumPy scalar, and an array of a subclass, as an ordinary array. FaultError if entries are masked: they have
    no value."""
    if type(value) is numpy.ndarray:
        return value
    if isinstance(value, numpy.ma.MaskedArray) and (mask := numpy.ma.getmaskarray(value)).any():
        masked = f"{int(mask.sum())} of {mask.size} entries"
        raise FaultError(f"what was returned is a masked array with {masked} masked; return the numbers of all")
    return numpy.asarray(value)
