"""Laws of `refllm chat`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refllm.cli import main
from refllm.commands import chat
from refllm.trained import load_language_model
from spec_tests.commands.conftest import Refused

Said = Callable[..., list[str]]


@pytest.fixture
def said(trained: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """What the model answers to lines from a pipe."""

    def talk(text: str, *flags: str) -> list[str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        capfd.readouterr()
        assert main(["chat", str(trained), "--tokens", "12", *flags]) == 0
        return capfd.readouterr().out.split("\n")[:-1]

    return talk


def test_every_line_gets_a_line(said: Said) -> None:
    answers = said("3 times\n\n  \n4 times 5\n3 times\n")
    assert len(answers) == 3
    assert all(answer == answer.lstrip() and len(answer) <= 12 for answer in answers)


def test_quit_ends_it_and_so_does_the_end_of_the_input(said: Said) -> None:
    assert len(said("3 times\n/quit\n4 times\n")) == 1
    assert said("") == []
    assert len(said("3 times")) == 1


def test_a_seed_says_it_all_and_greedy_needs_none(said: Said) -> None:
    lines = "3 times\n4 times\n5 times\n"
    assert said(lines, "--seed", "3") == said(lines, "--seed", "3") != said(lines, "--seed", "4")
    assert said(lines, "--greedy", "--seed", "3") == said(lines, "--greedy", "--seed", "4")


def test_what_was_said_before_is_read_and_only_its_end_when_the_context_is_full(
    trained: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = load_language_model(trained, "cpu")
    read: list[list[int]] = []

    def reply(_: Any, prompt: Any, *rest: Any, **more: Any) -> Any:
        read.append(prompt.tolist())
        return iter(["is 6."])

    monkeypatch.setattr(chat, "reply", reply)
    said("2 times 3\n" * 4, "--you", "1 ", "--it", "is ")
    texts = [run.tokenizer.decode(ids) for ids in read]
    whole = "".join(["1 2 times 3\nis is 6.\n"] * 4)
    assert all(len(ids) <= run.config.context for ids in read)
    for n, text in enumerate(texts):
        assert "".join(["1 2 times 3\nis is 6.\n"] * n + ["1 2 times 3\nis "]).endswith(text)
        assert text in whole
    assert len(texts[-1]) > run.config.context // 2 - 1


def test_a_character_that_the_model_does_not_know_ends_nothing(said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    assert len(said("3 times\n中 times\n3 times\n", "--you", "2 ")) == 2


def test_an_unknown_character_is_placed_within_its_line(
    trained: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("3 times\n中 times\n".encode())))
    assert main(["chat", str(trained), "--tokens", "12", "--you", "2 "]) == 0
    assert "(U+4E2D) at position 0 is not in the vocabulary" in capfd.readouterr().err


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_ctrl_d_and_ctrl_c_end_a_talk_at_a_terminal_politely(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], end: type[BaseException]
) -> None:
    lines = iter(["3 times"])

    def ask(prompt: str) -> str:
        for line in lines:
            return line
        raise end

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", ask)
    assert main(["chat", str(trained), "--tokens", "5"]) == 0
    out, err = capfd.readouterr()
    assert out.count("\n") == 2
    assert err == ""


def test_mistakes_are_refused_in_one_line(trained: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "tokens must be at least 1" in refused("chat", str(trained), "--tokens", "0")
    assert "seed must not be negative" in refused("chat", str(trained), "--seed", "-1")
    assert "temperature" in refused("chat", str(trained), "--temperature", "-1")
    assert "(U+4E2D) at position 3 is not in the vocabulary" in refused("chat", str(trained), "--it", "2. 中")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n")))
    assert "standard input:1: not UTF-8" in refused("chat", str(trained))
