"""Starter kits: one file to copy, in which a few operations are right, with how to build and verify it."""

from __future__ import annotations

from pathlib import Path

from refllm.errors import UserError
from refllm.invocation import retold
from refllm.verify import library
from refllm.verify.corpus import Corpus
from refllm.verify.material import beside_the_package

# The file of each kit; `with_header` are those that include refllm.h.
FILES = {
    "c": "kernel.c", "c++": "kernel.cpp", "rust": "kernel.rs", "go": "kernel.go", "javascript": "kernel.mjs",
    "pytorch": "kernel.py", "jax": "kernel.py", "onnx": "kernel.py", "cuda": "kernel.cu", "triton": "kernel.py",
    "webgpu": "kernel.mjs",
}  # fmt: skip
NAMES = tuple(FILES)
WITH_HEADER = ("c", "c++", "cuda")


def copied(name: str, directory: Path, golden: Corpus) -> str:
    """Copies a kit, and says how to go on. UserError where a file would be replaced."""
    if name not in FILES:
        raise UserError(f"--kit {name}: there are kits for {', '.join(NAMES)}")
    places = {file: beside_the_package("scripts", "kits", name, file) for file in (FILES[name], "README.md")}
    if None in places.values():
        raise UserError("the starter kits are neither beside the package nor installed with it; get the sources")
    wanted = [*places, *(["refllm.h"] if name in WITH_HEADER else [])]
    if there := [file for file in wanted if (directory / file).exists()]:
        raise UserError(f"--kit {name} {directory}: {there[0]} is there already; choose another folder")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, place in places.items():
            assert place is not None
            text = place.read_text(encoding="utf-8")
            (directory / file).write_text(retold(text, elsewhere=True) if file == "README.md" else text, "utf-8")
        if name in WITH_HEADER:
            text = library.header(library.interfaces(golden.cases.values()).values(), golden.spec_version)
            (directory / "refllm.h").write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror or error})") from None
    return f"{directory / FILES[name]} is yours to change. In {directory}:\n\n{commands(name)}"


def commands(name: str) -> str:
    """How a kit is built and verified: the lines of its README that are commands."""
    readme = beside_the_package("scripts", "kits", name, "README.md")
    assert readme is not None
    lines = retold(readme.read_text(encoding="utf-8"), elsewhere=True).splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith("    "))
