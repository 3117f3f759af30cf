"""From tokens back to text: stages that change a list of tokens, which are then put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from refllm.errors import UserError
from refllm.tokenizers.published.normalisers import MOST_STAGES, pattern_of
from refllm.tokenizers.published.spelling import byte_of_character

Decoder = Callable[[list[str]], list[str]]
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def decoders(saved: Any) -> list[Decoder]:
    """The stages of a saved decoder, none for null. UserError for a kind that is not supported."""
    if saved is None:
        return []
    kind = saved.get("type") if isinstance(saved, Mapping) else None
    if kind == "Sequence":
        parts = saved["decoders"]
        if len(parts) > MOST_STAGES:
            raise UserError(f"a tokenizer with {len(parts)} decoders is not supported; {MOST_STAGES} are the most")
        return [one for part in parts for one in decoders(part)]
    if kind not in _KINDS:
        raise UserError(f"the decoder {str(kind)[:40]!r} of a tokenizer is not supported")
    return [_KINDS[kind](saved)]


def bytes_of_spelling(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary spells; a token that spells none is its own UTF-8."""
    known = byte_of_character()
    if all(c in known for c in token):
        return bytes(known[c] for c in token)
    return token.encode()


def _byte_level(saved: Mapping[str, Any]) -> Decoder:
    return lambda tokens: [b"".join(map(bytes_of_spelling, tokens)).decode(errors="replace")]


def _byte_fallback(saved: Mapping[str, Any]) -> Decoder:
    def decode(tokens: list[str]) -> list[str]:
        found: list[str] = []
        waiting = bytearray()

        def flush() -> None:
            if waiting:
                try:
                    found.append(bytes(waiting).decode())
                except UnicodeDecodeError:
                    found.extend("\ufffd" * len(waiting))
                waiting.clear()

        for token in tokens:
            byte = _BYTE.fullmatch(token)
            if byte:
                waiting.append(int(byte[1], 16))
                continue
            flush()
            found.append(token)
        flush()
        return found

    return decode


def _replace(saved: Mapping[str, Any]) -> Decoder:
    pattern, content = pattern_of(saved["pattern"]), str(saved["content"])
    return lambda tokens: [pattern.sub(lambda _: content, token) for token in tokens]


def _strip(saved: Mapping[str, Any]) -> Decoder:
    content, start, stop = str(saved["content"]), int(saved["start"]), int(saved["stop"])

    def strip(token: str) -> str:
        first = 0
        while first < start and first < len(token) and token[first] == content:
            first += 1
        last = len(token)
        for _ in range(stop):
            if last > first and token[last - 1] == content:
                last -= 1
        return token[first:last]

    return lambda tokens: [strip(token) for token in tokens]


def _metaspace(saved: Mapping[str, Any]) -> Decoder:
    mark = str(saved.get("replacement", "▁"))
    scheme = saved.get("prepend_scheme", "always" if saved.get("add_prefix_space", True) else "never")

    def decode(tokens: list[str]) -> list[str]:
        texts = [token.replace(mark, " ") for token in tokens]
        if texts and scheme != "never" and tokens[0].startswith(mark):
            texts[0] = texts[0][1:]
        return texts

    return decode


def _word_piece(saved: Mapping[str, Any]) -> Decoder:
    prefix, cleans = str(saved.get("prefix", "##")), bool(saved.get("cleanup", True))

    def decode(tokens: list[str]) -> list[str]:
        found = []
        for place, token in enumerate(tokens):
            text = token
            if place:
                text = token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"
            found.append(cleaned(text) if cleans else text)
        return found

    return decode


def cleaned(text: str) -> str:
    """Without the space before a mark, as English is written."""
    for old, new in (
        (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
        (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
    ):  # fmt: skip
        text = text.replace(old, new)
    return text


def _end_of_word(saved: Mapping[str, Any]) -> Decoder:
    suffix = str(saved.get("suffix", "</w>"))

    def decode(tokens: list[str]) -> list[str]:
        last = len(tokens) - 1
        return [token.replace(suffix, "" if place == last else " ") for place, token in enumerate(tokens)]

    return decode


_KINDS: dict[str, Callable[[Mapping[str, Any]], Decoder]] = {
    "ByteLevel": _byte_level,
    "ByteFallback": _byte_fallback,
    "Fuse": lambda saved: lambda tokens: ["".join(tokens)],
    "Replace": _replace,
    "Strip": _strip,
    "Metaspace": _metaspace,
    "WordPiece": _word_piece,
    "BPEDecoder": _end_of_word,
}
