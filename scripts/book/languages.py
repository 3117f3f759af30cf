"""Two languages of one page: what is no word is equal in both.

A page of docs/zh has the blocks of the page of its name in docs/book, one for one: headings, paragraphs, items and rows
of tables, and directives. In each block stand the same formulas, code, links and numbers; within a sentence their order
is that of the language. Examples and steps are the same to the letter, but for comments and reasons.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path, PurePosixPath

from book import golden, mistakes
from refllm.spec.registers import errata

FOLDER = "zh"
OF = "book"  # where the pages stand that are translated

_FENCE = re.compile(r"```\{([a-z]+)\} ?(.*)|```(.*)")
_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
_CODE = re.compile(r"(?:\{[a-z]+\})?`[^`]+`")
_LINK = re.compile(r"\]\(([^)]+)\)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_COMMENT = re.compile(r"\s+#\s.*$", re.MULTILINE)
_HAN = re.compile(r"[\u4e00-\u9fff]")
_WORD = re.compile(r"[A-Za-z]{3,}")
FEW_WORDS = 2  # so many may be names alone


@dataclass(frozen=True)
class Block:
    """A part of a page: its first line, what kind it is, what must be equal, and its words."""

    line: int
    kind: str
    equal: Counter[str]
    words: str = ""


def differences(english: str, other: str, page: str) -> Iterator[str]:
    """What the two pages differ in, apart from their words; `page` is the name of both."""
    pairs = zip_longest(blocks(english, f"{OF}/{page}"), blocks(other, f"{FOLDER}/{page}"))
    for one, translated in pairs:
        if one is None or translated is None or one.kind != translated.kind:
            yield f"{_said(one)} in {OF}/{page}, but {_said(translated)} in {FOLDER}/{page}"
            return  # what follows has no counterpart
        where = f"{FOLDER}/{page}:{translated.line} ({OF}/{page}:{one.line})"
        yield from (f"{where}: {difference}" for difference in _unequal(one.equal, translated.equal))
        if len(_WORD.findall(one.words)) > FEW_WORDS and not _HAN.search(translated.words):
            yield f"{where}: not translated"


def _said(block: Block | None) -> str:
    return f"a {block.kind} in line {block.line}" if block else "nothing more"


def _unequal(one: Counter[str], other: Counter[str]) -> Iterator[str]:
    if one != other:
        lacks, has = (", ".join(sorted((a - b).elements())) or "nothing" for a, b in ((one, other), (other, one)))
        yield f"lacks {lacks}; has instead {has}"


def blocks(markdown: str, page: str) -> list[Block]:
    """Those of a page of this name, without its head and the link to its other language."""
    found: list[Block] = []
    lines = markdown.splitlines()
    n = lines.index("---", 1) + 1 if lines[:1] == ["---"] else 0
    while n < len(lines):
        line = lines[n]
        if fence := _FENCE.fullmatch(line):
            end = next((i for i in range(n + 1, len(lines)) if lines[i] == "```"), len(lines))
            found.append(_fenced(n + 1, fence, lines[n + 1 : end], page))
            n = end + 1
        elif not line.strip():
            n += 1
        else:
            end = n + 1
            while end < len(lines) and not _begins(line, lines[end]):
                end += 1
            text = " ".join(lines[n:end])
            if not _is_switch(text, page):
                found.append(Block(n + 1, _kind(line), equal(text, page), _bare(text)))
            n = end
    return found


def _begins(first: str, line: str) -> bool:
    """Whether a line belongs to another block than the lines before it."""
    alone = ("#", "|", "- ", "```")
    return not line.strip() or first.startswith(("#", "|")) or line.startswith(alone)


def _kind(line: str) -> str:
    if line.startswith("#"):
        return f"heading of level {len(line) - len(line.lstrip('#'))}"
    return "row" if line.startswith("|") else "item" if line.startswith("- ") else "paragraph"


def _is_switch(text: str, page: str) -> bool:
    """`[English](../book/name.md)` by itself leads to the same page in the other language."""
    name = PurePosixPath(page).name
    return re.fullmatch(rf"\[[^]]+\]\(\.\./(?:{OF}|{FOLDER})/{re.escape(name)}\)", text.strip()) is not None


def _fenced(line: int, fence: re.Match[str], content: list[str], page: str) -> Block:
    name, arguments = fence[1] or "code", fence[2] or fence[3] or ""
    kind = f"`{name} {arguments}`".replace(" `", "`")
    if name == "steps":
        parts = [row.split(" | ") for row in content if row.strip()]
        rows = [" | ".join([*row[:2], _formula(row[2])]) for row in parts if len(row) == 4]
        reasons = " ".join(row[3] for row in parts if len(row) == 4)
        return Block(line, kind, Counter(rows) + equal(reasons, page), _bare(reasons))
    if name == "drawn":
        text = " ".join(row.removeprefix(":alt:") for row in content)
        return Block(line, kind, equal(text, page), _bare(text))
    return Block(line, kind, Counter([_COMMENT.sub("", "\n".join(content)).rstrip()]))


def equal(text: str, page: str) -> Counter[str]:
    """What stands in a text besides its words: formulas, code, links, numbers."""
    found = [_formula(found[1] or found[2]) for found in _MATH.finditer(text)]
    text = _MATH.sub(" ", text)
    found += _CODE.findall(text)
    text = _CODE.sub(" ", text)
    found += [_target(found[1], page) for found in _LINK.finditer(text)]
    return Counter(found + _NUMBER.findall(_LINK.sub("] ", text)))


def _bare(text: str) -> str:
    """The words alone."""
    return _LINK.sub("] ", _CODE.sub(" ", _MATH.sub(" ", text)))


def _formula(tex: str) -> str:
    """TeX without its spaces and the words in it."""
    return re.sub(r"\s+", "", re.sub(r"\\text\{[^}]*\}", r"\\text{}", tex))


def _target(link: str, page: str) -> str:
    """Where a link leads, seen from docs; the page of either language is one."""
    if "://" in link:
        return link
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / link).parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join([OF, *parts[1:]] if parts[:1] == [FOLDER] else parts)


# --- the errata, whose words stand in a register ----------------------------------------------------------------------


def translated_errata(docs: Path) -> dict[str, dict[str, str]]:
    """`printed`, `holds` and `why` of each erratum."""
    return tomllib.loads((docs / FOLDER / "errata.toml").read_text(encoding="utf-8"))


def differences_of_errata(other: dict[str, dict[str, str]]) -> Iterator[str]:
    yield from (f"erratum {name} is not translated" for name in errata() if name not in other)
    for name, entry in other.items():
        if name not in errata():
            yield f"there is no erratum {name}"
            continue
        for part in ("printed", "holds", "why"):
            for difference in _unequal(*(equal(text, "") for text in (getattr(errata()[name], part), entry[part]))):
                yield f"erratum {name}, {part}: {difference}"


# --- what mistakes and golden cases are about -------------------------------------------------------------------------


@cache
def translated_evidence(docs: Path) -> dict[str, dict[str, str]]:
    """Of `mistakes` and `cases`: the words in English, and in Chinese. Not all that the pages show need be there."""
    return tomllib.loads((docs / FOLDER / "evidence.toml").read_text(encoding="utf-8"))


def differences_of_evidence(other: dict[str, dict[str, str]]) -> Iterator[str]:
    known = {"mistakes": {each.about for each in mistakes.bank()}, "cases": {each.about for each in golden.cases()}}
    for kind, words in known.items():
        for english, translated in other[kind].items():
            if english not in words:
                yield f"{FOLDER}/evidence.toml: {kind}: nothing is about {english!r} any more"
            for difference in _unequal(equal(english, ""), equal(translated, "")):
                yield f"{FOLDER}/evidence.toml, {english!r}: {difference}"


def faults(docs: Path) -> Iterator[str]:
    """All that the pages of the other language differ in from those that they translate."""
    for path in sorted((docs / FOLDER).glob("*.md")):
        original = docs / OF / path.name
        if not original.is_file():
            yield f"{FOLDER}/{path.name} translates no page of {OF}"
            continue
        yield from differences(original.read_text(encoding="utf-8"), path.read_text(encoding="utf-8"), path.name)
    if (docs / FOLDER / "errata.toml").is_file():
        yield from differences_of_errata(translated_errata(docs))
    if (docs / FOLDER / "evidence.toml").is_file():
        yield from differences_of_evidence(translated_evidence(docs))
