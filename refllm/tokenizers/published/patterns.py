r"""The regular expressions of tokenizer.json as those of `re`: Unicode classes such as \p{L} are written out."""

from __future__ import annotations

import re
from functools import cache

from refllm.errors import UserError
from refllm.tokenizers.published.runs import class_of

SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
MOST = 4096  # characters of a pattern
LONG_NAMES = {"Letter": "L", "Number": "N", "Mark": "M", "Punctuation": "P", "Symbol": "S"}


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """UserError for what is not supported."""
    if len(pattern) > MOST:
        raise UserError(f"a pattern of a tokenizer has {len(pattern):,} characters; {MOST:,} are the most")
    try:
        return re.compile(translated(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"the pattern {pattern[:60]!r} of a tokenizer is not supported ({error})") from None


def translated(pattern: str) -> str:
    """With every class written out, within brackets and outside."""
    found: list[str] = []
    at, inside = 0, False
    while at < len(pattern):
        one = pattern[at]
        if one == "\\" and at + 1 < len(pattern):
            text, at = _escape(pattern, at, inside=inside)
            found.append(text)
            continue
        if one == "[" and inside:
            raise UserError(f"the pattern {pattern[:60]!r} has brackets within brackets, which is not supported")
        if one == "[":
            inside = True
            found.append(one)
            at += 1
            if pattern[at : at + 1] == "^":
                found.append("^")
                at += 1
            continue
        if one == "]":
            inside = False
        if inside and pattern[at : at + 2] == "&&":
            raise UserError(f"the pattern {pattern[:60]!r} has an intersection, which is not supported")
        found.append(one)
        at += 1
    return "".join(found)


def _escape(pattern: str, at: int, *, inside: bool) -> tuple[str, int]:
    letter = pattern[at + 1]
    if letter in "pP":
        end = pattern.find("}", at)
        name = pattern[at + 3 : end] if pattern[at + 2 : at + 3] == "{" and end > 0 else pattern[at + 2 : at + 3]
        after = end + 1 if pattern[at + 2 : at + 3] == "{" else at + 3
        negated = (letter == "P") != name.startswith("^")
        return _bracketed(_ranges(name.removeprefix("^"), pattern), negated, inside, pattern), after
    plain = {"s": SPACES, "d": _ranges("Nd", pattern), "w": _ranges("W", pattern)}
    if letter.lower() in plain:
        return _bracketed(plain[letter.lower()], letter.isupper(), inside, pattern), at + 2
    if letter == "h":
        return _bracketed("0-9a-fA-F", False, inside, pattern), at + 2
    return pattern[at : at + 2], at + 2


def _bracketed(ranges: str, negated: bool, inside: bool, pattern: str) -> str:
    if not inside:
        return f"[{'^' if negated else ''}{ranges}]"
    return _complement(ranges) if negated else ranges


def _ranges(name: str, pattern: str) -> str:
    name = LONG_NAMES.get(name, name)
    try:
        found = class_of(name).ranges()
    except KeyError:
        raise UserError(f"the class \\p{{{name[:20]}}} of the pattern {pattern[:60]!r} is not supported") from None
    return _written(found)


def _written(ranges: list[tuple[int, int]]) -> str:
    return "".join(f"\\U{first:08x}" + (f"-\\U{last:08x}" if last > first else "") for first, last in ranges)


@cache
def _complement(ranges: str) -> str:
    """The ranges of all other characters."""
    members = re.compile(f"[{ranges}]")
    found: list[tuple[int, int]] = []
    start = None
    for code in range(0x110000):
        outside = not members.match(chr(code))
        if outside and start is None:
            start = code
        elif not outside and start is not None:
            found.append((start, code - 1))
            start = None
    if start is not None:
        found.append((start, 0x10FFFF))
    return _written(found)
