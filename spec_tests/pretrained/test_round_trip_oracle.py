"""What is loaded and written is opened by transformers, bit for bit, and computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

pytest.importorskip("transformers")

from refllm.cli import main
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.pretrained.export import config_of, tensors_of_leaves, write_folder
from refllm.pretrained.folder import open_folder
from refllm.trained import load_model
from spec_tests.pretrained.folders import made as written_here
from spec_tests.pretrained.oracle import CAUSAL, SEQUENCE, made, saved, torch, transformers
from spec_tests.tokenizers.test_written import TEXTS

pytestmark = pytest.mark.oracle
MODELS = {name: (*one, "LMHeadModel" if one[0] == "GPT2" else "ForCausalLM") for name, one in CAUSAL.items()} | {
    name: (*one, "ForConditionalGeneration") for name, one in SEQUENCE.items()
}


@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_tensor_comes_back_bit_for_bit_and_the_configuration_is_equal(
    which: str, dtype: str, tmp_path: Path
) -> None:
    kind, values, suffix = MODELS[which]
    model = made(kind, values, suffix=suffix, dtype=dtype)
    source, target = saved(model, tmp_path / "source"), tmp_path / "target"
    assert main(["export", str(source), "--to", "hf", "--out", str(target)]) == 0
    assert (target / "config.json").read_bytes() == (source / "config.json").read_bytes()
    first, again = (type(model).from_pretrained(folder, dtype="auto") for folder in (source, target))
    assert again.config.to_diff_dict() | {"_name_or_path": ""} == first.config.to_diff_dict() | {"_name_or_path": ""}
    wanted, found = first.state_dict(), again.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
        assert found[name].dtype == tensor.dtype


@pytest.mark.parametrize(
    "which",
    [
        "Llama",
        "Llama 3",
        "Llama, YaRN",
        "Llama, dynamic",
        "Llama, biases",
        "Mistral",
        "Qwen 2",
        "Qwen 3",
        "Gemma 2",
        "GPT-2",
        "GPT-2, untied",
    ],
)
def test_a_model_of_ours_is_opened_by_transformers_with_the_same_logits(which: str, tmp_path: Path) -> None:
    leaves = written_here(which, tmp_path)
    folder = open_folder(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = numpy.arange(7)[None] % folder.config.vocabulary
    from refllm.parameters import from_names

    y, _ = folder.model.forward(
        from_names(folder.shapes, leaves), ids=ids, config=folder.config, dropout_mask=None, cache=None
    )
    with torch.no_grad():
        truth = model(torch.tensor(ids)).logits.numpy()
    numpy.testing.assert_allclose(y, truth, rtol=1e-4, atol=1e-4 * numpy.abs(truth).max())


def test_a_trained_configuration_says_the_type_of_its_tensors(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["gpt2"]
    from spec_tests.pretrained.folders import GPT, random_leaves

    tensors = tensors_of_leaves(architecture, GPT, random_leaves(architecture, GPT, dtype="float64"))
    write_folder(tmp_path, config_of(architecture.written(GPT), tensors), tensors, {})
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float64"
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == torch.float64


def test_byte_pairs_learnt_here_are_opened_by_transformers_with_the_same_ids(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat, 1234 times; and then some. " * 40)
    run, out = str(tmp_path / "run"), tmp_path / "hf"
    flags = [
        "--context",
        "16",
        "--vocabulary",
        "300",
        "--width",
        "8",
        "--heads",
        "2",
        "--layers",
        "1",
        "--steps",
        "1",
        "--threads",
        "1",
    ]
    assert main(["train", "--data", str(tmp_path / "text.txt"), "--model", "llama", *flags, "--out", run]) == 0
    assert main(["export", run, "--out", str(out)]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ours = load_model(Path(run), "cpu").tokenizer
    for text in TEXTS:
        ids = ours.encode(text).tolist()
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert model.config.vocab_size == ours.size
