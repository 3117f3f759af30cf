"""The words of the text and its arguments: which are taken for each other, and what somebody writes for one of them."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.verify.edits.source import Source, tight

# words of the text that are taken for each other
ALIKE = (
    {"sin", "cos"}, {"exp", "sigmoid", "tanh"}, {"mean", "sum"}, {"softmax", "log_softmax"}, {"sqrt", "log"},
    {"layer_norm", "rms_norm"}, {"relu", "gelu_erf", "gelu_tanh", "silu"}, {"rotary_halves", "rotary_interleaved"},
    {"t5_bias_causal", "t5_bias_bidirectional"}, {"max", "min"}, {"adam", "adamw"}, {"stack", "concatenate"},
)  # fmt: skip
# what an argument may be fixed at, whatever was asked for
FIXED = {
    "eps": ("0.0", "1e-3", "1e-5", "1e-6", "1e-8", "1e-12"),
    "causal": ("True", "False"),
    "attention_mask": ("None", "None if attention_mask is None else ~attention_mask"),
    "token_mask": ("None", "None if token_mask is None else ~token_mask"),
    "dropout_mask": ("~dropout_mask", "dropout_mask | True"),
    "ignore": ("None", "-100", "-1", "0"),
    "reduction": ('"mean"', '"sum"', '"none"'),
    "smoothing": ("0.0", "0.1"),
    "base": ("10000.0", "500000.0"),
    "positions": ("positions * 0", "positions + 1", "positions - 1", "arange(positions.shape[-1])"),
    "step": ("1", "step - 1", "step + 1"),
    "decay": ("0.0", "-decay"),
    "momentum": ("0.0", "0.9"),
    "rate": ("0.0", "1 - rate"),
    "temperature": ("1.0", "1 / temperature", "temperature * temperature"),
    "top_k": ("None", "None if top_k is None else top_k + 1", "None if top_k is None else top_k - 1"),
    "top_p": ("None", "None if top_p is None else 1 - top_p"),
    "length_penalty": ("0.0", "1.0", "-length_penalty"),
    "farthest": ("128",),
    "beta1": ("0.9", "beta2"),
    "beta2": ("0.999", "beta1"),
}
# what is added where a mask forbids, in the place of -inf
INFINITIES = ("-1e4", "-1e9", "-100.0", "-10.0", "-1.0", "0.0", "1e-9", "-65504.0")


def alike(name: str) -> list[str]:
    """The other words of a kind."""
    return [other for group in ALIKE if name in group for other in sorted(group) if other != name]


def keyword_values(name: str, value: str) -> Iterator[str]:
    """What an argument may be given for this value."""
    if name == "axis":
        yield from (x for x in ("-1", "-2", "-3", "0", "1") if x != value)
    elif name in FIXED:
        yield from (x for x in FIXED[name] if x != value and x.replace(".", "").lstrip("-").isalnum())


def taken_for(text: Source, name: str, arguments: list[str], keywords: list[str]) -> Iterator[tuple[str, float]]:
    """What is taken for a word of the text."""
    first = arguments[0] if arguments else ""
    array = text.positional[0] if text.positional else "x"
    if name == "mean":
        yield f"sum({first}) / ({array}.shape[-1] - 1)", 1.1
        yield f"sum({first}, axis=0) / len({array})", 1.3
        yield f"total({first}) / {array}.size", 1.2
    elif name == "sum" and not keywords:
        yield f"sum({first}, axis=-2)", 1.1
        yield f"sum({first}, axis=0)", 1.3
        yield f"total({first})", 1.3
    elif name == "exp":
        yield f"power(2, {first})", 1.3
    elif name == "log":
        yield f"log({first}) / log(2)", 1.2
    elif name == "scatter_add":
        yield from ((f"{other}({', '.join(arguments)})", 1.1) for other in ("scatter_last", "scatter_mean"))
        yield f"scatter_add({first} + ({first} == 0) * {arguments[-1]}, {', '.join(arguments[1:])})", 1.5
    elif name == "linear" and len(arguments) == 3:
        yield f"matmul({', '.join(arguments[:2])})", 1.2
    elif name == "swap":
        yield f"reshaped({first}, -1, -2)", 1.3
    elif name == "flat":
        yield f"flat({first})[-1:]", 1.4
    elif name == "rows":
        yield f"flat({first})[-1]", 1.4
        yield f"flat({first})[0]", 1.4
        yield f"rows({first}) / len(flat({first}))", 1.2
    elif name == "top":
        yield "0", 1.1
        yield f"highest({first})", 1.2
    elif name in ("softmax", "log_softmax"):
        yield f"columns({name})({', '.join(arguments)})", 1.1
    elif name == "where" and len(arguments) == 3:
        mask, x, y = arguments
        yield from ((x, 1.0), (f"where(~{tight(mask)}, {x}, {y})", 1.1), (f"{tight(x)} + {tight(mask)}", 1.3))
        yield from ((f"{tight(x)} * {tight(mask)}", 1.2), (y, 1.5))
