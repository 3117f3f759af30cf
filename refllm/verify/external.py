"""Any program as an implementation: through a command that is run for each case, or through files written beforehand.

A request is a directory with `request.json` and `request.safetensors`, which hold the same tensors: read whichever is
easier. A response is `response.json`, or `response.safetensors`, or both. See docs/conformance.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy

from refllm.backend import Array
from refllm.errors import UserError
from refllm.verify.case import CARRIERS, Case, FaultError, Response, UnsupportedError, cast
from refllm.verify.poison import ENVIRONMENT
from refllm.verify.processes import Family
from refllm.verify.tensors import (
    MalformedError,
    from_inline,
    from_safetensors,
    is_inline,
    parse_json,
    read_file,
    to_inline,
    to_safetensors,
)

LARGEST = 1 << 26  # bytes of a response
_TAIL = 4000  # bytes of a command's complaints that are kept
_GROUPS = ("outputs", "gradients", "taps")


class Command:
    """A command with the places {request} and {response}, run for each case under a time limit."""

    sees = frozenset({"poison"})

    def __init__(self, command: str, conventions: Mapping[str, str], timeout: float, *, alone: bool = False) -> None:
        """UserError if it cannot be run. `alone`: see `processes.Family`."""
        try:
            self.parts = shlex.split(command)
        except ValueError as error:
            raise UserError(f"--cmd {command}: {error}") from None
        for place in ("{request}", "{response}"):
            if not any(place in part for part in self.parts):
                raise UserError(f"--cmd needs the place {place}, as in --cmd './my_impl {{request}} {{response}}'")
        if shutil.which(self.parts[0]) is None:
            raise UserError(f"--cmd: there is no program {self.parts[0]} that could be run; check its path")
        self.name, self.conventions, self.timeout, self.alone = command, conventions, timeout, alone

    def respond(self, case: Case, dtype: str) -> Response:
        with _directory() as directory:
            request, response = directory / "request", directory / "response"
            response.mkdir()
            write_request(request, case, dtype)
            self._run(request, response, ENVIRONMENT if case.manner.poisoned else {})
            found = read_response(response, case)
            if found is None:
                raise FaultError("the command ended well but wrote no response.json and no response.safetensors")
            return found

    def _run(self, request: Path, response: Path, environment: Mapping[str, str]) -> None:
        places = {"{request}": str(request), "{response}": str(response)}
        parts = self.parts
        for place, path in places.items():
            parts = [part.replace(place, path) for part in parts]
        family = Family(alone=self.alone)
        try:
            self._wait(family, parts, environment)
        finally:
            family.close()

    def _wait(self, family: Family, parts: list[str], environment: Mapping[str, str]) -> None:
        try:
            process = family.start(
                parts, environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )  # fmt: skip
        except OSError as error:
            raise FaultError(f"the command could not be started: {error.strerror or error}") from None
        assert process.stderr is not None
        tail = bytearray()
        reader = threading.Thread(target=_keep_tail, args=(process.stderr, tail), daemon=True)
        reader.start()
        try:
            status = process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            raise FaultError(f"the command was stopped after {self.timeout:g} s (--timeout)") from None
        finally:
            family.end()
            reader.join(1)
        if status:
            last = bytes(tail).decode("utf-8", "replace").strip().splitlines()
            raise FaultError(f"the command {ending(status)}{': ' + printable(last[-1]) if last else ''}")


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    """A directory for one case, which is gone afterwards whatever the command has made of it."""
    try:
        made = tempfile.TemporaryDirectory(prefix="refllm-verify-", ignore_cleanup_errors=True)
    except OSError as error:
        raise UserError(f"no temporary directory can be made: {error.strerror or error}; set TMPDIR") from None
    with made as directory:
        yield Path(directory)


class Responses:
    """Responses that were written beforehand: DIR/<case id>/response.json or .safetensors."""

    def __init__(self, directory: Path, conventions: Mapping[str, str]) -> None:
        if not directory.is_dir():
            raise UserError(f"--responses {directory}: no such directory")
        self.name, self.conventions, self.directory = str(directory), conventions, directory

    def respond(self, case: Case, dtype: str) -> Response:
        if case.level == 6:
            raise UnsupportedError("resuming is a law about several runs: it needs an adapter or --cmd")
        found = read_response(self.directory / case.id, case)
        if found is None:
            raise UnsupportedError(f"there is no response in {self.directory}")
        return found


def write_request(directory: Path, case: Case, dtype: str, *, tensors: bool = True) -> None:
    """What an implementation is asked, in the dtype of the run (at L0 in the tensor's own).

    Of a sized case the JSON file says how the generator makes each tensor. Without `tensors` that is all.
    """
    held: dict[str, tuple[str, Array]] = {}

    def described(x: Any, name: str) -> Any:
        if not isinstance(x, numpy.ndarray):
            return x
        kind = str(x.dtype) if x.dtype.kind != "f" else case.stored or CARRIERS[dtype]
        held[name] = (kind, x if case.stored else cast(x, dtype))
        return {"dtype": kind, **case.recipes[name]} if name in case.recipes else to_inline(held[name][1], kind)

    record: dict[str, Any] = {"format": 1, "id": case.id, "operation": case.operation, "dtype": dtype}
    if case.seed is not None:
        record["seed"] = case.seed
    record["order"], record["outputs"] = list(case.order), list(case.outputs)
    for group in ("inputs", "keywords", "cotangents"):
        record[group] = {name: described(x, f"{group}.{name}") for name, x in getattr(case, group).items()}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "request.json").write_text(json.dumps(record, allow_nan=False, indent=1) + "\n", encoding="utf-8")
        if tensors or case.seed is None:
            (directory / "request.safetensors").write_bytes(to_safetensors(held))
    except OSError as error:
        raise UserError(f"{directory}: a request cannot be written there ({error.strerror or error})") from None


def read_response(directory: Path, case: Case) -> Response | None:
    """The answer in a directory; None if there is none. Raises FaultError if it is garbage, UnsupportedError."""
    found: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
    paths = [directory / f"response.{ending}" for ending in ("json", "safetensors")]
    try:
        there = [_is_there(path) for path in paths]
        if there[0]:
            _read_json(read_file(paths[0], LARGEST), found)
        if there[1]:
            _read_safetensors(read_file(paths[1], LARGEST), found)
    except (MalformedError, MemoryError) as error:
        text = str(error).replace(str(directory) + os.sep, "") or "it takes more memory than there is"
        raise FaultError(f"the response is garbage: {text}") from None
    if not any(there):
        return None
    if not found["outputs"]:
        raise FaultError("the response holds no outputs (nothing was returned)")
    return Response(found["outputs"], found["gradients"] or None, found["taps"])


def _is_there(path: Path) -> bool:
    """Whether there is anything of that name, if only a link to nowhere."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise MalformedError(f"{path}: cannot be read ({error.strerror or error})") from None
    return True


def _read_json(content: bytes, found: dict[str, dict[str, Any]]) -> None:
    record = parse_json(content, "response.json")
    if "skip" in record:
        raise UnsupportedError(f"it answers: {printable(str(record['skip']))}")
    for group in _GROUPS:
        tensors = record.get(group, {})
        if not isinstance(tensors, dict):
            raise MalformedError(f"response.json: {group} must be an object of tensors")
        for name, x in tensors.items():
            if not is_inline(x):
                raise MalformedError(f"response.json, {group}.{name[:60]}: needs dtype, shape and data")
            found[group][name] = from_inline(x, f"response.json, {group}.{name[:60]}")


def _read_safetensors(content: bytes, found: dict[str, dict[str, Any]]) -> None:
    for name, (_, x) in from_safetensors(content, "response.safetensors").items():
        group, _, rest = name.partition(".")
        if group not in _GROUPS or not rest:
            raise MalformedError(
                f"response.safetensors: a tensor is named outputs.…, gradients.… or taps.…, not {name!r:.60}"
            )
        found[group][rest] = x


def _keep_tail(stream: IO[bytes], tail: bytearray) -> None:
    """Reads all that comes, so that the command is never blocked, and keeps the end of it."""
    with stream, contextlib.suppress(ValueError, OSError):  # closed under our feet once the command is gone
        while chunk := os.read(stream.fileno(), 1 << 16):
            tail += chunk
            del tail[:-_TAIL]


def ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
