"""What changed between two releases, and which number has to rise for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from refllm.errors import UserError
from releasing import difference, record, versions
from releasing.sources import Sources
from spec_tests.releasing import checkout

ONE = "SMX/softmax-rows"
FILE = "golden/L1/softmax.json"


GIVEN = checkout.few("L1/softmax.json")
NOW = record.of(GIVEN.under("golden"))


def released(changed: Callable[[dict[str, Any]], None] | None, version: str, known: str = "1.5") -> Sources:
    """Version `known` is released as it is, and now there is another version, with another file of softmax."""
    files = {**GIVEN.files, f"{record.FOLDER}/{known}.json": record.dumps({**NOW, "spec_version": known})}
    manifest = json.loads(files[versions.MANIFEST])
    files[versions.MANIFEST] = json.dumps({**manifest, "spec_version": version}).encode()
    if changed is not None:
        held = json.loads(files[FILE])
        changed(held)
        files[FILE] = json.dumps(held).encode()
    return replace(GIVEN, files=files)


def case(held: dict[str, Any], name: str = ONE) -> dict[str, Any]:
    (found,) = [each for each in held["cases"] if each["id"] == name]
    return found  # type: ignore[no-any-return]


def add(held: dict[str, Any]) -> None:
    held["cases"].append({**copy.deepcopy(case(held)), "id": "SMX/softmax-new"})


def judge(held: dict[str, Any]) -> None:
    case(held)["outputs"]["y"]["condition"]["data"][0] *= 2


def describe(held: dict[str, Any]) -> None:
    case(held)["about"] = "rows, in other words"


def correct(held: dict[str, Any]) -> None:
    case(held)["outputs"]["y"]["value"]["data"][0] += 1


def withdraw(held: dict[str, Any]) -> None:
    held["cases"].remove(case(held))


def test_a_record_of_the_same_files_shows_no_difference() -> None:
    found = difference.between(NOW, json.loads(record.dumps(NOW)))
    assert found.level is None
    assert difference.as_text(found).endswith("No case changed.\n")


@pytest.mark.parametrize(
    ("changed", "kind", "name", "level"),
    [(add, "added", "SMX/softmax-new", 1), (judge, "judgement", ONE, 1), (describe, "words", ONE, 2)],
)
def test_what_changed_is_told_by_kind(changed: Any, kind: str, name: str, level: int) -> None:
    found = difference.since_the_last_release(released(changed, "1.6"))
    assert {key: ids for key, ids in found.cases.items() if ids} == {kind: [name]}
    assert found.level == level
    data = difference.as_data(found)
    assert (data["before"], data["spec_version"], data["cases"][kind]["ids"]) == ("1.5", "1.6", [name])
    assert f"- `{name}`" in difference.as_text(found)


@pytest.mark.parametrize(
    ("changed", "version", "asked"),
    [(add, "1.5.1", "1.6"), (judge, "1.5.1", "1.6"), (add, "1.5", "1.6"), (describe, "1.5", "1.5.1")],
)
def test_a_version_that_rises_too_little_is_refused(changed: Any, version: str, asked: str) -> None:
    with pytest.raises(UserError, match=asked.replace(".", r"\.")):
        difference.since_the_last_release(released(changed, version))


@pytest.mark.parametrize(("changed", "version"), [(add, "1.6"), (describe, "1.5.1"), (None, "1.5"), (describe, "1.6")])
def test_a_version_that_rises_enough_is_taken(changed: Any, version: str) -> None:
    difference.since_the_last_release(released(changed, version))


def test_a_lower_version_than_the_last_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"1\.5 is released already"):
        difference.since_the_last_release(released(None, "1.4"))


@pytest.mark.parametrize(("changed", "kind"), [(correct, "corrected"), (withdraw, "withdrawn")])
def test_a_correction_needs_its_reason(changed: Any, kind: str) -> None:
    given = released(changed, "1.5.1")
    with pytest.raises(UserError, match=f"{ONE} was corrected or withdrawn.*corrections.toml"):
        difference.since_the_last_release(given)
    said = f'[[correction]]\nspec_version = "1.5.1"\ncase = "{ONE}"\nwhat = "a slip."\naffected = "nobody."\n'
    found = difference.since_the_last_release(
        replace(given, files={**given.files, difference.CORRECTIONS: said.encode()})
    )
    assert found.cases[kind] == [ONE]
    assert found.level == 2
    assert "a slip. Who is affected: nobody." in difference.as_text(found)
    assert difference.as_data(found)["corrections"] == {ONE: {"what": "a slip.", "affected": "nobody."}}


def test_another_format_is_a_version_of_its_own() -> None:
    found = difference.between(NOW, {**NOW, "format": 2, "spec_version": "2.0"})
    assert found.level == 0
    assert "a reader of the files has to change" in difference.as_text(found)


def test_another_factor_of_the_tolerance_is_no_correction() -> None:
    assert difference.between(NOW, {**NOW, "C": 9.0}).level == 1


def test_the_first_release_adds_every_case() -> None:
    assert difference.between(None, NOW).cases["added"] == sorted(NOW["cases"])


@pytest.mark.parametrize(("path", "old", "new"), [
    (versions.MANIFEST, b'"format":1', b'"format":2'),
    (versions.MANIFEST, b'"spec_version":"', b'"spec_version":"x'),
    (versions.PACKAGE, b"__version__ = ", b"version = "),
])  # fmt: skip
def test_versions_that_contradict_each_other_are_refused(path: str, old: bytes, new: bytes) -> None:
    given = checkout.sources()
    with pytest.raises(UserError, match=path):
        versions.of(replace(given, files={**given.files, path: given.files[path].replace(old, new)}))


@pytest.mark.every
def test_this_checkout_can_be_released() -> None:
    """The version says what changed since the last record; else somebody has to raise it."""
    difference.since_the_last_release(checkout.sources())
