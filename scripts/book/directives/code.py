"""The text itself: `{id}`, `{text}`, `{code}` and `{changes}`."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives

from book import text
from book.directives.directive import Directive, PageError, coded, link, way_up
from refllm.spec.registers import sources


class Id(Directive):
    """`{id} ATT`: here is the chapter of this ID. It names it, with its form in a line."""

    def made(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for name in self.arguments:
            entry = sources().entries.get(name)
            if entry is None:
                raise PageError(f"{name} is no ID of refllm/spec/sources.toml")
            anchor = f"id-{name.lower()}"
            if self.translated:
                said = f" {self.said(entry.name)}"
            else:
                self.record.place(self.record.ids, name, self.place(anchor, entry.name))
                said = f" {entry.name}: {entry.form}"
            head = nodes.paragraph("", "", nodes.strong("", name), nodes.Text(said))
            head["ids"], head["classes"] = [anchor], ["book-id"]
            made.append(head)
        return made


class Text(Directive):
    """`{text} attention`: a function of refllm/spec, as it stands there; `:part:` chooses what of it."""

    option_spec: ClassVar = {"part": lambda given: directives.choice(given, text.PARTS)}

    def made(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        for name in self.arguments:
            function = text.find(name)
            part = self.options.get("part", "code")
            shown = function.part(part)
            if not shown:
                raise PageError(f"{name} has no {part}")
            language = "text" if part in ("docstring", "formula", "derivation") else "python"
            made.append(self._block(function, shown, language))
            if part in ("all", "code"):
                self.record.add("code", self.page, *function.ids)
            anchor = f"text-{function.name.replace('_', '-')}"
            known = self.translated or function.name in self.record.operations
            new = text.operations().get(function.name) is function and not known
            if new and part in ("all", "code", "forward"):
                self.record.operations[function.name] = self.place(anchor, function.name)
                made[-1]["ids"].append(anchor)
        return made

    def _block(self, function: text.Function, shown: str, language: str) -> nodes.container:
        caption = nodes.caption("", "", self.text_link(function))
        block = nodes.literal_block(shown, shown, language=language)
        return nodes.container("", caption, block, literal_block=True, classes=["literal-block-wrapper"])


class Code(Directive):
    """`{code} NGRAM` or `{code} refllm.models.ngram`: the modules and functions that are a system."""

    def made(self) -> list[nodes.Node]:
        items = []
        for name in self.arguments:
            if name in sources().entries:
                names = list(sources().entries[name].code)
                self.record.add("code", self.page, name)
                if not names:
                    raise PageError(f"{name} has no code in sources.toml: name the modules themselves")
            else:
                names = [name]
            items += [nodes.list_item("", self._said(each)) for each in names]
        return [nodes.bullet_list("", *items, classes=["book-code"])]

    def _said(self, name: str) -> nodes.paragraph:
        said = first_line(name)
        return nodes.paragraph("", "", nodes.literal("", name), *coded(f": {said}" if said else ""))


def first_line(name: str) -> str:
    """Of the docstring of a module, of what one defines, or of a command."""
    return (_found(name).__doc__ or "").strip().splitlines()[0]


def _found(name: str) -> Any:
    """The module of this name, or what a module defines under it."""
    module, _, own = name.rpartition(".")
    with contextlib.suppress(ModuleNotFoundError):
        return importlib.import_module(name)
    with contextlib.suppress(ModuleNotFoundError):
        found = getattr(importlib.import_module(module or name), own, None)
        if found is not None:
            return found
    raise PageError(f"there is no {name}")


class Changes(Directive):
    """`{changes} transformer_layer llama_layer`: the second function as a change of the first, docstrings left out."""

    required_arguments = 2
    option_spec: ClassVar = {"part": lambda given: directives.choice(given, text.PARTS)}

    def made(self) -> list[nodes.Node]:
        one, other = (text.find(name) for name in self.arguments[:2])
        part = self.options.get("part", "code")
        lines = changed(one.part(part), other.part(part))
        caption = nodes.caption("", "From ")
        caption += [self.text_link(one), nodes.Text(" to "), self.text_link(other)]
        block = nodes.literal_block("\n".join(lines), "\n".join(lines), language="diff")
        return [nodes.container("", caption, block, literal_block=True, classes=["literal-block-wrapper"])]


def changed(one: str, other: str) -> list[str]:
    """The lines of both, marked as in a diff, none left out."""
    lines = difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=10**6)
    return list(lines)[3:]


class Files(Directive):
    """`{files} attention gpt`: links to whole files of the text."""

    def made(self) -> list[nodes.Node]:
        items = []
        for name in self.arguments:
            if name not in text.modules():
                raise PageError(f"refllm/spec has no {name}.py")
            address = f"{way_up(self.page)}text/{name}.html"
            items.append(nodes.list_item("", nodes.paragraph("", "", link(f"refllm/spec/{name}.py", address))))
        return [nodes.bullet_list("", *items)]
