"""What a text goes through before it is split: a function of a text, and the same of one that remembers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from refllm.errors import UserError
from refllm.tokenizers.published.patterns import compiled
from refllm.tokenizers.published.precompiled import Precompiled
from refllm.tokenizers.published.runs import class_of, is_space, lowered
from refllm.tokenizers.published.traced_text import Traced
from refllm.tokenizers.published.unicode_forms import Form, normal_form, traced_form

MOST_STAGES = 64


@dataclass(frozen=True)
class Normaliser:
    """One stage."""

    plain: Callable[[str], str]
    traced: Callable[[Traced], Traced]


class _Table(dict[int, str]):
    """For str.translate: the rule is asked once a character."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self.rule(chr(code))
        return self[code]


def of_characters(rule: Callable[[str], str]) -> Normaliser:
    """Each character by itself, becoming another, several or none."""
    table = _Table(rule)
    return Normaliser(lambda text: text.translate(table), lambda text: text.mapped([table[ord(c)] for c in text.text]))


def of_form(form: Form) -> Normaliser:
    return Normaliser(lambda text: normal_form(text, form), lambda text: traced_form(text, form))


def normalisers(saved: Any) -> list[Normaliser]:
    """The stages of a saved normaliser, none for null. UserError for a kind that is not supported."""
    if saved is None:
        return []
    kind = saved.get("type") if isinstance(saved, Mapping) else None
    if kind == "Sequence":
        parts = saved["normalizers"]
        if len(parts) > MOST_STAGES:
            raise UserError(f"a tokenizer with {len(parts)} normalizers is not supported; {MOST_STAGES} are the most")
        return [one for part in parts for one in normalisers(part)]
    if kind == "NFC" or kind == "NFD" or kind == "NFKC" or kind == "NFKD":  # noqa: PLR1714  a type of four words
        return [of_form(kind)]
    if kind == "BertNormalizer":
        return _bert(saved)
    if kind not in _KINDS:
        raise UserError(f"the normalizer {str(kind)[:40]!r} of a tokenizer is not supported")
    return [_KINDS[kind](saved)]


def _bert(saved: Mapping[str, Any]) -> list[Normaliser]:
    """Clean, space around Chinese characters, accents off, lower case, in this order; accents go with the case unless
    it is said."""
    lower = bool(saved.get("lowercase", True))
    strip = saved.get("strip_accents")
    stages = []
    if saved.get("clean_text", True):
        dropped, space = class_of("BERT_DROPPED"), class_of("BERT_SPACE")
        stages.append(of_characters(lambda c: "" if c in dropped else " " if c in space else c))
    if saved.get("handle_chinese_chars", True):
        chinese = class_of("BERT_CHINESE")
        stages.append(of_characters(lambda c: f" {c} " if c in chinese else c))
    if strip or (strip is None and lower):
        accents = class_of("BERT_ACCENT")
        stages += [of_form("NFD"), of_characters(lambda c: "" if c in accents else c)]
    if lower:
        stages.append(of_characters(lowered))
    return stages


def _replace(saved: Mapping[str, Any]) -> Normaliser:
    pattern, content = pattern_of(saved["pattern"]), str(saved["content"])
    find = pattern.finditer
    return Normaliser(
        lambda text: pattern.sub(lambda _: content, text),
        lambda text: text.replaced([one.span() for one in find(text.text) if one.end() > one.start()], content),
    )


def pattern_of(saved: Mapping[str, Any]) -> re.Pattern[str]:
    """{"String": ...} or {"Regex": ...}"""
    if "String" in saved:
        return re.compile(re.escape(str(saved["String"])))
    return compiled(str(saved["Regex"]))


def _prepend(saved: Mapping[str, Any]) -> Normaliser:
    front = str(saved["prepend"])
    return Normaliser(lambda text: front + text if text else text, lambda text: text.before(front))


def _strip(saved: Mapping[str, Any]) -> Normaliser:
    left, right = bool(saved.get("strip_left", True)), bool(saved.get("strip_right", True))

    def ends(text: str) -> tuple[int, int]:
        start, end = 0, len(text)
        while left and start < end and is_space(text[start]):
            start += 1
        while right and start < end and is_space(text[end - 1]):
            end -= 1
        return start, end

    return Normaliser(lambda text: text[slice(*ends(text))], lambda text: text.part(*ends(text.text)))


def _strip_accents(saved: Mapping[str, Any]) -> Normaliser:
    accents = class_of("ACCENT")
    return of_characters(lambda c: "" if c in accents else c)


def _precompiled(saved: Mapping[str, Any]) -> Normaliser:
    charsmap = Precompiled.of(str(saved.get("precompiled_charsmap") or ""))
    return Normaliser(charsmap.plain, charsmap.traced)


_KINDS: dict[str, Callable[[Mapping[str, Any]], Normaliser]] = {
    "Lowercase": lambda saved: of_characters(lowered),
    "StripAccents": _strip_accents,
    "Replace": _replace,
    "Prepend": _prepend,
    "Strip": _strip,
    "Precompiled": _precompiled,
}
