"""The golden folder: read whole or refused with one line that says what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refllm.errors import UserError
from refllm.verify import corpus
from spec_tests.verify.folder import Folder


def _refused(folder: Folder, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        corpus.load(folder.root)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_every_case_of_the_manifest_is_read(golden: corpus.Corpus) -> None:
    manifest = json.loads((golden.folder / "MANIFEST.json").read_text())
    assert len(golden.cases) == manifest["cases"] == sum(entry["cases"] for entry in manifest["files"])
    assert {case.level for case in golden.cases.values()} == set(range(8))


def test_a_whole_folder_is_read(folder: Folder) -> None:
    assert len(corpus.load(folder.root).cases) == folder.manifest["cases"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2 is not 1"),
        ({"spec_version": 1}, "spec_version must be a string"),
        ({"files": []}, "at least one file"),
        ({"files": None}, "at least one file"),
        ({"files": [3]}, "no path of a golden file"),
        ({"cases": 0}, "cases must be a number of at least 1"),
        ({"cases": True}, "cases must be a number"),
        ({"cases": 10_000}, "says 10000 cases, its files add up to"),
        ({"calibration": {}}, "C must be a positive number"),
        ({"calibration": {"C": "8"}}, "C must be a positive number"),
        ({"calibration": {"C": -1}}, "C must be a positive number"),
        ({"calibration": [8]}, "C must be a positive number"),
    ],
)
def test_a_wrong_manifest_is_refused(folder: Folder, change: dict[str, Any], message: str) -> None:
    folder.manifest |= change
    folder.write_manifest()
    _refused(folder, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "../L1/relu.json"}, "no path of a golden file"),
        ({"path": "/etc/passwd"}, "no path of a golden file"),
        ({"path": "L1/../../relu.json"}, "no path of a golden file"),
        ({"path": "L1/relu.json\n"}, "no path of a golden file"),
        ({"path": 3}, "no path of a golden file"),
        ({"path": "L1/absent.json"}, "listed in MANIFEST.json but not there"),
        ({"level": 2}, "says level 2"),
        ({"bytes": 1}, "MANIFEST.json says 1"),
        ({"bytes": -1}, "bytes must be a whole number"),
        ({"bytes": 1e3}, "bytes must be a whole number"),
        ({"sha256": "0" * 64}, "its contents are not those"),
        ({"sha256": "0" * 63}, "64 hexadecimal digits"),
        ({"cases": 0}, "a .json|.json holds some"),
        ({"cases": 7}, "says|add up"),
    ],
)
def test_a_wrong_entry_of_the_manifest_is_refused(folder: Folder, change: dict[str, Any], message: str) -> None:
    folder.entries["L1/relu.json"] |= change
    folder.write_manifest()
    _refused(folder, message)


def test_a_manifest_that_is_not_there_empty_or_cut_short_is_refused(folder: Folder) -> None:
    path = folder.root / "MANIFEST.json"
    whole = path.read_bytes()
    for content in (b"", b"{}", whole[:-20], b"[" * 100_000):
        path.write_bytes(content)
        _refused(folder, "MANIFEST.json")
    path.unlink()
    _refused(folder, "no such file")
    with pytest.raises(UserError, match=r"there is no MANIFEST\.json in it"):
        corpus.folder(str(folder.root))


def test_a_file_listed_twice_is_refused(folder: Folder) -> None:
    folder.manifest["files"].append(folder.entries["L1/relu.json"])
    folder.manifest["cases"] += folder.entries["L1/relu.json"]["cases"]
    folder.write_manifest()
    _refused(folder, "lists L1/relu.json twice")


def test_a_file_that_was_cut_short_or_changed_is_refused(folder: Folder) -> None:
    path = folder.root / "L2/feed_forward.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    _refused(folder, "L2/feed_forward.safetensors: .* bytes, MANIFEST.json says")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _refused(folder, "its contents are not those of MANIFEST.json")


def test_fewer_cases_than_the_manifest_says_are_refused(folder: Folder) -> None:
    folder.edit("L1/relu.json", lambda cases: cases.pop())
    _refused(folder, r"L1/relu.json: holds \d cases, MANIFEST.json says \d")


def test_a_link_out_of_the_folder_is_refused(folder: Folder, tmp_path: Path) -> None:
    path = folder.root / "L1/relu.json"
    path.rename(tmp_path / "elsewhere.json")
    os.symlink(tmp_path / "elsewhere.json", path)
    _refused(folder, "leads out of the golden folder")


def _set(*path: Any, value: Any) -> Callable[[list[Any]], None]:
    def change(cases: list[Any]) -> None:
        target = cases[0]
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


_NAN = {"dtype": "float64", "shape": [1], "data": ["NaN"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("id", value="FFN/../x"), "no id of a case"),
        (_set("id", value=3), "id must be a text"),
        (_set("about", value=""), "about must be a text"),
        (_set("level", value=2), "says level 2"),
        (_set("order", value=["y"]), "order must name each input once: x"),
        (_set("inputs", value=[]), "inputs must be an object"),
        (_set("inputs", "x", value=None), "neither a tensor nor the name of one"),
        (_set("inputs", "x", value={"tensor": "elsewhere"}), "neither a tensor nor the name of one"),
        (_set("inputs", "x", "data", 0, value="NaN"), "inputs.x: holds NaN"),
        (_set("outputs", value={}), "has no outputs|names and shapes"),
        (_set("outputs", "y", value={}), "must hold a value"),
        (_set("outputs", "y", "value", value=_NAN), "outputs.y: holds NaN"),
        (_set("outputs", "y", "condition", "data", 0, value="Infinity"), "anything would pass"),
        (_set("outputs", "y", "condition", "data", 0, value=-1.0), "no negative"),
        (_set("outputs", "y", "condition", "shape", value=[1, 1]), "needs a list|the value's shape"),
        (_set("gradients", value={}), "come together"),
        (_set("cotangents", value={}), "come together"),
        (_set("cotangents", "y", "shape", value=[]), "needs a list|names and shapes"),
        (_set("keywords", value={"config": {"a": [1]}}), "no number, text, tensor or configuration"),
        (_set("conventions", value={"a": 1}), "conventions must be texts"),
        (_set("alternatives", value={"a=b": {}}), "no alternative to a convention"),
    ],
)
def test_a_wrong_case_is_refused(folder: Folder, change: Callable[[list[Any]], object], message: str) -> None:
    folder.edit("L1/relu.json", change)
    _refused(folder, f"L1/relu.json.*({message})")


def test_a_case_that_is_there_twice_is_refused(folder: Folder) -> None:
    folder.edit("L1/relu.json", lambda cases: cases.__setitem__(0, cases[1]))
    _refused(folder, "is there twice")


def test_a_truth_without_its_condition_is_refused(folder: Folder) -> None:
    folder.edit("L1/relu.json", lambda cases: cases[0]["outputs"]["y"].pop("condition"))
    _refused(folder, "needs its condition")


def test_a_stored_tensor_that_differs_between_its_two_files_is_refused(folder: Folder) -> None:
    def change(cases: list[Any]) -> None:
        column = next(case for case in cases if case["id"] == "LOAD/float64-column")
        column["inputs"]["x"]["data"][0] = 1.5

    folder.edit("L0/loader.json", change)
    _refused(folder, "are not the same")
