"""Mistakes of the recurrent layers: the step, the gates, the way through time and past the padding."""

from __future__ import annotations

from refllm.spec.recurrent import _gates, lstm, rnn
from refllm.verify.mutants.bank import Edited, Edits, edit

START, NEW = "T, states = x.shape[1], [h]", "new = tanh(x[:, t] @ Wx + states[t] @ Wh + b)"
HELD, SHOWN = "states.append(kept(token_mask, t, new, states[t]))", "return stack(states[1:], axis=1), rnn_back"
SLOPE = "dz[t] = kept(token_mask, t, dh * (1 - states[t + 1] * states[t + 1]), 0)"
STARTS, STEP = (
    "T, states, cells, gates = x.shape[1], [h], [c], []",
    "i, f, g, o = gate = _gates(x[:, t] @ Wx + states[t] @ Wh + b)",
)
CELL = "new = f * cells[t] + i * g"
HELD_CELL, OUT = (
    "cells.append(kept(token_mask, t, new, cells[t]))",
    "states.append(kept(token_mask, t, o * tanh(new), states[t]))",
)
RETURNED = "return (stack(states[1:], axis=1), cells[-1]), lstm_back"
GATES = "return sigmoid(z[:, :N]), sigmoid(z[:, N : 2 * N]), tanh(z[:, 2 * N : 3 * N]), sigmoid(z[:, 3 * N :])"
FIRST_ALONE = "if t == 1:\n    Wx, Wh, b = constant(Wx), constant(Wh), constant(b)\n"


def total(old: str, new: str) -> Edits:
    """Another sum that tanh is taken of."""
    return edit(rnn, NEW, NEW.replace(old, new))


def squashed(*lines: str) -> Edits:
    return edit(rnn, NEW, "\n".join(["z = x[:, t] @ Wx + states[t] @ Wh + b", *lines]))


def held(new: str) -> Edits:
    return edit(rnn, HELD, f"states.append({new})")


def shown(new: str) -> Edits:
    return edit(rnn, SHOWN, f"return {new}, rnn_back")


def of_gates(old: str, new: str) -> Edits:
    return edit(lstm, STEP, STEP.replace(old, new))


def ordered(i: int, f: int, g: int, o: int) -> Edits:
    """The gates from other quarters."""
    quarters = [f"z[:, {n} * N : {n + 1} * N]" for n in (i, f, g, o)]
    return edit(_gates, GATES, "return sigmoid({}), sigmoid({}), tanh({}), sigmoid({})".format(*quarters))


def peepholes(names: str, *further: str) -> Edits:
    """The cell before the step in the sums of these gates."""
    parts = {"i": "z[:, :N]", "f": "z[:, N : 2 * N]", "g": "z[:, 2 * N : 3 * N]", "o": "z[:, 3 * N :]"}
    seen = ", ".join(f"{part} + cells[t]" if name in names else part for name, part in parts.items())
    return edit(lstm, STEP, "z, N = x[:, t] @ Wx + states[t] @ Wh + b, h.shape[-1]\n"
                f"i, f, g, o = gate = _gates(concatenate([{seen}], axis=-1))", *further)  # fmt: skip


def cell(new: str) -> Edits:
    return edit(lstm, CELL, f"new = {new}")


def out(new: str) -> Edits:
    return edit(lstm, OUT, f"states.append(kept(token_mask, t, {new}, states[t]))")


def gates(sigmoid: str) -> Edits:
    """Another function in the place of the three sigmoids."""
    return edit(_gates, GATES, f"def s(z):\n    return {sigmoid}\n\n{GATES.replace('sigmoid(', 's(')}")


# fmt: off
MUTANTS = [
    Edited("RNN/no-tanh", "an RNN without its tanh", squashed("new = z")),
    Edited("RNN/sigmoid", "an RNN with a sigmoid instead of tanh", squashed("new = sigmoid(z)")),
    Edited("RNN/relu", "an RNN with ReLU instead of tanh", squashed("new = where(z > 0, z, 0)")),
    Edited("RNN/no-bias", "an RNN without the bias", total(" + b)", ")")),
    Edited("RNN/bias-twice", "an RNN with its bias twice, loaded into both biases of a framework",
           total(" + b)", " + b + b)")),
    Edited("RNN/next-input", "an RNN that reads the input of the next step, at the end that of the first",
           total("x[:, t]", "x[:, (t + 1) % T]")),
    Edited("RNN/previous-input", "an RNN that reads the input of the step before",
           total("x[:, t]", "x[:, max(0, t - 1)]")),
    Edited("RNN/reversed", "an RNN that goes through time backwards",
           edit(rnn, START, "x, token_mask = x[:, ::-1], None if token_mask is None else token_mask[:, ::-1]\n" + START,
                SHOWN, "return stack(states[:0:-1], axis=1), rnn_back")),
    Edited("RNN/time-first", "an RNN that takes the axes of batch and time for each other (where they are equal)",
           total("x[:, t]", "(x[t] if len(x) == T else x[:, t])")),
    Edited("RNN/weights-exchanged", "an RNN with the weights of input and state exchanged (where they are alike)",
           edit(rnn, START, f"{START}\nWx, Wh = (Wh, Wx) if Wx.shape == Wh.shape else (Wx, Wh)")),
    Edited("RNN/state-weights-transposed", "an RNN with the weights of the state transposed", total("Wh", "Wh.T")),
    Edited("RNN/no-recurrence", "an RNN that leaves the state before out of the sum", total(" + states[t] @ Wh", "")),
    Edited("RNN/state-of-zeros", "an RNN that begins with zeros instead of the state given",
           edit(rnn, START, "T, states = x.shape[1], [0 * h]")),
    Edited("RNN/state-not-carried", "an RNN whose every step begins with the first state",
           edit(rnn, NEW, NEW.replace("states[t]", "h"), HELD, HELD.replace("states[t]", "h"))),
    Edited("RNN/padding-read", "an RNN that reads padding as if it were input", held("new")),
    Edited("RNN/padding-inverted", "an RNN with `valid` inverted: true taken for padding",
           held("kept(None if token_mask is None else ~token_mask, t, new, states[t])")),
    Edited("RNN/padding-forgets", "an RNN whose state is zero after padding", held("kept(token_mask, t, new, 0)")),
    Edited("RNN/padding-first-state", "an RNN whose state after padding is not carried over but updated unseen",
           edit(rnn, HELD, "states.append(new)", SHOWN,
                "return stack([kept(token_mask, t, states[t + 1], 0) for t in range(T)], axis=1), rnn_back")),
    Edited("RNN/padding-shows-zeros", "an RNN that shows zeros where there is padding, not the state it carries",
           shown("stack([kept(token_mask, t, states[t + 1], 0) for t in range(T)], axis=1)")),
    Edited("RNN/back-truncated", "an RNN whose gradient does not go back through time",
           edit(rnn, NEW, f"before = constant(states[t]) if t else states[t]\n{NEW.replace('states[t]', 'before')}",
                HELD, HELD.replace("states[t]", "before"))),
    Edited("RNN/back-first-state", "an RNN with no gradient to the state given",
           edit(rnn, "return dx, dh, dWx, dWh, db", "return dx, 0 * dh, dWx, dWh, db")),
    Edited("RNN/back-first-step-alone", "an RNN whose gradients of the weights are overwritten in every step",
           edit(rnn, NEW, FIRST_ALONE + NEW)),
    Edited("RNN/back-slope", "an RNN with the derivative 1 - h of tanh instead of 1 - h²",
           edit(rnn, SLOPE, SLOPE.replace("states[t + 1] * states[t + 1]", "states[t + 1]"))),
    Edited("RNN/back-padding", "an RNN whose gradient does not pass the padding that the state passes",
           held("kept(token_mask, t, new, constant(states[t]))")),
    Edited("LSTM/order-igfo", "an LSTM with its gates in the order input, cell, forget, output", ordered(0, 2, 1, 3)),
    Edited("LSTM/order-iofg", "an LSTM with its gates in the order input, output, forget, cell, as in ONNX",
           ordered(0, 2, 3, 1)),
    Edited("LSTM/order-ifog", "an LSTM with its gates in the order input, forget, output, cell", ordered(0, 1, 3, 2)),
    Edited("LSTM/order-figo", "an LSTM with its gates in the order forget, input, cell, output", ordered(1, 0, 2, 3)),
    Edited("LSTM/no-bias", "an LSTM without the bias", of_gates(" + b)", ")")),
    Edited("LSTM/one-bias", "an LSTM whose four gates share one bias, that of the input gate",
           of_gates(" + b)", " + b[arange(len(b)) % (len(b) // 4)])"),
           "https://github.com/ddbourgin/numpy-ml/issues/42"),
    Edited("LSTM/bias-twice", "an LSTM with its bias twice, loaded into both biases of a framework",
           of_gates(" + b)", " + b + b)")),
    Edited("LSTM/forget-bias", "an LSTM that adds 1 to the forget gate in every step, not only at the start of "
           "training",
           edit(_gates, GATES, GATES.replace("2 * N])", "2 * N] + 1)"))),
    Edited("LSTM/forget-inverted", "an LSTM whose forget gate forgets where it is open",
           cell("(1 - f) * cells[t] + i * g")),
    Edited("LSTM/no-forgetting", "an LSTM without a forget gate, as in 1997", cell("cells[t] + i * g")),
    Edited("LSTM/coupled", "an LSTM whose input gate is 1 less the forget gate", cell("f * cells[t] + (1 - f) * g")),
    Edited("LSTM/no-input-gate", "an LSTM without its input gate", cell("f * cells[t] + g")),
    Edited("LSTM/no-output-gate", "an LSTM without its output gate", out("tanh(new)")),
    Edited("LSTM/output-of-plain-cell", "an LSTM without tanh over the cell at the output", out("o * new")),
    Edited("LSTM/output-of-old-cell", "an LSTM whose output is made of the cell before the step",
           out("o * tanh(cells[t])")),
    Edited("LSTM/candidate-sigmoid", "an LSTM with a sigmoid over what enters the cell",
           edit(_gates, GATES, GATES.replace("tanh(", "sigmoid("))),
    Edited("LSTM/candidate-plain", "an LSTM without tanh over what enters the cell",
           edit(_gates, GATES, GATES.replace("tanh(z[:, 2 * N : 3 * N])", "z[:, 2 * N : 3 * N]"))),
    Edited("LSTM/hard-sigmoid", "an LSTM with a clipped line for the sigmoid of its gates",
           gates("where(z < -2.5, 0, where(z > 2.5, 1, 0.2 * z + 0.5))")),
    Edited("LSTM/peepholes", "an LSTM whose gates see the cell too, as in peepholes of weight 1",
           peepholes("if", CELL, f"{CELL}\no = sigmoid(z[:, 3 * N :] + new)\ngate = i, f, g, o")),
    Edited("LSTM/peepholes-before", "an LSTM whose three gates see the cell before the step too",
           peepholes("ifo")),
    Edited("LSTM/peepholes-but-output", "an LSTM whose input and forget gates see the cell too", peepholes("if")),
    Edited("LSTM/gates-see-cell", "an LSTM whose gates look at the cell instead of the state",
           of_gates("states[t]", "cells[t]")),
    Edited("LSTM/sigmoid-overflows", "an LSTM whose sigmoid is e^x / (1 + e^x): it overflows",
           gates("exp(z) / (exp(z) + 1)"), dtype="float32"),
    Edited("LSTM/states-exchanged", "an LSTM that takes the two states given for each other",
           edit(lstm, STARTS, STARTS.replace("[h], [c]", "[c], [h]"))),
    Edited("LSTM/states-of-zeros", "an LSTM that begins with zeros instead of the states given",
           edit(lstm, STARTS, STARTS.replace("[h], [c]", "[0 * h], [0 * c]"))),
    Edited("LSTM/cell-of-zeros", "an LSTM that begins with a cell of zeros instead of the one given",
           edit(lstm, STARTS, STARTS.replace("[c]", "[0 * c]"))),
    Edited("LSTM/returns-state", "an LSTM that returns its last state where the last cell is asked for",
           edit(lstm, RETURNED, RETURNED.replace("cells[-1]", "states[-1]"))),
    Edited("LSTM/padding-read", "an LSTM that reads padding as if it were input",
           edit(lstm, HELD_CELL, "cells.append(new)", OUT, "states.append(o * tanh(new))")),
    Edited("LSTM/padding-changes-cell", "an LSTM whose state passes the padding and whose cell does not",
           edit(lstm, HELD_CELL, "cells.append(new)")),
    Edited("LSTM/back-cell-truncated", "an LSTM whose gradient does not go back along the cell",
           edit(lstm, CELL, CELL.replace("cells[t]", "constant(cells[t])"),
                HELD_CELL, HELD_CELL.replace("cells[t]", "constant(cells[t])"))),
    Edited("LSTM/back-state-truncated", "an LSTM whose gradient goes back along the cell alone",
           edit(lstm, STEP, STEP.replace("states[t]", "constant(states[t])"),
                OUT, OUT.replace("states[t]", "constant(states[t])"))),
    Edited("LSTM/back-last-cell", "an LSTM that drops the gradient of the cell it returns",
           edit(lstm, "dh, dc, dz = zeros(h.shape, h), dc_T, [h] * T",
                "dh, dc, dz = zeros(h.shape, h), 0 * dc_T, [h] * T"),
           "https://github.com/deeplearning4j/deeplearning4j/issues/8838"),
    Edited("LSTM/back-output-slope", "an LSTM without the derivative of tanh over the cell",
           edit(lstm, "dnew = dc + dh * o * (1 - s * s)", "dnew = dc + dh * o")),
    Edited("LSTM/back-first-step-alone", "an LSTM whose gradients of the weights are overwritten in every step",
           edit(lstm, STEP, FIRST_ALONE + STEP)),
    Edited("LSTM/back-padding", "an LSTM whose gradient does not pass the padding that the states pass",
           edit(lstm, HELD_CELL, HELD_CELL.replace("cells[t]", "constant(cells[t])"),
                OUT, OUT.replace("states[t]", "constant(states[t])"))),
]
