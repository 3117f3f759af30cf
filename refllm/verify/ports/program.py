"""A published model as steps one after the other: an embedding, layers, a norm, an output. Each is a function of the
text (`published`), reads its own branch of the parameters, and gives a value that has the name of its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from refllm.backend import Array
from refllm.errors import UserError
from refllm.models.llama import FARTHEST
from refllm.parameters import Tree
from refllm.spec.array import part, tap
from refllm.verify.ports.published import bert, encoder_decoder, gpt, llama

State = dict[str, Any]  # what the steps before have left: "x", "memory", and the inputs
KINDS = ("llama", "gpt", "bert", "encoder_decoder")


@dataclass(frozen=True)
class Step:
    """`place` is the name of what it gives; `inner` begins the names within; `own` is its branch of the parameters."""

    place: str
    kind: str  # "embedding", "layer", "norm", "output"; "encoder layer" ...
    inner: str
    own: tuple[str | int, ...]
    text: Callable[..., Array]
    run: Callable[[State, Tree, Mapping[str, Any]], Array]
    gives: str = "x"

    def parameters(self, p: Tree) -> Tree:
        for name in self.own:
            p = p[name]
        return p

    def after(self, state: State, p: Tree, config: Mapping[str, Any]) -> State:
        """The state with the value of this step, whose parameters are p."""
        if self.inner:
            with part(self.inner):
                y = self.run(state, p, config)
        else:
            y = self.run(state, p, config)
        return {**state, self.gives: tap(self.place, y)}


@dataclass(frozen=True)
class Program:
    """The steps of a model, its configuration as the text has it, and the name of what a port answers."""

    model: str
    config: Mapping[str, Any]
    steps: list[Step]
    answer: str
    keys: frozenset[str] = field(default=frozenset())  # the inputs that it takes beside ids

    @property
    def reads_both_sides(self) -> bool:
        """Whether what it reads first is not read in one direction alone."""
        return self.model in ("bert", "encoder_decoder")

    def index(self, place: str) -> int:
        return next(n for n, step in enumerate(self.steps) if step.place == place)

    def step_of(self, name: str) -> int:
        """The number of the step in which the value of that name is made."""
        for n, step in enumerate(self.steps):
            if name == step.place or (step.inner and name.startswith(step.inner + ".") and step.kind.endswith("layer")):
                return n
        return next(n for n, step in enumerate(self.steps) if not step.inner or name.startswith(step.inner + "."))


def program(model: str, config: Any, *, head: bool = True) -> Program:
    """The steps of a model of that kind, without an output layer where its files have none. UserError for one without a
    text of this form."""
    values = config.as_dict()
    if model not in KINDS:
        raise UserError(f"a model of the kind {model} has no taps; those of the kinds {', '.join(KINDS)} have")
    whole = {"llama": _llama, "gpt": _gpt, "bert": _bert, "encoder_decoder": _encoder_decoder}[model](values)
    return whole if head else replace(whole, steps=whole.steps[:-1], answer=whole.steps[-2].place)


def _llama(config: dict[str, Any]) -> Program:
    windows = list(config["windows"]) or [0] * config["layers"]
    steps = [_first(llama.llama_embedding)]
    for n in range(config["layers"]):
        steps.append(_layer(n, llama.llama_layer, lambda s, p, c, n=n: llama.llama_layer(
            s["x"], p, s["p"].get("relative"), window=_window(c, n), attention_mask=s["mask"], config=c)))  # fmt: skip
    steps += [_whole("norm", "norm", llama.llama_norm), _whole("logits", "output", llama.llama_logits)]
    own = {**config, "windows": windows, "farthest": FARTHEST}
    return Program("llama", own, steps, "logits", frozenset({"mask"}))


def _window(config: Mapping[str, Any], n: int) -> int:
    return int(config["windows"][n])


def _gpt(config: dict[str, Any]) -> Program:
    steps = [_first(gpt.gpt_embedding)]
    for n in range(config["layers"]):
        steps.append(_layer(n, gpt.transformer_layer, lambda s, p, c: gpt.transformer_layer(
            s["x"], p, causal=True, attention_mask=s["mask"], config=c)))  # fmt: skip
    steps += [_whole("norm", "norm", gpt.gpt_norm)] if config["norm"] == "pre" else []
    steps += [_whole("logits", "output", gpt.gpt_logits)]
    return Program("gpt", config, steps, "logits", frozenset({"mask"}))


def _bert(config: dict[str, Any]) -> Program:
    def embedded(s: State, p: Tree, c: Mapping[str, Any]) -> Array:
        return bert.bert_embedding(p, ids=s["ids"], segments=s["segments"], config=c)

    steps = [Step("embedding", "embedding", "", (), bert.bert_embedding, embedded)]
    for n in range(config["layers"]):
        steps.append(_layer(n, gpt.transformer_layer, lambda s, p, c: gpt.transformer_layer(
            s["x"], p, causal=False, attention_mask=s["mask"], config=c)))  # fmt: skip
    answer = steps[-1].place
    heads = [name for name in ("masked", "classes", "pair", "span") if name in config["outputs"]]
    if config["pooler"]:
        steps.append(Step("pooled", "output", "", (), bert.pooled, lambda s, p, c: bert.pooled(s["x"], p), "pooled"))
    for n, name in enumerate(heads):
        steps.append(_head(name, "logits" if n == 0 else f"logits_{name}"))
    return Program(
        "bert", {**config, "norm": "post"}, steps, "logits" if heads else answer, frozenset({"segments", "mask"})
    )


def _head(name: str, place: str) -> Step:
    """The first head is what a port answers; it may give the others beside it."""
    if name == "masked":
        run = lambda s, p, c: bert.masked_logits(s["x"], p, config=c)
        return Step(place, "output", "", (), bert.masked_logits, run, place)
    if name == "span":
        return Step(place, "output", "", (), bert.span_logits, lambda s, p, c: bert.span_logits(s["x"], p), place)
    return Step(
        place, "output", "", (name,), bert.class_logits, lambda s, p, c: bert.class_logits(s["pooled"], p), place
    )


def _encoder_decoder(config: dict[str, Any]) -> Program:
    own = {**config, "scaled": config["positions"] != "relative"}
    steps = [*_half("encoder", own, "source"), *_half("decoder", own, "ids")]
    steps.append(_whole("logits", "output", encoder_decoder.sequence_logits))
    return Program("encoder_decoder", own, steps, "logits", frozenset({"source", "mask"}))


def _half(half: str, config: Mapping[str, Any], ids: str) -> list[Step]:
    def embedded(s: State, p: Tree, c: Mapping[str, Any]) -> Array:
        return encoder_decoder.stack_embedding(p["token"], p[half], ids=s[ids], config=c)

    def encoded(s: State, p: Tree, c: Mapping[str, Any]) -> Array:
        relative = s["p"]["encoder"].get("relative")
        return encoder_decoder.encoder_layer(s["memory"], p, relative, attention_mask=s["mask"], config=c)

    def decoded(s: State, p: Tree, c: Mapping[str, Any]) -> Array:
        relative = s["p"]["decoder"].get("relative")
        return encoder_decoder.decoder_layer(s["x"], p, s["memory"], relative, attention_mask=s["mask"], config=c)

    gives = "memory" if half == "encoder" else "x"
    text = encoder_decoder.encoder_layer if half == "encoder" else encoder_decoder.decoder_layer
    run = encoded if half == "encoder" else decoded
    steps = [Step(f"{half}.embedding", f"{half} embedding", half, (), encoder_decoder.stack_embedding, embedded, gives)]
    for n in range(config[f"{half}_layers"]):
        place = f"{half}.layers.{n}"
        steps.append(Step(place, f"{half} layer", place, (half, "layers", n), text, run, gives))
    if config["norm"] == "pre":
        last = lambda s, p, c: encoder_decoder.stack_norm(s[gives], p, config=c)
        steps.append(Step(f"{half}.norm", f"{half} norm", "", (half,), encoder_decoder.stack_norm, last, gives))
    return steps


def _first(text: Callable[..., Array]) -> Step:
    return Step("embedding", "embedding", "", (), text, lambda s, p, c: _now(text)(p, ids=s["ids"], config=c))


def _now(text: Callable[..., Array]) -> Callable[..., Any]:
    """The function of that name as its module has it at the moment: an edited one may stand in its place."""
    found: Callable[..., Any] = getattr(sys.modules[text.__module__], text.__name__)
    return found


def _layer(n: int, text: Callable[..., Array], run: Callable[..., Array]) -> Step:
    place = f"layers.{n}"
    return Step(place, "layer", place, ("layers", n), text, run)


def _whole(place: str, kind: str, text: Callable[..., Array]) -> Step:
    """A step that reads the whole tree, and the last value."""
    return Step(place, kind, "", (), text, lambda s, p, c: _now(text)(s["x"], p, config=c))
