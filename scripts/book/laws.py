"""The laws: tests, by the operation or the code that they speak of."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from book import golden, text
from refllm.spec.registers import sources

ROOT = Path(__file__).resolve().parents[2]
BY_NAME = ("ops", "blocks")  # folders of tests that take operations by their names
ELSEWHERE = (
    "tokenizers",
    "commands",
    "tasks",
    "data",
    "cli",
    "estimator",
    "verify",
)  # other things have such names here


@dataclass(frozen=True)
class Law:
    """A test: its name is the law that it checks."""

    path: str
    line: int
    name: str
    # what it uses of the package, by itself or by a fixture, a function or a table of its file; of tests that take an
    # operation by its name, `subject.operation("lstm")`, that name
    uses: frozenset[str]
    of_each: bool  # it is run for each operation

    @property
    def says(self) -> str:
        return self.name.removeprefix("test_").replace("_", " ")


@cache
def laws() -> tuple[Law, ...]:
    found = []
    for path in sorted((ROOT / "spec_tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        names = {name: _names(node) for name, node in functions.items()} | _tables(tree)
        imports = _imports(tree)
        for name, node in functions.items():
            if name.startswith("test_"):
                used = _with_helpers(names[name], names)
                uses = _of_the_package(used, imports)
                if path.parent.name in BY_NAME:
                    uses |= {each.removeprefix("'") for each in used if each.startswith("'")}
                of_each = "operation" in [argument.arg for argument in node.args.args]
                found.append(Law(path.relative_to(ROOT).as_posix(), node.lineno, name, uses, of_each))
    return tuple(found)


def _of_the_package(names: frozenset[str], imports: dict[str, str]) -> frozenset[str]:
    """Whole names, `refllm.ops.recurrent.lstm`, of what is imported, or is an attribute of what is."""
    whole = {name: (imports.get(name.partition(".")[0], ""), name.partition(".")[2]) for name in names}
    return frozenset(f"{module}.{own}".rstrip(".") for module, own in whole.values() if module.startswith("refllm"))


def _with_helpers(used: frozenset[str], names: dict[str, frozenset[str]]) -> frozenset[str]:
    """The names, those that their helpers have, and so on: a test, a strategy, a table."""
    own, more = used, used & names.keys()
    while more:
        new = frozenset[str]().union(*(names[helper] for helper in more)) - own
        own, more = own | new, new & names.keys()
    return own


def _tables(tree: ast.Module) -> dict[str, frozenset[str]]:
    """What is assigned in the file itself: `CELLS = {"lstm": lstm}`."""
    found = {}
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and (value := getattr(node, "value", None)) is not None:
                found[target.id] = _names(value)
    return found


def _imports(tree: ast.Module) -> dict[str, str]:
    """The names that a file gets from elsewhere, and what they are there."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _names(tree: ast.AST) -> frozenset[str]:
    """Those that are used, fixtures too, attributes of a name, `recurrent.lstm`, and texts, with a mark before them."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names |= {
        f"'{node.value}" for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    attributes = [
        node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    return frozenset(
        names | {f"{node.value.id}.{node.attr}" for node in attributes if isinstance(node.value, ast.Name)}
    )


@cache
def of(operation: str) -> list[Law]:
    """Those whose code uses the operation, and those of the files that are named after it."""
    return [law for law in laws() if Path(law.path).stem == f"test_{operation}" or _speaks_of(law, operation)]


def _speaks_of(law: Law, operation: str) -> bool:
    """Whether it uses a function of this name that computes: not one of a tokenizer or a command."""
    own = [each.split(".") for each in law.uses if each.rpartition(".")[2] == operation]
    return any(parts[1:2] not in ([each] for each in ELSEWHERE) for parts in own)


def of_code(name: str) -> list[Law]:
    """Those that use a module, or what it defines, `refllm.metrics.accuracy`, and those of the file that mirrors it."""
    mirror = Path("spec_tests", *name.split(".")[1:-1], f"test_{name.rpartition('.')[2]}.py").as_posix()
    return [
        law
        for law in laws()
        if law.path == mirror or any(each == name or each.startswith(f"{name}.") for each in law.uses)
    ]


def of_each(operation: str) -> list[Law]:
    """Those that hold of every operation, as far as this is one of theirs."""
    files = set()
    if any(case.operation == operation for case in golden.cases()):
        files.add("spec_tests/spec/test_operations.py")
    if operation in _differentiable():
        files.add("spec_tests/ops/test_every_operation.py")
    return [law for law in laws() if law.of_each and law.path in files]


@cache
def of_id(name: str) -> set[Law]:
    """All that check an ID: its operations, and its code."""
    operations = text.operations_of(name)
    own = {law for function in operations for law in (*of(function.name), *of_each(function.name))}
    return own | {law for each in sources().entries[name].code for law in of_code(each)}


@cache
def _differentiable() -> frozenset[str]:
    """The operations of refllm/ops."""
    found = set()
    for path in (ROOT / "refllm/ops").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(
                "differentiable" in _names(each) for each in node.decorator_list
            ):
                found.add(node.name)
    return frozenset(found)
