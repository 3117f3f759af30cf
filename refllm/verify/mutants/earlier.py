"""Mistakes of recurrent layers side by side and on top of each other, of the language models of them, and of what
these carry while they write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from refllm.backend import Array
from refllm.blocks.recurrent import recurrent
from refllm.blocks.self_attention import self_attention
from refllm.models import hybrid, nnlm, recurrent_lm
from refllm.ops.activation import tanh
from refllm.ops.linear import linear
from refllm.ops.position import sinusoidal
from refllm.ops.window import window
from refllm.parameters import Tree, map_leaves
from refllm.verify.families import earlier as family
from refllm.verify.mutants.autodiff import Node, constant, differentiable, exp, sigmoid, stack
from refllm.verify.mutants.bank import Function, Mutant, with_layers

HYBRID, NNLM, RECURRENT_LM = (model.__name__ for model in (hybrid, nnlm, recurrent_lm))
_recurrent, _nnlm_states, _nnlm_forward = recurrent, nnlm.hidden_states, nnlm.forward
_loss, _sinusoidal, _recurrent_states = family.loss, sinusoidal, recurrent_lm.hidden_states


def _same(x: Array) -> Array:
    return x


def windows(
    *,
    order: Callable[[list[Node]], list[Node]] = lambda words: words,
    shift: int = 0,
    before: Callable[[Node], Node] = lambda past: past,
    masked: bool = True,
    seen: Callable[[Node, int], Node] = lambda words, k: words,
) -> Function:
    """The window with a part exchanged: order(words) of [x_t, x_(t-1), ...], `shift` places further on."""

    @differentiable
    def changed(x: Node, past: Node, *, places: int, token_mask: Array | None) -> Node:
        T = x.shape[1]
        words = x if token_mask is None or not masked else x * token_mask[..., None].astype(x.value.dtype)
        earlier = before(past)
        line = [earlier[:, i] for i in range(places - 1)] + [words[:, t] for t in range(T)]
        nothing = constant(words[:, 0] * 0.0)
        rows = []
        for t in range(places - 1, places - 1 + T):
            row = order(
                [seen(line[t + shift - k] if 0 <= t + shift - k < len(line) else nothing, k) for k in range(places)]
            )
            B, C = row[0].shape
            rows.append(stack(row, 1).reshape(B, places * C))
        return stack(rows, 1)

    return changed


def _without_last_layer(p: Tree, *, config: Any, **how: Any) -> tuple[Array, Function]:
    """A layer fewer, where there are several."""
    kept = max(1, len(p["layers"]) - 1)
    y, back = _recurrent_states({**p, "layers": p["layers"][:kept]}, config=with_layers(config, kept), **how)
    missing = p["layers"][kept:]
    return y, lambda dy: {**(dp := back(dy)), "layers": [*dp["layers"], *map_leaves(numpy.zeros_like, missing)]}


def _detached_head(dp: Tree, dhead: Array, config: Any) -> Tree:
    return dp if config.tied else {**dp, "head": dhead}


def _attention(change: Callable[[Array], Array], **fixed: Any) -> Function:
    """Self-attention of a changed x, changed back; its own inverse."""

    def changed(x: Array, p: Tree, **how: Any) -> tuple[Array, Function]:
        y, back = self_attention(change(x), p, **{**how, **fixed})

        def pulled(dy: Array) -> tuple[Array, Tree]:
            dx, dp = back(change(dy))
            return change(dx), dp

        return change(y), pulled

    return changed


def _over_the_batch(x: Array, p: Tree, *, attention_mask: Array | None, **how: Any) -> tuple[Array, Function]:
    swap = attention_mask is None and how["cache"] is None
    return _attention((lambda z: z.swapaxes(0, 1)) if swap else _same)(x, p, attention_mask=attention_mask, **how)


def _with_residual(x: Array, p: Tree, **how: Any) -> tuple[Array, Function]:
    y, back = self_attention(x, p, **how)

    def pulled(dy: Array) -> tuple[Array, Tree]:
        dx, dp = back(dy)
        return dx + dy, dp

    return x + y, pulled


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
        y, back = _nnlm_states(p, cache=cache, **how)
        if cache is not None:
            cache.layers["past"] = change(cache.layers["past"])
        return y, back

    return changed


def _without(name: str) -> Function:
    """The window model without this matrix, which then has no gradient."""

    def changed(p: Tree, *, config: Any, **how: Any) -> tuple[Array, Function]:
        y, back = _nnlm_forward({**p, name: 0 * p[name]} if name in p else p, config=config, **how)
        return y, lambda dy: {**(dp := back(dy)), **({name: 0 * dp[name]} if name in p else {})}

    return changed


def _targets_read(name: str, p: Tree, *, ids: Array, targets: Array, **how: Any) -> Any:
    return _loss(name, p, ids=ids, targets=ids, **how)


def _averaged_over_all(name: str, p: Tree, *, targets: Array, ignore: int | None, **how: Any) -> Any:
    y, back, taps = _loss(name, p, targets=targets, ignore=ignore, **how)
    share = y.dtype.type(1.0 if ignore is None else (targets != ignore).mean())
    return y * share, lambda dy: back(dy * share), taps


_PLAIN = differentiable(lambda x: x * 1.0)

# fmt: off
MUTANTS = [
    Mutant("RNN/tanh-sigmoid", tanh, "a sigmoid where tanh is asked for", differentiable(sigmoid)),
    Mutant("RNN/tanh-of-exponentials", tanh, "tanh as (e^x - e^-x) / (e^x + e^-x): it overflows",
           differentiable(lambda x: (exp(x) - exp(-x)) / (exp(x) + exp(-x)))),
    Mutant("RNN/tanh-back-root", tanh, "tanh with the derivative 1 - y instead of 1 - y²",
           lambda x: (numpy.tanh(x), lambda dy: dy * (1 - numpy.tanh(x)))),
    Mutant("RNN/tanh-back-of-input", tanh, "tanh with the derivative 1 - x² instead of 1 - tanh² x",
           lambda x: (numpy.tanh(x), lambda dy: dy * (1 - x * x))),
    Mutant("NNLM/oldest-first", window, "a window of words with the oldest first",
           windows(order=lambda words: words[::-1])),
    Mutant("NNLM/without-current", window, "a window that begins with the word before the current one",
           windows(shift=-1)),
    Mutant("NNLM/sees-next", window, "a window that begins with the next word: the one to be predicted",
           windows(shift=1)),
    Mutant("NNLM/bag-of-words", window, "a window with the mean of its words at every place",
           windows(order=lambda words: [sum(words[1:], words[0]) * (1 / len(words))] * len(words))),
    Mutant("NNLM/past-forgotten", window, "a window with zeros where the past is given",
           windows(before=lambda past: constant(past * 0.0))),
    Mutant("NNLM/past-newest-first", window, "a window that takes the past as newest first",
           windows(before=lambda past: past[:, ::-1])),
    Mutant("NNLM/padding-read", window, "a window that shows what stands at places of padding", windows(masked=False)),
    Mutant("NNLM/back-current-alone", window, "a window that gives a gradient to the current word alone",
           windows(seen=lambda word, k: word if k == 0 else constant(word))),
    Mutant("NNLM/back-past", window, "a window with no gradient to the past", windows(before=constant)),
    Mutant("NNLM/no-tanh", tanh, "a window model without its tanh", _PLAIN, within=NNLM),
    Mutant("NNLM/no-hidden-bias", linear, "a window model without the bias of its tanh layer",
           differentiable(lambda x, W, b: x @ W), within=NNLM),
    Mutant("NNLM/no-direct", nnlm.forward, "a window model without its direct connections", _without("W")),
    Mutant("NNLM/no-output-bias", nnlm.forward, "a window model without the bias of its output", _without("b")),
    Mutant("RNN-LM/last-layer-skipped", recurrent_lm.hidden_states, "a recurrent model without its last layer",
           _without_last_layer),
    Mutant("RNN-LM/back-tied-head-dropped", recurrent_lm.add_head_gradient, "a recurrent model whose tied head gives "
           "the embedding no gradient", _detached_head, within=recurrent_lm.__name__),
    Mutant("RNN-LM/targets-not-shifted", family.loss, "a recurrent model that is asked for the word it has just read",
           _targets_read),
    Mutant("RNN-LM/mean-over-all", family.loss, "the loss of a recurrent model averaged over ignored places too",
           _averaged_over_all),
    Mutant("HYBRID/sees-future", self_attention, "a hybrid whose attention is not causal",
           _attention(_same, causal=False), within=HYBRID),
    Mutant("HYBRID/over-the-batch", self_attention, "a hybrid whose attention runs over the texts of a batch instead "
           "of the words of a text", _over_the_batch, within=HYBRID),
    Mutant("HYBRID/with-residual", self_attention, "a hybrid with a residual connection around its attention",
           _with_residual, within=HYBRID),
    Mutant("HYBRID/always-causal", self_attention, "a hybrid that is bidirectional and whose attention is causal",
           _attention(_same, causal=True), within=HYBRID),
    Mutant("HYBRID/no-positions", sinusoidal, "a hybrid without positions",
           lambda p, *, width: (numpy.zeros((*p.shape, width), p.dtype), lambda dy: numpy.zeros_like(p)),
           within=HYBRID),
    Mutant("HYBRID/positions-from-one", sinusoidal, "a hybrid whose positions count from 1",
           lambda p, *, width: _sinusoidal(p + 1, width=width),
           within=HYBRID),
    Mutant("HYBRID/padding-attended", self_attention, "a hybrid that attends to padding",
           _attention(_same, attention_mask=None), within=HYBRID),
    Mutant("GEN/state-not-carried", recurrent, "writing with states of zeros at every step",
           carried(_kept, fresh=True)),
    Mutant("GEN/state-of-prompt", recurrent, "writing whose states stay those of the prompt", carried(_first_alone)),
    Mutant("GEN/state-without-cell", recurrent, "writing that carries the state of an LSTM and forgets its cell",
           carried(_without_cell)),
    Mutant("GEN/state-of-other-row", recurrent, "writing with the states of another row of the batch",
           carried(_rolled)),
    Mutant("GEN/window-newest-first", nnlm.hidden_states, "writing that carries its window newest first",
           carried_words(lambda past: past[:, ::-1].copy())),
    Mutant("GEN/window-not-carried", nnlm.hidden_states, "writing whose window is empty at every step",
           carried_words(numpy.zeros_like)),
]
