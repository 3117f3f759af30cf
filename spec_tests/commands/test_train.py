"""Laws of `refllm train`."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refllm import invocation
from refllm import run as run_module
from refllm import timing as timing_module
from refllm.cli import main
from refllm.commands.choices import add_optimiser_arguments
from refllm.data.corpus import read_text, split
from refllm.tokenizers import load as load_tokenizer
from spec_tests import strict_cupy, tiny
from spec_tests.commands.conftest import MODEL, Refused

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def arrays(run: Path) -> dict[str, bytes]:
    return {name: data for name, data in tiny.contents(run).items() if name.endswith(".safetensors")}


def test_a_run_leaves_its_checkpoint_its_metrics_and_its_summary(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny.data(tmp_path))
    assert main(["train", "--data", data, "--steps", "6", "--reports", "3", "--out", "r", *MODEL]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert set(tiny.contents(tmp_path / "r")) == {
        "metrics.jsonl", "summary.json", "report.html", "checkpoint/state.json",
        *(f"checkpoint/{tiny.file_of(tmp_path / 'r' / 'checkpoint', group).name}"
          for group in ("weights", "moment1", "moment2")),
    }  # fmt: skip
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert [line["step"] for line in tiny.metrics(tmp_path / "r")] == [2, 4, 6]
    assert list(summary["baselines"]) == ["uniform", "unigram", "order 2", "order 4"]
    for name, bits in [*summary["baselines"].items(), ("this model", summary["val_bpc"])]:
        assert f"{name:<10} {bits:6.3f}" in out
    assert "What it writes:" in out


def test_runs_without_a_name_are_numbered_and_never_overwritten(tmp_path: Path) -> None:
    data = str(tiny.data(tmp_path))
    for _ in range(2):
        assert main(["train", "--data", data, "--steps", "1", *MODEL]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["001", "002"]


def test_every_architecture_and_optimiser_flag_reaches_the_run(tmp_path: Path) -> None:
    flags = {
        "norm": "post", "activation": "relu", "positions": "sinusoidal", "dropout": 0.25, "hidden": 12, "seed": 7,
        "lr": 0.02, "warmup": 0.5, "floor": 0.25, "beta1": 0.5, "beta2": 0.75, "eps": 1e-3, "decay": 0.5, "clip": 0.5,
        "dtype": "float64",
    }  # fmt: skip
    given = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    data = str(tiny.data(tmp_path))
    assert main(["train", "--data", data, "--steps", "2", "--out", "r", "--no-tied", *given, *MODEL]) == 0
    state = json.loads((tmp_path / "r" / "checkpoint" / "state.json").read_text())
    stated = {**state["config"], **state["settings"]}
    assert {name: stated[name] for name in flags} == flags
    assert (stated["tied"], stated["layers"], stated["heads"], stated["width"]) == (False, 1, 2, 8)
    assert (stated["context"], stated["batch"], stated["shards"]) == (16, 4, 1)


@pytest.mark.parametrize("flag", ["--min-lr-ratio", "--floor"])
def test_the_least_learning_rate_has_the_usual_name_and_the_one_it_had(flag: str) -> None:
    parser = argparse.ArgumentParser()
    add_optimiser_arguments(parser)
    assert parser.parse_args([flag, "0.25"]).floor == 0.25


def test_byte_pairs_train_too(tmp_path: Path) -> None:
    words = ["--tokenizer", "byte_pair", "--vocabulary", "270", "--steps", "2", "--out", "r"]
    assert main(["train", "--data", str(tiny.data(tmp_path)), *words, *MODEL]) == 0
    state = json.loads((tmp_path / "r" / "checkpoint" / "state.json").read_text())
    assert state["config"]["vocabulary"] == 270


def test_training_by_the_clock_ends_on_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a hundredth of a second whenever it is read, so that a busy machine is no matter."""
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 100)
    for module in (timing_module, invocation):
        monkeypatch.setattr(module, "time", clock)
    data = str(tiny.data(tmp_path))
    assert main(["train", "--data", data, "--minutes", "0.1", "--reports", "3", "--out", "r", *MODEL]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["seconds"] == pytest.approx(6, rel=0.1)
    assert summary["steps"] > 100


def test_a_finished_run_has_nothing_left_to_do(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = tiny.contents(run)
    assert main(["train", "--resume", str(run)]) == 0
    assert "The run is complete at step 6: there is nothing left to do." in capfd.readouterr().out
    assert tiny.contents(run) == before


def test_a_run_that_was_interrupted_at_its_summary_makes_it_when_resumed(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    before = arrays(run)
    (run / "summary.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    again = json.loads((run / "summary.json").read_text())
    assert {k: again[k] for k in ("steps", "val_bpc", "baselines")} == {
        k: summary[k] for k in ("steps", "val_bpc", "baselines")
    }
    assert arrays(run) == before


def texts(folder: Path) -> dict[str, str]:
    """Files that nobody can train on."""
    contents = {
        "empty": b"", "blank": b" \n\n", "binary": b"abc\0def" * 100, "latin": "naïve ".encode("latin-1") * 100,
        "short": b"twenty characters...", "tiny": b"a",
    }  # fmt: skip
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "folder").mkdir()
    return {name: str(folder / name) for name in [*contents, "folder", "missing"]}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "does not exist; check the path"),
        ("empty", "is empty; give a file with text"),
        ("blank", "is empty"),
        ("binary", ":1 is binary: byte 3 is zero; give text"),
        ("latin", "is not UTF-8 text: byte 2 cannot be decoded; save it as UTF-8"),
        ("short", "needs 17: "),
        ("tiny", "too short to hold out 0.1 of it; give more text"),
        ("folder", "there is no text in"),
    ],
)
def test_data_that_nobody_can_train_on_is_refused(tmp_path: Path, refused: Refused, name: str, says: str) -> None:
    assert says in refused("train", "--data", texts(tmp_path)[name], "--out", "r", "--steps", "2", *MODEL)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--heads 3", "heads must divide the width: 8 / 3 is not whole; change one"),
        ("--heads 0", "heads must be a whole number of at least 1, got 0"),
        ("--layers -1", "layers must be"),
        ("--width 0", "width must be"),
        ("--hidden 0", "hidden must be"),
        ("--width 99999999998", "no memory holds a model of"),
        ("--context 0", "context must be"),
        ("--context 3000", "one window of context 3000 needs 3001: use --context"),
        ("--dropout 1", "dropout must be"),
        ("--steps 0", "steps must be at least 1, got 0"),
        ("--steps -5", "steps must be at least 1, got -5"),
        ("--minutes -1", "minutes must be a finite number above 0, got -1.0"),
        ("--minutes nan", "minutes must be a finite number above 0"),
        ("--reports 0", "reports must be at least 1, got 0"),
        ("--seed -1", "seed must not be negative, got -1"),
        ("--lr nan", "lr must be a positive number, got nan"),
        ("--lr 0", "lr must be a positive number"),
        ("--batch 0", "batch must be at least 1, got 0"),
        ("--threads 0", "threads must be at least 1, got 0"),
        ("--clip -1", "clip must be above 0 (inf switches it off)"),
        ("--tokenizer byte_pair --vocabulary 5", "5"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, refused: Refused, flags: str, says: str) -> None:
    data = str(tiny.data(tmp_path))
    assert says in refused("train", "--data", data, "--out", "r", *MODEL, *flags.split())


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path, run: Path, refused: Refused) -> None:
    line = refused("train", "--data", str(tiny.data(tmp_path)), "--out", str(run), "--steps", "2", *MODEL)
    assert f"{run} is not empty and will not be overwritten; choose another --out" in line


@pytest.mark.parametrize("extra", ["--reports 5", "--lr 0.1", "--out other", "--data x", "--no-tied", "--device cuda"])
def test_a_resumed_run_takes_no_other_flag(run: Path, refused: Refused, extra: str) -> None:
    with strict_cupy.installed():
        line = refused("train", "--resume", str(run), *extra.split())
    assert "leave out --" + extra.split(maxsplit=1)[0].removeprefix("--no-").removeprefix("--") in line


def test_a_run_that_does_not_exist_is_refused(tmp_path: Path, refused: Refused) -> None:
    assert "give the directory of a run" in refused("train", "--resume", str(tmp_path / "nowhere"))


def test_resuming_with_other_data_is_refused(tmp_path: Path, refused: Refused) -> None:
    tiny.train(tiny.begin(tmp_path, "r"), stop_after=5)
    (tmp_path / "text.txt").write_text(tiny.TEXT.replace("12", "13"))
    assert "is not the text that the run began with" in refused("train", "--resume", str(tmp_path / "r"))


def test_a_checkpoint_cut_short_is_refused(run: Path, refused: Refused) -> None:
    path = tiny.file_of(run / "checkpoint", "moment2")
    path.write_bytes(path.read_bytes()[:-10])
    assert "was cut short" in refused("train", "--resume", str(run))


def test_a_gpu_without_cupy_or_without_a_gpu_is_refused(tmp_path: Path, refused: Refused) -> None:
    arguments = ["train", "--data", str(tiny.data(tmp_path)), "--device", "cuda", "--out", "r", *MODEL]
    with strict_cupy.absent():
        assert "--device cuda needs CuPy, which is not installed: " in refused(*arguments)
    with strict_cupy.installed(device=False):
        assert "--device cuda: CuPy finds no usable GPU" in refused(*arguments)


def test_a_training_that_diverges_ends_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = str(tiny.data(tmp_path))
    assert main(["train", "--data", data, "--out", "r", "--steps", "20", *MODEL, "--lr", "1e30"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "begin again with a lower --lr" in err


def test_too_little_memory_ends_in_one_line(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError("Unable to allocate 4 TiB")

    monkeypatch.setattr(run_module, "Trainer", exhausted)
    line = refused("train", "--data", str(tiny.data(tmp_path)), "--out", "r", *MODEL)
    assert (
        "out of memory (Unable to allocate 4 TiB); begin a run with a lower --batch, --context, --width or --layers"
        in line
    )


def test_an_error_of_the_program_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(run_module, "Trainer", broken)
    with pytest.raises(ZeroDivisionError):
        main(["train", "--data", str(tiny.data(tmp_path)), "--out", "r", *MODEL])


@pytest.mark.one_in(4)
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_says_how_to_go_on_and_going_on_changes_nothing(tmp_path: Path, number: signal.Signals) -> None:
    same = ["train", "--data", str(tiny.data(tmp_path)), "--steps", "600", "--reports", "12", *MODEL]
    process = subprocess.Popen(
        [sys.executable, "-m", "refllm", *same, "--out", "stopped"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step "):
        assert process.poll() is None, "it ended before its first report"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert f"and saved. To go on:\n  {sys.executable} -m refllm train --resume stopped\n" in out
    state = json.loads((tmp_path / "stopped" / "checkpoint" / "state.json").read_text())
    assert 50 <= state["step"] < 600
    assert main(["train", "--resume", "stopped"]) == 0
    assert main([*same, "--out", "whole"]) == 0
    assert arrays(tmp_path / "stopped") == arrays(tmp_path / "whole")
    assert tiny.metrics(tmp_path / "stopped") == tiny.metrics(tmp_path / "whole")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of a file")
def test_a_disk_that_is_really_full_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    tiny.train(tiny.begin(tmp_path, "r"), stop_after=5)
    before = tiny.contents(tmp_path / "r" / "checkpoint")
    assert max(map(len, before.values())) > 4096
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from refllm.cli import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, "train", "--resume", str(tmp_path / "r")],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    err = done.stderr
    assert done.returncode == 2
    assert err.count("\n") == 1
    assert err.startswith("refllm: cannot save the checkpoint in ")
    assert "the one before it is intact; free some space" in err
    assert tiny.contents(tmp_path / "r" / "checkpoint") == before


WORDS = ["--tokenizer", "word", "--vocabulary", "12"]


def test_tokens_that_lose_some_of_the_text_are_told_in_bits_per_token_beside_models_of_the_same_tokens(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = str(tiny.data(tmp_path))
    assert main(["train", "--data", data, "--steps", "6", "--reports", "3", "--out", "r", *MODEL, *WORDS]) == 0
    out = capfd.readouterr().out
    assert "character (" not in out
    assert "bits/character" not in out
    assert "Bits per token of the held-out text (lower is better):" in out
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert "val_bpc" not in summary
    assert summary["val_bpt"] == pytest.approx(summary["val_loss"] / math.log(2))
    held_out = load_tokenizer(summary_tokenizer(tmp_path / "r")).encode(split(read_text([data])).validation)
    assert summary["val_unknown"] == pytest.approx((held_out == 1).mean())  # [UNK] is the second special token
    assert 0 < summary["val_unknown"] < 1
    assert f"{100 * summary['val_unknown']:.1f} % of the held-out ones are unknown words" in out
    assert summary["baselines"]["uniform"] == pytest.approx(math.log2(12))  # a token of the vocabulary, not a letter


def summary_tokenizer(run: Path) -> Any:
    return json.loads((run / "checkpoint" / "state.json").read_text())["tokenizer"]


def test_words_that_are_counted_are_told_in_bits_per_token_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--model", "ngram", "--data", str(tiny.data(tmp_path)), "--out", "r", *WORDS]) == 0
    out = capfd.readouterr().out
    assert "bits per token of the held-out text" in out
    assert "These tokens do not give the text back" in out
    assert "val_bpc" not in json.loads((tmp_path / "r" / "summary.json").read_text())


def test_a_model_that_counts_has_nothing_to_go_on_with(tmp_path: Path, refused: Refused) -> None:
    assert main(["train", "--model", "ngram", "--data", str(tiny.data(tmp_path)), "--out", "r", *WORDS]) == 0
    assert "r is a run of an n-gram model, which counts once" in refused("train", "--resume", "r")


def test_a_model_that_counts_takes_one_rank(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr("refllm.ranks.count", lambda: 2)
    monkeypatch.setattr("refllm.ranks.communicator", lambda: SimpleNamespace(bcast=lambda mine: mine))
    assert "ngram counts; leave --ranks out" in refused("train", "--model", "ngram")


def test_n_grams_of_no_token_are_refused(tmp_path: Path, refused: Refused) -> None:
    how = ["train", "--model", "ngram", "--data", str(tiny.data(tmp_path)), "--out", "r", *WORDS]
    assert "order must be at least 1, got 0" in refused(*how, "--order", "0")


def test_a_complete_run_says_how_it_is_made_longer_and_becomes_so(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = tiny.contents(run)
    assert main(["train", "--resume", str(run)]) == 0
    longer = f"nothing left to do. To train it longer, by so many minutes or --steps:\n  refllm train --resume {run} "
    assert longer in capfd.readouterr().out
    assert tiny.contents(run) == before
    assert main(["train", "--resume", str(run), "--steps", "4"]) == 0
    out = capfd.readouterr().out
    assert "training   4 steps more after 6 steps, batch 4" in out
    assert "10 steps in" in out
    assert json.loads((run / "summary.json").read_text())["steps"] == 10
    assert [line["step"] for line in tiny.metrics(run)] == [3, 6, 8, 10]
    assert main(["train", "--resume", str(run), "--minutes", "0.001"]) == 0
    assert "0.001 minutes more after 10 steps" in capfd.readouterr().out


@pytest.mark.parametrize("length", ["--steps 0", "--steps -1", "--minutes nan", "--minutes 0"])
def test_a_run_is_made_longer_by_something(run: Path, refused: Refused, length: str) -> None:
    assert "must be" in refused("train", "--resume", str(run), *length.split())


def test_a_run_that_is_not_complete_is_not_made_longer(tmp_path: Path, refused: Refused) -> None:
    tiny.train(tiny.begin(tmp_path, "r"), stop_after=5)
    assert "is not complete: it stands at step 5" in refused("train", "--resume", str(tmp_path / "r"), "--steps", "5")
