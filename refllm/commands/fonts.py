"""Fonts for a picture whose text is in any script: matplotlib takes what the first font lacks from the next."""

from __future__ import annotations

import logging
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

SHOWN = 8  # characters that are named where no font has them


@contextmanager
def fonts_for(texts: Iterable[str]) -> Iterator[None]:
    """Inside, matplotlib draws these texts with its usual fonts, and what they lack with others that are installed.

    Says on the standard error which characters no font has.
    """
    import matplotlib

    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    wanted = {character for text in texts for character in text if _is_drawn(character)}
    usual = list(matplotlib.rcParams["font.family"])
    log.setLevel(logging.ERROR)  # that a font has no normal weight is told for each of them
    try:
        more, missing = _more_fonts(usual, wanted)
        if missing:
            print(_about(missing), file=sys.stderr)
        with matplotlib.rc_context({"font.family": [*usual, *more]}):
            yield
    finally:
        log.setLevel(level)


def _is_drawn(character: str) -> bool:
    return not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")


def _more_fonts(usual: list[str], wanted: set[str]) -> tuple[list[str], set[str]]:
    """The names of the fonts to take beside the usual ones, those that add most first; and what none has."""
    from matplotlib.font_manager import FontProperties, findfont

    missing = wanted - _characters(findfont(FontProperties(family=usual)))
    chosen: list[str] = []
    if not missing:
        return chosen, missing
    have = _installed(missing)
    while missing and have:
        best = max(have, key=lambda name: (len(have[name] & missing), name))
        if not have[best] & missing:
            break
        chosen.append(best)
        missing = missing - have.pop(best)
    return chosen, missing


def _installed(missing: set[str]) -> dict[str, set[str]]:
    """Of each font that is installed and has some of the characters, which. Fonts that came after matplotlib made its
    list are looked at too."""
    from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager

    listed = {entry.fname for entry in fontManager.ttflist}
    for path in findSystemFonts():
        if path not in listed:
            with suppress(Exception):  # a file that is no font that FreeType reads
                fontManager.addfont(path)
    found: dict[str, set[str]] = {}
    for name in sorted({entry.name for entry in fontManager.ttflist}):
        with suppress(Exception):  # a font whose file has gone
            path = findfont(FontProperties(family=name), fallback_to_default=False)
            having = {character for character in _characters(path) & missing if _draws(path, character)}
            if having:
                found[name] = having
    return found


def _characters(path: Any) -> set[str]:
    from matplotlib.font_manager import get_font

    return set(map(chr, get_font(path).get_charmap()))


def _draws(path: Any, character: str) -> bool:
    """Whether FreeType draws it: a font of coloured pictures has characters that have no outline."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        font.set_size(10, 72)
        font.load_char(ord(character))
    except Exception:
        return False
    return True


def _about(missing: set[str]) -> str:
    """One line on the characters that no font has, and what helps."""
    named = " ".join(sorted(missing)[:SHOWN]) + (f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else "")
    return f"no installed font has {named}: the picture shows boxes there; install one that has them, such as Noto Sans"
