"""The language models by the name that a case gives them, and the loss that each is trained by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from golden.earlier import hybrid, hybrid_loss, nnlm, nnlm_loss, recurrent_lm, recurrent_lm_loss
from golden.llama import llama, llama_loss
from golden.model import gpt, gpt_loss
from golden.switch import switch, switch_loss

MODELS: dict[str, Callable[..., Any]] = {
    "gpt": gpt,
    "llama": llama,
    "switch": switch,
    "recurrent_lm": recurrent_lm,
    "nnlm": nnlm,
    "hybrid": hybrid,
}
LOSSES: dict[str, Callable[..., Any]] = {
    "gpt": gpt_loss,
    "llama": llama_loss,
    "switch": switch_loss,
    "recurrent_lm": recurrent_lm_loss,
    "nnlm": nnlm_loss,
    "hybrid": hybrid_loss,
}
