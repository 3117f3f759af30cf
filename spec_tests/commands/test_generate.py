"""Laws of `refllm generate`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from refllm.cli import main
from refllm.commands.texts import tell_broken
from refllm.tokenizers import BytePairTokenizer
from spec_tests import strict_cupy, tiny
from spec_tests.commands.conftest import Refused
from spec_tests.tokenizers.test_spelling import written_with

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


@pytest.fixture
def written(trained: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def write(*flags: str) -> str:
        capfd.readouterr()
        assert main(["generate", str(trained), "--prompt", "2 times", "--tokens", "40", *flags]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        return out

    return write


def test_the_prompt_comes_first_then_as_many_tokens_as_asked_for(written: Callable[..., str]) -> None:
    text = written()
    assert text.startswith("2 times")
    assert len(text) == len("2 times") + 40 + 1  # characters are the tokens, and a new line ends the output


def test_a_seed_says_it_all_and_greedy_needs_none(written: Callable[..., str]) -> None:
    assert written("--seed", "3") == written("--seed", "3") != written("--seed", "4")
    assert written("--greedy", "--seed", "3") == written("--greedy", "--seed", "4")


@pytest.mark.parametrize("flags", ["--top-k 1", "--top-p 1e-9", "--temperature 1e-9"])
def test_the_narrowest_sampling_is_greedy(written: Callable[..., str], flags: str) -> None:
    assert written(*flags.split()) == written("--greedy")


def test_without_a_name_the_newest_run_writes(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(["002", "001"]):
        shutil.copytree(trained, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "checkpoint" / "state.json", (number, number))
    state = tmp_path / "runs" / "002" / "checkpoint" / "state.json"
    state.write_text("older, and unreadable")
    os.utime(state, (0, 0))
    assert main(["generate", "--tokens", "3"]) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--prompt", "2 times 2 is 4.\n2"], "the prompt has 17 tokens, the model's context only 16; give a shorter"),
        (["--prompt", "é"], "character 'é' (U+00E9) at position 0 is not in the vocabulary of 18 characters: leave it"),
        (["--prompt", ""], "the prompt is empty; give at least one character"),
        (["--prompt", "\udcff"], "is not in the vocabulary"),
        (["--tokens", "0"], "tokens must be at least 1, got 0"),
        (["--temperature", "0"], "temperature must be above 0, got 0.0; for the most probable token use --greedy"),
        (["--temperature", "nan"], "temperature must be above 0"),
        (["--top-k", "0"], "top-k must be at least 1"),
        (["--top-p", "0"], "top-p must be above 0 and at most 1"),
        (["--seed", "-1"], "seed must not be negative"),
    ],
)
def test_what_cannot_be_written_is_refused(run: Path, refused: Refused, flags: list[str], says: str) -> None:
    assert says in refused("generate", str(run), *flags)


def test_a_prompt_may_fill_the_context(trained: Path) -> None:
    assert main(["generate", str(trained), "--prompt", "2 times 2 is 4.\n", "--tokens", "2"]) == 0


def test_an_unknown_run_is_refused(tmp_path: Path, refused: Refused) -> None:
    assert "give the directory of a run" in refused("generate", str(tmp_path / "nowhere"))
    assert "there is no run in runs/ yet; make one with: refllm train" in refused("generate")
    (tmp_path / "file").write_text("x")
    assert "give the directory of a run" in refused("generate", str(tmp_path / "file"))


@pytest.mark.parametrize("cut", [0, 1, 100])
@pytest.mark.parametrize("name", ["state.json", "weights"])
def test_a_checkpoint_cut_short_is_refused(run: Path, refused: Refused, name: str, cut: int) -> None:
    path = run / "checkpoint" / name if name == "state.json" else tiny.file_of(run / "checkpoint", name)
    path.write_bytes(path.read_bytes()[: cut * path.stat().st_size // 101])
    assert str(path) in refused("generate", str(run))


def test_a_tokenizer_of_another_model_is_refused(run: Path, refused: Refused) -> None:
    path = run / "checkpoint" / "state.json"
    state = json.loads(path.read_text())
    state["tokenizer"]["vocabulary"] = "abc"
    path.write_bytes(tiny.resealed(state))
    line = refused("generate", str(run))
    assert "has a vocabulary of 18, its tokenizer one of 3; they do not belong together: use another checkpoint" in line


@pytest.mark.parametrize("command", ["generate", "score"])
def test_a_gpu_without_cupy_or_without_a_gpu_is_refused(run: Path, refused: Refused, command: str) -> None:
    arguments = [command, str(run), "--device", "cuda", *(["--text", "2 times"] if command == "score" else [])]
    with strict_cupy.absent():
        assert "needs CuPy, which is not installed: " in refused(*arguments)
    with strict_cupy.installed(device=False):
        assert "CuPy finds no usable GPU" in refused(*arguments)


def test_a_reader_that_leaves_early_causes_no_traceback(trained: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "refllm", "generate", str(trained), "--tokens", "100000"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(5)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.every
def test_what_the_terminal_cannot_show_appears_as_its_code(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("".join(f"中文 {n}\n" for n in range(200)), encoding="utf-8")
    flags = ["--layers", "1", "--heads", "1", "--width", "4", "--context", "8", "--batch", "2", "--steps", "1"]
    assert main(["train", "--data", "text.txt", "--out", "r", *flags]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "refllm", "generate", "r", "--prompt", "中", "--tokens", "1", "--greedy"],
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(b"\\u4e2d")


@pytest.mark.parametrize("tokenizer", ["character", "byte_pair", "word", "wordpiece"])
def test_the_command_that_a_training_ends_with_writes(
    tmp_path: Path, tokenizer: str, capfd: pytest.CaptureFixture[str]
) -> None:
    how = [] if tokenizer == "character" else ["--vocabulary", "270"]
    data = ["--data", str(tiny.data(tmp_path)), "--out", "r"]
    assert main(["train", "--model", "ngram", "--tokenizer", tokenizer, *data, *how]) == 0
    *_, last = capfd.readouterr().out.splitlines()
    assert main([*last.partition("refllm ")[2].split(), "--tokens", "20"]) == 0
    assert capfd.readouterr().out.strip()


def test_a_prompt_without_a_word_is_refused_by_a_model_of_words(tmp_path: Path, refused: Refused) -> None:
    data = ["--data", str(tiny.data(tmp_path)), "--out", "r"]
    assert main(["train", "--model", "ngram", "--tokenizer", "word", "--vocabulary", "20", *data]) == 0
    assert "the prompt is empty; give at least one character, or word" in refused("generate", "r", "--prompt", " ")


@pytest.mark.parametrize("vocabulary", [[], ["--vocabulary", "512"]], ids=["by itself", "as asked"])
def test_the_byte_pairs_suit_the_script_or_it_is_said_what_does(
    vocabulary: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = written_with(400, 42_000)
    (tmp_path / "han.txt").write_text(text, encoding="utf-8")
    assert main(["train", "--model", "ngram", "--data", "han.txt", "--out", "han", *vocabulary]) == 0
    err = capfd.readouterr().err
    if vocabulary:
        assert "% of the characters are in pieces with 512 byte-pair tokens" in err
        assert "give a larger --vocabulary, or --tokenizer character" in err
    else:
        (line,) = err.splitlines()
        assert "byte-pair tokens instead of 512, for the characters of this text (--vocabulary" in line
    assert main(["generate", "han", "--prompt", text[:20], "--tokens", "40"]) == 0
    out, err = capfd.readouterr()
    assert ("\ufffd" in out) == (f"{out.count(chr(0xFFFD))} \ufffd in what was written: this model spells" in err)
    assert len(err.splitlines()) <= 1


def test_what_is_written_broken_is_said_and_what_is_whole_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = BytePairTokenizer.train("a", vocabulary=256)
    tell_broken("whole \u9f98", tokenizer)
    assert capfd.readouterr().err == ""
    tell_broken("\ufffda\ufffd", tokenizer)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("2 \ufffd in what was written")
    assert "--vocabulary" in line
