"""Mistakes of the switch layer, of its capacity, and of the model and the loss around it."""

from __future__ import annotations

from refllm.spec.switch import switch, switch_loss
from refllm.spec.switch_layer import switch_layer
from refllm.verify.mutants.bank import Edited, Edits, edit

SCORES, P = 'scores, scores_back = matmul(x, p["Wr"])', 'P, softmax_back = softmax(tap("scores", scores))'
CHOSEN = "E, chosen = P.shape[-1], most_probable(scores)"
SENT = "z, dispatch_back = dispatch(x, slots=slots, experts=E, capacity=capacity)"
SLOTS = "slots = slots_of(chosen, experts=E, capacity=capacity, token_mask=token_mask)"
GATE, Y = "g, gate_back = gate(P, chosen=chosen)", "return (y, balance), switch_layer_back"
BALANCE = "balance, balance_back = load_balance(P, chosen=chosen, token_mask=token_mask)"
ROOM = 'room = math.floor(Fraction(str(config["capacity_factor"])) * T / config["experts"])  # of the number as written'
IN_USE = "(logits, balance), balanced_back = balanced(p, ids=ids, capacity=ids.shape[-1], config=config)"
LOSS = 'return nll + config["balance"] * balance, switch_loss_back'


def chosen(new: str) -> Edits:
    return edit(switch_layer, CHOSEN, f"E, chosen = P.shape[-1], {new}")


def slots(new: str) -> Edits:
    return edit(switch_layer, SLOTS, f"slots = {new}")


def with_capacity(new: str) -> Edits:
    return edit(switch_layer, SCORES, f"capacity = {new}\n{SCORES}")


def loss(new: str) -> Edits:
    return edit(switch_loss, LOSS, f"return {new}, switch_loss_back")


# fmt: off
MUTANTS = [
    Edited("MOE/not-weighed", "a switch layer that does not multiply by the probability",
           edit(switch_layer, GATE, "g = 0 * pick(P, chosen) + 1")),
    Edited("MOE/input-weighed", "a switch layer that multiplies what the expert reads by the probability, not what it "
           "makes", edit(switch_layer, SENT, SENT.replace("(x,", "(pick(P, chosen)[..., None] * x,"),
                         GATE, "g = 0 * pick(P, chosen) + 1")),
    Edited("MOE/loss-balance-mean-of-layers", "a switch model whose balance is the mean over its layers, not the sum",
           loss('nll + config["balance"] * balance / max(1, config["layers"] // config["every"])')),
    Edited("MOE/second-best", "a switch layer that takes the second-best expert",
           chosen("second_best(P, most_probable(scores))")),
    Edited("MOE/least", "a switch layer that takes the least probable expert", chosen("most_probable(-scores)")),
    Edited("MOE/last-of-equals", "a switch layer that takes the last of equally probable experts",
           chosen("P.shape[-1] - 1 - most_probable(scores[..., ::-1])")),
    Edited("MOE/sigmoid", "a switch layer whose router has sigmoids instead of a softmax",
           edit(switch_layer, P, 'P = sigmoid(tap("scores", scores))')),
    Edited("MOE/dropped-passed", "a switch layer that gives a dropped token itself: the residual adds it twice",
           edit(switch_layer, Y, Y.replace("(y,", "(where((slots < E * capacity)[..., None], y, x),"))),
    Edited("MOE/dropped-weighed", "a switch layer that gives a dropped token itself, times its probability",
           edit(switch_layer, Y, Y.replace("(y,", "(where((slots < E * capacity)[..., None], y, x * g[..., None]),")),
           "https://github.com/huggingface/transformers/issues/37017"),
    Edited("MOE/capacity-one-less", "a switch layer whose experts take one token less", with_capacity("capacity - 1")),
    Edited("MOE/capacity-one-more", "a switch layer whose experts take one token more", with_capacity("capacity + 1")),
    Edited("MOE/capacity-none", "a switch layer that drops no token", with_capacity("x.shape[-2]"),
           "https://github.com/huggingface/transformers/pull/48421"),
    Edited("MOE/last-tokens-first", "a switch layer whose experts take the last tokens, not the first",
           edit(switch_layer, SLOTS, "turned = None if token_mask is None else token_mask[..., ::-1]\n"
                "slots = slots_of(chosen[..., ::-1], experts=E, capacity=capacity, token_mask=turned)[..., ::-1]")),
    Edited("MOE/capacity-of-batch", "a switch layer whose texts share the places of an expert",
           edit(switch_layer, SLOTS, "one_text = None if token_mask is None else token_mask.reshape(-1)\n"
                "slots = slots_of(chosen.reshape(-1), experts=E, capacity=capacity, token_mask=one_text)\n"
                "slots = slots.reshape(chosen.shape)")),
    Edited("MOE/padding-routed", "a switch layer whose padding takes places",
           slots("slots_of(chosen, experts=E, capacity=capacity, token_mask=None)")),
    Edited("MOE/padding-balanced", "a switch layer whose balance counts padding",
           edit(switch_layer, BALANCE, BALANCE.replace("token_mask=token_mask", "token_mask=None"))),
    Edited("MOE/back-router-detached", "a switch layer whose router learns by the balance alone",
           edit(switch_layer, "dP = balance_back(dbalance) + gate_back(dg)", "dP = balance_back(dbalance)")),
    Edited("MOE/model-drops-in-use", "a switch model that drops tokens in use too",
           edit(switch, IN_USE, f"T = ids.shape[-1]\n{ROOM}\n{IN_USE.replace('ids.shape[-1]', 'min(room, T)')}")),
    Edited("MOE/capacity-rounded-up", "an expert's capacity rounded up",
           edit(switch_loss, ROOM, ROOM.replace("math.floor", "math.ceil"))),
    Edited("MOE/capacity-rounded", "an expert's capacity rounded to the nearest number",
           edit(switch_loss, ROOM, ROOM.replace("math.floor", "round"))),
    Edited("MOE/capacity-at-least-four", "an expert's capacity of at least 4 tokens",
           edit(switch_loss, ROOM, f"{ROOM.partition('  #')[0]}\nroom = max(4, room)")),
    Edited("MOE/capacity-factor-ignored", "an expert's capacity without its factor: T / E",
           edit(switch_loss, ROOM, 'room = max(1, T // config["experts"])')),
    Edited("MOE/loss-no-balance", "a switch model trained without its balance", loss("nll")),
    Edited("MOE/loss-balance-whole", "a switch model trained with the balance times 1, not its factor",
           loss("nll + balance")),
    Edited("MOE/loss-balance-per-token", "a switch model whose balance is divided by the tokens again",
           loss('nll + config["balance"] * balance / targets.size')),
    Edited("MOE/loss-balance-over-counted", "a switch model whose balance is summed over all places and divided by "
           "those "
           "that count", loss('nll + config["balance"] * balance / (targets != ignore).mean()')),
    Edited("MOE/loss-balance-of-counted", "a switch model whose balance is weighed by the share of the places that "
           "count",
           loss('nll + config["balance"] * balance * (targets != ignore).mean()')),
]
