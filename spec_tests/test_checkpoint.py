"""Laws of checkpoints: whole or not there, and never taken for what they are not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refllm import checkpoint, piecewise, state_file
from refllm.errors import UserError
from spec_tests import tiny
from spec_tests.tiny import contents, resealed

GROUPS: dict[str, dict[str, Any]] = {
    "weights": {"a": numpy.arange(6.0).reshape(2, 3), "b.c": numpy.array([1, -0.0], "float32")},
    "moment": {"a": numpy.ones(2)},
}
LATER = {group: {name: x + 1 for name, x in arrays.items()} for group, arrays in GROUPS.items()}


def save(directory: Path, groups: Any = GROUPS, *, step: int = 7) -> None:
    checkpoint.save(directory, {"step": step, "name": "naïve 中"}, groups, step=step)


def loaded(directory: Path) -> tuple[int, dict[str, dict[str, bytes]]]:
    state, read = checkpoint.load(directory)
    return state["step"], {group: {name: x.tobytes() for name, x in read(group).items()} for group in GROUPS}


def as_bytes(groups: Any) -> Any:
    return {group: {name: x.tobytes() for name, x in arrays.items()} for group, arrays in groups.items()}


BEFORE, AFTER = (7, as_bytes(GROUPS)), (8, as_bytes(LATER))


@given(
    arrays=st.dictionaries(
        st.text("abc.0", min_size=1),
        st.tuples(st.sampled_from(["f2", "f4", "f8", "i4", "u1", "bool"]), st.lists(st.integers(0, 3), max_size=3)),
        max_size=4,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_arrays_come_back_with_their_names_shapes_dtypes_and_bits(tmp_path: Path, arrays: Any) -> None:
    random = numpy.random.default_rng(0)
    wanted = {name: random.standard_normal(shape).astype(dtype) for name, (dtype, shape) in arrays.items()}
    checkpoint.save(tmp_path, {}, {"only": wanted}, step=0)
    read = checkpoint.load(tmp_path)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "PIECE", 2)
        in_pieces = read.piecewise("only")
        assert {name: (x.dtype, x.shape) for name, x in in_pieces.items()} == {
            name: (x.dtype, x.shape) for name, x in wanted.items()
        }
        assert all(len(piece) <= 2 for x in in_pieces.values() for piece in x.pieces())
        for got in (read("only"), {name: x.whole() for name, x in in_pieces.items()}):
            assert {name: (x.dtype, x.shape, x.tobytes()) for name, x in got.items()} == {
                name: (x.dtype, x.shape, x.tobytes()) for name, x in wanted.items()
            }


@pytest.mark.parametrize("name", ["naïve 中", "a path that is not UTF-8: d\udce9.csv", "\u2028"])
def test_a_description_comes_back_whatever_its_characters(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path, {"data": name}, GROUPS, step=0)
    assert checkpoint.load(tmp_path)[0]["data"] == name


def test_a_view_with_gaps_is_saved_with_its_own_numbers(tmp_path: Path) -> None:
    x = numpy.arange(24.0).reshape(4, 6)[::2, ::-2].T
    checkpoint.save(tmp_path, {}, {"only": {"x": x}}, step=0)
    assert numpy.array_equal(checkpoint.load(tmp_path)[1]("only")["x"], x)


def test_the_newest_checkpoint_replaces_the_one_before_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "weights-00000003.safetensors.partial").write_bytes(b"left by a process that was killed")
    (tmp_path / "state.json.partial").write_bytes(b"and this")
    (tmp_path / "mine.txt").write_text("no part of it")
    (tmp_path / "mine.safetensors").write_text("nor is this")
    save(tmp_path, LATER, step=8)
    assert loaded(tmp_path) == AFTER
    assert sorted(contents(tmp_path)) == [
        "mine.safetensors", "mine.txt", file_of(tmp_path, "moment"), "state.json", file_of(tmp_path, "weights"),
    ]  # fmt: skip
    assert not list(tmp_path.glob("*-00000007*"))


class Killed(BaseException):
    """The process ends here: nothing that runs after it counts."""


POINTS = ["fsync", "replace", "unlink"]


def failing(patch: pytest.MonkeyPatch, name: str, at: int, error: BaseException) -> list[int]:
    """The call number `at` of os.fsync, os.replace or Path.unlink fails; the list grows with each call."""
    calls: list[int] = []
    owner: Any = Path if name == "unlink" else os
    real: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise error
        return real(*arguments, **keywords)

    patch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("at", range(1, 4))
def test_a_kill_at_any_moment_leaves_the_one_before_or_the_new_one(tmp_path: Path, point: str, at: int) -> None:
    save(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        calls = failing(patch, point, at, Killed())
        if point != "unlink":
            patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing up
        try:
            save(tmp_path, LATER, step=8)
            assert len(calls) < at, "a call that failed went unnoticed"
        except Killed:
            pass
    assert loaded(tmp_path) in (BEFORE, AFTER)
    save(tmp_path, LATER, step=8)
    assert loaded(tmp_path) == AFTER
    assert len(contents(tmp_path)) == 3


@pytest.mark.parametrize("point", ["fsync", "replace"])
@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_leaves_the_one_before_to_the_byte(tmp_path: Path, point: str, at: int, code: int) -> None:
    save(tmp_path)
    before = contents(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, point, at, OSError(code, os.strerror(code)))
        with pytest.raises(UserError, match=f"cannot save the checkpoint in .*{os.strerror(code)}.* intact; free"):
            save(tmp_path, LATER, step=8)
    assert contents(tmp_path) == before


def test_a_disk_that_fails_at_the_first_save_leaves_nothing_that_could_be_intact(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, "fsync", 2, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(UserError, match="No space left on device; free some space or choose another --out"):
            save(tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("at", range(1, 4))
def test_a_full_disk_at_the_same_step_as_before_leaves_it_loadable(tmp_path: Path, at: int) -> None:
    """A run that was stopped and is resumed may save the step that it has saved already: the same arrays."""
    save(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, "replace", at, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(UserError):
            save(tmp_path)
    assert loaded(tmp_path) == BEFORE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_device_is_an_error_before_the_name_is_given(tmp_path: Path) -> None:
    (tmp_path / "x.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_atomically(tmp_path / "x", b"data")
    assert contents(tmp_path) == {}


def file_of(directory: Path, group: str) -> str:
    return tiny.file_of(directory, group).name


def in_state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    """Changes a state and its checksum with it, as a program would that writes other values."""

    def damage(directory: Path) -> None:
        changed = change(json.loads((directory / "state.json").read_bytes()))
        data = json.dumps(changed).encode() if not isinstance(changed, dict) else resealed(changed)
        (directory / "state.json").write_bytes(data)

    return damage


def in_file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    """Changes the bytes of a file, or of that of a group."""

    def damage(directory: Path) -> None:
        path = directory / (name if name == "state.json" else file_of(directory, name))
        path.write_bytes(change(path.read_bytes()))

    return damage


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def no_safetensors_and_yet_the_right_hash(directory: Path) -> None:
    as_weights(directory, b"12345678")


def as_weights(directory: Path, data: bytes) -> None:
    """These bytes as the file of the weights, with the right hash."""
    name = file_of(directory, "weights")
    (directory / name).write_bytes(data)
    entry = {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    in_state(lambda state: {**state, "files": {"weights": entry}})(directory)


def a_folder_for_the_state(directory: Path) -> None:
    (directory / "state.json").unlink()
    (directory / "state.json").mkdir()


def with_header(header: object) -> Callable[[Path], Any]:
    """Weights whose header says this, before 16 bytes."""
    text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    return lambda directory: as_weights(directory, len(text).to_bytes(8, "little") + text + bytes(16))


def with_step(step: Any) -> Callable[[Path], Any]:
    return in_state(lambda state: {**state, "step": step})


def with_file(name: str) -> Callable[[Path], Any]:
    return in_state(lambda s: {**s, "files": {"weights": {"file": name, "bytes": 1, "sha256": "0"}}})


def an_array(dtype: str, shape: list[int], end: int = 16) -> object:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def a_pipe_for_the_weights(directory: Path) -> None:
    path = directory / file_of(directory, "weights")
    path.unlink()
    os.mkfifo(path)


def a_pipe_for_the_state(directory: Path) -> None:
    (directory / "state.json").unlink()
    os.mkfifo(directory / "state.json")


def read_somehow(directory: Path, reading: str) -> None:
    _, read = checkpoint.load(directory)
    reads: dict[str, Callable[[str], Any]] = {"arrays": read, "piecewise": read.piecewise, "header": read.declared}
    reads[reading]("weights")


NO_STEPS: list[Any] = [-1, 1.0, True, "7", None, 10**30, []]
BEHIND_THE_HEADER = ("weights are cut short", "weights are longer", "bit of the weights")
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "state.json is missing": lambda directory: (directory / "state.json").unlink(),
    "state.json is empty": in_file("state.json", lambda data: b""),
    "state.json is cut short": in_file("state.json", lambda data: data[:-9]),
    "state.json is no text": in_file("state.json", lambda data: b"\xff\x00\xfe"),
    "state.json is a folder": a_folder_for_the_state,
    "state.json is a list": in_state(lambda state: [state]),
    "state.json is null": in_state(lambda state: None),
    "the format is newer": in_state(lambda state: {**state, "format": 3}),
    "the format is not said": in_state(lambda state: {**state, "format": None}),
    "files is a list": in_state(lambda state: {**state, "files": []}),
    "no weights": in_state(lambda state: {**state, "files": {}}),
    "an entry is a word": in_state(lambda state: {**state, "files": {"weights": "x"}}),
    "an entry is numbers": in_state(lambda s: {**s, "files": {"weights": {"file": 3, "bytes": 1, "sha256": "2"}}}),
    "weights are missing": lambda directory: (directory / file_of(directory, "weights")).unlink(),
    "weights are cut short": in_file("weights", lambda data: data[:-1]),
    "weights are empty": in_file("weights", lambda data: b""),
    "weights are longer": in_file("weights", lambda data: data + b"\0"),
    "a bit of the weights is flipped": in_file("weights", lambda data: flipped(data, -3)),
    "a bit of the header is flipped": in_file("weights", lambda data: flipped(data, 12)),
    "weights are no safetensors": no_safetensors_and_yet_the_right_hash,
    "weights are a pipe": a_pipe_for_the_weights,
    "state.json is a pipe": a_pipe_for_the_state,
    "state.json has no checksum": in_file("state.json", lambda data: data.partition(b',\n "sha256": "')[0] + b"\n}"),
    "state.json has another checksum": in_file("state.json", lambda data: data[:-9] + b'0000000"\n}'),
    "a space is added": in_file("state.json", lambda data: data.replace(b": ", b":  ", 1)),
    "nested deeply": in_state(lambda state: {**state, "deep": nested(500)}),
    "nested beyond what Python parses": in_file("state.json", lambda data: b"[" * 200_000),
    "a number of 5,000 digits": in_file("state.json", lambda data: b'{"step": ' + b"9" * 5000 + b"}"),
    "half of a surrogate pair": in_state(lambda state: {**state, "name": "\ud800"}),
    "half of a surrogate pair in a key": in_state(lambda state: {**state, "\udfff": 1}),
    **{f"step {step}": with_step(step) for step in NO_STEPS},
    **{f"a file named {name!r}": with_file(name)
       for name in ("a\0b", "\udce9", "..", ".", "", "../secret", "/etc/passwd", "a" * 300)},
    "bytes that are no number": in_state(
        lambda s: {**s, "files": {"weights": {**s["files"]["weights"], "bytes": "1"}}}),
    "a digest that is no text": in_state(
        lambda s: {**s, "files": {"weights": {**s["files"]["weights"], "sha256": 1}}}),
    "an array of a dtype that NumPy lacks": with_header(an_array("F8_E4M3", [16])),
    "an array of no dtype": with_header(an_array("F31", [4])),
    "an array larger than the file": with_header(an_array("F32", [1 << 40])),
    "an array outside the file": with_header(an_array("F32", [8], 32)),
    "an array of negative size": with_header(an_array("F32", [-2, -2])),
    "a header that is a list": with_header([1]),
    "a header nested deeply": with_header("[" * 200_000),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("reading", ["arrays", "piecewise", "header"])
def test_damage_is_one_line_that_names_the_file(
    tmp_path: Path, damage: Callable[[Path], Any], reading: str, request: pytest.FixtureRequest
) -> None:
    if reading == "header" and any(word in request.node.name for word in BEHIND_THE_HEADER):
        pytest.skip("the header has no part in it")
    save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError) as refused:
        read_somehow(tmp_path, reading)
    line = str(refused.value)
    assert "\n" not in line
    assert str(tmp_path) in line


def test_a_file_that_is_cut_short_after_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    found = checkpoint.load(tmp_path)[1].piecewise("weights")
    in_file("weights", lambda data: data[:-1])(tmp_path)
    with pytest.raises(UserError, match="was cut short while it was read; use another checkpoint"):
        _ = [x.whole() for x in found.values()]


def test_a_checkpoint_reads_no_file_outside_its_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    save(tmp_path / "checkpoint")
    in_state(lambda state: {**state, "files": {"weights": {"file": "../secret", "bytes": 1, "sha256": ""}}})(
        tmp_path / "checkpoint"
    )
    with pytest.raises(UserError, match="names no file of its directory"):
        checkpoint.load(tmp_path / "checkpoint")[1]("weights")


@pytest.mark.every
def test_every_flipped_bit_of_a_state_is_noticed(tmp_path: Path) -> None:
    save(tmp_path)
    path = tmp_path / "state.json"
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises(UserError):
                state_file.read_state(path)


def as_format_1(directory: Path) -> None:
    """The checkpoint as it was written before states had a checksum, and names of files no part of their contents."""
    state = json.loads((directory / "state.json").read_bytes())
    del state["sha256"]
    for group, entry in state["files"].items():
        old = f"{group}-{state['step']:08d}.safetensors"
        (directory / entry["file"]).rename(directory / old)
        entry["file"] = old
    (directory / "state.json").write_text(json.dumps({**state, "format": 1}, indent=1))


def test_a_checkpoint_of_format_1_is_read_and_the_next_save_takes_its_place(tmp_path: Path) -> None:
    save(tmp_path)
    as_format_1(tmp_path)
    assert loaded(tmp_path) == BEFORE
    save(tmp_path, LATER, step=7)
    assert loaded(tmp_path) == (7, AFTER[1])
    assert len(contents(tmp_path)) == 3


def test_other_contents_at_the_same_step_have_other_names(tmp_path: Path) -> None:
    """At the end of a run with patience the best weights are saved at a step that is saved already."""
    save(tmp_path)
    names = {group: file_of(tmp_path, group) for group in GROUPS}
    save(tmp_path, LATER, step=7)
    assert all(file_of(tmp_path, group) != name for group, name in names.items())


def test_a_reader_has_its_checkpoint_to_the_end_while_others_are_saved(tmp_path: Path) -> None:
    save(tmp_path)
    _, read = checkpoint.load(tmp_path)
    save(tmp_path, LATER, step=8)
    save(tmp_path, LATER, step=9)
    assert {name: x.tobytes() for name, x in read("weights").items()} == BEFORE[1]["weights"]


def test_a_reader_that_comes_between_two_saves_takes_the_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that it has read is replaced, and its files removed, before it opens them."""
    save(tmp_path)
    read_state, calls = state_file.read_state, []

    def overtaken(path: Path) -> Any:
        state = read_state(path)
        calls.append(path)
        if len(calls) == 1:
            save(tmp_path, LATER, step=8)
        return state

    monkeypatch.setattr(checkpoint, "read_state", overtaken)
    assert loaded(tmp_path) == AFTER
