"""Mistakes of the operations of a switch layer: the gate, the balance, the way to the experts and back."""

from __future__ import annotations

from refllm.spec.routing import combine, dispatch, expert_linear, expert_matmul, gate, load_balance
from refllm.verify.mutants.bank import Edited, Edits, edit

GATE, GATE_BACK = "return pick(p, chosen), gate_back", "return where(one_hot(chosen, p.shape[-1]), dy[..., None], 0)"
BALANCE = "return E * sum(f * P, keepdims=False), load_balance_back"
COUNTED = "counted = (everywhere(chosen.shape) if token_mask is None else token_mask)[..., None]"
F = "f = like((one_hot(chosen, E) & counted).sum(axis=-2), p) / count"
P = "P = sum(where(counted, p, 0), axis=-2, keepdims=False) / count"
BALANCE_BACK = "return where(counted, (dy[..., None] * E * f / count)[..., None, :], 0)"
SENT, SENT_BACK = "index = _through_all_groups(slots, size)", "return _taken(dy.reshape(y.shape), index)"
FROM = "index = _through_all_groups(slots, z.shape[-3] * z.shape[-2])"
BROUGHT, BROUGHT_BACK = (
    "return g[..., None] * taken, combine_back",
    "return dz.reshape(z.shape), sum(dy * taken, keepdims=False)",
)
MATMUL, MATMUL_BACK = "return x @ W, expert_matmul_back", "return dy @ swap(W), rows(per_group).reshape(W.shape)"
LINEAR, BIASED = "y, expert_matmul_back = expert_matmul(x, W)", "return y + b[:, None, :], expert_linear_back"
LINEAR_BACK = "return *expert_matmul_back(dy), db.reshape(b.shape)"
ROWS = "N = x.size // (x.shape[-1] * len(W))"
FIRST_TEXT = "slots = spread(slots[:1], slots.shape) if slots.ndim > 1 else slots"


def gated(new: str) -> Edits:
    return edit(gate, GATE, f"return {new}, gate_back")


def balanced(new: str) -> Edits:
    return edit(load_balance, BALANCE, f"return {new}, load_balance_back")


def variation(x: str) -> str:
    """The squared deviation of all experts by their squared mean; 0 for nothing."""
    apart = f"({x} - mean({x}))"
    return f"mean({apart} * {apart}) / (mean({x}) * mean({x}) + is_zero(mean({x})))"


def products(new: str) -> Edits:
    return edit(expert_matmul, MATMUL, f"return {new}, expert_matmul_back")


# fmt: off
MUTANTS = [
    Edited("MOE/gate-one", "the switch gate without the probability: 1", gated("0 * pick(p, chosen) + 1")),
    Edited("MOE/gate-second", "the switch gate with the probability of the second-best expert",
           gated("pick(p, second_best(p, chosen))")),
    Edited("MOE/gate-first", "the switch gate with the first expert's probability", gated("pick(p, 0 * chosen)")),
    Edited("MOE/back-gate-none", "the switch gate with no gradient: the router does not learn",
           edit(gate, GATE_BACK, "return 0 * p")),
    Edited("MOE/back-gate-all", "the switch gate whose gradient goes to every expert",
           edit(gate, GATE_BACK, "return spread(dy[..., None], p.shape)")),
    Edited("MOE/balance-no-factor", "the load balance without the factor E", balanced("sum(f * P, keepdims=False)")),
    Edited("MOE/balance-factor-squared", "the load balance with the factor E²",
           balanced("E * E * sum(f * P, keepdims=False)")),
    Edited("MOE/balance-counts", "the load balance with counts instead of shares: not divided by T",
           edit(load_balance, F, "f = like((one_hot(chosen, E) & counted).sum(axis=-2), p)")),
    Edited("MOE/balance-probabilities", "the load balance of the mean probabilities alone, E Σ P²",
           balanced("E * sum(P * P, keepdims=False)")),
    Edited("MOE/balance-choices", "the load balance of the choices alone, E Σ f²: no gradient",
           balanced("E * sum((f + 0 * P) * f, keepdims=False)"),
           "https://github.com/huggingface/transformers/issues/28093"),
    Edited("MOE/balance-token-by-token", "the load balance as the mean of E f P at every token",
           edit(load_balance, P, "P = sum(where(one_hot(chosen, E) & counted, p, 0), axis=-2, keepdims=False) / count",
                BALANCE, "return E * sum(P, keepdims=False), load_balance_back")),
    Edited("MOE/balance-over-batch", "the load balance of the whole batch in the place of each text's",
           edit(load_balance, P, f"{P}\nif p.ndim > 2:\n"
                "    f, P = spread(f.mean(axis=0), f.shape), spread(sum(P, axis=0) / len(P), P.shape)")),
    Edited("MOE/balance-padding", "the load balance that counts padding",
           edit(load_balance, COUNTED, "counted = everywhere(chosen.shape)[..., None]")),
    Edited("MOE/balance-squared-excess", "the load balance as the squared distance from 1 / E",
           balanced("E * sum((P - 1 / E) * (P - 1 / E), keepdims=False)")),
    Edited("MOE/balance-variation", "the load balance as the squared coefficient of variation of P",
           balanced(f"({variation('P')})[..., 0]")),
    Edited("MOE/balance-variation-unbiased", "the load balance as the squared coefficient of variation of P with the "
           "variance divided by E - 1", balanced(f"({variation('P')} * E / max(1, E - 1))[..., 0]")),
    Edited("MOE/balance-variation-of-both", "the load balance as the squared coefficients of variation of P and f",
           balanced(f"({variation('P')} + {variation('f')})[..., 0]")),
    Edited("MOE/back-balance-none", "the load balance with no gradient",
           edit(load_balance, BALANCE_BACK, "return 0 * p")),
    Edited("MOE/back-balance-sum", "the load balance whose gradient is not divided by the tokens",
           edit(load_balance, BALANCE_BACK, "return where(counted, (dy[..., None] * E * f)[..., None, :], 0)")),
    Edited("MOE/dispatch-by-place", "tokens sent to slot k E + e instead of e K + k",
           edit(dispatch, SENT, "slots = where(slots < size, slots % capacity * experts + slots // capacity, slots)\n"
                + SENT)),
    Edited("MOE/dispatch-to-the-last", "tokens without a place sent to the last slot",
           edit(dispatch, SENT, "index = _through_all_groups(slots.clip(max=size - 1), size)")),
    Edited("MOE/dispatch-to-the-first", "tokens without a place sent to the first slot",
           edit(dispatch, SENT, "index = _through_all_groups(slots % size, size)")),
    Edited("MOE/dispatch-first-text", "tokens sent to the slots of the first text",
           edit(dispatch, SENT, f"{FIRST_TEXT}\n{SENT}")),
    Edited("MOE/back-dispatch-dropped", "dispatch whose dropped tokens have the gradient of the last slot",
           edit(dispatch, SENT_BACK,
                "return _taken(dy.reshape(y.shape), _through_all_groups(slots.clip(max=size - 1), size))")),
    Edited("MOE/back-dispatch-none", "dispatch with no gradient", edit(dispatch, SENT_BACK, "return 0 * x")),
    Edited("MOE/combine-not-weighed", "what the experts made, not multiplied by the probability",
           edit(combine, BROUGHT, "return taken, combine_back")),
    Edited("MOE/combine-weighed-twice", "what the experts made, multiplied by the probability twice",
           edit(combine, BROUGHT, "return (g * g)[..., None] * taken, combine_back")),
    Edited("MOE/combine-from-the-last", "tokens without a place given what stands in the last slot",
           edit(combine, FROM, f"slots = slots.clip(max=z.shape[-3] * z.shape[-2] - 1)\n{FROM}")),
    Edited("MOE/combine-by-place", "what the experts made, taken from slot k E + e",
           edit(combine, FROM, "E, K = z.shape[-3:-1]\n"
                f"slots = where(slots < E * K, slots % K * E + slots // K, slots)\n{FROM}")),
    Edited("MOE/combine-first-text", "what the experts made, taken from the slots of the first text",
           edit(combine, FROM, f"{FIRST_TEXT}\n{FROM}")),
    Edited("MOE/combine-dropped-weighed", "tokens without a place given their probability in every entry",
           edit(combine, BROUGHT, "has_place = (slots < z.shape[-3] * z.shape[-2])[..., None]\n"
                "return g[..., None] * where(has_place, taken, 1), combine_back")),
    Edited("MOE/back-combine-router", "combine with no gradient for the probability",
           edit(combine, BROUGHT_BACK, "return dz.reshape(z.shape), 0 * g")),
    Edited("MOE/back-combine-not-weighed", "combine whose experts' gradient is not multiplied by the probability",
           edit(combine, "dz = scatter_add(index, g[..., None] * dy, len(by_slot))",
                "dz = scatter_add(index, dy, len(by_slot))")),
    Edited("MOE/expert-matmul-first", "products of experts with the first one's matrix for all", products("x @ W[:1]")),
    Edited("MOE/expert-matmul-reversed", "products of experts with the matrices from last to first",
           products("x @ W[::-1]")),
    Edited("MOE/expert-matmul-transposed", "products of experts with their matrices transposed (where they are square)",
           products("x @ (swap(W) if W.shape[-1] == W.shape[-2] else W)")),
    Edited("MOE/expert-matmul-mean", "products of experts with the mean of their matrices",
           products("x @ (sum(W, axis=0) / len(W))")),
    Edited("MOE/back-expert-matmul-mean", "products of experts with dW averaged over the rows",
           edit(expert_matmul, MATMUL_BACK, f"{ROWS}\n{MATMUL_BACK} / N")),
    Edited("MOE/expert-linear-first-bias", "experts with the first one's bias for all",
           edit(expert_linear, BIASED, "return y + b[:1, None, :], expert_linear_back")),
    Edited("MOE/expert-linear-no-bias", "experts without their bias",
           edit(expert_linear, BIASED, "return y, expert_linear_back")),
    Edited("MOE/expert-linear-first", "experts with the first one's parameters for all",
           edit(expert_linear, LINEAR, "y = x @ W[:1]", BIASED, "return y + b[:1, None, :], expert_linear_back")),
    Edited("MOE/back-expert-linear-mean", "experts with dW and db averaged over the rows",
           edit(expert_linear, LINEAR_BACK,
                f"{ROWS}\ndx, dW = expert_matmul_back(dy)\nreturn dx, dW / N, db.reshape(b.shape) / N")),
    Edited("MOE/back-expert-linear-no-bias", "experts with no gradient for the bias",
           edit(expert_linear, LINEAR_BACK, "return *expert_matmul_back(dy), 0 * b")),
]
