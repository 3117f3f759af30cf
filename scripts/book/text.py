"""Functions of the plain text as they stand in refllm/spec: their lines, and the parts of these."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import refllm.spec

FOLDER = Path(refllm.spec.__file__).parent
_HEAD = re.compile(r"([A-Z][A-Z0-9]*(?:-[A-Z0-9]+)*)(?: (?:in|without) [a-z]+| \([^()]*\))?")  # an ID, in which form
PARTS = ("all", "code", "docstring", "formula", "derivation", "forward", "back")


@dataclass(frozen=True)
class Function:
    """A function of the text: its file, its lines, counted from 1, and its docstring as it is indented there."""

    module: str
    name: str
    first: int
    last: int
    lines: tuple[str, ...]
    docstring: str
    docstring_lines: tuple[int, int]  # from where to where, counted as the others; (0, 0) without one
    back_lines: tuple[int, int]  # of the pullback

    @property
    def ids(self) -> tuple[str, ...]:
        return ids_at_the_head(self.docstring)

    def part(self, name: str) -> str:
        """The text of a part of it, without what its lines tell the formatter."""
        return re.sub(r" +# (fmt|noqa): ?.*", "", self._part(name))

    def _part(self, name: str) -> str:
        if name == "all":
            return "\n".join(self.lines)
        if name == "docstring":
            return self.docstring
        if name == "formula":
            return self.docstring.partition("\n\n")[0]
        if name == "derivation":
            return _field(self.docstring, "Back:")
        if name == "back":
            return textwrap.dedent("\n".join(self._between(*self.back_lines))).strip("\n")
        without = set(range(self.docstring_lines[0], self.docstring_lines[1] + 1)) if self.docstring else set()
        if name == "forward":
            without |= set(range(self.back_lines[0], self.back_lines[1] + 1))
        kept = [line for n, line in enumerate(self.lines, self.first) if n not in without]
        return re.sub(r"\n\n+", "\n\n", "\n".join(kept)).rstrip()

    def _between(self, first: int, last: int) -> tuple[str, ...]:
        return self.lines[first - self.first : last - self.first + 1] if first else ()


def ids_at_the_head(docstring: str) -> tuple[str, ...]:
    """`ATT, ATT-MASK: y = P v` has two."""
    head, colon, _ = docstring.partition(":")
    first, *others = [_HEAD.fullmatch(part) for part in head.split(", ")]
    return tuple(found[1] for found in (first, *others) if found) if colon and first else ()


def _field(docstring: str, label: str) -> str:
    """What stands behind a label of a docstring, over all its lines."""
    lines = docstring.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith(label)]
    if not starts:
        return ""
    taken = [" " * len(label) + lines[starts[0]][len(label) :]]
    for line in lines[starts[0] + 1 :]:
        if line and not line.startswith(" "):
            break
        taken.append(line)
    return textwrap.dedent("\n".join(taken)).strip("\n")


def source(module: str) -> str:
    return (FOLDER / f"{module}.py").read_text(encoding="utf-8")


def modules() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.py"))


@cache
def functions(module: str) -> dict[str, Function]:
    """The functions that a module of the text defines, by name, those in classes left out."""
    written = source(module)
    lines = written.splitlines()
    found = {}
    for node in ast.parse(written).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = _function(module, node, lines)
    return found


def _function(module: str, node: ast.FunctionDef, lines: list[str]) -> Function:
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    last = node.end_lineno or node.lineno
    docstring = ast.get_docstring(node) or ""
    head = node.body[0]
    place = (head.lineno, head.end_lineno or head.lineno) if docstring else (0, 0)
    backs = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name.endswith("_back")]
    back = (backs[-1].lineno, backs[-1].end_lineno or backs[-1].lineno) if backs else (0, 0)
    return Function(module, node.name, first, last, tuple(lines[first - 1 : last]), docstring, place, back)


@cache
def operations() -> dict[str, Function]:
    """Every public function of the text with an ID at its head."""
    found = {}
    for module in modules():
        for name, function in functions(module).items():
            if not name.startswith("_") and function.ids:
                found[name] = function
    return found


def find(name: str) -> Function:
    """The function of this name, `module.name` where several modules have one. LookupError says what there is."""
    module, _, own = name.rpartition(".")
    if module:
        if module in modules() and own in functions(module):
            return functions(module)[own]
        raise LookupError(f"refllm/spec has no {module}.py with a function {own}")
    if own in operations():
        return operations()[own]
    found = [functions(module)[own] for module in modules() if own in functions(module)]
    if len(found) != 1:
        where = ", ".join(f"{each.module}.{own}" for each in found) or "nowhere"
        raise LookupError(f"{own}: defined {where}; say one function of refllm/spec")
    return found[0]


def operations_of(name: str) -> list[Function]:
    """Those with this ID at their head."""
    return [each for each in operations().values() if name in each.ids]
