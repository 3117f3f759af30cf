"""The house: what may import what, who may know NumPy and CuPy, and that pullbacks read names bound once."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

import refllm
from spec_tests.closures import rebound_names

PACKAGE = Path(refllm.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# A room imports from the lines above its own and, without a circle, from its own line. "refllm" is the version.
LAYERS = [
    {"refllm", "errors", "spec", "unicode_script", "cells", "invocation", "extras", "page", "chart"},
    {"own_threads", "widening", "narrow", "backend", "limited_json"},
    {"shapes", "parameters", "watching", "borrowed", "pieces", "piecewise"},
    {"fit", "heads", "kinds"},
    {"entries"},
    {"differentiable"},
    {"numbers"},
    {"ops"},
    {"blocks"},
    {"models"},
    {
        "objectives",
        "optim",
        "tokenizers",
        "data",
        "generation",
        "metrics",
        "checkpoint",
        "array_file",
        "moments",
        "cut_parameters",
        "state_file",
        "presets",
        "workers",
        "ranks",
        "exchange",
        "scaling",
    },
    {"pretrained"},
    {"finetune", "explain", "verify"},
    {"train", "holding"},
    {"tasks"},
    {
        "plan",
        "budget",
        "timing",
        "run",
        "reported",
        "resumable",
        "run_arrays",
        "trained",
        "directory",
        "training_page",
        "report_keeper",
        "pictures",
    },
    {"estimator", "pytest"},
    {"commands"},
    {"cli", "__main__"},
]
KNOW_NUMPY = (
    "backend.py", "checkpoint.py", "estimator/", "models/ngram.py", "data/", "tokenizers/", "verify/", "checkpoint/",
    "numbers/", "spec/", "pretrained/", "narrow.py",
    "widening.py",
)  # fmt: skip
HAVE_PULLBACKS = {"spec", "ops", "blocks", "models", "objectives"}
FORBIDDEN_ROOMS = {"utils", "util", "helpers", "helper", "common", "base", "experimental", "misc"}


@functools.cache
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "refllm" if parts == ("__init__",) else parts[0]


def _statements(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Those of a block and of the blocks in it. Expressions, of which there are far more, are not looked into."""
    for statement in body:
        yield statement
        for block in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from _statements(getattr(statement, block, ()))


@functools.cache
def _imported_rooms(source: str) -> list[tuple[int, str]]:
    """Rooms of refllm that a source imports, anywhere in it, with the line."""
    found = []
    for node in _statements(_parsed(source).body):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            modules = [node.module or ""]
            if node.module == "refllm":
                rooms = {path.stem for path in PACKAGE.iterdir()}
                modules = [f"refllm.{a.name}" if a.name in rooms else "refllm" for a in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        for module in modules:
            package, *rest = module.split(".")
            if package == "refllm":
                found.append((node.lineno, rest[0] if rest else "refllm"))
    return found


def _level(room: str) -> int:
    levels = [level for level, rooms in enumerate(LAYERS) if room in rooms]
    assert levels, f"the room {room} has no place yet: say in LAYERS of {Path(__file__).name} what it may import"
    return levels[0]


def _climbs(room: str, source: str) -> list[str]:
    return [
        f"line {line}: {room} imports {other}, which stands above it"
        for line, other in _imported_rooms(source)
        if _level(other) > _level(room)
    ]


def _faults(sources: Iterable[Path], faults: Callable[[Path, str], Sequence[object]]) -> dict[str, Sequence[object]]:
    """What is wrong in each source that has a fault."""
    found = {_name(path): faults(path, path.read_text(encoding="utf-8")) for path in sources}
    assert found
    return {name: wrong for name, wrong in found.items() if wrong}


def test_imports_go_down_only() -> None:
    assert _faults(SOURCES, lambda path, source: _climbs(_room(path), source)) == {}


def test_an_import_that_climbs_is_caught() -> None:
    assert _climbs("ops", "def f():\n    from refllm.blocks.residual import x") == [
        "line 2: ops imports blocks, which stands above it"
    ]
    assert _climbs("backend", "import refllm.ops.linear") != []
    assert _climbs("errors", "from refllm import backend") != []
    assert _climbs("ops", "from refllm.ops.softmax import softmax\nfrom refllm import __version__") == []
    with pytest.raises(AssertionError, match="the room attic has no place yet"):
        _climbs("attic", "import refllm.errors")


def test_rooms_import_each_other_in_no_circle() -> None:
    below: dict[str, set[str]] = {_room(path): set() for path in SOURCES}
    for path in SOURCES:
        rooms = {room for _, room in _imported_rooms(path.read_text(encoding="utf-8"))}
        below[_room(path)] |= rooms & below.keys() - {_room(path)}
    while leaves := {room for room, others in below.items() if not others & below.keys()}:
        below = {room: others for room, others in below.items() if room not in leaves}
    assert below == {}, "rooms that import each other in a circle, or what is in one"


def _names(source: str, library: str) -> list[int]:
    """Lines of code, docstrings and comments apart, that name a library: as an import, a variable or in a string."""
    word, lines = re.compile(rf"\b({library})\b"), []
    if not word.search(source):
        return []
    tree = _parsed(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        text = ""
        if isinstance(node, ast.Name):
            text = node.id
        elif isinstance(node, ast.Attribute):
            text = node.attr
        elif isinstance(node, ast.alias):
            text = f"{node.name} {node.asname}"
        elif isinstance(node, ast.ImportFrom):
            text = node.module or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            text = node.value
        if word.search(text):
            lines.append(getattr(node, "lineno", 0))
    return lines


CONVERTS = "verify/arrays/"  # what strangers give and take: nothing of refllm is computed there


def test_only_the_backend_knows_cupy() -> None:
    others = [path for path in SOURCES if path.name != "backend.py" and not _name(path).startswith(CONVERTS)]
    assert _faults(others, lambda _, source: _names(source, "cupyx?")) == {}


def test_what_runs_on_a_device_does_not_name_numpy() -> None:
    on_a_device = [path for path in SOURCES if not _name(path).startswith(KNOW_NUMPY)]
    assert _faults(on_a_device, lambda _, source: _names(source, "numpy|np")) == {}


@pytest.mark.parametrize(
    "planted",
    [
        "import numpy",
        "import numpy as np",
        "from numpy.typing import NDArray",
        "def f(x):\n    import numpy.linalg",
        "y = numpy.exp(x)",
        "y = np.exp(x)",
        "y = sys.modules['numpy'].exp(x)",
        "y = backend.numpy.exp(x)",
        "y = importlib.import_module('numpy.linalg').norm(x)",
    ],
)
def test_a_planted_line_that_names_numpy_is_caught(planted: str) -> None:
    source = f'"""What numpy would do."""\nx = 1  # as in numpy\n{planted}\n'
    assert _names(source, "numpy|np")
    assert not _names(source.replace(planted, ""), "numpy|np")


@pytest.mark.parametrize("module", ["refllm", "refllm.ops.attention", "refllm.models.gpt", "refllm.cli"])
def test_importing_needs_numpy_at_most(module: str) -> None:
    show = "print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = []
    for imports in ("", f"sys.path.insert(0, {str(PACKAGE.parent)!r}); import {module};"):
        command = [sys.executable, "-I", "-c", f"import sys; {imports} {show}"]
        loaded.append(set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()))
    foreign = loaded[1] - loaded[0] - sys.stdlib_module_names
    assert foreign <= {"refllm", "numpy"}


def test_no_room_is_named_for_what_does_not_belong_anywhere() -> None:
    root = PACKAGE.parent
    found = {
        path.relative_to(root).as_posix()
        for folder in ("refllm", "spec_tests", "scripts")
        for path in (root / folder).rglob("*")
        if path.stem in FORBIDDEN_ROOMS and path.suffix in ("", ".py")
    }
    assert found == set()


def test_a_name_that_a_pullback_reads_is_bound_once() -> None:
    with_pullbacks = [path for path in SOURCES if _room(path) in HAVE_PULLBACKS]
    assert _faults(with_pullbacks, lambda _, source: rebound_names(source)) == {}
