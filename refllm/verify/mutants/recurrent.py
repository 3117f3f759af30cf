"""Mistakes of the recurrent layers: the step, the gates, the way through time and past the padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy

from refllm.backend import Array
from refllm.ops.recurrent import lstm, rnn
from refllm.verify.mutants.autodiff import Node, constant, differentiable, elementwise, exp, sigmoid, stack, tanh, where
from refllm.verify.mutants.bank import Function, Mutant

Held = Callable[[Array, Node, Node], Node]
Gates = tuple[Node, Node, Node, Node]


def _held(token_mask: Array, now: Node, before: Node) -> Node:
    """A state after a step: the one before where there is padding."""
    return where(token_mask, now, before)


def _mask(x: Node, token_mask: Array | None) -> Array:
    return numpy.ones((*x.shape[:2], 1), bool) if token_mask is None else token_mask[..., None]


def simple(
    *,
    total: Callable[..., Node] = lambda x, h, Wx, Wh, b: x @ Wx + h @ Wh + b,
    f: Callable[[Node], Node] = tanh,
    read: Callable[[Node, int], Node] = lambda x, t: x[:, t],
    start: Callable[[Node], Node] = lambda h: h,
    before: Callable[[Node, Node], Node] = lambda h, first: h,
    weights: Callable[[Node, int], Node] = lambda W, t: W,
    held: Held = _held,
    seen: Held = lambda token_mask, now, held: held,
    order: Callable[[int], range] = range,
    mask: Callable[[Node, Array | None], Array] = _mask,
) -> Function:
    """The RNN with a part exchanged: before(h, first) is what a step begins with, held(valid, now, h) what it leaves
    to the next, seen(valid, now, held) what it shows."""

    @differentiable
    def changed(x: Node, h: Node, Wx: Node, Wh: Node, b: Node, *, token_mask: Array | None) -> Node:
        may, states, first = mask(x, token_mask), {}, start(h)
        h = first
        for t in order(x.shape[1]):
            h = before(h, first)
            now = f(total(read(x, t), h, *(weights(W, t) for W in (Wx, Wh, b))))
            h = held(may[:, t], now, h)
            states[t] = seen(may[:, t], now, h)
        return stack([states[t] for t in sorted(states)], 1)

    return changed


def _ordered(places: str) -> Callable[[Node], Gates]:
    """The sum cut into the four parts i, f, g, o that stand in it in this order."""

    def cut(z: Node) -> Gates:
        N = z.shape[-1] // 4
        at = {name: z[:, n * N : (n + 1) * N] for n, name in enumerate(places)}
        return at["i"], at["f"], at["g"], at["o"]

    return cut


_customary = _ordered("ifgo")


def _forgets_less(z: Node) -> Gates:
    i, f, g, o = _customary(z)
    return i, f + 1.0, g, o


def gated(
    *,
    total: Callable[..., Node] = lambda x, h, c, Wx, Wh, b: x @ Wx + h @ Wh + b,
    cut: Callable[[Node], Gates] = _customary,
    gate: Callable[[Node], Node] = sigmoid,
    candidate: Callable[[Node], Node] = tanh,
    cell: Callable[..., Node] = lambda i, f, g, c: f * c + i * g,
    out: Callable[[Node, Node], Node] = lambda o, c: o * tanh(c),
    start: Callable[[Node, Node], tuple[Node, Node]] = lambda h, c: (h, c),
    before: Callable[[Node, Node], tuple[Node, Node]] = lambda h, c: (h, c),
    weights: Callable[[Node, int], Node] = lambda W, t: W,
    held: Held = _held,
    held_cell: Held = _held,
    last: Callable[[Node, Node], Node] = lambda h, c: c,
) -> Function:
    """The LSTM with a part exchanged."""

    @differentiable
    def changed(
        x: Node, h: Node, c: Node, Wx: Node, Wh: Node, b: Node, *, token_mask: Array | None
    ) -> tuple[Node, Node]:
        may, states = _mask(x, token_mask), []
        h, c = start(h, c)
        for t in range(x.shape[1]):
            h, c = before(h, c)
            i, f, g, o = cut(total(x[:, t], h, c, *(weights(W, t) for W in (Wx, Wh, b))))
            new = cell(gate(i), gate(f), candidate(g), c)
            h, c = held(may[:, t], out(gate(o), new), h), held_cell(may[:, t], new, c)
            states.append(h)
        return stack(states, 1), last(h, c)

    return changed


def _square(W: Node) -> Node:
    return W.swap() if W.shape[0] == W.shape[1] else W


def _exchanged(x: Node, h: Node, Wx: Node, Wh: Node, b: Node) -> Node:
    return x @ Wh + h @ Wx + b if Wx.shape == Wh.shape else x @ Wx + h @ Wh + b


def _slope_of_root(z: Node) -> Node:
    """tanh whose pullback takes 1 - y for 1 - y²."""
    y = numpy.tanh(z.value)
    return elementwise(z, y, 1 - y)


def _time_first(x: Node, t: int) -> Node:
    return x[t] if x.shape[0] == x.shape[1] else x[:, t]


def _of_the_first(b: Node) -> Node:
    return b[numpy.arange(b.shape[-1]) % (b.shape[-1] // 4)]


def _hard(z: Node) -> Node:
    """The sigmoid that early Keras has: a line from 0 to 1, clipped."""
    line = 0.2 * z + 0.5
    return where(line.value < 0, 0.0, where(line.value > 1, 1.0, line))


def _growing(z: Node) -> Node:
    return exp(z) / (exp(z) + 1.0)


def _unpassed(token_mask: Array, now: Node, before: Node) -> Node:
    """The state passes the padding, and its gradient does not."""
    return where(token_mask, now, constant(before))


def _through(c: Node) -> Node:
    """tanh whose pullback is that of the identity."""
    return Node(numpy.tanh(c.value), (c, lambda d: d))


# fmt: off
MUTANTS = [
    Mutant("RNN/no-tanh", rnn, "an RNN without its tanh", simple(f=lambda z: z)),
    Mutant("RNN/sigmoid", rnn, "an RNN with a sigmoid instead of tanh", simple(f=sigmoid)),
    Mutant("RNN/relu", rnn, "an RNN with ReLU instead of tanh", simple(f=lambda z: where(z.value > 0, z, 0.0))),
    Mutant("RNN/no-bias", rnn, "an RNN without the bias", simple(total=lambda x, h, Wx, Wh, b: x @ Wx + h @ Wh)),
    Mutant("RNN/bias-twice", rnn, "an RNN with its bias twice, loaded into both biases of a framework",
           simple(total=lambda x, h, Wx, Wh, b: x @ Wx + h @ Wh + b + b)),
    Mutant("RNN/next-input", rnn, "an RNN that reads the input of the next step, at the end that of the first",
           simple(read=lambda x, t: x[:, (t + 1) % x.shape[1]])),
    Mutant("RNN/previous-input", rnn, "an RNN that reads the input of the step before",
           simple(read=lambda x, t: x[:, max(0, t - 1)])),
    Mutant("RNN/reversed", rnn, "an RNN that goes through time backwards",
           simple(order=lambda T: range(T - 1, -1, -1))),
    Mutant("RNN/time-first", rnn, "an RNN that takes the axes of batch and time for each other (where they are equal)",
           simple(read=_time_first)),
    Mutant("RNN/weights-exchanged", rnn, "an RNN with the weights of input and state exchanged (where they are alike)",
           simple(total=_exchanged)),
    Mutant("RNN/state-weights-transposed", rnn, "an RNN with the weights of the state transposed",
           simple(total=lambda x, h, Wx, Wh, b: x @ Wx + h @ Wh.swap() + b)),
    Mutant("RNN/no-recurrence", rnn, "an RNN that leaves the state before out of the sum",
           simple(total=lambda x, h, Wx, Wh, b: x @ Wx + b)),
    Mutant("RNN/state-of-zeros", rnn, "an RNN that begins with zeros instead of the state given",
           simple(start=lambda h: constant(h * 0.0))),
    Mutant("RNN/state-not-carried", rnn, "an RNN whose every step begins with the first state",
           simple(before=lambda h, first: first)),
    Mutant("RNN/padding-read", rnn, "an RNN that reads padding as if it were input",
           simple(mask=lambda x, token_mask: _mask(x, None))),
    Mutant("RNN/padding-inverted", rnn, "an RNN with `valid` inverted: true taken for padding",
           simple(mask=lambda x, token_mask: _mask(x, None if token_mask is None else ~token_mask))),
    Mutant("RNN/padding-forgets", rnn, "an RNN whose state is zero after padding",
           simple(held=lambda token_mask, now, h: where(token_mask, now, 0.0))),
    Mutant("RNN/padding-first-state", rnn, "an RNN whose state after padding is not carried over but updated unseen",
           simple(held=lambda token_mask, now, h: now, seen=lambda token_mask, now, h: where(token_mask, now, 0.0))),
    Mutant("RNN/padding-shows-zeros", rnn, "an RNN that shows zeros where there is padding, not the state it carries",
           simple(seen=lambda token_mask, now, h: where(token_mask, h, 0.0))),
    Mutant("RNN/back-truncated", rnn, "an RNN whose gradient does not go back through time",
           simple(before=lambda h, first: h if h is first else constant(h))),
    Mutant("RNN/back-first-state", rnn, "an RNN with no gradient to the state given",
           simple(start=constant)),
    Mutant("RNN/back-first-step-alone", rnn, "an RNN whose gradients of the weights are overwritten in every step",
           simple(weights=lambda W, t: W if t == 0 else constant(W))),
    Mutant("RNN/back-slope", rnn, "an RNN with the derivative 1 - h of tanh instead of 1 - h²",
           simple(f=_slope_of_root)),
    Mutant("RNN/back-padding", rnn, "an RNN whose gradient does not pass the padding that the state passes",
           simple(held=_unpassed)),
    Mutant("LSTM/order-igfo", lstm, "an LSTM with its gates in the order input, cell, forget, output",
           gated(cut=_ordered("igfo"))),
    Mutant("LSTM/order-iofg", lstm, "an LSTM with its gates in the order input, output, forget, cell, as in ONNX",
           gated(cut=_ordered("iofg"))),
    Mutant("LSTM/order-ifog", lstm, "an LSTM with its gates in the order input, forget, output, cell",
           gated(cut=_ordered("ifog"))),
    Mutant("LSTM/order-figo", lstm, "an LSTM with its gates in the order forget, input, cell, output",
           gated(cut=_ordered("figo"))),
    Mutant("LSTM/no-bias", lstm, "an LSTM without the bias",
           gated(total=lambda x, h, c, Wx, Wh, b: x @ Wx + h @ Wh)),
    Mutant("LSTM/one-bias", lstm, "an LSTM whose four gates share one bias, that of the input gate",
           gated(total=lambda x, h, c, Wx, Wh, b: x @ Wx + h @ Wh + _of_the_first(b)),
           "https://github.com/ddbourgin/numpy-ml/issues/42"),
    Mutant("LSTM/bias-twice", lstm, "an LSTM with its bias twice, loaded into both biases of a framework",
           gated(total=lambda x, h, c, Wx, Wh, b: x @ Wx + h @ Wh + b + b)),
    Mutant("LSTM/forget-bias", lstm, "an LSTM that adds 1 to the forget gate in every step, not only at the start of "
           "training", gated(cut=_forgets_less)),
    Mutant("LSTM/forget-inverted", lstm, "an LSTM whose forget gate forgets where it is open",
           gated(cell=lambda i, f, g, c: (1.0 - f) * c + i * g)),
    Mutant("LSTM/no-forgetting", lstm, "an LSTM without a forget gate, as in 1997",
           gated(cell=lambda i, f, g, c: c + i * g)),
    Mutant("LSTM/coupled", lstm, "an LSTM whose input gate is 1 less the forget gate",
           gated(cell=lambda i, f, g, c: f * c + (1.0 - f) * g)),
    Mutant("LSTM/no-input-gate", lstm, "an LSTM without its input gate", gated(cell=lambda i, f, g, c: f * c + g)),
    Mutant("LSTM/no-output-gate", lstm, "an LSTM without its output gate", gated(out=lambda o, c: tanh(c))),
    Mutant("LSTM/output-of-plain-cell", lstm, "an LSTM without tanh over the cell at the output",
           gated(out=lambda o, c: o * c)),
    Mutant("LSTM/candidate-sigmoid", lstm, "an LSTM with a sigmoid over what enters the cell",
           gated(candidate=sigmoid)),
    Mutant("LSTM/candidate-plain", lstm, "an LSTM without tanh over what enters the cell",
           gated(candidate=lambda g: g)),
    Mutant("LSTM/hard-sigmoid", lstm, "an LSTM with a clipped line for the sigmoid of its gates", gated(gate=_hard)),
    Mutant("LSTM/gates-see-cell", lstm, "an LSTM whose gates look at the cell instead of the state",
           gated(total=lambda x, h, c, Wx, Wh, b: x @ Wx + c @ Wh + b)),
    Mutant("LSTM/sigmoid-overflows", lstm, "an LSTM whose sigmoid is e^x / (1 + e^x): it overflows",
           gated(gate=_growing), dtype="float32"),
    Mutant("LSTM/states-exchanged", lstm, "an LSTM that takes the two states given for each other",
           gated(start=lambda h, c: (c, h))),
    Mutant("LSTM/states-of-zeros", lstm, "an LSTM that begins with zeros instead of the states given",
           gated(start=lambda h, c: (constant(h * 0.0), constant(c * 0.0)))),
    Mutant("LSTM/cell-of-zeros", lstm, "an LSTM that begins with a cell of zeros instead of the one given",
           gated(start=lambda h, c: (h, constant(c * 0.0)))),
    Mutant("LSTM/returns-state", lstm, "an LSTM that returns its last state where the last cell is asked for",
           gated(last=lambda h, c: h)),
    Mutant("LSTM/padding-read", lstm, "an LSTM that reads padding as if it were input",
           gated(held=lambda token_mask, now, h: now, held_cell=lambda token_mask, now, c: now)),
    Mutant("LSTM/padding-changes-cell", lstm, "an LSTM whose state passes the padding and whose cell does not",
           gated(held_cell=lambda token_mask, now, c: now)),
    Mutant("LSTM/back-cell-truncated", lstm, "an LSTM whose gradient does not go back along the cell",
           gated(before=lambda h, c: (h, constant(c)))),
    Mutant("LSTM/back-state-truncated", lstm, "an LSTM whose gradient goes back along the cell alone",
           gated(before=lambda h, c: (constant(h), c))),
    Mutant("LSTM/back-last-cell", lstm, "an LSTM that drops the gradient of the cell it returns",
           gated(last=lambda h, c: constant(c)),
           "https://github.com/deeplearning4j/deeplearning4j/issues/8838"),
    Mutant("LSTM/back-output-slope", lstm, "an LSTM without the derivative of tanh over the cell",
           gated(out=lambda o, c: o * _through(c))),
    Mutant("LSTM/back-first-step-alone", lstm, "an LSTM whose gradients of the weights are overwritten in every step",
           gated(weights=lambda W, t: W if t == 0 else constant(W))),
    Mutant("LSTM/back-padding", lstm, "an LSTM whose gradient does not pass the padding that the states pass",
           gated(held=_unpassed, held_cell=_unpassed)),
]
