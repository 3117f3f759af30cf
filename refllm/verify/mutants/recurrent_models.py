"""Mistakes of recurrent layers side by side and on top of each other, of the language models of them, and of what
these carry while they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.recurrent import recurrent
from refllm.models import nnlm as window_model
from refllm.parameters import Tree
from refllm.spec.activation import tanh
from refllm.spec.hybrid import hybrid_states
from refllm.spec.nnlm import nnlm
from refllm.spec.recurrent import window
from refllm.spec.recurrent_lm import recurrent_lm, recurrent_lm_loss
from refllm.verify.mutants.bank import Edited, Edits, Function, Patch, edit

TANH, TANH_BACK = "y = _tanh(x)", "return dy * (1 - y * y)"
SEEN = "seen = concatenate([past, x if token_mask is None else where(token_mask[..., None], x, 0)], axis=1)"
WINDOW = "return concatenate([seen[:, before - k : before - k + T] for k in range(places)], axis=-1), window_back"
PULLED = "return (dx if token_mask is None else where(token_mask[..., None], dx, 0)), dseen[:, :before]"
SHIFTS = "for k in range(places):  # what stands for x_{t-k} goes k places back"
SQUASHED, HIDDEN = "a, tanh_back = tanh(z)", 'z, hidden_back = linear(tap("window", x), p["H"], p["d"])'
PAST = "past = zeros((ids.shape[0], places - 1, words.shape[-1]), words)"
OUT = 'y, out_back = linear(tap("hidden", a), p["U"], p["b"])'
LOGITS = 'return tap("logits", y + straight if direct else y), nnlm_back'
LAYERS = 'h, layers_back = recurrent_layers(tap("embedding", x), p["layers"], cell=config["cell"], token_mask=None)'
TIED = 'return with_head({"token": embedding_back(dx), "layers": dlayers}, dW, tied=config["tied"])'
NLL = "return next_token_loss(recurrent_lm, p, ids=ids, targets=targets, ignore=ignore, config=config)"
PLACED = 'x = tap("embedding", words + sinusoidal(like(arange(T), words), width=words.shape[-1])[0])'
ATTENDED = 'x, p["attention"], heads=config["heads"], causal=not config["bidirectional"], attention_mask=keys'
RUN = (
    'h, layers_back = recurrent_layers(tap("attention", a), p["layers"], cell=config["cell"], '
    "token_mask=attention_mask)"
)

_recurrent, _window_states = recurrent, window_model.hidden_states  # refllm's, not what is planted


def seen(old: str, new: str) -> Edits:
    """A window over something else."""
    return edit(window, SEEN, SEEN.replace(old, new))


def attended(old: str, new: str) -> Edits:
    return edit(hybrid_states, ATTENDED, ATTENDED.replace(old, new))


def carried(change: Callable[[Tree, Tree], None], *, fresh: bool = False) -> Function:
    """A layer that spoils what it carries: change(state, the state before). Without a state it is right."""

    def changed(
        x: Array, p: Tree, *, cell: str, token_mask: Array | None, state: Tree | None
    ) -> tuple[Array, Function]:
        before = None if state is None else {name: array.copy() for name, array in state.items()}
        if fresh and state is not None:
            state.update({name: numpy.zeros_like(array) for name, array in state.items()})
        y, back = _recurrent(x, p, cell=cell, token_mask=token_mask, state=state)
        if state is not None and before is not None:
            change(state, before)
        return y, back

    return changed


def _without_cell(state: Tree, before: Tree) -> None:
    if "c" in state:
        state["c"] = numpy.zeros_like(state["c"])


def _rolled(state: Tree, before: Tree) -> None:
    state.update({name: numpy.roll(array, 1, axis=0) for name, array in state.items()})


def _kept(state: Tree, before: Tree) -> None:
    pass


def _first_alone(state: Tree, before: Tree) -> None:
    """What the prompt left is never replaced."""
    if any(array.any() for array in before.values()):
        state.update(before)


def carried_words(change: Callable[[Array], Array]) -> Function:
    """The model over a window of words, with what it carries spoilt."""

    def changed(p: Tree, *, cache: Any, **how: Any) -> tuple[Array, Function]:
        y, back = _window_states(p, cache=cache, **how)
        if cache is not None:
            cache.layers["past"] = change(cache.layers["past"])
        return y, back

    return changed


# fmt: off
MUTANTS = [
    Edited("RNN/tanh-sigmoid", "a sigmoid where tanh is asked for", edit(tanh, TANH, "y = sigmoid(x)")),
    Edited("RNN/tanh-of-exponentials", "tanh as (e^x - e^-x) / (e^x + e^-x): it overflows",
           edit(tanh, TANH, "y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))")),
    Edited("RNN/tanh-back-root", "tanh with the derivative 1 - y instead of 1 - y²",
           edit(tanh, TANH_BACK, "return dy * (1 - y)")),
    Edited("RNN/tanh-back-of-input", "tanh with the derivative 1 - x² instead of 1 - tanh² x",
           edit(tanh, TANH_BACK, "return dy * (1 - x * x)")),
    Edited("NNLM/oldest-first", "a window of words with the oldest first",
           edit(window, WINDOW, WINDOW.replace("in range(places)", "in reversed(range(places))"))),
    Edited("NNLM/without-current", "a window that begins with the word before the current one",
           seen("[past", "[zeros((B, 1, C), x), past")),
    Edited("NNLM/sees-next", "a window that begins with the next word: the one to be predicted",
           edit(window, SEEN, SEEN.replace("], axis=1)", ", zeros((B, 1, C), x)], axis=1)"),
                WINDOW, WINDOW.replace("before - k", "before + 1 - k"))),
    Edited("NNLM/bag-of-words", "a window with the mean of its words at every place",
           edit(window, WINDOW, "words = stack([seen[:, before - k : before - k + T] for k in range(places)], axis=0)\n"
                "return concatenate([sum(words, axis=0, keepdims=False) / places] * places, axis=-1), window_back")),
    Edited("NNLM/past-forgotten", "a window with zeros where the past is given", seen("[past", "[0 * past")),
    Edited("NNLM/past-newest-first", "a window that takes the past as newest first", seen("[past", "[past[:, ::-1]")),
    Edited("NNLM/padding-read", "a window that shows what stands at places of padding",
           edit(window, SEEN, "seen = concatenate([past, x], axis=1)")),
    Edited("NNLM/back-current-alone", "a window that gives a gradient to the current word alone",
           edit(window, SHIFTS, "for k in range(1):")),
    Edited("NNLM/back-past", "a window with no gradient to the past",
           edit(window, PULLED, PULLED.replace("dseen[:, :before]", "0 * past"))),
    Edited("NNLM/token-0-before-text", "a window model that reads token 0 before the text, where zeros belong",
           edit(nnlm, PAST, f'{PAST} + p["token"][0]')),
    Edited("NNLM/no-tanh", "a window model without its tanh", edit(nnlm, SQUASHED, "a = z")),
    Edited("NNLM/no-hidden-bias", "a window model without the bias of its tanh layer",
           edit(nnlm, HIDDEN, 'z = tap("window", x) @ p["H"]')),
    Edited("NNLM/no-direct", "a window model without its direct connections",
           edit(nnlm, LOGITS, 'return tap("logits", y), nnlm_back')),
    Edited("NNLM/no-output-bias", "a window model without the bias of its output",
           edit(nnlm, OUT, 'y = tap("hidden", a) @ p["U"]')),
    Edited("RNN-LM/last-layer-skipped", "a recurrent model without its last layer",
           edit(recurrent_lm, LAYERS, LAYERS.replace('p["layers"]', 'p["layers"][: max(1, len(p["layers"]) - 1)]'))),
    Edited("RNN-LM/back-tied-head-dropped", "a recurrent model whose tied head gives the embedding no gradient",
           edit(recurrent_lm, TIED, TIED.replace("dW,", '0 * dW if config["tied"] else dW,'))),
    Edited("RNN-LM/targets-not-shifted", "a recurrent model that is asked for the word it has just read",
           edit(recurrent_lm_loss, NLL, NLL.replace("targets=targets", "targets=ids"))),
    Edited("RNN-LM/mean-over-all", "the loss of a recurrent model averaged over ignored places too",
           edit(recurrent_lm_loss, NLL, NLL.replace("return", "y, back =")
                + "\nreturn y * (targets != ignore).mean(), back")),
    Edited("HYBRID/sees-future", "a hybrid whose attention is not causal",
           attended('not config["bidirectional"]', "False")),
    Edited("HYBRID/over-the-batch", "a hybrid whose attention runs over the texts of a batch instead of the words of a "
           "text", edit(hybrid_states, ATTENDED, ATTENDED.replace("x, p", "x.swapaxes(0, 1) if keys is None else x, p"),
                        RUN, RUN.replace("(\"attention\", a)", "(\"attention\", a.swapaxes(0, 1) if keys is None "
                                                               "else a)"))),
    Edited("HYBRID/with-residual", "a hybrid with a residual connection around its attention",
           edit(hybrid_states, RUN, RUN.replace("(\"attention\", a)", "(\"attention\", x + a)"))),
    Edited("HYBRID/always-causal", "a hybrid that is bidirectional and whose attention is causal",
           attended('not config["bidirectional"]', "True")),
    Edited("HYBRID/no-positions", "a hybrid without positions",
           edit(hybrid_states, PLACED, 'x = tap("embedding", words)')),
    Edited("HYBRID/positions-from-one", "a hybrid whose positions count from 1",
           edit(hybrid_states, PLACED, PLACED.replace("arange(T)", "arange(1, T + 1)"))),
    Edited("HYBRID/padding-attended", "a hybrid that attends to padding", attended("=keys", "=None")),
    Patch("GEN/state-not-carried", recurrent, "writing with states of zeros at every step",
           carried(_kept, fresh=True)),
    Patch("GEN/state-of-prompt", recurrent, "writing whose states stay those of the prompt", carried(_first_alone)),
    Patch("GEN/state-without-cell", recurrent, "writing that carries the state of an LSTM and forgets its cell",
           carried(_without_cell)),
    Patch("GEN/state-of-other-row", recurrent, "writing with the states of another row of the batch",
           carried(_rolled)),
    Patch("GEN/window-newest-first", window_model.hidden_states, "writing that carries its window newest first",
           carried_words(lambda past: past[:, ::-1].copy())),
    Patch("GEN/window-not-carried", window_model.hidden_states, "writing whose window is empty at every step",
           carried_words(numpy.zeros_like)),
]
