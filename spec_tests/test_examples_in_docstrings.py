"""What a user calls has an example in its docstring that one can check by hand, and the example is what is computed.

The text of `refllm/spec` has its own: `spec_tests/spec/test_text.py`. An example knows the names of its module, and
`np`, `math`, `map_leaves` and a few functions of NumPy.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest

import refllm
from refllm.parameters import map_leaves
from refllm.shapes import sections

WHOLE = ("ops", "optim", "metrics", "models.published")  # all of their functions are for users
OPERATIONS = ("blocks", "models", "objectives", "finetune", "generation", "explain", "tokenizers", "pretrained")
NAMED = (  # for users, though they declare no shapes
    "generation.generate.generate", "generation.generate.last_logits", "generation.beam.beam_search",
    "generation.sequence.write", "generation.sampling.check_sampling", "objectives.seq2seq.shifted_right",
    "objectives.masked.counted", "explain.attention.attention_maps", "explain.attribution.gauss_legendre",
    "finetune.pruning.magnitude_masks", "finetune.pruning.pruned", "finetune.pruning.sparsity_of",
    "finetune.stored.dequantised", "tokenizers.load", "tokenizers.vocabulary.words",
    "pretrained.tensor_file.widened", "pretrained.tensor_file.narrowed", "blocks.residual.maybe_dropout",
    "models.ngram.NGram.fit", "models.ngram.log_probabilities", "models.rotary_scaling.trained_frequencies",
    *(f"models.rotary_scaling.{name}_frequencies" for name in ("linear", "dynamic", "yarn", "llama3")),
    "models.rotary_scaling.yarn_scale", "explain.classifier.word_vectors", "verify.checking.check",
    *(
        f"tokenizers.{module}.{kind}.{what}"
        for module, kind in (
            ("bpe", "BytePairTokenizer"), ("character", "CharacterTokenizer"), ("word", "WordTokenizer"),
            ("wordpiece", "WordPieceTokenizer"),
        )
        for what in ("train", "encode", "decode")
    ),
)  # fmt: skip
WITHOUT = {
    "metrics.has_sacrebleu": "says what is installed",
    "metrics.bleu_tokenizer": "needs the optional part eval",
    "metrics.bleu_and_chrf": "needs the optional part eval",
    "explain.attention.attention_weights": "takes what an attention was seen to do: attention_maps shows it",
    "pretrained.folder.open_folder": "needs files: docs/published.md",
    "pretrained.tensor_file.tensors_of": "needs a file",
    "estimator.classifier.TextClassifier.fit": "trains: docs/explain.md has an example that is run",
    "verify.testing.LiveCase.check": "runs in pytest: docs/conformance.md has an example that is run",
}


def modules(package: str) -> Iterator[Any]:
    module = importlib.import_module(f"refllm.{package}")
    yield module
    for inner in pkgutil.iter_modules(getattr(module, "__path__", []), f"{module.__name__}."):
        yield importlib.import_module(inner.name)


def functions(package: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in modules(package):
        for name, found in vars(module).items():
            if inspect.isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_"):
                yield f"{module.__name__}.{name}".removeprefix("refllm."), found


def named(path: str) -> Callable[..., Any]:
    parts, found = path.split("."), refllm
    for n, part in enumerate(parts, 1):
        found = getattr(found, part, None) or importlib.import_module("refllm." + ".".join(parts[:n]))
    return found  # type: ignore[return-value]


def public() -> dict[str, Callable[..., Any]]:
    found = {path: f for package in WHOLE for path, f in functions(package)}
    found |= {
        path: f for package in OPERATIONS for path, f in functions(package) if "Shapes" in sections(f.__doc__ or "")
    }
    return found | {path: named(path) for path in NAMED}


def test_every_public_function_has_an_example() -> None:
    without = {path for path, f in public().items() if ">>>" not in (f.__doc__ or "")}
    assert without - set(WITHOUT) == set()
    assert len(public()) > 180


def test_no_exception_has_an_example_after_all() -> None:
    assert [path for path in WITHOUT if ">>>" in (named(path).__doc__ or "")] == []


@pytest.mark.host
def test_the_examples_are_what_is_computed() -> None:
    numbers = {
        "array": numpy.array, "zeros": numpy.zeros, "ones": numpy.ones, "arange": numpy.arange, "np": numpy,
        "math": math, "map_leaves": map_leaves,
    }  # fmt: skip
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for path, f in public().items():
        if path in WITHOUT:
            continue
        words = numbers | vars(inspect.getmodule(f))
        example = doctest.DocTestParser().get_doctest(inspect.cleandoc(f.__doc__ or ""), words, path, None, None)
        runner.run(example, out=said.append)
    assert runner.tries > 400
    assert "".join(said) == ""
