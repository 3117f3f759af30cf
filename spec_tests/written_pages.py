"""What the pages in Markdown consist of: blocks of code, code within sentences, and the commands in both."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "README.zh.md", "golden/README.md", "CONTRIBUTING.md", "RELEASING.md")
] + [path for folder in ("", "book", "zh", "decisions") for path in sorted((ROOT / "docs" / folder).glob("*.md"))]


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
        return any(re.fullmatch(r"\[?[A-Z][A-Z_]+\]?|\.\.\.", word) for word in self.words)


_REFLLM = re.compile(r"^(?:\./scripts/refllm|python -m refllm|refllm) ")
_BEGIN = re.compile(r"(?:\$ )?((?:\./)?scripts/\w+|python scripts/[\w.]+|python -m refllm|refllm)(?: [^ ].*)?$")


def commands(page: Path) -> list[Line]:
    """The command lines of a page, in their order; what stands two spaces behind one is said about it."""
    name = page.relative_to(ROOT).as_posix()
    found = []
    for language, code in fenced(page):
        if language in ("", "sh", "bash", "console"):
            for line in code.splitlines():
                bare = re.split(r" {2,}", line.strip())[0].removeprefix("$ ")
                if line[:1] != " " and _BEGIN.match(line) and (" " in bare or bare.startswith("./")):
                    found.append(Line(name, bare, True))
    for code in inline(page):
        if _BEGIN.match(code) and " " in code and not re.search(r"[|/] ?(?:it|head)$", code):
            found.append(Line(name, code, False))
    return found
