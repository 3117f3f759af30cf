"""The published architectures that are supported, by the `model_type` of their config.json."""

from __future__ import annotations

from refllm.pretrained.bart import BART
from refllm.pretrained.bert import BERT
from refllm.pretrained.gpt2 import GPT2
from refllm.pretrained.llama import FAMILY
from refllm.pretrained.naming import Architecture
from refllm.pretrained.t5 import SWITCH, T5

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": GPT2, **FAMILY, "bert": BERT, "t5": T5, "bart": BART, "switch_transformers": SWITCH,
}  # fmt: skip
