"""What is said about a release agrees with what is released."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import refllm

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
SECTIONS = ["Numbers", "Vectors", "Commands", "Format"]


def test_every_line_of_the_changelog_stands_in_a_section() -> None:
    for version in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        before, *sections = re.split(r"^### ", version, flags=re.MULTILINE)
        assert not re.search(r"^\*", before, re.MULTILINE), f"{before.splitlines()[0]}: a line without a section"
        names = [section.splitlines()[0] for section in sections]
        assert names == [name for name in SECTIONS if name in names]
        assert len(names) > 0


def test_the_newest_version_of_the_changelog_is_that_of_the_package() -> None:
    heads = re.findall(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", CHANGELOG, re.MULTILINE)
    assert heads[0][0] == refllm.__version__
    assert [when for _, when in heads[1:] if when == "unreleased"] == []


def test_the_citation_is_of_this_package() -> None:
    said = dict(re.findall(r"^([a-z-]+): (\S.*)$", CITATION, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert said["version"] == refllm.__version__
    licences = CITATION.partition("license:")[2].partition("keywords:")[0].split()
    assert [word for word in licences if word != "-"] == [project["license"], "CC0-1.0"]
    assert {"cff-version", "message", "title", "authors"} <= {line.partition(":")[0] for line in CITATION.splitlines()}


def test_every_path_that_the_page_on_releasing_names_is_there() -> None:
    page = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    named = re.findall(r"`(?:\./|python )?((?:scripts|golden|spec_tests|refllm|docs|\.ci)/[\w./-]+)", page)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_names_on_the_page_on_releasing_have_the_versions_of_today() -> None:
    page = (ROOT / "RELEASING.md").read_text(encoding="utf-8")
    specification = json.loads((ROOT / "golden/MANIFEST.json").read_text(encoding="utf-8"))["spec_version"]
    named = re.findall(r"(?:vectors|CHANGES)-(\d+\.\d+\.\d+)|`v(\d+\.\d+\.\d+)`, or serve", page)
    assert len(named) == 4
    assert {one or other for one, other in named} == {f"{specification}.0"}
    assert f"{specification} is {specification}.0" in page
    assert set(re.findall(r"refllm-(\d[\d.]*\d)|`v(\d[\d.]*\d)` \(package\)", page)) == {
        (refllm.__version__, ""), ("", refllm.__version__),
    }  # fmt: skip
