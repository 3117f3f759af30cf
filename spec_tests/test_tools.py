"""Laws of the programs that tests need: one that works is used, and what cannot run is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spec_tests.tools import tool, why_not


@pytest.fixture
def on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(path: Path, lines: str) -> None:
    path.write_text(f"#!{sys.executable}\n{lines}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_program_that_answers_is_used(on_the_path: Path) -> None:
    program(on_the_path / "a-compiler-that-works", "print('version 1')")
    assert why_not("a-compiler-that-works") == ""
    assert tool("a-compiler-that-works") == str(on_the_path / "a-compiler-that-works")


def test_a_launcher_without_a_compiler_is_told_with_what_it_says(on_the_path: Path) -> None:
    program(on_the_path / "a-launcher", "import sys\nsys.exit('no toolchain is installed')")
    assert why_not("a-launcher") == "a-launcher does not run: no toolchain is installed"
    with pytest.raises(pytest.skip.Exception, match="no toolchain is installed"):
        tool("a-launcher")


def test_what_is_not_there_is_told(on_the_path: Path) -> None:
    assert why_not("a-compiler-of-nobody") == "there is no a-compiler-of-nobody on the path"
