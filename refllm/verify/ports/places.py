"""The values of a model in words: which layer, which operation, what it is."""

from __future__ import annotations

from refllm.verify.ports.program import Program

# by the last part of a name: the operation that gives it, and what it is
VALUES: dict[str, tuple[str, str]] = {
    "embedding": ("embedding", "what goes into the first layer"),
    "embedding_sum": ("embedding", "the sum of tokens, positions, and segments where there are any"),
    "q_mapped": ("map of the queries", "q before it is turned"),
    "k_mapped": ("map of the keys", "k before it is turned"),
    "q_normed": ("norm of the queries", "q after its norm"), "k_normed": ("norm of the keys", "k after its norm"),
    "q": ("map of the queries", "q"), "k": ("map of the keys", "k"), "v": ("map of the values", "v"),
    "scores": ("attention scores", "q kᵀ, scaled"),
    "weights": ("attention mask and softmax", "the weights of attention"),
    "attention": ("attention", "the heads before the output map"),
    "attention_out": ("output map of attention", "what attention adds"),
    "cross_attention_out": ("output map of cross-attention", "what cross-attention adds"),
    "norm1_after": ("norm after attention", "what attention adds, normed"),
    "norm2_after": ("norm after the feed-forward layer", "what it adds, normed"),
    "gate": ("map of the gate", "the gate before its activation"),
    "up": ("first map of the feed-forward layer", "its value"),
    "activated": ("activation", "the hidden values of the feed-forward layer"),
    "feed_forward": ("second map of the feed-forward layer", "what the feed-forward layer adds"),
    "residual1": ("residual", "the sum after attention"), "residual2": ("residual", "the second sum"),
    "residual3": ("residual", "the third sum"), "norm": ("last norm", "what goes into the output layer"),
    "transform": ("transform before the output layer", "its value"), "pooled": ("pooler", "the pooled state"),
    "logits": ("output layer", "the logits"),
}  # fmt: skip
_ROTARY = {"q": ("rotary", "q after turning"), "k": ("rotary", "k after turning")}


def operation(name: str, program: Program) -> str:
    """The operation that gives a value."""
    return _found(name, program)[0]


def in_words(name: str, program: Program) -> str:
    """layer 3, rotary: q after turning"""
    what, value = _found(name, program)
    return f"{where(name)}{what}: {value}"


def where(name: str) -> str:
    """layer 3, / decoder, layer 3, / encoder, / nothing."""
    half = next((f"{half}, " for half in ("encoder", "decoder") if name.startswith(half + ".")), "")
    _, there, rest = name.rpartition("layers.")
    return f"{half}layer {rest.partition('.')[0]}, " if there else half


def _found(name: str, program: Program) -> tuple[str, str]:
    if name in {step.place for step in program.steps} and "layers." in name:
        return "the whole layer", "what it gives"
    last = name.rpartition(".")[2]
    if last in _ROTARY and program.model == "llama":
        return _ROTARY[last]
    cross = "cross-" if ".cross." in name else ""
    if last in ("norm1", "norm2", "norm3"):
        return f"norm {last[-1]} of the layer", "its value"
    if last.startswith("logits_"):
        return f"head of {last[7:]}", "its logits"
    what, value = VALUES.get(last, (last, "its value"))
    return what.replace("attention", "cross-attention") if cross else what, value
