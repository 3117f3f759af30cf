"""Mistakes of the gated recurrent unit."""

from __future__ import annotations

from refllm.spec.gated_recurrent import _gates, gru_reset_after, gru_reset_before
from refllm.verify.mutants.bank import Edited, Edits, edit

NEW = "n = tanh(s[:, 2 * N :] + (r * states[t]) @ C)"
NEW_AFTER = "n = tanh(s[:, 2 * N :] + r * q)"
STEP = "states.append(kept(token_mask, t, z * states[t] + (1 - z) * n, states[t]))"
GATES = "return sigmoid(s[:, :N]), sigmoid(s[:, N:])"
BACK = "dh = kept(token_mask, t, dh * z + du * r + a @ G.T, dh)"
BACK_AFTER = "dh = kept(token_mask, t, dh * z + du[t] @ Wh.T, dh)"
SLOPE = "dn = dh * (1 - z) * (1 - n * n)"


def step(new: str) -> Edits:
    """Another state after each step, in both forms."""
    return edit(gru_reset_before, STEP, f"states.append({new})") + edit(gru_reset_after, STEP, f"states.append({new})")


def after(new: str) -> Edits:
    return edit(gru_reset_after, NEW_AFTER, f"n = tanh({new})")


# fmt: off
MUTANTS = [
    Edited("GRU/reset-after-for-before", "a reset gate that acts on the product, where it should act on the state",
           edit(gru_reset_before, NEW, "n = tanh(s[:, 2 * N :] + r * (states[t] @ C))")),
    Edited("GRU/reset-before-for-after", "a reset gate that acts on the state, where it should act on the product",
           after("s[:, 2 * N :] + (r * states[t]) @ Wh[:, 2 * N :] + c"),
           "https://github.com/microsoft/onnxscript/issues/2852"),
    Edited("GRU/inner-bias-outside", "an inner bias that is not reset with the product",
           after("s[:, 2 * N :] + r * u[:, 2 * N :] + c")),
    Edited("GRU/outer-bias-inside", "the whole sum reset, with what is read",
           after("r * (s[:, 2 * N :] + q)")),
    Edited("GRU/not-reset", "a new state that sees the whole one before",
           edit(gru_reset_before, NEW, "n = tanh(s[:, 2 * N :] + states[t] @ C)")
           + after("s[:, 2 * N :] + q")),
    Edited("GRU/update-reversed", "an update gate that keeps what it should renew: (1 - z) h + z n",
           step("kept(token_mask, t, (1 - z) * states[t] + z * n, states[t])")),
    Edited("GRU/gates-exchanged", "the update gate's columns before the reset gate's",
           edit(_gates, GATES, "return sigmoid(s[:, N:]), sigmoid(s[:, :N])")),
    Edited("GRU/not-mixed", "the old state added whole: h + (1 - z) n",
           step("kept(token_mask, t, states[t] + (1 - z) * n, states[t])")),
    Edited("GRU/new-state-sigmoid", "a new state by the sigmoid instead of tanh",
           edit(gru_reset_before, NEW, "n = sigmoid(s[:, 2 * N :] + (r * states[t]) @ C)")
           + edit(gru_reset_after, NEW_AFTER, "n = sigmoid(s[:, 2 * N :] + r * q)")),
    Edited("GRU/padding-read", "padding that changes the state", step("z * states[t] + (1 - z) * n")),
    Edited("GRU/back-without-keeping", "a gradient that does not pass by the state that was kept",
           edit(gru_reset_before, BACK, "dh = kept(token_mask, t, du * r + a @ G.T, dh)")
           + edit(gru_reset_after, BACK_AFTER, "dh = kept(token_mask, t, du[t] @ Wh.T, dh)")),
    Edited("GRU/back-not-through-reset", "a gradient that does not pass through the state that was reset",
           edit(gru_reset_before, BACK, "dh = kept(token_mask, t, dh * z + a @ G.T, dh)")),
    Edited("GRU/back-without-tanh", "a gradient without the slope of tanh",
           edit(gru_reset_before, SLOPE, "dn = dh * (1 - z)") + edit(gru_reset_after, SLOPE, "dn = dh * (1 - z)")),
    Edited("GRU/zero-state-skipped", "a first step from zeros without the product, and without the inner bias",
           edit(gru_reset_after, "s, u = x[:, t] @ Wx + b, states[t] @ Wh", "first = not t and not (h != 0).any()\n"
                "s, u = x[:, t] @ Wx + b, constant(states[t] @ Wh) if first else states[t] @ Wh",
                "q = u[:, 2 * N :] + c", "q = u[:, 2 * N :] + (0 * c if first else c)"),
           "https://github.com/ml-explore/mlx/pull/3249"),
    Edited("GRU/back-inner-bias", "an inner bias with the gradient of the outer one",
           edit(gru_reset_after, "return dx, dh, dWx, dWh, db, rows(stack(du, axis=1))[2 * N :]",
                "return dx, dh, dWx, dWh, db, db[2 * N :]")),
]
