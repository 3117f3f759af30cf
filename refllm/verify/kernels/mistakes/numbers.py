"""Mistakes of recurrent steps, of functions of single numbers, and of dropout."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.elementwise import below, dropout, gelu_tanh, silu, tanh
from refllm.verify.kernels.steps import lstm
from refllm.verify.mutants.bank import edit

Z = "z = [x[:, t] @ Wx[:, part] + states[t] @ Wh[:, part] + b[part] for part in columns]"
NEW_C = "new_c[:, block] = numpy.where(there[:, t, None], cell, cells[t][:, block])"
BITS = "flat, bits, y = x.reshape(-1), keep.reshape(-1), unwritten((x.size,), x)"
KEPT = "y[block] = numpy.where(bits[block], flat[block] / (1 - rate), 0)"
KEPT_BACK = "dx[block] = numpy.where(bits[block], given[block] / (1 - rate), 0)"
GELU = "y[block] = 0.5 * a * (1 + t)"

G = "https://github.com/"
# fmt: off
MISTAKES = [
    Mistake("lstm/state-in-place", "an LSTM whose later blocks read the new state of the earlier ones",
            edit(lstm, Z, "mixed = numpy.concatenate([new_h[:, : block.start], states[t][:, block.start :]], axis=1)\n"
                 "z = [x[:, t] @ Wx[:, part] + mixed @ Wh[:, part] + b[part] for part in columns]")),
    Mistake("lstm/bfloat16-cell", "an LSTM whose cell is bfloat16",
            edit(lstm, NEW_C, 'new_c[:, block] = narrow(numpy.where(there[:, t, None], cell, cells[t][:, block]), '
                 '"bfloat16")')),
    Mistake("lstm/ragged-steps-taken", "an LSTM whose cell goes on where there is no token",
            edit(lstm, NEW_C, "new_c[:, block] = cell"), G + "pytorch/pytorch/issues/1811"),
    Mistake("lstm/last-block-unwritten", "an LSTM that does not write the last, partial block of its state",
            edit(lstm, "for block in tiles(N, TILE):", "new_h[:], new_c[:] = 0, 0\n"
                 "for block in tiles(N // TILE * TILE, TILE):")),
    Mistake("lstm/state-of-same-step", "a weight gradient from the state after the step",
            edit(lstm, "dWh += swap(states[t]) @ dz", "dWh += swap(states[t + 1]) @ dz")),
    Mistake("lstm/weights-of-last-step", "a weight gradient of the first step alone",
            edit(lstm, "dWx += swap(x[:, t]) @ dz", "dWx = swap(x[:, t]) @ dz")),
    Mistake("lstm/cell-gradient-lost", "a gradient that does not pass through the cell",
            edit(lstm, "dc = numpy.where(mask, dcell * f, dc)", "dc = numpy.where(mask, 0, dc)"),
            G + "deeplearning4j/deeplearning4j/issues/8838"),
    Mistake("gelu_tanh/overflow", "GELU whose tanh is (e^2z - 1) / (e^2z + 1), which is NaN for large z",
            edit(tanh, "return numpy.tanh(z)", "return (numpy.exp(2 * z) - 1) / (numpy.exp(2 * z) + 1)")),
    Mistake("gelu_tanh/fast-tanh", "GELU whose tanh has 11 bits",
            edit(tanh, "return numpy.tanh(z)", 'return narrow(numpy.tanh(z), "float16")')),
    Mistake("gelu_tanh/tail-unwritten", "GELU that does not write the last, partial vector of four",
            edit(gelu_tanh, GELU, "whole = len(a) // 4 * 4\ny[block][:whole] = (0.5 * a * (1 + t))[:whole]")),
    Mistake("gelu_tanh/slope-without-cube", "a GELU gradient without the slope of the cube",
            edit(gelu_tanh, "slope = (1 - t * t) * ROOT * (1 + 3 * 0.044715 * a * a)", "slope = (1 - t * t) * ROOT")),
    Mistake("silu/fast-exponential", "SiLU whose exponential has 11 bits",
            edit(below, "e = numpy.exp(-abs(z))", 'e = narrow(numpy.exp(-abs(z)), "float16")')),
    Mistake("silu/overflow", "SiLU whose gradient is NaN where e^x overflows",
            edit(below, "return numpy.where(z >= 0, 1, e) / (1 + e)", "return numpy.exp(z) / (1 + numpy.exp(z))")),
    Mistake("silu/lane-lost", "SiLU of which the fourth of each four numbers is not written",
            edit(silu, "y[block] = a * below(a)", "kept = numpy.arange(len(a)) % 4 < 3\n"
                 "y[block] = numpy.where(kept, a * below(a), y[block])")),
    Mistake("dropout/gradient-unscaled", "a dropout whose gradient is not scaled",
            edit(dropout, KEPT_BACK, "dx[block] = numpy.where(bits[block], given[block], 0)")),
    Mistake("dropout/counter-by-block", "a dropout whose mask begins again in every block",
            edit(dropout, KEPT,
                 "y[block] = numpy.where(bits[: block.stop - block.start], flat[block] / (1 - rate), 0)")),
    Mistake("dropout/last-word", "a dropout whose mask ends with its last whole word of 32 bits",
            edit(dropout, KEPT, "word = numpy.arange(block.start, block.stop) < x.size // 32 * 32\n"
                 "y[block] = numpy.where(bits[block] & word, flat[block] / (1 - rate), 0)")),
    Mistake("dropout/mask-rows-padded",
            "a dropout whose mask has rows of whole words of 32 bits, which are read as if no bits were between them",
            edit(dropout, BITS, BITS + "\nW = x.shape[-1] if x.ndim and x.size else 1\n"
                 "held = numpy.zeros((x.size // W, -(-W // 32) * 32), bool)\n"
                 "held[:, :W] = bits.reshape(-1, W)\n"
                 "row, column = numpy.divmod(numpy.arange(x.size), W)\n"
                 "bits = held.reshape(-1, 32)[row * (W // 32) + column // 32, column % 32]")),
    Mistake("dropout/other-mask-backward", "a dropout whose gradient has a mask one place on",
            edit(dropout, KEPT_BACK,
                 "dx[block] = numpy.where(numpy.roll(bits, 1)[block], given[block] / (1 - rate), 0)")),
]
