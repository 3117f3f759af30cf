"""A call of a C function: its tensors in guarded memory, and what it wrote where it must not.

Before and behind every array lie guards of known bytes; what is written to is filled with bytes that no computation
gives (NaN of its own payload). This runs in the process of the library.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import CARRIERS, FaultError, Manner, Response, UnsupportedError
from refllm.verify.law import Law
from refllm.verify.layouts import CONTIGUOUS, laid_out
from refllm.verify.library.header import DTYPES
from refllm.verify.library.interfaces import Interface
from refllm.verify.poison import poisoned
from refllm.verify.watched import UNCHANGED

GUARD = 256  # bytes on each side; a multiple of what vector instructions want to be aligned to
_GUARDED = 0xA5
_FILLED = {"f": 0xFF, "u": 0xFF, "i": 0xA7, "b": 0xA7}  # by the kind of an array: NaN where there is one
BOUNDS, UNWRITTEN = "bounds of arrays", "memory that was never written"
_ALIGNED = 64
_NOT_SUPPORTED = 1

Group = list[tuple[str, Array]]  # names of leaves, and their arrays


class Tensor(ctypes.Structure):
    """refllm_tensor of the header."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("name", ctypes.c_char_p), ("axes", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One case, as flat as a C function sees it: the leaves of each argument, and the shapes of what is asked for."""

    interface: Interface
    dtype: str
    inputs: list[Group]  # of each argument
    keywords: dict[str, Any]
    outputs: list[list[tuple[str, tuple[int, ...], str]]]  # of each output: name, shape, dtype of its array
    cotangents: list[Group]
    manner: Manner


def answer(library: ctypes.CDLL, question: Question) -> Response:
    """Calls the function, and that of its gradient. Raises UnsupportedError, FaultError."""
    sizes = [x.nbytes for group in question.inputs for _, x in group]
    with poisoned(sizes) if question.manner.poisoned else contextlib.nullcontext():
        return _Call(library, question).answer()


class _Block:
    """An array in guarded memory. `known` says what it is called in a sentence."""

    def __init__(self, x: Array, dtype: str, known: str, name: str, layout: str = CONTIGUOUS) -> None:
        self.known, self.name, self.dtype, self.fill = known, name, dtype, 0
        stored = _stored(x, dtype)
        if layout in (CONTIGUOUS, "read-only"):
            self.memory = numpy.full(stored.nbytes + 2 * GUARD + _ALIGNED, _GUARDED, "uint8")
            start = -(self.memory.ctypes.data + GUARD) % _ALIGNED + GUARD
            self.start, self.end = start, start + stored.nbytes
            self.array = self.memory[start : self.end].view(stored.dtype).reshape(stored.shape)
            self.array[...] = stored
        else:
            self.array = laid_out(stored, layout)
            self.memory = numpy.empty(0, "uint8")
            self.start = self.end = 0
        self.was = self.array.copy()

    @classmethod
    def to_write(cls, shape: tuple[int, ...], kind: str, dtype: str, known: str, name: str) -> _Block:
        made = cls(numpy.zeros(shape, kind), dtype, known, name)
        made.fill = _FILLED["b" if dtype == "bool" else made.array.dtype.kind]
        made.memory[made.start : made.end] = made.fill
        return made

    def tensor(self) -> Tensor:
        x, axes = self.array, self.array.ndim
        self._shape = (ctypes.c_int64 * max(axes, 1))(*x.shape)
        self._strides = (ctypes.c_int64 * max(axes, 1))(*(s // x.itemsize for s in x.strides))
        self._name = (self.name.partition(".")[2] or self.name).encode()
        kind = self.dtype if self.array.dtype.kind in "fu" and self.dtype in DTYPES else str(self.array.dtype)
        return Tensor(x.ctypes.data, self._shape, self._strides, self._name, axes, DTYPES[kind])

    def beyond(self) -> list[Law]:
        """Whether something was written before or behind it."""
        found = []
        for where, guard in (("before", self.memory[: self.start][::-1]), ("behind", self.memory[self.end :])):
            written = numpy.flatnonzero(guard != _GUARDED)
            if written.size:
                far = f"{int(written[-1]) + 1} bytes {'behind its end' if where == 'behind' else 'before its start'}"
                text = f"memory {where} {self.known} is written to, up to {far}; its shape is {list(self.array.shape)}"
                found.append(Law(BOUNDS, True, text))
        return found

    def changed(self) -> list[Law]:
        differ = numpy.argwhere(_bits(self.array) != _bits(self.was))
        if not len(differ):
            return []
        at = tuple(int(i) for i in differ[0])
        was, now = (_number(_read(x, self.dtype)[at]) for x in (self.was, self.array))
        where = list(at) if at else ""
        text = f"the input {self.known} is changed by the call: {self.known}{where} was {was}, is {now}"
        return [Law(UNCHANGED, True, text)]

    def unwritten(self) -> list[Law]:
        """Whether places still hold what they were filled with."""
        x = self.array
        raw = numpy.ascontiguousarray(x).reshape(-1).view("uint8").reshape(x.size, x.itemsize)
        left = numpy.flatnonzero((raw == self.fill).all(axis=-1))
        if not left.size:
            return []
        at = [int(i) for i in numpy.unravel_index(int(left[0]), x.shape)] if x.ndim else ""
        text = f"{self.known} is not written in {left.size} of {x.size} places, the first of them {self.known}{at}"
        return [Law(UNWRITTEN, True, text)]

    def value(self) -> Array:
        if self.array.dtype == numpy.uint8 and self.dtype == "bool":
            if (others := self.array[(self.array > 1) & (self.array != self.fill)]).size:
                raise FaultError(f"{self.known} holds {int(others[0])}; a bool is 0 or 1")
            return self.array != 0
        return _read(self.array, self.dtype).copy()


class _Call:
    def __init__(self, library: ctypes.CDLL, question: Question) -> None:
        self.library, self.question, self.interface = library, question, question.interface
        self.laws: list[Law] = []
        self._kept: list[Any] = []

    def answer(self) -> Response:
        question = self.question
        given = [self._given(group) for group in question.inputs]
        keywords = [(name, kind, question.keywords.get(name)) for name, kind in self.interface.keywords]
        masks = {n: self._block(x, n, n) for n, _, x in keywords if isinstance(x, numpy.ndarray)}
        outputs = [
            [_Block.to_write(shape, kind, self._kind(kind), name, name) for name, shape, kind in leaves]
            for leaves in question.outputs
        ]
        first = self._arguments(self.interface.inputs, given)
        said = [self._keyword(kind, masks.get(name, x)) for name, kind, x in keywords]
        read = [*(block for group in given for block in group), *masks.values()]
        written = [block for group in outputs for block in group]
        self._run(self.interface.symbol, [*first, *said, *self._arguments(self.interface.outputs, outputs)])
        self._look(read, written)
        values = {block.name: block.value() for block in written}
        gradients = self._gradients(given, first, said, outputs, read) if question.cotangents else None
        return Response(values, gradients, {}, (), tuple(dict.fromkeys(self.laws)))

    def _gradients(
        self, given: list[list[_Block]], first: list[Any], said: list[Any], outputs: list[list[_Block]],
        read: list[_Block],
    ) -> dict[str, Array] | None:  # fmt: skip
        """None if the library has no gradient of the operation, or does not support it."""
        symbol = f"{self.interface.symbol}_back"
        if not hasattr(self.library, symbol):
            return None
        cotangents = [self._given(group, "d") for group in self.question.cotangents]
        gradients = [
            [_Block.to_write(b.array.shape, str(_read(b.array, b.dtype).dtype), b.dtype, f"d{b.known}", b.name)
             for b in group]
            for group in given
        ]  # fmt: skip
        for block in (block for group in outputs for block in group):
            block.was = block.array.copy()
        arguments = [
            *first, *said, *self._arguments(self.interface.outputs, outputs),
            *self._arguments(self.interface.outputs, cotangents), *self._arguments(self.interface.inputs, gradients),
        ]  # fmt: skip
        try:
            self._run(symbol, arguments)
        except UnsupportedError:
            return None
        written = [block for group in gradients for block in group]
        self._look([*read, *(b for group in [*outputs, *cotangents] for b in group)], written)
        return {block.name: block.value() for block in written}

    def _given(self, group: Group, before: str = "") -> list[_Block]:
        return [self._block(x, f"{before}{name}", name) for name, x in group]

    def _block(self, x: Array, known: str, name: str) -> _Block:
        return _Block(x, self._kind(str(x.dtype)), known, name, self.question.manner.layout_of(known))

    def _kind(self, kind: str) -> str:
        """The dtype in the words of the header: floating-point numbers are in that of the run, if they are carried."""
        return self.question.dtype if kind == CARRIERS[self.question.dtype] else kind

    def _arguments(self, arguments: Any, groups: list[list[_Block]]) -> list[Any]:
        found: list[Any] = []
        for argument, group in zip(arguments, groups, strict=True):
            tensors = (Tensor * max(len(group), 1))(*(block.tensor() for block in group))
            self._kept.append(tensors)
            found.append(ctypes.cast(tensors, ctypes.c_void_p))
            found += [ctypes.c_int64(len(group))] if argument.several else []
        return found

    def _keyword(self, kind: str, x: Any) -> Any:
        if isinstance(x, _Block):
            tensor = x.tensor()
            self._kept.append(tensor)
            return ctypes.cast(ctypes.pointer(tensor), ctypes.c_void_p)
        if x is None:
            return ctypes.c_void_p(None)
        if kind == "int?":
            number = ctypes.c_int64(x)
            self._kept.append(number)
            return ctypes.cast(ctypes.pointer(number), ctypes.c_void_p)
        if kind in ("text", "text?"):
            return ctypes.c_char_p(x.encode())
        return ctypes.c_double(x) if kind == "float" else ctypes.c_int64(int(x))

    def _run(self, symbol: str, arguments: list[Any]) -> None:
        function = getattr(self.library, symbol)
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status == 0:
            return
        said = self._message()
        if status == _NOT_SUPPORTED:
            raise UnsupportedError(f"{symbol} says that it does not support this{said}")
        raise FaultError(f"{symbol} returned {status}{said}")

    def _message(self) -> str:
        try:
            function = self.library.refllm_message
        except AttributeError:
            return ""
        function.restype = ctypes.c_char_p
        text = function()
        return f": {text.decode('utf-8', 'replace')[:300]}" if text else ""

    def _look(self, read: list[_Block], written: list[_Block]) -> None:
        for block in read:
            self.laws += [*block.beyond(), *block.changed()]
        for block in written:
            self.laws += [*block.beyond(), *block.unwritten()]


def _stored(x: Array, dtype: str) -> Array:
    """The numbers as the library reads them: bfloat16 in two bytes, a boolean in one."""
    if dtype == "bfloat16":
        return (numpy.ascontiguousarray(x, "float32").view("uint32") >> 16).astype("uint16").reshape(x.shape)
    return x.astype("uint8") if x.dtype.kind == "b" else numpy.ascontiguousarray(x).reshape(x.shape)


def _read(x: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (x.astype("uint32") << 16).view("float32").reshape(x.shape)
    return x


def _bits(x: Array) -> Array:
    """The bytes of each number, along an axis of its own where there are several."""
    kind = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}[x.dtype.itemsize]
    return numpy.ascontiguousarray(x).view(kind).reshape(x.shape)


def _number(x: Any) -> str:
    return f"{float(x):.9g}" if x.dtype.kind == "f" else str(x)
