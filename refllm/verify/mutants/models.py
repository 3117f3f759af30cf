"""Mistakes of putting a model together, of its loss and of training it."""

from __future__ import annotations

from refllm.spec.cross_entropy import chain_rule, perplexity
from refllm.spec.gpt import gpt, gpt_loss
from refllm.spec.train import train, train_step
from refllm.verify.mutants.bank import Edited, Edits, edit

EMBEDDED = 'x, embedded_back = embedded(p["token"], p, ids=ids, config=config)'
THROUGH = 'h, layers_back = through(tap("embedding", x), p["layers"], layer)'
NORM, LOGITS = (
    'n, norm_back = maybe_normalised(h, p, "norm", eps=config["eps"])',
    'return tap("logits", logits), gpt_back',
)
DX = "dtoken, dposition = embedded_back(dx)"
WHOLE = 'return with_head({"token": dtoken, **dposition, "layers": dlayers, **dnorm}, dW, tied=config["tied"])'
NLL = "return next_token_loss(gpt, p, ids=ids, targets=targets, ignore=ignore, config=config)"
SUMMED = 'y, back = cross_entropy(gpt(p, ids=ids, config=config)[0], targets=targets, ignore=ignore, reduction="sum")'
CHAIN, PPL = "return -sum(losses, keepdims=False), chain_rule_back", "y = exp(nll)"
NLL_OF_ALL = 'nll, nll_back = cross_entropy(logits, targets=ids, ignore=None, reduction="mean")'
DECAY = "of_matrices = decay if p.ndim >= 2 else 0"
STEP = "y, norm, p, m, v = train_step(p, m, v, loss=loss, ids=ids[n], targets=targets[n], step=first + n, **how)"


def layers(chosen: str) -> Edits:
    """Other layers than those of the model."""
    return edit(gpt, THROUGH, THROUGH.replace('p["layers"]', chosen))


def scaled(name: str) -> Edits:
    """One more table that is multiplied by √C where the embedding is to be scaled."""
    return edit(gpt, EMBEDDED, f'if config.get("scaled_embedding") and "{name}" in p:\n'
                f'    p = {{**p, "{name}": p["{name}"] * sqrt(config["width"])}}\n{EMBEDDED}')  # fmt: skip


def loss(*returned: str) -> Edits:
    return edit(gpt_loss, NLL, "\n".join(returned))


def sentence(new: str) -> Edits:
    return edit(chain_rule, CHAIN, f"return {new}, chain_rule_back")


def of_tokens(new: str) -> Edits:
    """A perplexity of the losses of all tokens (..., T)."""
    return edit(perplexity, NLL_OF_ALL, NLL_OF_ALL.replace("nll, nll_back", "losses, _").replace("mean", "none"),
                PPL, f"y = {new}")  # fmt: skip


def training(old: str, new: str) -> Edits:
    return edit(train, STEP, STEP.replace(old, new))


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("LMHEAD/no-final-norm", "a model without the norm before its head", edit(gpt, NORM, "n = h")),
    Edited("LMHEAD/shared-layers", "a model whose layers all have the parameters of the first",
           layers('p["layers"][:1] * len(p["layers"])')),
    Edited("LMHEAD/layers-reversed", "a model with its layers in reverse", layers('p["layers"][::-1]')),
    Edited("LMHEAD/last-layer-skipped", "a model without its last layer", layers('p["layers"][:-1]')),
    Edited("LMHEAD/embedding-not-scaled", "a model that does not multiply its embedding by √C",
           edit(gpt, EMBEDDED, EMBEDDED.replace("config=config", 'config={**config, "scaled_embedding": False}'))),
    Edited("LMHEAD/embedding-scaled-by-width", "a model that multiplies its embedding by C, not by √C", edit(
           gpt, EMBEDDED, EMBEDDED.replace('embedded(p["token"]', 'embedded(p["token"] * (sqrt(config["width"]) if '
                                           'config.get("scaled_embedding") else 1)'))),
    Edited("LMHEAD/positions-scaled", "a model that multiplies its positions by √C with the embedding",
           scaled("position")),
    Edited("LMHEAD/probabilities", "a model that returns probabilities where logits are asked for",
           edit(gpt, LOGITS, 'return tap("logits", softmax(logits)[0]), gpt_back')),
    Edited("LMHEAD/back-tied-head-dropped", "a tied head that gives the embedding no gradient",
           edit(gpt, WHOLE, WHOLE.replace("dW,", '0 * dW if config["tied"] else dW,'))),
    Edited("LMHEAD/back-tied-embedding-dropped", "a tied head whose gradient overwrites the embedding's",
           edit(gpt, DX, f'{DX}\ndtoken = 0 * dtoken if config["tied"] else dtoken')),
    Edited("LMHEAD/back-tied-mean", "a tied matrix with the mean of its two gradients, not the sum",
           edit(gpt, WHOLE, f'{WHOLE.replace("return", "dp =")}\n'
                'return {**dp, "token": dp["token"] / 2} if config["tied"] else dp')),
    Edited("NLL/sum", "the loss summed over the tokens instead of averaged", loss(SUMMED, "return y, back")),
    Edited("NLL/mean-over-all", "the loss averaged over all tokens, ignored ones too",
           loss(SUMMED, "return y / targets.size, back"), G + "huggingface/transformers/issues/24725"),
    Edited("NLL/mean-over-sentences", "the loss summed over the tokens, averaged over the sentences",
           loss(SUMMED, "return y / len(targets), back")),
    Edited("NLL/targets-not-shifted", "the loss of predicting the token that was read",
           loss(NLL.replace("targets=targets", "targets=ids")), G + "huggingface/transformers/issues/27517"),
    Edited("NLL/targets-shifted-twice", "the loss against the target of the next place: shifted twice",
           loss("targets = concatenate([targets[..., 1:], targets[..., :1]], axis=-1)", NLL),
           G + "huggingface/transformers/pull/47395"),
    Edited("CHAIN/mean", "the mean instead of the sum of a sentence's log-probabilities",
           sentence("-mean(losses)[..., 0]")),
    Edited("CHAIN/negative", "the sentence's log-probability with its sign turned",
           sentence("sum(losses, keepdims=False)")),
    Edited("CHAIN/without-first", "the sentence's log-probability without its first prediction",
           sentence("-sum(losses[..., 1:], keepdims=False)")),
    Edited("CHAIN/base-two", "the sentence's log-probability in bits",
           sentence("-sum(losses, keepdims=False) / log(2)")),
    Edited("CHAIN/log-of-product", "the logarithm of the product of probabilities: it underflows",
           edit(chain_rule, CHAIN, "p = exp(-losses[..., 0])\nfor t in range(1, ids.shape[-1]):\n"
                "    p = p * exp(-losses[..., t])\nreturn log(p), chain_rule_back"), dtype="float32"),
    Edited("PPL/not-averaged", "perplexity without the mean: exp of the whole loss",
           edit(perplexity, PPL, "y = exp(nll * ids.size)")),
    Edited("PPL/base-two", "perplexity as a power of 2 of the loss in nats",
           edit(perplexity, PPL, "y = power(2, nll)")),
    Edited("PPL/loss", "the mean loss instead of its exponential", edit(perplexity, PPL, "y = nll")),
    Edited("PPL/inverse", "the inverse of the perplexity", edit(perplexity, PPL, "y = exp(-nll)")),
    Edited("PPL/mean-of-sentences", "the mean of the sentences' perplexities",
           of_tokens("total(exp(mean(losses))) / mean(losses).size"), G + "lisa-lab/pylearn2/issues/1383"),
    Edited("PPL/mean-of-tokens", "the mean of 1 / p over the tokens", of_tokens("total(exp(losses)) / losses.size"),
           G + "magenta/magenta/pull/239"),
    Edited("ADAMW/decay-on-all", "training that decays biases and norms too",
           edit(train_step, DECAY, "of_matrices = decay"), G + "huggingface/transformers/issues/4360"),
    Edited("ADAMW/decay-on-none", "training that decays nothing", edit(train_step, DECAY, "of_matrices = 0")),
    Edited("ADAMW/decay-on-vectors", "training that decays biases and norms alone",
           edit(train_step, DECAY, "of_matrices = decay if p.ndim < 2 else 0")),
    Edited("ADAMW/clip-after-adam", "training that clips the parameters' step, not the gradient",
           edit(train_step, "norm, g = clipped(g, clip)", "norm, _ = clipped(g, clip)",
                "return y, norm, new_p, new_m, new_v",
                "shorter = 1 if clip is None or norm <= clip else clip / norm\n"
                "new_p = each(lambda a, b: a + shorter * (b - a), p, new_p)\nreturn y, norm, new_p, new_m, new_v")),
    Edited("ADAMW/step-stands-still", "training whose step number stands still",
           training("step=first + n", "step=1")),
    Edited("ADAMW/step-from-one-again", "training that goes on and counts its steps from 1 again",
           training("step=first + n", "step=1 + n"), G + "deepspeedai/DeepSpeed/pull/564"),
    Edited("ADAMW/moments-forgotten", "training whose moments start at zero in every step",
           training("train_step(p, m, v,", "train_step(p, each(lambda x: 0 * x, m), each(lambda x: 0 * x, v),")),
    Edited("ADAMW/batches-reversed", "training on the batches from the last to the first", training("[n]", "[-1 - n]")),
    Edited("ADAMW/one-batch", "training on the first batch again and again", training("[n]", "[0]")),
    Edited("ADAMW/gradient-not-zeroed", "training whose gradients add up from step to step",
           edit(train, "losses, norms = [], []", "losses, norms, gradients = [], [], []\n\n"
                "def never_zeroed(p, **batch):\n    y, loss_back = loss(p, **batch)\n\n"
                "    def added_back(dy):\n        gradients.append(loss_back(dy))\n"
                "        return each(lambda *g: sum(stack(g, axis=0), axis=0, keepdims=False), *gradients)\n\n"
                "    return y, added_back\n", STEP, STEP.replace("loss=loss", "loss=never_zeroed")),
           G + "meta-pytorch/torchforge/pull/71"),
]
