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
    "attention_mask": (
        "None", "None if attention_mask is None else ~attention_mask",
        "None if attention_mask is None else attention_mask[:1]",
    ),
    "token_mask": (
        "None", "None if token_mask is None else ~token_mask", "None if token_mask is None else token_mask[:1]",
    ),
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
    "factor": ("1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "40.0"),
    "original": ("2048", "4096", "8192"),
    "low_factor": ("1.0",),
    "high_factor": ("4.0",),
    "beta_fast": ("32.0",),
    "beta_slow": ("1.0",),
    "cap": ("20.0", "30.0", "50.0"),
    "strength": ("1.0", "0.01", "1e-3", "1e-4"),
    "share": ("0.0", "0.5", "1.0", "1 - share"),
    "penalty": ("1.0", "1 / penalty"),
    "alpha": ("1.0", "16.0", "32.0"),
    "beta1": ("0.9", "beta2"),
    "beta2": ("0.999", "beta1"),
    "end": ("None",),
    "uniforms": ("None",),
    "weights": ("None",),
    "clip": ("None",),
    "rotation": ("None",),
    "answer_mask": ("None",),
    "r": ("None",),
    "scaled": ("True", "False"),
    "norm": ('"pre"', '"post"'),
    "activation": ('"relu"', '"gelu_erf"', '"gelu_tanh"', '"silu"'),
}  # fmt: skip
# what is taken for a word of the text without further arguments, of its first argument x
TAKEN_FOR = {
    "mean": (
        ("sum({x}) / ({array}.shape[-1] - 1)", 1.1), ("sum({x}, axis=0) / len({array})", 1.3),
        ("total({x}) / {array}.size", 1.2),
    ),
    "sum": (("sum({x}, axis=-2)", 1.1), ("sum({x}, axis=0)", 1.3), ("total({x})", 1.3)),
    "exp": (("power(2, {x})", 1.3),),
    "log": (("log({x}) / log(2)", 1.2), ("log({x}) / log(10)", 1.2)),
    "swap": (("reshaped({x}, -1, -2)", 1.3),),
    "flat": (("flat({x})[-1:]", 1.4),),
    "rows": (("flat({x})[-1]", 1.4), ("flat({x})[0]", 1.4), ("rows({x}) / len(flat({x}))", 1.2)),
    "top": (
        ("0", 1.1), ("highest({x})", 1.2),
        *((f"where(top({{x}}) < {least}, {least}, top({{x}}))", 1.25) for least in ("0", "-1e4", "-5e4", "-65504.0")),
    ),
}  # fmt: skip
# words that choose between two values by a mask
MASKED = ("where", "kept")
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
        yield from (x for x in FIXED[name] if x != value and x.replace(".", "").replace("_", "").strip('-"').isalnum())


def taken_for(text: Source, name: str, arguments: list[str], keywords: list[str]) -> Iterator[tuple[str, float]]:
    """What is taken for a word of the text."""
    first = arguments[0] if arguments else ""
    array = text.positional[0] if text.positional else "x"
    if not keywords:
        yield from ((words.format(x=first, array=array), cost) for words, cost in TAKEN_FOR.get(name, ()))
    if name == "scatter_add":
        yield from ((f"{other}({', '.join(arguments)})", 1.1) for other in ("scatter_last", "scatter_mean"))
        yield f"scatter_last_of_each({', '.join(arguments)})", 1.15
        if first.startswith("spread("):
            yield f"scatter_last_sums({first[len('spread(') :].partition(',')[0]}, {', '.join(arguments[1:])})", 1.15
        yield f"scatter_add({first} + ({first} == 0) * {arguments[-1]}, {', '.join(arguments[1:])})", 1.5
    elif name == "linear" and len(arguments) == 3:
        yield f"matmul({', '.join(arguments[:2])})", 1.2
    elif name == "spread" and len(arguments) == 2:
        yield f"in_turn({', '.join(arguments)})", 1.2
    elif name == "arange" and not keywords:  # counted from one before, or from one after
        yield from ((f"arange({', '.join(arguments)}) {change}", 1.05) for change in ("- 1", "+ 1"))
    elif name in ("softmax", "log_softmax"):
        yield f"columns({name})({', '.join(arguments)})", 1.1
    elif name in MASKED:
        yield from _masked(name, arguments)


def _masked(name: str, arguments: list[str]) -> Iterator[tuple[str, float]]:
    """What is taken for a choice between two values by a mask."""
    if name == "where" and len(arguments) == 3:
        mask, x, y = arguments
        yield from ((f"where({mask}, {x}, 0)", 1.15), (f"where({mask}, 0, {y})", 1.25))
        yield from ((x, 1.0), (f"where(~{tight(mask)}, {x}, {y})", 1.1), (f"{tight(x)} + {tight(mask)}", 1.3))
        yield from ((f"{tight(x)} * {tight(mask)}", 1.2), (y, 1.5))
    elif name == "kept" and len(arguments) == 4:  # what is new where there is a token, and what was before elsewhere
        mask, t, x, y = arguments
        yield from ((x, 1.05), (y, 1.15), (f"kept({mask}, {t}, {y}, {x})", 1.3))
        yield from ((f"kept({mask}, {t}, {x}, 0)", 1.1), (f"kept({mask}, {t}, 0, {y})", 1.2))
