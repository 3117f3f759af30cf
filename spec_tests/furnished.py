"""A folder with the files that the pages speak of, and a command of a page carried out in it, small."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from refllm import cli
from spec_tests.named_models import write_models
from spec_tests.tasks.test_span import ROWS
from spec_tests.written_pages import ROOT, Line, blocks, commands, parser_for

ADAPTER = "import numpy\n\n\ndef layer_norm(x, g, b, *, eps):\n    return x\n"
KERNELS = (
    'SIGNATURES, ARRAYS = "torch", "numpy"\n\n\n'
    "def scaled_dot_product_attention(q, k, v, attn_mask=None, is_causal=False):\n    return v\n"
)
PROGRAM = "#!/bin/sh\nexit 3\n"


def furnish(folder: Path) -> None:
    _labelled(folder)
    _paired(folder)
    _answered(folder)
    documents = "\n\n".join(
        " ".join(f"{n} times {m} is {n * m}." for m in range(1, 13)) for n in range(1, 40)
    )  # of sentences, with blank lines between
    for name in ("my_texts", "texts"):
        (folder / name).mkdir()
        (folder / name / "a.txt").write_text(documents)
    (folder / "text.txt").write_text(documents)
    for name in ("my_adapter.py", "my_attention.py", "my_kernel.py"):
        (folder / name).write_text(ADAPTER)
    (folder / "my_kernels.py").write_text(KERNELS)
    (folder / "my_impl").write_text(PROGRAM)
    (folder / "my_impl").chmod(0o755)


def _labelled(folder: Path) -> None:
    rows = []
    for n in range(60):
        text = f"I read it {n} times and it was {'good' if n % 2 else 'bad'}"
        rows.append(f"{text},{'good' if n % 2 else 'bad'},{text},{n % 2}")
    for name in ("reviews", "more", "more_reviews", "train", "test", "train20", "test20"):
        (folder / f"{name}.csv").write_text("\n".join(["text,label,review,stars", *rows]) + "\n")
    (folder / "few.csv").write_text("text,label\nso fine,good\nso poor,bad\n")


def _paired(folder: Path) -> None:
    pairs = [(f"{n} times two is {2 * n}", f"{n} mal zwei ist {2 * n}") for n in range(60)]
    for name in ("talks", "more"):
        (folder / f"{name}.en").write_text("".join(f"{one}\n" for one, _ in pairs))
        (folder / f"{name}.de").write_text("".join(f"{other}\n" for _, other in pairs))
    (folder / "talks.csv").write_text("\n".join(["english,german", *map(",".join, pairs)]) + "\n")
    (folder / "articles.txt").write_text("one is one\n")
    for name in ("articles", "today", "more"):
        _lines(folder / f"{name}.jsonl", [{"body": f"{one}. {one}.", "headline": one} for one, _ in pairs])


def _answered(folder: Path) -> None:
    for name in ("questions", "more_questions"):
        _lines(folder / f"{name}.jsonl", ROWS)
    (folder / "hall.txt").write_text("The hall opened in 1973. It is red.\n")


def _lines(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


SIZES = {"width": "8", "heads": "2", "context": "32", "batch": "4", "threads": "1", "reports": "2"}
LEARNS = ("train", "pretrain", "compare", "fit", "distil", "prune")


def small(words: list[str]) -> list[str]:
    """The same command, of a training that takes a moment."""
    words = list(words[1:])
    if words[0] == "verify":
        words += ["--search", "0"] if "--size" in words else []
        return [*words, "--only", "softmax"] if _is_long(words) else words
    if words[0] == "generate":
        return [*words, "--tokens", "20"]
    learns = [word for word in words[:2] if word in LEARNS]
    if not learns or "--help" in words:
        return words
    for flag, value in (("--minutes", "0.005"), ("--steps", "4"), ("--vocabulary", "300")):
        if flag in words:
            words[words.index(flag) + 1] = value
    if "distil" in words:
        words[words.index("--width") + 1] = "4"  # a student is smaller than its teacher
        words[words.index("--layers") + 1] = "1"
    if words[0] in ("train", "compare") and not {"--data", "--resume"} & set(words):
        words += ["--data", "my_texts"]  # the Python reference takes seconds to read
    known = parser_for(["refllm", *words])._option_string_actions
    if "--resume" not in words:
        words += [] if {"--minutes", "--steps"} & set(words) or "--steps" not in known else ["--steps", "4"]
        kept = ("threads", "batch", "reports") if "--from" in words else SIZES
        words += [
            w for name in kept if f"--{name}" in known and f"--{name}" not in words for w in (f"--{name}", SIZES[name])
        ]
        words += ["--kv-heads", "1"] if _is_llama(words) and "--from" not in words else []
    if words[0] == "compare":
        words += ["--models", "ngram", "nnlm", "gpt"]
    return words


def _is_long(words: list[str]) -> bool:
    """Whether every case is asked for: of refllm, of every mistake, or of a program that is started for each."""
    return bool({"--self", "--mutants", "--cmd"} & set(words)) and "--only" not in words


def _is_llama(words: list[str]) -> bool:
    return words[0] == "train" and ("--model" not in words or words[words.index("--model") + 1] == "llama")


# What the words of a form stand for.
FILLED = {
    "ARGS": "runs", "RUN": "runs/form", "TEXT": '"I read it twice."', "FILES": "reviews.csv", "TASK": "classify",
    "N": "4", "MODEL": "llama2-7b", "DIR": "models/SmolLM-135M", "FILE": "all.safetensors", "NAME": "relu",
}  # fmt: skip
OF_PAGES = {
    ("docs/published.md", "TEXT"): '"is"', ("docs/run-directory.md", "DIR"): "runs",
    ("docs/explain.md", "RUN"): "runs/stars", ("scripts/consumers/README.md", "DIR"): "asked",
}  # fmt: skip


def filled(line: Line) -> Line:
    """A form with words in the places of those that stand for others."""
    if not line.is_form:
        return line

    def said(found: re.Match[str]) -> str:
        return OF_PAGES.get((line.page, found[0]), FILLED.get(found[0], found[0]))

    text = re.sub(r"\b[A-Z]+\b(?![.\w-])", said, line.text.removesuffix(" ..."))
    labels = " --labels good bad" in text  # which a language model is given
    return Line(line.page, text.replace("runs/form", "runs/001") if labels else text, line.in_block)


# How a run is made that a page speaks of as there already; another is a language model.
MADE = {
    **dict.fromkeys(("runs/stars", "runs/other", "runs/form"), "classify fit reviews.csv"),
    "runs/en-de": "translate fit talks.en talks.de", "runs/answers": "answer fit questions.jsonl",
    "runs/news": "summarise fit articles.jsonl --source body --target headline",
    "runs/bert": "pretrain --model bert --data my_texts",
}  # fmt: skip
WRITTEN = ("--out", "--page", "--html", "--picture")


def prepared(line: Line, folder: Path) -> None:
    """What stands in a page as done before, outside it; what would stand in the way of a line is taken away."""
    words = line.words
    for before, word in zip(["", *words], words, strict=False):
        if before in WRITTEN:
            _removed(folder / word)
        elif word.startswith("runs/") and not (folder / word).exists():
            _made(word)
    if line.text.endswith(("refllm runs", "refllm runs --json")) and not (folder / "runs").exists():
        _made("runs/001")
    if "experiments/" in words and not (folder / "experiments").exists():
        shutil.copytree(folder / "runs", folder / "experiments")
    if re.search(r"models/|--from scratch", line.text) and not (folder / "models").exists():
        write_models(folder)
    if "my_attention" in line.text:
        (folder / "my_attention.py").write_text("def attention(q, k, v, *, causal, allowed):\n    return v\n")
    if "port.safetensors" in words:  # of somebody else's port
        shutil.copy(folder / "taps.safetensors", folder / "port.safetensors")
    if "./consumer" in line.text:
        build = next(one.text for one in commands(ROOT / line.page) if one.text.startswith("cc "))
        subprocess.run(shlex.split(build), cwd=folder, check=True)
    if "--lib" in words:  # the line before it in the page, which is no command of refllm
        [build] = [text for code in blocks(line.page, "") for text in code.splitlines() if text.startswith("$ cc ")]
        subprocess.run(shlex.split(build)[1:], cwd=folder, check=True)


def _made(run: str) -> None:
    if run == "runs/other" and Path("runs/stars").exists():  # of the same labels
        shutil.copytree("runs/stars", run)
        return
    words = small(shlex.split(f"refllm {MADE.get(run, 'train --layers 2 --data my_texts')} --out {run}"))
    status, said = carried_out(words)
    assert status == 0, f"{words}\n{said}"


def _removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def tool_for(line: Line) -> str:
    """The program that a line needs beside refllm."""
    return "cc" if "--lib" in line.words or "./consumer" in line.text else "node" if "--serve" in line.words else ""


def carried_out(words: list[str]) -> tuple[int, str]:
    """The exit status of a command, and what it says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(words)
        except SystemExit as left:  # --help
            status = int(left.code or 0)
    return status, out.getvalue()[-2000:] + err.getvalue()[-2000:]


def expected(words: list[str]) -> tuple[int, ...]:
    """0; of an implementation that is wrong 1, and of answers that nobody has written 2. So without what it needs."""
    torch = any(word.startswith("torch.") or "/torch_" in word for word in words)
    needed = {"torch": torch, "mpi4py": "--ranks" in words}
    if any(importlib.util.find_spec(name) is None for name, is_needed in needed.items() if is_needed):
        return (2,)
    right = ("--self", "--requests", "--kit", "--header", "--lib", "--serve", "--mutants")  # the starter kits are right
    if words[0] != "verify" or set(right) & set(words):
        return (0,)
    if "--responses" in words:
        return (2,)
    if "./consumer answer {request} {response}" in words:
        return (0,)
    return (1,) if "--cmd" in words or words[1:2] not in ([], ["--json"]) else (0,)
