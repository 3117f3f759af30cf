"""Laws of the fonts of a picture; skipped where matplotlib is not installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib import font_manager, rcParams
from matplotlib.figure import Figure

from refllm.commands.fonts import fonts_for

pytestmark = pytest.mark.optional
NAME = "Spec Test Han"


def made_font(path: Path, characters: str) -> str:
    """A font whose glyphs, for these characters alone, are squares with a corner cut off."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    for number, place in enumerate([(0, 0), (0, 700), (500, 700), (700, 0)]):
        (pen.lineTo if number else pen.moveTo)(place)
    pen.closePath()
    glyph = pen.glyph()
    names = {ord(character): f"u{ord(character):04X}" for character in characters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], glyph))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": NAME, "styleName": "Regular", "psName": NAME.replace(" ", "")})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files of the fonts that the machine has beside matplotlib's own; a test may add to it."""
    own = [entry for entry in font_manager.fontManager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(own))
    files: list[str] = []
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: files)
    font_manager.fontManager._findfont_cached.cache_clear()
    yield files
    font_manager.fontManager._findfont_cached.cache_clear()


def drawn(text: str, path: Path) -> str:
    with fonts_for([text]):
        figure = Figure()
        figure.text(0.1, 0.5, text)
        figure.savefig(path)
    return path.read_text(encoding="utf-8")


def test_a_font_that_is_there_draws_what_the_usual_one_lacks(
    installed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed.append(made_font(tmp_path / "han.ttf", "梨龘"))
    before = list(rcParams["font.family"])
    picture = drawn("a 龘 b", tmp_path / "why.svg")
    assert re.findall(rf'<path id="{NAME.replace(" ", "")}-', picture) == [f'<path id="{NAME.replace(" ", "")}-']
    assert len(re.findall(r'<path id="DejaVuSans-', picture)) == 3  # what the usual font has, it draws: a, b, a space
    assert rcParams["font.family"] == before
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore:Glyph")
def test_what_no_font_has_is_said_in_one_line(
    installed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    installed.append(made_font(tmp_path / "han.ttf", "梨"))
    drawn("梨 龘 龘 乂", tmp_path / "why.svg")
    (line,) = capsys.readouterr().err.splitlines()
    assert "no installed font has 乂 龘: the picture shows boxes there; install one" in line


def test_no_font_is_looked_for_where_the_usual_one_has_all(
    installed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> list[str]:
        raise AssertionError("the fonts of the machine were listed")

    monkeypatch.setattr(font_manager, "findSystemFonts", fail)
    assert "DejaVuSans-" in drawn("é я", tmp_path / "why.svg")


def test_a_broken_font_is_passed_over(installed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    installed += [str(tmp_path / "broken.ttf"), str(tmp_path / "gone.ttf"), made_font(tmp_path / "han.ttf", "龘")]
    assert NAME.replace(" ", "") in drawn("龘", tmp_path / "why.svg")
    assert capsys.readouterr().err == ""
