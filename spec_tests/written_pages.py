"""What the pages in Markdown consist of: blocks of code, code within sentences, and the commands in both."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from refllm import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh.md", "golden/README.md", "CONTRIBUTING.md", "RELEASING.md")),
    *(path for folder in ("", "book", "zh", "decisions") for path in sorted((ROOT / "docs" / folder).glob("*.md"))),
    *sorted((ROOT / "scripts").rglob("README.md")),
]
COMMANDS = "docs/commands.md"  # whose examples stand in the help of the commands


def text_of(page: str | Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def fenced(page: str | Path) -> Iterator[tuple[str, str]]:
    """The blocks of a page, also those within a list: the words behind the opening fence, and the code."""
    language: str | None = None
    lines: list[str] = []
    indent = ""
    for line in text_of(page).splitlines():
        if not line.lstrip().startswith("```"):
            lines.append(line.removeprefix(indent))
        elif language is None:
            indent = line[: len(line) - len(line.lstrip())]
            language, lines = line[len(indent) + 3 :], []
        else:
            yield language, "\n".join(lines) + "\n"
            language = None
    assert language is None, page


def blocks(page: str | Path, language: str) -> list[str]:
    return [code for each, code in fenced(page) if each == language]


def inline(page: str | Path) -> list[str]:
    """The code within the sentences of a page."""
    return re.findall(r"(?<!`)`([^`]+)`", " ".join(prose(page).split()))


def prose(page: str | Path) -> str:
    """A page without its blocks."""
    kept, within = [], False
    for line in text_of(page).splitlines():
        if line.lstrip().startswith("```"):
            within = not within
        elif not within:
            kept.append(line)
    return "\n".join(kept)


@dataclass(frozen=True)
class Line:
    """A command that stands in a page."""

    page: str
    text: str
    in_block: bool

    @property
    def words(self) -> list[str]:
        """Its words; "refllm" is the first of those of the command line, however it is called there."""
        return shlex.split(_REFLLM.sub("refllm ", self.text))

    @property
    def is_form(self) -> bool:
        """Whether words in it stand for others: RUN, TEXT, ..."""
        return any(re.fullmatch(r"[A-Z]{2,}|N|L1/NAME|\.\.\.", word) for word in self.words)

    @property
    def is_name(self) -> bool:
        """Whether a sentence names a command, with its verb or without, and does not say how to call it."""
        bare = [word for word in self.words if word != "--json"]
        return not self.in_block and bare[0] == "refllm" and len(bare) == 2 + self.has_verb and bare[1].islower()

    @property
    def has_verb(self) -> bool:
        return len(self.words) > 2 and self.words[2] in ("fit", "predict", "evaluate")


_REFLLM = re.compile(r"^(?:\./scripts/refllm|python -m refllm|refllm) ")
_BEGIN = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\./[\w./]+|scripts/[\w./]+|python|pytest|pip|cc|c\+\+|nvcc|rustc|cargo|go|node|npm|git|cd|"
    r"sha256sum|mpiexec|twine|refllm)(?: [^ /=].*| \.{3}.*| \./.*)?$"
)


def commands(page: Path) -> list[Line]:
    """The command lines of a page, in their order; what stands two spaces behind one is said about it."""
    name = page.relative_to(ROOT).as_posix()
    found = [Line(name, text, True) for text in [*_of_blocks(page), *_indented(page)]]
    found += [Line(name, text, False) for text in _inline(page)]
    return found + ([Line(name, text, True) for text in examples_of_the_help()] if name == COMMANDS else [])


def _of_blocks(page: Path) -> Iterator[str]:
    for language, code in fenced(page):
        if language in ("", "sh", "bash", "console"):
            for line in code.splitlines():
                bare = _bare(line)
                if line[:1] != " " and _BEGIN.match(bare) and (" " in bare or bare.startswith("./")):
                    yield bare


def _inline(page: Path) -> Iterator[str]:
    for text in inline(page):
        if _BEGIN.match(text) and " " in text:
            yield text.replace("\\|", "|")  # as it stands in a table


def _indented(page: Path) -> Iterator[str]:
    for line in prose(page).splitlines():
        if line.startswith("    ") and _BEGIN.match(_bare(line)):
            yield _bare(line)


def _bare(line: str) -> str:
    return re.split(r" {2,}", line.strip())[0].removeprefix("$ ")


def examples_of_the_help() -> list[str]:
    """The examples of every command and verb, which the page of the commands shows."""
    found = []
    for name in cli.COMMANDS:
        parser = parsers(cli.parser(name))[name]
        for each in (parser, *parsers(parser).values()):
            examples = (each.description or "").partition("\n\nexample")[2]
            found += re.findall(r"refllm .*", examples)
    return [*dict.fromkeys(found)]


def parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Those within one: of the commands, or of a command's verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def parser_for(words: list[str]) -> argparse.ArgumentParser:
    """That of a command, and of its verb."""
    parser = parsers(cli.parser(words[1]))[words[1]]
    return parsers(parser).get(words[2] if len(words) > 2 else "", parser)
