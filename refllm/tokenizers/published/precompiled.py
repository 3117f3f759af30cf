"""The table of replacements that SentencePiece compiles into its models: a double array of prefixes, and the texts.

Source: Kudo & Richardson 2018 (D18-2012), code (Darts); `tokenizers` looks at clusters of characters of less than six
bytes first, and of a cluster that begins with an entry the entry alone is left.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import cache

import numpy as np

from refllm.errors import UserError
from refllm.tokenizers.published.runs import class_of
from refllm.tokenizers.published.traced_text import Traced

MOST = 1 << 24  # bytes
SHORT = 6  # bytes: only clusters of fewer are looked up whole


class Precompiled:
    """Replaces characters, and clusters of a character and its marks."""

    def __init__(self, units: list[int], texts: bytes) -> None:
        self.units, self.texts = units, texts
        self._known: dict[str, str | None] = {}

    @classmethod
    def of(cls, coded: str) -> Precompiled:
        """UserError for a table that is damaged."""
        try:
            data = base64.b64decode(coded, validate=True)
        except (binascii.Error, ValueError):
            raise UserError("the precompiled_charsmap of a tokenizer is not in base64; get the file again") from None
        if not data:
            return cls([], b"")
        size = int.from_bytes(data[:4], "little")
        if len(data) > MOST or size % 4 or size > len(data) - 4:
            raise UserError("the precompiled_charsmap of a tokenizer is cut short or too long; get the file again")
        return cls(np.frombuffer(data, "<u4", size // 4, 4).tolist(), data[4 + size :])

    def plain(self, text: str) -> str:
        return "".join(one for cluster in clusters(text) for one in self._pieces(cluster))

    def traced(self, text: Traced) -> Traced:
        changes: list[tuple[str, int]] = []
        for cluster in clusters(text.text):
            whole = self._whole(cluster)
            parts = [(cluster, whole)] if whole is not None else [(c, self._found(c)) for c in cluster]
            for old, new in parts:
                changes += _replacement(old, old if new is None else new, unchanged=new is None)
        return _changed(text, changes)

    def _pieces(self, cluster: str) -> list[str]:
        whole = self._whole(cluster)
        if whole is not None:
            return [whole]
        return [c if (new := self._found(c)) is None else new for c in cluster]

    def _whole(self, cluster: str) -> str | None:
        return self._found(cluster) if len(cluster.encode()) < SHORT else None

    def _found(self, text: str) -> str | None:
        """The text for the shortest entry that `text` begins with, None where there is none."""
        if text not in self._known:
            self._known[text] = self._searched(text.encode())
        return self._known[text]

    def _searched(self, key: bytes) -> str | None:
        units = self.units
        if not units:
            return None
        at = _offset(units[0])
        for byte in key:
            if not byte:
                return None
            at ^= byte
            if at >= len(units) or units[at] & 0x800000FF != byte:
                return None
            unit = units[at]
            at ^= _offset(unit)
            if unit >> 8 & 1:
                if at >= len(units):
                    return None
                start = units[at] & 0x7FFFFFFF
                end = self.texts.find(b"\0", start)
                return self.texts[start : end if end >= 0 else len(self.texts)].decode(errors="replace")
        return None


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 0x200) >> 6)


def _replacement(old: str, new: str, *, unchanged: bool) -> list[tuple[str, int]]:
    """As the library has it: character for character, then what is new, or what goes at the end."""
    if unchanged:
        return [(c, 0) for c in old]
    more = len(new) - len(old)
    changes = [(c, 0) for c in new]
    if more > 0:
        changes = [(c, 0 if i < len(new) - more else 1) for i, c in enumerate(new)]
    elif more < 0 and changes:
        changes[-1] = (changes[-1][0], more)
    elif more < 0:
        changes = [("", more)]
    return changes


def _changed(text: Traced, changes: list[tuple[str, int]]) -> Traced:
    """As `Traced.changed`; where nothing is left of a cluster, the character before it takes its place along, or, if it
    was new, its place. As the library has it, what is left out at the beginning is not counted: the characters
    behind it stand for those before them."""
    merged: list[tuple[str, int]] = []
    for character, change in changes:
        if character:
            merged.append((character, change))
        elif merged:
            last, before = merged[-1]
            merged[-1] = (last, before + change)
    return text.changed(merged)


def clusters(text: str) -> list[str]:
    """A character and the marks after it; CR LF together."""
    return _cluster().findall(text)


@cache
def _cluster() -> re.Pattern[str]:
    marks = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in class_of("M").ranges())
    others = r"\u200c\u200d\uff9e\uff9f\u0e33\u0eb3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"  # skin tones, tags
    extend = f"[{marks}{others}]"
    control = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    return re.compile(f"\\r\\n|[{control}]|[^{control}]{extend}*", re.DOTALL)
