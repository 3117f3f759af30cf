"""A case never changes its meaning under its id."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import make_golden
from golden import frozen
from golden.case import File
from golden.corpus import FILES

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
KNOWN = frozen.read()


def on_disk(path: Path) -> frozen.Digests:
    beside = path.with_suffix(".safetensors")
    store = load_file(beside) if beside.is_file() and not path.match("L0/*") else {}
    return frozen.digests(json.loads(path.read_text())["cases"], store)


@pytest.fixture(scope="module")
def present() -> frozen.Digests:
    return {name: digest for path in GOLDEN.glob("L?/*.json") for name, digest in on_disk(path).items()}


def test_no_case_has_changed_under_its_id(present: frozen.Digests) -> None:
    """A case that must change gets a new id; scripts/golden/frozen.json only grows."""
    assert frozen.changed(present, KNOWN) == []


def test_every_case_is_frozen_and_none_has_gone(present: frozen.Digests) -> None:
    assert set(present) == set(KNOWN)


ARRAY = np.array([1.0, -0.0, np.inf])
RECORD: dict[str, Any] = {
    "id": "X/y", "about": "…", "operation": "f", "order": ["x"], "inputs": {"x": ARRAY}, "keywords": {"eps": 0.5},
    "cotangents": {"y": ARRAY}, "outputs": {"y": {"value": ARRAY, "condition": ARRAY}},
    "gradients": {"x": {"value": ARRAY, "condition": ARRAY}},
    "alternatives": {"a=b": {"outputs": {"y": {"value": ARRAY, "condition": ARRAY}}}},
}  # fmt: skip


def changed(**parts: Any) -> list[str]:
    known = frozen.digests([RECORD], {})
    return frozen.changed(frozen.digests([{**RECORD, **parts}], {}), known)


@pytest.mark.parametrize(
    "parts",
    [
        {"operation": "g"}, {"order": ["z"]}, {"keywords": {"eps": 0.25}}, {"keywords": {}},
        {"inputs": {"x": np.array([1.0, 0.0, np.inf])}}, {"inputs": {"x": ARRAY[:, None]}},
        {"inputs": {"x": ARRAY.astype(np.float32)}}, {"cotangents": {"y": -ARRAY}},
        {"outputs": {"y": {"value": np.nextafter(ARRAY, 2), "condition": ARRAY}}},
        {"gradients": {"x": {"value": 2 * ARRAY, "condition": ARRAY}}}, {"gradients": {}},
    ],
    ids=str,
)  # fmt: skip
def test_a_change_of_what_is_asked_or_right_is_seen(parts: dict[str, Any]) -> None:
    assert changed(**parts) == ["X/y"]


def test_a_change_of_an_alternative_is_seen() -> None:
    other = {"a=b": {"outputs": {"y": {"value": ARRAY + 1, "condition": ARRAY}}}}
    assert changed(alternatives=other) == ["X/y under a=b"]


def test_words_and_conditions_may_change_and_alternatives_may_join() -> None:
    wider = {"y": {"value": ARRAY, "condition": 2 * ARRAY}}
    assert changed(about="better said", outputs=wider, conventions={"c": "d"}) == []
    assert changed(alternatives={**RECORD["alternatives"], "c=e": {"outputs": wider}}) == []


def test_the_writer_appends_a_new_case_and_refuses_a_changed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    relu = next(file for file in FILES if file.path == "L1/relu.json")
    monkeypatch.setattr(frozen, "FILE", tmp_path / "frozen.json")
    monkeypatch.setattr(make_golden, "GOLDEN", tmp_path)
    arguments = ["--out", str(tmp_path), "--jobs", "1"]

    monkeypatch.setattr(make_golden, "FILES", [File(relu.path, 1, lambda: relu.cases[:2])])
    assert make_golden.main(arguments) == 0
    first = frozen.read()
    monkeypatch.setattr(make_golden, "FILES", [File(relu.path, 1, lambda: relu.cases[:3])])
    assert make_golden.main(arguments) == 0
    assert first.items() < frozen.read().items() <= KNOWN.items()

    before = (tmp_path / relu.path).read_bytes()
    other = replace(relu.cases[0], inputs={"x": relu.cases[0].inputs["x"] + 1})
    monkeypatch.setattr(make_golden, "FILES", [File(relu.path, 1, lambda: [other, *relu.cases[1:3]])])
    capsys.readouterr()
    assert make_golden.main(arguments) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"{relu.path}: the contents of {other.id}")
    assert said.endswith("have changed; give what is new a new id\n")
    assert (tmp_path / relu.path).read_bytes() == before
