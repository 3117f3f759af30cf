"""refllm verify --model: a port of a published model through every way that it can be asked."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from refllm.cli import main
from refllm.errors import UserError
from refllm.pretrained.folder import open_folder
from refllm.verify.case import FaultError
from refllm.verify.ports.chosen import Input
from refllm.verify.ports.file_names import mentioned, names_in_files
from refllm.verify.ports.port import case_of, functions
from spec_tests.verify.ports.models import written
from spec_tests.verify.ports.strangers import Port

ROOT = Path(__file__).parents[2]
FROM = "import sys; sys.path.insert(0, {root!r})\nfrom spec_tests.verify.ports.strangers import Port\n"
SERVED = """
import json, struct
import numpy as np
port = Port(sys.argv[1], sys.argv[2])
while head := sys.stdin.buffer.read(16):
    said, data = struct.unpack("<QQ", head)
    question = json.loads(sys.stdin.buffer.read(said))
    held = sys.stdin.buffer.read(data)
    given = {}
    for name, x in question["keywords"].items():
        size = int(np.prod(x["shape"]))
        kind = {"int64": "<i8", "bool": "?"}[x["dtype"]]
        given[name] = np.frombuffer(held, kind, size, x["at"]).reshape(x["shape"])
    y = np.ascontiguousarray(port.logits(**given), "<f4")
    tensor = {"dtype": "float32", "shape": list(y.shape), "at": 0}
    answer = json.dumps({"id": question["id"], "outputs": {"logits": tensor}}).encode()
    sys.stdout.buffer.write(struct.pack("<QQ", len(answer), y.nbytes) + answer + y.tobytes())
    sys.stdout.buffer.flush()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("ports") / "model", "llama3")


def answered(model: Path, directory: Path, wrong: str, *, taps: bool = False) -> Path:
    """The responses of a port to the requests for a model."""
    assert main(["verify", "--model", str(model), "--requests", str(directory)]) == 0
    port: Any = Port(str(model), wrong)
    for path in directory.iterdir():
        request = json.loads((path / "request.json").read_text())
        ids = request["keywords"]["ids"]
        y = port.logits(numpy.array(ids["data"]).reshape(ids["shape"]))
        found = {f"taps.{name}": x for name, x in port.taps.items()} if taps else {}
        arrays = {name: numpy.ascontiguousarray(x) for name, x in {"outputs.logits": y, **found}.items()}
        save_file(arrays, path / "response.safetensors")
    return directory


def test_the_answers_of_a_right_port_pass(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    directory = answered(model, tmp_path / "asked", "", taps=True)
    capfd.readouterr()
    assert main(["verify", "--model", str(model), "--responses", str(directory)]) == 0
    assert capfd.readouterr().out.startswith("RIGHT ")


def test_the_answers_of_a_wrong_port_name_its_mistake(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    directory = answered(model, tmp_path / "asked", "key heads tiled")
    capfd.readouterr()
    assert main(["verify", "--model", str(model), "--responses", str(directory), "--json"]) == 1
    said = json.loads(capfd.readouterr().out)
    [mistake] = said["mistakes"]
    assert "tiled" in mistake["said"]
    assert mistake["located"]["operation"] == "attention scores"
    assert mistake["in"] == "every layer (3)"
    assert said["explained"] is True
    junit = tmp_path / "ports.xml"
    call = ["verify", "--model", str(model), "--responses", str(directory), "--search", "0", "--junit", str(junit)]
    assert main(call) == 1
    assert "failure" in junit.read_text()


@pytest.mark.parametrize(
    "flags",
    [[], ["--self"], ["--adapter", "a.py", "--serve", "x"], ["--adapter", "no.py"],
     ["--adapter", "no.py", "--html", "x"],     ["--adapter", "a.py", "--dtype", "tf32"], ["--responses", "nowhere"]],
)  # fmt: skip
def test_what_cannot_be_run_is_one_line(model: Path, flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--model", str(model), *flags]) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_two_ports_at_once_are_refused_by_the_names_of_their_flags(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--model", str(model), "--adapter", "a.py", "--serve", "x"]) == 2
    assert "--adapter and --serve exclude each other" in capfd.readouterr().err


def test_no_verdict_is_given_where_nothing_was_answered(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for flags in ([], ["--json"]):
        assert main(["verify", "--model", str(model), "--responses", str(tmp_path), *flags]) == 2
        told = capfd.readouterr()
        assert not told.out
        assert "nothing is verified" in told.err
    directory = answered(model, tmp_path / "asked", "")
    for path in sorted(directory.iterdir())[1:]:
        shutil.rmtree(path)
    capfd.readouterr()
    assert main(["verify", "--model", str(model), "--responses", str(directory)]) == 0
    assert capfd.readouterr().out.startswith("RIGHT on 1 of 5 inputs")


def test_a_program_that_ends_at_once_has_ended(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its end is no frame, so nothing that it wrote is garbage."""
    assert main(["verify", "--model", str(model), "--serve", f"{sys.executable} -c raise(SystemExit(3))"]) == 1
    told = " ".join(capfd.readouterr().out.split())
    assert told.count("the process ended with status 3") == 5
    assert "garbage" not in told
    assert "left something behind" not in told


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("ids, /", "'ids' by its place alone"), ("**inputs", "takes **inputs"),
        ("*given, **inputs", "*given and **inputs"),
        ("tokens_of_text", "takes 'tokens_of_text'"),
    ],
)  # fmt: skip
def test_parameters_that_name_no_input_are_one_line(model: Path, tmp_path: Path, head: str, said: str) -> None:
    path = tmp_path / "port.py"
    path.write_text(f"def logits({head}): return 0\n")
    with pytest.raises(UserError, match=re.escape(said)):
        functions(path, model)


def test_an_adapter_without_a_model_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--adapter", "port.py"]) == 2
    assert "--model DIR" in capfd.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        "def logits(ids): return PORT.logits(ids), PORT.taps",
        "def logits(input_ids): return PORT.logits(input_ids)\n"
        "def taps(ids):\n    PORT.logits(ids)\n    return PORT.taps",
        "def model(folder): return lambda ids: Port(folder).logits(ids)",
        "class Whole:\n    def logits(self, ids, mask=None): return PORT.logits(ids)\n"
        "def model(folder): return Whole()",
    ],
)
def test_a_port_has_any_of_the_forms(model: Path, tmp_path: Path, body: str) -> None:
    path = tmp_path / "port.py"
    path.write_text(FROM.format(root=str(ROOT)) + f"PORT = Port({str(model)!r})\n{body}\n")
    found = functions(path, model).functions["logits"](ids=numpy.array([[1, 2, 3]]))
    port: Any = Port(str(model))
    numpy.testing.assert_array_equal(found[0], port.logits(numpy.array([[1, 2, 3]])))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def logits(ids): return PORT.logits(ids), None", "a tuple of 2 (an array, None)"),
        ("def logits(ids): return PORT.logits(ids), {}, 3", "a tuple of 3 (an array, a dict, an int)"),
        ("def logits(ids): return (PORT.logits(ids),)", "a tuple of 1 (an array)"),
        ("def logits(ids): return [[1.0], [1.0, 2.0]]", "a list that is no array of numbers"),
        ("def logits(ids): return PORT.logits(ids), {'embedding': [[1.0], 'x']}", "embedding is a list"),
        ("def logits(ids): return PORT.logits(ids)\ndef taps(ids): return None", "taps returned None"),
    ],
)
def test_an_answer_that_is_no_array_is_a_line_about_the_port(model: Path, tmp_path: Path, body: str, said: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FROM.format(root=str(ROOT)) + f"PORT = Port({str(model)!r})\n{body}\n")
    case = case_of(Input("text", "", {"ids": numpy.array([[1, 2, 3]])}))
    with pytest.raises(FaultError) as error:
        functions(path, model).respond(case, "float32")
    assert said in str(error.value)
    assert "line" not in str(error.value)


def test_a_mistake_in_the_weights_has_the_names_of_the_files(tmp_path: Path) -> None:
    folder = open_folder(written(tmp_path / "model", "qwen2"))
    names = names_in_files(folder)
    assert set(folder.entries[1].names) <= {n.removeprefix("model.").replace("*", "0") for n in names.values()}
    said = "layers.*.attention.bq is left out, and layers.*.norm1 and layers.*.norm2 are exchanged"
    assert mentioned(said, names) == [
        ("layers.*.attention.bq", "model.layers.*.self_attn.q_proj.bias"),
        ("layers.*.norm1", "model.layers.*.input_layernorm"),
        ("layers.*.norm2", "model.layers.*.post_attention_layernorm"),
    ]


@pytest.mark.slow
def test_a_file_and_a_program_are_asked_in_processes_of_their_own(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "port.py"
    path.write_text(FROM.format(root=str(ROOT)) + "def model(folder): return Port(folder, 'rope neighbours').logits\n")
    assert main(["verify", "--model", str(model), "--adapter", str(path)]) == 1
    assert "turns pairs of" in capfd.readouterr().out
    program = tmp_path / "served.py"
    program.write_text(FROM.format(root=str(ROOT)) + SERVED)
    assert main(["verify", "--model", str(model), "--serve", f"{sys.executable} {program} {model} ''"]) == 0
    assert main(["verify", "--model", str(model), "--serve", f"{sys.executable} {program} {model} tied"]) == 1
    assert "output layer is the embedding" in capfd.readouterr().out
    path.write_text("def model(folder): raise ValueError('no such file')\n")
    assert main(["verify", "--model", str(model), "--adapter", str(path)]) == 2
    assert "model(folder) raised ValueError: no such file" in capfd.readouterr().err
    path.write_text("def logits(ids): return 1 / 0\n")
    assert main(["verify", "--model", str(model), "--adapter", str(path)]) == 1
    assert "ZeroDivisionError" in capfd.readouterr().out
