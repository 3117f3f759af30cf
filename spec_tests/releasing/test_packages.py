"""Every package holds the golden folder, byte for byte, and says no more than follows from it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import refllm
from releasing import __main__ as release
from releasing import versions
from spec_tests.releasing import ROOT, checkout

pytestmark = pytest.mark.every  # packages are made, which takes long
GOLDEN = {
    path.removeprefix("golden/"): (ROOT / path).read_bytes() for path in checkout.paths() if path.startswith("golden/")
}
MANIFEST = json.loads(GOLDEN["MANIFEST.json"])
VERSION = versions.three(MANIFEST["spec_version"])
KINDS = ("vectors", "npm", "go", "go-proxy", "crate")


def tar(content: bytes) -> dict[str, bytes]:
    """Its files without the one folder that they stand in."""
    with tarfile.open(fileobj=io.BytesIO(content)) as held:
        found = {m.name.partition("/")[2]: (held.extractfile(m) or io.BytesIO()).read() for m in held.getmembers()}
        assert len({member.name.partition("/")[0] for member in held.getmembers()}) == 1
    return found


def unpacked(kind: str, made: dict[str, bytes]) -> dict[str, bytes]:
    if kind == "go":
        return {name.removeprefix("go-module/"): made[name] for name in made if name.startswith("go-module/")}
    if kind == "go-proxy":
        (name,) = [name for name in made if name.endswith(".zip")]
        with zipfile.ZipFile(io.BytesIO(made[name])) as held:
            return {path.partition(f"@v{VERSION}/")[2]: held.read(path) for path in held.namelist()}
    ending = {"vectors": f"vectors-{VERSION}.tar.gz", "npm": ".tgz", "crate": ".crate"}[kind]
    (name,) = [name for name in made if name.endswith(ending)]
    return tar(made[name])


@pytest.mark.one_in(6)
@pytest.mark.parametrize("kind", KINDS)
def test_a_package_holds_the_golden_folder(kind: str, made: dict[str, bytes]) -> None:
    held = unpacked(kind, made)
    assert {name.removeprefix("golden/"): held[name] for name in held if name.startswith("golden/")} == GOLDEN
    assert held["LICENSE"] == GOLDEN["LICENSE"]
    assert f"{MANIFEST['cases']} cases" in held["README.md"].decode()
    assert json.loads(held["CHANGES.json"])["spec_version"] == MANIFEST["spec_version"]
    assert held["CHANGES.md"].decode().startswith(f"# Vectors {MANIFEST['spec_version']}")


@pytest.mark.one_in(6)
@pytest.mark.parametrize("kind", KINDS)
def test_no_template_is_left_unfilled_and_no_path_of_this_machine_is_told(kind: str, made: dict[str, bytes]) -> None:
    for name, content in unpacked(kind, made).items():
        assert str(ROOT).encode() not in content, name
        if not name.startswith("golden/"):
            assert re.search(rb"\$(spec_version|version|cases|format|levels|npm|crate|go|table)\b", content) is None, (
                name
            )


def test_packages_of_the_same_files_are_the_same_bytes_in_every_folder(made: dict[str, bytes], tmp_path: Path) -> None:
    """And whatever the files' dates are: of another commit only the date that the Go proxy tells is another."""
    for path in checkout.paths():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    assert release.packages(checkout.sources(tmp_path)) == made
    later = release.packages(checkout.sources(tmp_path, checkout.MOMENT + 1000))
    assert [name.rpartition(".")[2] for name in made if made[name] != later[name]] == ["info"]


def test_the_versions_are_those_that_are_said_elsewhere() -> None:
    found = versions.of(checkout.sources())
    assert found.package == refllm.__version__
    assert (found.specification, found.format) == (MANIFEST["spec_version"], MANIFEST["format"])
    assert found.vectors.startswith(f"{MANIFEST['format']}.")


def test_every_language_has_the_same_version(made: dict[str, bytes]) -> None:
    assert json.loads(unpacked("npm", made)["package.json"])["version"] == VERSION
    crate = unpacked("crate", made)
    assert tomllib.loads(crate["Cargo.toml"].decode())["package"]["version"] == VERSION
    assert f'SPEC_VERSION: &str = "{MANIFEST["spec_version"]}"' in crate["src/lib.rs"].decode()
    assert f'Version     = "{VERSION}"' in made["go-module/vectors.go"].decode()
    (said,) = [made[name] for name in made if name.endswith(".info")]
    assert json.loads(said) == {"Version": f"v{VERSION}", "Time": "2023-11-14T22:13:20Z"}


def test_the_crate_has_a_sorted_table_of_every_file_of_the_manifest(made: dict[str, bytes]) -> None:
    """Sorted, because `get` searches it by halves."""
    library = unpacked("crate", made)["src/lib.rs"].decode()
    table = re.findall(
        r'File \{ path: "(.*)", level: (\d), cases: (\d+), bytes: include_bytes!\("\.\./golden/(.*)"\)', library
    )
    assert [path for path, *_ in table] == sorted(entry["path"] for entry in MANIFEST["files"])
    assert all(path == included for path, _, _, included in table)
    assert {(path, int(level), int(cases)) for path, level, cases, _ in table} == {
        (entry["path"], entry["level"], entry["cases"]) for entry in MANIFEST["files"]
    }


def test_node_exports_the_names_that_its_types_declare(made: dict[str, bytes]) -> None:
    held = {name: content.decode() for name, content in unpacked("npm", made).items() if not name.startswith("golden/")}
    declared = set(re.findall(r"^export (?:const|function) (\w+)", held["index.d.mts"], re.MULTILINE))
    (module,) = re.findall(r"export const \{ (.*) \} = vectors", held["index.mjs"])
    (common,) = re.findall(r"module\.exports = \{ (.*) \}", held["index.cjs"])
    assert set(module.split(", ")) == set(common.split(", ")) == declared
    assert held["index.d.mts"].startswith(held["index.d.cts"])
    assert set(re.findall(r"^  (\w+): typeof \1;", held["index.d.mts"], re.MULTILINE)) == declared


def test_node_declares_every_part_of_a_case(made: dict[str, bytes]) -> None:
    types = unpacked("npm", made)["index.d.mts"].decode()
    schema = json.loads(GOLDEN["schemas/cases.schema.json"])["$defs"]["case"]
    (declared,) = re.findall(r"export interface Case \{(.*?)^\}", types, re.MULTILINE | re.DOTALL)
    parts = dict(re.findall(r"^  (\w+)(\??):", declared, re.MULTILINE))
    assert set(schema["properties"]) <= set(parts)
    assert {name for name, optional in parts.items() if not optional} == set(schema["required"])


def test_the_digests_are_those_of_the_files(folder: Path, made: dict[str, bytes]) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    assert set(listed) == set(made)
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    inside = unpacked("vectors", made)
    listed = {
        name: digest for digest, name in (line.split("  ", 1) for line in inside["SHA256SUMS"].decode().splitlines())
    }
    assert listed == {n: hashlib.sha256(c).hexdigest() for n, c in inside.items() if n != "SHA256SUMS"}
    if shutil.which("sha256sum"):  # the line of RELEASING.md and of the README of the vectors
        subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
