"""Any program as an implementation that stays alive: frames over its standard input and output (docs/conformance.md).

A frame is two numbers of eight bytes, little-endian, the lengths of what follows: a JSON object, and the bytes of its
tensors. A tensor is {"dtype", "shape", "at"}: row-major, little-endian, `at` bytes from the start of these.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy

from refllm.backend import Array
from refllm.errors import UserError
from refllm.verify.case import CARRIERS, Case, FaultError, Response, UnsupportedError, cast
from refllm.verify.external import printable
from refllm.verify.poison import ENVIRONMENT
from refllm.verify.server import EndedError, Server
from refllm.verify.tensors import NAMES, MalformedError, bytes_of, from_bytes, parse_json, shape_of

LARGEST_JSON, LARGEST = 1 << 24, 1 << 30  # bytes of the object, and of the tensors, of a frame
NO_FUNCTION = "no function"  # the reason to skip that is counted, and not printed for each operation
_ALIGNED = 8
_GROUPS = ("outputs", "gradients", "taps")


class Frames:
    """How frames are written and read."""

    @staticmethod
    def write(stream: IO[bytes], value: tuple[dict[str, Any], bytes]) -> None:
        said = json.dumps(value[0], allow_nan=False, separators=(",", ":")).encode()
        stream.write(len(said).to_bytes(8, "little") + len(value[1]).to_bytes(8, "little") + said)
        stream.write(value[1])
        stream.flush()

    @staticmethod
    def read(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
        """EOFError at the end, or where a frame is cut short."""
        lengths = _exactly(stream, 16)
        said, data = (int.from_bytes(lengths[n : n + 8], "little") for n in (0, 8))
        if said > LARGEST_JSON or data > LARGEST:
            start = printable(lengths.decode("latin-1"))
            raise MalformedError(f"a frame of {said} and {data} bytes; what it wrote begins with {start!r}")
        content = _exactly(stream, said)
        return parse_json(content, "the frame"), _exactly(stream, data)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError
    return content


class Served:
    """A command that answers all cases. After a crash, a hang or garbage it is started again with the next case."""

    sees = frozenset({"poison"})

    def __init__(
        self, command: str, conventions: Mapping[str, str], timeout: float, *, alone: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """UserError if it cannot be started. `alone`: see `processes.Family`; `environment` is added to its own."""
        try:
            self.parts = shlex.split(command)
        except ValueError as error:
            raise UserError(f"--serve {command}: {error}") from None
        if not self.parts or shutil.which(self.parts[0]) is None:
            raise UserError(f"--serve: there is no program {''.join(self.parts[:1])} that could be run; check its path")
        self.name, self.command, self.conventions, self.timeout = command, command, dict(conventions), timeout
        self._alone, self._last, self._environment = alone, "", environment or {}
        self._poisoned: Served | None = None  # the same, in memory that holds what nobody wrote
        self._server: Server | None = None

    def respond(self, case: Case, dtype: str) -> Response:
        """What the program answers. Raises UnsupportedError, FaultError."""
        if case.manner.poisoned and self._environment != ENVIRONMENT:
            return self._in_poisoned_memory().respond(case, dtype)
        if self._server is None:
            self._server = Server(
                lambda _: self.parts, Frames(), Path.cwd(), alone=self._alone, environment=self._environment
            )
        try:
            said, data = self._asked(self._server, case, dtype)
            if said.get("id") != case.id:
                raise MalformedError(f"the answer is for {said.get('id')!r:.60}, not for {case.id}")
            if said.get("skip") == NO_FUNCTION:
                raise UnsupportedError(f"{self.parts[0]} has no function {case.operation}")
            response = answered(said, data)
        except EndedError as error:
            last = f": {self._last} left something behind that ended it" if self._last else ""
            earlier = f" before it was asked{last}" if error.before else ""
            self._end()
            raise FaultError(f"{case.operation}: the process {error}{earlier}") from None
        except TimeoutError:
            self._end()
            raise FaultError(f"{case.operation} was stopped after {self.timeout:g} s (--timeout)") from None
        except MalformedError as error:
            self._end()
            raise FaultError(f"{case.operation}: the answer is garbage: {error}") from None
        self._last = case.id
        return response

    def fresh(self, timeout: float) -> Served:
        """The same program in another process, which has answered nothing yet."""
        return Served(self.command, self.conventions, timeout, alone=self._alone)

    def _in_poisoned_memory(self) -> Served:
        """Another process, since what fills memory is chosen when it starts."""
        if self._poisoned is None:
            self._poisoned = Served(
                self.command, self.conventions, self.timeout, alone=self._alone, environment=ENVIRONMENT
            )
        return self._poisoned

    def close(self) -> None:
        self._end()
        if self._poisoned is not None:
            self._poisoned.close()
            self._poisoned = None

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(self, server: Server, case: Case, dtype: str) -> tuple[dict[str, Any], bytes]:
        if server.unasked():
            raise MalformedError("it wrote more than one frame for the question before")
        return server.asked(asked(case, dtype), self.timeout)

    def _end(self) -> None:
        self._last = ""
        if self._server is not None:
            self._server.close()
            self._server = None


def asked(case: Case, dtype: str) -> tuple[dict[str, Any], bytes]:
    """The frame that asks a case."""
    data = bytearray()

    def described(x: Any) -> Any:
        if not isinstance(x, numpy.ndarray):
            return x
        kind = str(x.dtype) if x.dtype.kind != "f" else case.stored or _kind(dtype)
        data.extend(b"\0" * (-len(data) % _ALIGNED))
        entry = {"dtype": kind, "shape": list(x.shape), "at": len(data)}
        data.extend(bytes_of(x if case.stored or x.dtype.kind != "f" else cast(x, dtype), kind))
        return entry

    said: dict[str, Any] = {"format": 1, "id": case.id, "operation": case.operation, "dtype": dtype}
    said["order"], said["outputs"] = list(case.order), list(case.outputs)
    for group in ("inputs", "keywords", "cotangents"):
        said[group] = {name: described(x) for name, x in getattr(case, group).items()}
    return said, bytes(data)


def _kind(dtype: str) -> str:
    """bfloat16 is sent in two bytes; tf32 in those of float32."""
    return dtype if dtype in NAMES else CARRIERS[dtype]


def answered(said: dict[str, Any], data: bytes) -> Response:
    """The answer of a frame. Raises UnsupportedError, FaultError, MalformedError."""
    if "skip" in said:
        raise UnsupportedError(f"it answers: {printable(str(said['skip']))}")
    if "error" in said:
        raise FaultError(f"it answers with an error: {printable(str(said['error']))}")
    groups = {group: _tensors(said.get(group, {}), data, group) for group in _GROUPS}
    if not groups["outputs"]:
        raise FaultError("the answer holds no outputs (nothing was returned)")
    return Response(groups["outputs"], groups["gradients"] or None, groups["taps"])


def _tensors(entries: Any, data: bytes, group: str) -> dict[str, Array]:
    if not isinstance(entries, dict):
        raise MalformedError(f"{group} must be an object of tensors")
    return {name: _tensor(entry, data, f"{group}.{name[:60]}") for name, entry in entries.items()}


def _tensor(entry: Any, data: bytes, where: str) -> Array:
    if not isinstance(entry, dict) or not {"dtype", "shape", "at"} <= entry.keys():
        raise MalformedError(f"{where}: needs dtype, shape and at")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in NAMES:
        raise MalformedError(f"{where}: unknown dtype {entry['dtype']!r:.40}; known are {', '.join(NAMES)}")
    shape, at = shape_of(entry["shape"], where), entry["at"]
    if type(at) is not int or not 0 <= at <= len(data):
        raise MalformedError(f"{where}: at is {at!r:.40}, outside the {len(data)} bytes of the frame")
    size = math.prod(shape) * (2 if entry["dtype"] == "bfloat16" else numpy.dtype(entry["dtype"]).itemsize)
    if at + size > len(data):
        raise MalformedError(f"{where}: {entry['dtype']} {list(shape)} does not fit into the {len(data)} bytes sent")
    return from_bytes(memoryview(data)[at : at + size], entry["dtype"], shape, where)
