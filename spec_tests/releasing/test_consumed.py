"""The packages are used by programs in Node, Go and Rust, as their own tools install them, without a network.

Each program counts the cases, adds up the sizes and reads one number; Python reads the same from golden/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from spec_tests.releasing import ROOT
from spec_tests.releasing.test_packages import MANIFEST, VERSION
from spec_tests.tools import tool

pytestmark = pytest.mark.tools

FILE, CASE = "L2/feed_forward.json", "FFN/relu"
RECORDS = json.loads((ROOT / "golden" / FILE).read_text(encoding="utf-8"))["cases"]
[TENSOR] = [each["outputs"]["y"]["value"]["tensor"] for each in RECORDS if each["id"] == CASE]
SIZE = sum(entry["bytes"] for entry in MANIFEST["files"])


def expected() -> list[str]:
    """What every program prints: cases, bytes, and the first number of a tensor beside its case."""
    content = (ROOT / "golden" / FILE).with_suffix(".safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8:start])[TENSOR]["data_offsets"]
    return [str(MANIFEST["cases"]), str(SIZE), content[start + begin : start + begin + 8].hex()]


def ran(words: list[str], folder: Path, **settings: str) -> str:
    done = subprocess.run(
        words, cwd=folder, env={**os.environ, **settings}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


NODE = """
import vectors, { cases, files, manifest, notes, tensors, file, root } from "refllm-vectors";
import { createRequire } from "node:module";
import { statSync } from "node:fs";

const common = createRequire(import.meta.url)("refllm-vectors");
if (common !== vectors) throw new Error("require and import give two packages");
let count = 0;
for (const path of files) count += cases(path).length;
const size = manifest.files.reduce((sum, entry) => sum + statSync(file(entry.path)).size, 0);
const held = tensors("FILE").get("TENSOR");
const [one] = cases("FILE").filter((each) => each.id === "CASE");
if (one.outputs.y.value.tensor !== "TENSOR") throw new Error("another tensor");
if (held.data.length !== held.shape.reduce((a, b) => a * b, 1)) throw new Error("a length that is not its shape's");
if (tensors("L1/softmax.json").size !== 0) throw new Error("level 1 has tensors");
for (const names of Object.values(notes.cases)) for (const name of names) if (!notes.notes[name]) throw new Error(name);
let refused = "";
try { cases("../package.json"); } catch (error) { refused = error.message; }
if (!refused.includes("there is no file")) throw new Error("a file beyond the manifest is read");
console.log(count, size, Buffer.from(held.data.buffer).subarray(0, 8).toString("hex"));
"""


def test_node_uses_the_package_that_npm_installs(folder: Path, tmp_path: Path) -> None:
    node, npm = tool("node"), tool("npm")
    (tmp_path / "package.json").write_text('{"name": "consumer", "private": true}')
    settings = {"npm_config_cache": str(tmp_path / "cache"), "npm_config_update_notifier": "false"}
    package = str(folder / f"refllm-vectors-{VERSION}.tgz")
    ran([npm, "install", "--offline", "--no-audit", "--no-fund", package], tmp_path, **settings)
    program = NODE.replace("FILE", FILE).replace("TENSOR", TENSOR).replace("CASE", CASE)
    (tmp_path / "program.mjs").write_text(program)
    assert ran([node, "program.mjs"], tmp_path).split() == expected()


GO = """package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"

	vectors "MODULE"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	manifest, err := vectors.ReadManifest()
	must(err)
	count, size := 0, 0
	for _, entry := range manifest.Files {
		content, err := fs.ReadFile(vectors.Files, entry.Path)
		must(err)
		size += len(content)
		if entry.Cases > 0 {
			cases, err := vectors.Cases(entry.Path)
			must(err)
			count += len(cases)
		}
	}
	cases, err := vectors.Cases("FILE")
	must(err)
	var record struct {
		Outputs map[string]struct{ Value struct{ Tensor string } }
	}
	for _, each := range cases {
		if each.ID == "CASE" {
			must(json.Unmarshal(each.Record, &record))
		}
	}
	tensors, err := vectors.Tensors("FILE")
	must(err)
	if none, err := vectors.Tensors("L1/softmax.json"); err != nil || len(none) != 0 {
		panic("level 1 has tensors")
	}
	if _, err := vectors.Cases("L1/none.json"); err == nil {
		panic("a file is read that is not there")
	}
	fmt.Println(count, size, hex.EncodeToString(tensors[record.Outputs["y"].Value.Tensor].Data[:8]))
}
"""


def test_go_uses_the_module_that_a_proxy_serves(folder: Path, made: dict[str, bytes], tmp_path: Path) -> None:
    go = tool("go")
    (module,) = re.findall(r"^module (\S+)$", made["go-module/go.mod"].decode(), re.MULTILINE)
    require = f"module consumer.example/consumer\n\ngo 1.16\n\nrequire {module} v{VERSION}\n"
    (tmp_path / "program").mkdir()
    (tmp_path / "program/go.mod").write_text(require)
    program = GO.replace("MODULE", module).replace("FILE", FILE).replace("CASE", CASE)
    (tmp_path / "program/main.go").write_text(program)
    settings = {
        "GOPROXY": (folder / "go-proxy").as_uri(), "GOSUMDB": "off", "GOFLAGS": "-mod=mod -modcacherw",
        "GOTOOLCHAIN": "local", "GOPATH": str(tmp_path / "path"), "GOCACHE": str(tmp_path / "cache"),
    }  # fmt: skip
    assert ran([go, "run", "."], tmp_path / "program", **settings).split() == expected()
    (unpacked,) = (tmp_path / "path/pkg/mod" / Path(module).parent).glob("*@*")
    assert {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()} == {
        name.removeprefix("go-module/") for name in made if name.startswith("go-module/")
    }


RUST = """
fn main() {
    let files = refllm_vectors::FILES;
    let count: u32 = files.iter().map(|file| file.cases).sum();
    let size: usize = files.iter().map(|file| file.bytes.len()).sum();
    for file in files {
        assert_eq!(refllm_vectors::get(file.path), Some(file.bytes));
    }
    assert_eq!(refllm_vectors::get("L1/none.json"), None);
    assert!(refllm_vectors::MANIFEST.contains(refllm_vectors::SPEC_VERSION));
    assert!(refllm_vectors::NOTES.contains("links") && refllm_vectors::README.starts_with('#'));
    let beside = refllm_vectors::get("BESIDE").unwrap();
    let start = 8 + u64::from_le_bytes(beside[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&beside[8..start]).unwrap();
    let after = header.split("\\"TENSOR\\":").nth(1).unwrap().split("data_offsets\\":[").nth(1).unwrap();
    let begin = start + after.split(',').next().unwrap().parse::<usize>().unwrap();
    let number: String = beside[begin..begin + 8].iter().map(|byte| format!("{byte:02x}")).collect();
    println!("{count} {size} {number}");
}
"""


def test_rust_uses_the_crate_of_a_registry_on_the_disk(folder: Path, tmp_path: Path) -> None:
    """A local registry takes the .crate file as it is, and compares its digest."""
    cargo = tool("cargo")
    name = f"refllm-vectors-{VERSION}.crate"
    described = {
        "name": "refllm-vectors", "vers": VERSION, "deps": [], "features": {}, "yanked": False,
        "cksum": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
    }  # fmt: skip
    files = {
        "registry/index/re/fl/refllm-vectors": json.dumps(described) + "\n",
        "program/.cargo/config.toml": '[source.crates-io]\nreplace-with = "here"\n'
        f"[source.here]\nlocal-registry = {json.dumps(str(tmp_path / 'registry'))}\n",
        "program/Cargo.toml": '[package]\nname = "consumer"\nversion = "0.1.0"\nedition = "2021"\n'
        f'[dependencies]\nrefllm-vectors = "={VERSION}"\n',
        "program/src/main.rs": RUST.replace("BESIDE", FILE.replace(".json", ".safetensors")).replace("TENSOR", TENSOR),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    shutil.copy(folder / name, tmp_path / "registry" / name)
    settings = {"CARGO_HOME": str(tmp_path / "home"), "RUSTUP_HOME": os.environ.get("RUSTUP_HOME", "")}
    settings = {key: value for key, value in settings.items() if value}
    assert ran([cargo, "run", "--offline", "--quiet"], tmp_path / "program", **settings).split() == expected()


def test_cargo_would_package_the_crate_itself(folder: Path, tmp_path: Path) -> None:
    cargo = tool("cargo")
    shutil.unpack_archive(folder / f"refllm-vectors-{VERSION}.crate", tmp_path, "gztar")
    (place,) = tmp_path.iterdir()
    held = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    listed = ran([cargo, "package", "--offline", "--list", "--allow-dirty"], place).split()
    assert held <= set(listed)
    assert set(listed) - held <= {"Cargo.lock", "Cargo.toml.orig", ".cargo_vcs_info.json"}
