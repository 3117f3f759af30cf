"""A precompiled table of replacements, as SentencePiece writes it: a double array of keys, then the texts."""

from __future__ import annotations

import base64
from typing import Any

REPLACED = {
    "\uff21": "A", "\u00bd": "1\u20442", "\u3250": "PTE", "\ufb01": "fi", "e\u0301": "\u00e9", "\x7f": "", "\u200b": "",
    "\u3000": " ", "\u2025": "..",
}  # fmt: skip


def charsmap(replaced: dict[str, str]) -> bytes:
    texts = b""
    trie: dict[int, Any] = {}
    for key, text in replaced.items():
        node: Any = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += text.encode() + b"\0"
    units, taken = [0] * 8192, {0}

    def place(at: int, node: Any) -> None:
        base = next(b for b in range(256, 8192) if not {b ^ label for label in node} & taken)
        taken.update(base ^ label for label in node)
        units[at] |= (at ^ base) << 10 | (1 << 8 if 0 in node else 0)
        for label, below in node.items():
            units[base ^ label] = below | 1 << 31 if label == 0 else label
        for label, below in node.items():
            if label:
                place(base ^ label, below)

    place(0, trie)
    array = b"".join(unit.to_bytes(4, "little") for unit in units)
    return len(array).to_bytes(4, "little") + array + texts


def coded(replaced: dict[str, str]) -> str:
    return base64.b64encode(charsmap(replaced)).decode()
