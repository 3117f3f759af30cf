#!/usr/bin/env python3
"""What the book draws of trained models: trains them, about a minute each, and writes docs/data/*.json.

    ./scripts/book_data.py loss_curve        the loss of a GPT on characters, and n-gram models of the same text
    ./scripts/book_data.py attention_maps    a GPT on words, where each head looks in one sentence
    ./scripts/book_data.py lstm              the LSTM of documents 003 sec. 5.2 on characters (a quarter of an hour)
    ./scripts/book_data.py kill_matrix       on which level of the golden files every known mistake fails
    ./scripts/book_data.py spread            the predicted spread beside the error of PyTorch's kernels (needs torch)

Each file holds the command that made it. The build draws these files and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs/data"
CHARACTERS = "--model gpt --tokenizer character --context 64 --layers 2 --heads 4 --width 128 --hidden 512 --batch 32"
WORDS = "--model gpt --tokenizer word --vocabulary 3000 --context 64 --layers 2 --heads 4 --width 96 --hidden 384"
SENTENCE = "if the iterable is empty , the value of the expression is returned ."


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/book_data.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    makers = {
        "loss_curve": loss_curve, "attention_maps": attention_maps, "lstm": lstm, "kill_matrix": kill_matrix,
        "spread": spread,
    }  # fmt: skip
    parser.add_argument("what", nargs="+", choices=makers)
    for name in parser.parse_args(arguments).what:
        made = {"command": f"./scripts/book_data.py {name}", **makers[name]()}
        DATA.mkdir(exist_ok=True)
        (DATA / f"{name}.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"book_data.py: docs/data/{name}.json")
    return 0


def trained(options: str, out: str) -> str:
    """Trains a model into `out`; the command."""
    command = f"refllm train {options} --seed 1 --threads 1"
    words = [sys.executable, "-m", *shlex.split(command), "--out", out]
    subprocess.run(words, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return command


def lstm() -> dict[str, Any]:
    from book_lstm import lstm

    return lstm()


def spread() -> dict[str, Any]:
    from book_spread import spread

    return spread()


def loss_curve() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = trained(f"{CHARACTERS} --steps 600 --reports 30", f"{folder}/run")
        reports = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
        summary = json.loads((Path(folder) / "run/summary.json").read_text())
    return {
        "trained": command,
        "data": summary["data"],
        "parameters": summary["parameters"],
        "steps": [report["step"] for report in reports],
        "learning": [rounded(report["train_loss"]) for report in reports],
        "held_out": [rounded(report["val_loss"]) for report in reports],
        "baselines_in_bits": {name: rounded(bits) for name, bits in summary["baselines"].items()},
        "bits": rounded(summary["val_bpc"]),
    }


def attention_maps() -> dict[str, Any]:
    import numpy

    from refllm.explain.attention import attention_maps as maps_of
    from refllm.trained import load_model

    with tempfile.TemporaryDirectory() as folder:
        command = trained(f"{WORDS} --steps 800 --reports 1", f"{folder}/run")
        model = load_model(Path(folder) / "run", "cpu")
    ids = model.tokenizer.encode(SENTENCE)
    given = numpy.array([ids])
    maps = maps_of(
        lambda: model.model.hidden_states(
            model.parameters, ids=given, config=model.config, dropout_mask=None, cache=None
        )
    )
    words = [model.tokenizer.decode([one]).strip() for one in ids]
    return {"trained": command, "words": words, "maps": [rounded(weights[0].tolist()) for weights in maps]}


def kill_matrix() -> dict[str, Any]:
    command = "refllm verify --mutants --json"
    done = subprocess.run([sys.executable, "-m", *command.split()], check=False, cwd=ROOT, capture_output=True)
    found = json.loads(done.stdout)
    levels = Counter(level for entry in found["matrix"].values() for level in entry["first_failing"])
    topics: dict[str, Counter[str]] = {}
    for name, entry in found["matrix"].items():
        topics.setdefault(name.partition("/")[0], Counter()).update(["all", *entry["first_failing"]])
    return {
        "measured": command,
        "mutants": found["mutants"],
        "killed": found["killed"],
        "by_level": dict(sorted(levels.items())),
        "by_id": {name: dict(sorted(counts.items())) for name, counts in sorted(topics.items())},
    }


def rounded(x: Any) -> Any:
    return [rounded(each) for each in x] if isinstance(x, list) else round(x, 4)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
