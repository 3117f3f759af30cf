"""How a sized case is said: recipes of its tensors, and what it asks for. Shapes of outputs are those of the text."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from golden.truth import names
from refllm.verify import plain
from refllm.verify.case import tree
from refllm.verify.sized import profiles

Recipe = dict[str, Any]

SPECS = {
    "matmul": "LMHEAD", "linear": "FFN", "softmax": "SMX", "log_softmax": "SMX", "log_sum_exp": "LSE",
    "cross_entropy": "CE", "smoothed_cross_entropy": "CE", "layer_norm": "LN", "rms_norm": "T5-REL", "relu": "FFN",
    "gelu_erf": "FFN", "gelu_tanh": "FFN", "silu": "FFN", "tanh": "RNN", "attention": "ATT",
    "attention_with_lse": "LSE", "packed_attention": "PACK", "sliding_window_attention": "WIN",
    "relative_attention": "T5-REL", "capped_attention": "CAP", "sink_attention": "SINK", "normed_attention": "QKN",
    "grouped_attention": "LONG", "repeat_heads": "LONG", "rotary_halves": "LONG", "rotary_interleaved": "LONG",
    "partial_rotary": "ROPE-PART", "embedding": "EMB", "add_positions": "PE-LRN", "dropout": "DROP",
    "feed_forward": "FFN", "gated_feed_forward": "FFN", "gate": "MOE", "dispatch": "MOE", "combine": "MOE",
    "expert_matmul": "MOE", "expert_linear": "MOE", "top_experts": "TOPK", "load_balance": "MOE", "lstm": "LSTM",
    "rnn": "RNN", "gru_reset_after": "GRU", "adamw": "ADAMW", "adam": "ADAM", "clip_by_global_norm": "SGD",
}  # fmt: skip
LEVEL_2 = ("feed_forward", "gated_feed_forward", "grouped_attention")
CONVENTIONS = {
    "softmax": {"empty_softmax": "zeros"}, "relu": {"relu_at_zero": "0"},
    "adamw": {"decay_order": "before-step", "adam_eps": "outside-root"}, "adam": {"adam_eps": "outside-root"},
    "clip_by_global_norm": {"clip_eps": "none"},
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A sized case before its truth is known. Recipes of cotangents are those of the outputs' shapes."""

    operation: str
    slug: str
    about: str
    inputs: Mapping[str, Recipe]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    gradient: bool = True
    slow: bool = False
    meets: tuple[str, ...] = ()  # conventions that depend on the shapes: causal_alignment, empty_row, empty_mean
    seed: int | None = None
    cotangent: str = "normal"

    @property
    def id(self) -> str:
        return f"{SPECS[self.operation]}/kernel-{self.operation.replace('_', '-')}-{self.slug}"

    def record(self) -> dict[str, Any]:
        """The case as it stands in its file, without the rows of its truth."""
        seed = int(hashlib.sha256(self.id.encode()).hexdigest()[:8], 16) if self.seed is None else self.seed
        found: dict[str, Any] = {
            "id": self.id, "spec": SPECS[self.operation], "operation": self.operation,
            "level": 2 if self.operation in LEVEL_2 else 1, "about": self.about, "seed": seed,
            "order": list(dict.fromkeys(name.partition(".")[0] for name in self.inputs)),
            "inputs": dict(self.inputs), "keywords": dict(self.keywords),
        }  # fmt: skip
        if self.slow:
            found["slow"] = True
        if conventions := CONVENTIONS.get(self.operation, {}) | {name: _OWN[name] for name in self.meets}:
            found["conventions"] = conventions
        shapes = _shapes(found)
        if self.gradient:
            found["cotangents"] = {name: {"profile": self.cotangent, "shape": shape} for name, shape in shapes.items()}
        found["outputs"] = {name: {"shape": shape} for name, shape in shapes.items()}
        return found


_OWN = {"causal_alignment": "bottom-right", "empty_row": "zeros", "empty_mean": "zero"}


def _shapes(record: Mapping[str, Any]) -> dict[str, list[int]]:
    """The shapes of the outputs: those of the text, evaluated in float64."""
    seed = record["seed"]
    leaves = {name: profiles.made(r, seed, f"inputs.{name}") for name, r in record["inputs"].items()}
    keywords = {
        name: profiles.made(r, seed, f"keywords.{name}") if isinstance(r, dict) else r
        for name, r in record["keywords"].items()
    }
    returned = plain.operations()[record["operation"]](*(tree(name, leaves) for name in record["order"]), **keywords)
    y = returned[0] if isinstance(returned, tuple) and len(returned) == 2 and callable(returned[1]) else returned
    parts = y if isinstance(y, tuple) else (y,)
    found: dict[str, list[int]] = {}
    for name, part in zip(names(record["operation"], len(parts)), parts, strict=True):
        for place, leaf in enumerate(part if isinstance(part, list) else [part]):
            found[f"{name}.{place}" if isinstance(part, list) else name] = list(getattr(leaf, "shape", ()))
    return found


# --- recipes ----------------------------------------------------------------------------------------------------------


def of(profile: str, *shape: int, exponent: int = 0, **more: Any) -> Recipe:
    """A recipe of floating-point numbers."""
    return {"profile": profile, "shape": list(shape), **({"exponent": exponent} if exponent else {}), **more}


def normal(*shape: int, exponent: int = 0) -> Recipe:
    return of("normal", *shape, exponent=exponent)


def integers(*shape: int, below: int, **more: Any) -> Recipe:
    return {"profile": "integers", "shape": list(shape), "below": below, **more}


def count(*shape: int, **more: Any) -> Recipe:
    return {"profile": "count", "shape": list(shape), **more}


def listed(*values: int) -> Recipe:
    return {"profile": "listed", "shape": [len(values)], "values": list(values)}


def bits(*shape: int, chance: int = 192) -> Recipe:
    return {"profile": "bits", "shape": list(shape), "chance": chance}


def by(shape: tuple[int, ...]) -> str:
    """3x1025, in a slug."""
    return "x".join(map(str, shape)) or "scalar"
