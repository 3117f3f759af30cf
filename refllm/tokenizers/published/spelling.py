"""The bytes of a text as characters that can be seen: those of byte-level vocabularies."""

from __future__ import annotations

from functools import cache


@cache
def character_of_byte() -> tuple[str, ...]:
    """The character that stands for each byte: itself where it prints in Latin-1, else the next from U+0100 on.

    Source:  Radford et al. 2019, code (encoder.py, bytes_to_unicode).
    """
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in printing else chr(next(others)) for byte in range(256))


@cache
def byte_of_character() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(character_of_byte())}


@cache
def _table() -> dict[int, str]:
    return dict(enumerate(character_of_byte()))


def spelled(word: str) -> str:
    """A word as the characters of its bytes."""
    return word.encode().decode("latin-1").translate(_table())


def widths(word: str) -> list[int]:
    """For every byte of a word the number of its character."""
    return [place for place, character in enumerate(word) for _ in range(len(character.encode()))]
