"""Laws of a state: whatever stands in it, those who open a run take it or refuse it in one line, and at once."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from refllm import checkpoint
from refllm.errors import UserError
from refllm.run import Run
from refllm.state_file import made_of
from refllm.tasks.start import begun_from
from refllm.trained import load_model
from refllm.workers import Workers
from spec_tests import tiny
from spec_tests.nested import GONE, changed
from spec_tests.tasks import test_classify as classify

ODD: list[Any] = [
    None, -1, 0, 1, 1.5, True, 10**30, 10**400, float("nan"), float("inf"), "", "x", "\0", "\udcff", "../x", [], [1],
    ["x\0"], {}, {"a": 1}, [[], [], []], 3_000_000,
]  # fmt: skip
OPENED: dict[str, Callable[[Path], Any]] = {
    "load": lambda directory: load_model(directory, "cpu"),
    "resume": lambda directory: Run.resume(directory, Workers),
    "begin from": lambda directory: begun_from(directory, model="bert", device="cpu"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A language model in the middle, and a classifier of which a part is trained."""
    folder = tmp_path_factory.mktemp("runs")
    tiny.train(tiny.begin(folder, "language"), stop_after=5)
    (folder / "data").mkdir()
    tiny.train(classify.begin(folder / "first", classify.task(folder / "data"), steps=4, seed=7))
    start = begun_from(folder / "first", model="bert", device="cpu")
    made = classify.task(folder / "data", start=start, tune="low-rank", rank=1)
    tiny.train(classify.begin(folder / "part", made, patience=2), stop_after=5)
    return [folder / "language", folder / "part"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every value within others; of long lists none."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if len(value) < 40 if isinstance(value, (dict, list)) else False:
        for key, child in items:
            yield from places(child, (*path, key))


def opened(directory: Path, how: str) -> str:
    """What came of it. Anything but a refusal in one line is an error."""
    try:
        OPENED[how](directory)
    except UserError as error:
        line = str(error)
    else:
        return "taken"
    assert "\n" not in line
    assert len(line) < 600
    return "refused"


@pytest.mark.every
@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.slow, id="every change"), pytest.param(23, id="every 23rd change")]
)
def test_any_value_at_any_place_is_taken_or_refused(runs: list[Path], every: int) -> None:
    """With the right checksum, as a program writes it that is wrong, or wants harm."""
    number, ends = 0, set()
    for run in runs:
        path = run / "checkpoint" / "state.json"
        good = path.read_bytes()
        state = json.loads(good)
        try:
            for place in places({key: value for key, value in state.items() if key != "sha256"}):
                for to in (*ODD, GONE):
                    number += 1
                    if number % every:
                        continue
                    path.write_bytes(tiny.resealed(changed(state, place, to)))
                    for how in OPENED:
                        try:
                            ends.add(opened(run, how))
                        except Exception as error:
                            raise AssertionError(f"{how} with {place} = {to!r}") from error
        finally:
            path.write_bytes(good)
    assert ends == {"taken", "refused"}


HUGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "layers": lambda state: state["config"].update(layers=3_000_000),
    "width": lambda state: state["config"].update(width=1 << 20, heads=1),
    "hidden": lambda state: state["config"].update(hidden=1 << 30),
    "context": lambda state: state["config"].update(context=1 << 30),
}


@pytest.mark.parametrize("format_1", [False, True])
@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("how", ["load", "resume"])
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_of_that_size_is_made(
    runs: list[Path], huge: Callable[[dict[str, Any]], Any], how: str, format_1: bool
) -> None:
    path = runs[0] / "checkpoint" / "state.json"
    good = path.read_bytes()
    state = json.loads(good)
    huge(state)
    if format_1:
        state["format"] = 1
        del state["sha256"]
    path.write_bytes(tiny.resealed(state))
    tracemalloc.start()
    try:
        assert opened(runs[0], how) == "refused"
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
        path.write_bytes(good)


def test_a_run_of_format_1_is_gone_on_with_bit_for_bit(tmp_path: Path) -> None:
    whole = tiny.train(tiny.begin(tmp_path, "whole"))
    tiny.train(tiny.begin(tmp_path, "old"), stop_after=5)
    path = tmp_path / "old" / "checkpoint" / "state.json"
    state = json.loads(path.read_bytes())
    del state["sha256"]
    path.write_text(json.dumps({**state, "format": 1}, indent=1))
    load_model(tmp_path / "old", "cpu")
    assert tiny.bits(tiny.train(Run.resume(tmp_path / "old", Workers))) == tiny.bits(whole)
    assert json.loads(path.read_bytes())["format"] == 2


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"step": 1' + "0" * 400 + "}", '{"step": "x"}', '{"step": null}', "\0", '{"step": 1e999}']
)
def test_a_line_of_the_metrics_that_is_none_is_dropped(tmp_path: Path, line: str) -> None:
    tiny.train(tiny.begin(tmp_path, "run"), stop_after=5)
    path = tmp_path / "run" / "metrics.jsonl"
    kept = path.read_text()
    path.write_text(kept + line + "\n")
    Run.resume(tmp_path / "run", Workers)
    assert path.read_text() == kept


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_metrics_or_a_summary_that_are_no_file_are_waited_for_by_nobody(tmp_path: Path, make: Any) -> None:
    tiny.train(tiny.begin(tmp_path, "run"))
    make(tmp_path / "run" / "summary.json")
    assert not Run.resume(tmp_path / "run", Workers).concluded
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.unlink()
    make(metrics)
    with pytest.raises(UserError, match=r"metrics\.jsonl is not a file; take it away"):
        Run.resume(tmp_path / "run", Workers)


@pytest.mark.parametrize("dtype", ["float16", "int32", "uint8", "bool"])
def test_weights_of_another_dtype_are_refused(tmp_path: Path, dtype: str) -> None:
    tiny.train(tiny.begin(tmp_path, "run"), stop_after=5)
    directory = tmp_path / "run" / "checkpoint"
    state, read = checkpoint.load(directory)
    groups = {group: read(group) for group in state["files"]}
    groups["weights"] = {path: x.astype(dtype) for path, x in groups["weights"].items()}
    checkpoint.save(directory, state, groups, step=5)
    for how in ("load", "resume"):
        with pytest.raises(UserError, match=f"are {dtype}, not float32; use another checkpoint"):
            OPENED[how](tmp_path / "run")


@dataclass
class Sample:
    whole: int
    part: float
    name: str
    flag: bool
    some: int | None = None
    many: tuple[int, ...] = ()


GOOD: dict[str, Any] = {"whole": 1, "part": 2, "name": "x", "flag": False, "some": 3, "many": [1, 2]}


def test_values_of_the_annotated_types_make_a_dataclass() -> None:
    assert made_of(Sample, GOOD) == Sample(1, 2, "x", False, 3, [1, 2])  # type: ignore[arg-type]
    assert made_of(Sample, {**GOOD, "some": None, "part": float("inf")}).part == float("inf")


@pytest.mark.parametrize(
    "odd",
    [{"whole": 1.0}, {"whole": True}, {"whole": 1 << 53}, {"part": "1"}, {"part": float("nan")}, {"part": 10**400},
     {"name": 1}, {"flag": 0}, {"some": "3"}, {"many": [1.5]}, {"many": "12"}, {"more": 1}],
)  # fmt: skip
def test_a_value_of_another_type_makes_none(odd: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        made_of(Sample, {**GOOD, **odd})
