"""An example call of every function with a pullback above the operations: blocks, models, objectives, fine-tuning.

The functions are found by themselves: whatever `differentiable` stands above. Their arrays are drawn from their
`Shapes:` lines; what is not in a line, the parameters and the choices, is said here, by the name of the parameter.
A function whose example cannot be made fails `test_every_function_has_an_example` with what is missing.
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy

from refllm.blocks.cross_attention import cross_attention_shapes
from refllm.blocks.feed_forward import feed_forward_shapes
from refllm.blocks.gated_feed_forward import gated_feed_forward_shapes
from refllm.blocks.grouped_attention import grouped_attention_shapes
from refllm.blocks.llama_layer import llama_layer_shapes
from refllm.blocks.recurrent import recurrent_layers_shapes, recurrent_shapes
from refllm.blocks.relative_self_attention import relative_self_attention_shapes
from refllm.blocks.residual import norm_shapes
from refllm.blocks.self_attention import self_attention_shapes
from refllm.blocks.switch_layer import switch_layer_shapes, switch_transformer_layer_shapes
from refllm.blocks.transformer_layer import transformer_layer_shapes
from refllm.differentiable import Contract, contract
from refllm.models import bert, encoder_decoder
from refllm.parameters import Tree, map_leaves
from refllm.shapes import Declared
from spec_tests import language_models
from spec_tests.gradients import random_tree

ROOMS = ("blocks", "models", "objectives", "finetune")
SIZES = {
    "B": 2, "T": 5, "S": 4, "C": 6, "I": 6, "D": 3, "H": 2, "F": 8, "V": 7, "E": 3, "K": 4, "M": 3, "N": 3, "L": 2,
    "O": 4, "r": 2, "n": 2, "labels": 2, "segments": 2,
}  # fmt: skip
CHOICES: dict[str, Any] = {
    "activation": "gelu_tanh", "base": 100.0, "cache": None, "cap": None, "capacity": 2, "causal": True, "cell": "lstm",
    "eps": 1e-5, "heads": 2, "kv_heads": 1, "name": "qkv", "norm": "pre", "parts": 3, "rate": 0.3, "rotation": "rotary",
    "scale": 1.5, "scaled": True, "share": 0.4, "smoothing": 0.1, "start": 0, "state": None, "states": None,
    "stretch": 1.2, "temperature": 1.5, "waves": True, "ignore": None,
}  # fmt: skip


def _layer(attention: Tree, *, cross: bool) -> Tree:
    reading = {"cross_attention": cross_attention_shapes(6, 2, 3, biases=True)} if cross else {}
    parts = {"attention": attention, **reading, "feed_forward": feed_forward_shapes(6, 8)}
    norms = {f"norm{i}": norm_shapes(6) for i in range(1, 3 + cross)}
    return {**norms, **parts}


PARAMETERS: dict[str, Tree] = {
    "project": {"Wqkv": (6, 18), "bqkv": (18,)},
    "cross_attention": cross_attention_shapes(6, 2, 3, biases=True),
    "decoder_layer": _layer(relative_self_attention_shapes(6, 2, 3, biases=True), cross=True),
    "encoder_layer": _layer(relative_self_attention_shapes(6, 2, 3, biases=True), cross=False),
    "feed_forward": feed_forward_shapes(6, 8),
    "feed_forward_without_biases": {"W1": (6, 8), "W2": (8, 6)},
    "gated_feed_forward": gated_feed_forward_shapes(6, 8),
    "grouped_attention": grouped_attention_shapes(6, 2, 1, 4),
    "llama_layer": llama_layer_shapes(6, 2, 1, 4, 8),
    "recurrent": recurrent_shapes(6, 3, cell="lstm"),
    "bidirectional": {side: recurrent_shapes(6, 3, cell="lstm") for side in ("forward", "backward")},
    "recurrent_layers": recurrent_layers_shapes(6, 3, layers=2, cell="lstm", bidirectional=False),
    "relative_self_attention": relative_self_attention_shapes(6, 2, 3, biases=True),
    "self_attention": self_attention_shapes(6),
    "stack_embedding": {"embedding_norm": norm_shapes(6)},
    "switch_layer": switch_layer_shapes(6, 8, 3, biases=True),
    "expert_feed_forward": {k: v for k, v in switch_layer_shapes(6, 8, 3, biases=True).items() if k != "Wr"},
    "switch_transformer_layer": switch_transformer_layer_shapes(6, 8, 3),
    "transformer_layer": transformer_layer_shapes(6, 8),
}
OWN_SIZES = {
    "grouped_attention": {"S": 5}, "llama_layer": {"S": 5}, "relative_self_attention": {"S": 5},
    "self_attention": {"S": 5}, "transformer_layer": {"S": 5}, "switch_transformer_layer": {"S": 5},
    "recurrent_layers": {"M": 3}, "encoder_layer": {"T": 4}, "decoder_layer": {"K": 5},
}  # fmt: skip
BERT = bert.Config(vocabulary=7, context=8, layers=2, heads=2, width=6, hidden=8, outputs=bert.OUTPUTS, dropout=0.3)
SEQUENCE: dict[str, Any] = {
    "vocabulary": 7, "context": 8, "encoder_layers": 1, "decoder_layers": 2, "heads": 2, "head_width": 3, "width": 6,
    "hidden": 8,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    **language_models.ALL,
    "bert": BERT,
    "2017": encoder_decoder.Config(**SEQUENCE),
    "BART": encoder_decoder.Config(**SEQUENCE, positions="learned", embedding_norm=True, dropout=0.3),
    "T5": encoder_decoder.Config(
        **SEQUENCE, positions="relative", norm="pre", rms=True, gated=True, biases=False, activation="gelu_tanh",
        buckets=4, farthest=6,
    ),
}  # fmt: skip
OF_LANGUAGE_MODELS = {"causal_loss"}
OF_SEQUENCE_MODELS = {"seq2seq_loss", "denoising_loss"}


@dataclass
class Example:
    """One call: `function(**arguments)`."""

    function: Callable[..., Any]
    contract: Contract
    arguments: dict[str, Any]
    label: str

    def __repr__(self) -> str:
        return self.label

    @property
    def whole(self) -> bool:
        """Whether it takes all the parameters of a model, and the config that they belong to."""
        names = self.arguments.keys()
        return "config" in names and "p" in names and "h" not in names

    def run(self, **changes: Any) -> tuple[tuple[Any, ...], Callable[..., Any]]:
        """The values, as a tuple, and the pullback."""
        parameters = inspect.signature(self.function).parameters.values()
        arguments = self.arguments | changes
        positional = [arguments[p.name] for p in parameters if p.kind is not p.KEYWORD_ONLY]
        y, back = self.function(
            *positional, **{p.name: arguments[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY}
        )
        return (y if isinstance(y, tuple) else (y,)), back

    def cotangents(self, y: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
        random = numpy.random.default_rng(seed)
        return tuple(numpy.asarray(random.standard_normal(value.shape), value.dtype) for value in y)


def functions() -> Iterator[tuple[ModuleType, Callable[..., Any]]]:
    """Every function with a pullback, and its module."""
    for room in ROOMS:
        package = importlib.import_module(f"refllm.{room}")
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"refllm.{room}.{found.name}")
            for function in vars(module).values():
                own = inspect.isfunction(function) and function.__module__ == module.__name__
                if own and hasattr(function, "__wrapped__") and _gives_a_pullback(function):
                    yield module, function


def _gives_a_pullback(function: Callable[..., Any]) -> bool:
    returned = str(inspect.signature(function).return_annotation)
    return any(name in returned for name in ("Callable", "Head", "Balanced", "States"))


def configs(module: ModuleType, function: Callable[..., Any]) -> dict[str, Any]:
    """The configs that a function is called with, by name; one None for a function that takes none."""
    room = module.__name__.split(".")[1]
    if room == "models":
        models = [model for model in language_models.MODELS if getattr(model, function.__name__, None) is function]
        return {n: c for n, c in CONFIGS.items() if language_models.model_of(c) in models}
    if "config" not in inspect.signature(function).parameters:
        return {"bert": BERT} if "model" in inspect.signature(function).parameters else {"": None}
    if function.__name__ in OF_LANGUAGE_MODELS:
        return {**language_models.ALL}
    if function.__name__ in OF_SEQUENCE_MODELS:
        return {n: c for n, c in CONFIGS.items() if isinstance(c, encoder_decoder.Config)}
    return {"bert": BERT}


def examples() -> Iterator[Example]:
    for module, function in functions():
        for name, config in configs(module, function).items():
            yield example(module, function, name, config)


def example(module: ModuleType, function: Callable[..., Any], name: str, config: Any, seed: int = 0) -> Example:
    declared = contract(function)
    random = numpy.random.default_rng(seed)
    label = f"{module.__name__.split('.')[-1]}.{function.__name__}" + (f" of {name}" if name else "")
    arguments: dict[str, Any] = {}
    sizes = {**SIZES, **OWN_SIZES.get(function.__name__, {})}
    if config is not None and hasattr(config, "width"):
        sizes["C"] = config.width
    for parameter in inspect.signature(function).parameters:
        if parameter == "p":
            arguments["p"] = _parameters(function.__name__, config)
        elif parameter == "config":
            arguments["config"] = config
        elif parameter == "model":
            arguments["model"] = language_models.model_of(config)
        elif parameter not in [a.name for a in declared.inputs] and parameter not in (*CHOICES, "dropout_mask"):
            raise LookupError(f"{label}: say in {__name__} what its {parameter} may be")
        elif parameter in CHOICES:
            arguments[parameter] = CHOICES[parameter]
    numbers = {n: v for n, v in arguments.items() if isinstance(v, int)}
    for array in declared.inputs:
        arguments[array.name] = _array(array, {**sizes, **numbers}, random, function.__name__)
    if "dropout_mask" not in arguments and "dropout_mask" in inspect.signature(function).parameters:
        arguments["dropout_mask"] = _draws(function, config, arguments)
    made = Example(function, declared, arguments, label)
    _put_right(made)
    return made


def _parameters(function: str, config: Any) -> Tree:
    if config is None:
        return random_tree(PARAMETERS[function], 0)
    if language_models.model_of(config) in (bert, encoder_decoder):
        return random_tree(language_models.model_of(config).shapes(config), 0)
    return language_models.parameters(config)


def _array(array: Declared, sizes: dict[str, int], random: Any, function: str) -> Any:
    shape: list[int] = []
    for d in array.dimensions:
        shape += [2] if d == "..." else [_size(d, sizes)]
    if array.count is not None:
        one = replace(array, count=None)
        return [_array(one, sizes, random, function) for _ in range(int(sizes.get(array.count, 0) or array.count))]
    if array.kind == "bool":
        drawn = random.random(shape) < 0.7
        drawn[..., :1] = True  # nobody sees nothing
        return drawn
    if array.kind == "int":
        return random.integers(0, _size(array.bound, sizes) if array.bound else 4, shape)
    return random.standard_normal(shape) + (1.5 if array.kind == "real" else 0)


def _size(text: str, sizes: dict[str, int]) -> int:
    total = 0
    for sign, term in re.findall(r"([+-]?)([^+-]+)", text):
        product = math.prod(int(f) if f.isdigit() else sizes[f] for f in term.split("*"))
        total += -product if sign == "-" else product
    return max(0, total)


SUBLAYERS = {  # those of a layer that drop what they give
    **dict.fromkeys(("transformer_layer", "encoder_layer", "llama_layer"), ("attention", "feed_forward")),
    "decoder_layer": ("attention", "cross_attention", "feed_forward"),
    "switch_transformer_layer": ("attention", "switch"),
}


def _draws(function: Callable[..., Any], config: Any, arguments: dict[str, Any]) -> Any:
    """Draws of dropout where the config asks for any, or of a layer, in the shapes that a model says."""
    random = numpy.random.default_rng(7)

    def of(ids: Any, widths: Tree) -> Tree:
        rows = ids.reshape(-1, ids.shape[-1]).shape
        return map_leaves(lambda width: random.random((*rows, width)) < 0.7, widths)

    if function.__name__ in SUBLAYERS:
        return {name: random.random(arguments["x"].shape) < 0.7 for name in SUBLAYERS[function.__name__]}
    if not config.dropout:
        return None
    widths = language_models.model_of(config).dropout_widths(config)
    if isinstance(config, encoder_decoder.Config):
        if function.__name__ in ("encode", "decode"):
            return of(arguments["ids"], widths[f"{function.__name__}r"])
        target = arguments["ids"] if "ids" in arguments else arguments["inputs"]
        return {"encoder": of(arguments["source"], widths["encoder"]), "decoder": of(target, widths["decoder"])}
    draws = of(arguments["ids"], widths)
    if function.__name__ == "classification_loss":
        draws["classes"] = random.random((len(arguments["ids"]), config.width)) < 0.7
    return draws


def _put_right(made: Example) -> None:
    """What a line does not say: where an answer may lie, that a place is not masked twice, positions of a text."""
    arguments = made.arguments
    if "answer_mask" in arguments:
        arguments["answer_mask"][:] = True
        arguments["answer_mask"][:, -1] = False
        arguments["targets"] = arguments["targets"] % (arguments["answer_mask"].shape[1] - 1)
    if "positions" in arguments and made.function.__name__ in ("masked_nll", "masked_loss", "pretraining_loss"):
        arguments["positions"] = numpy.array([[0, 2, 4], [3, 1, 2]])
    if made.function.__name__ == "switch_layer":
        arguments["token_mask"] = None
