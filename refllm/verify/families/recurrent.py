"""The recurrent layers, and the language models before attention, as implementations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.blocks.recurrent import bidirectional
from refllm.ops import activation, recurrent, window


def functions() -> dict[str, Callable[..., Any]]:
    own: tuple[Any, ...] = (activation.tanh, recurrent.rnn, recurrent.lstm, window.window, bidirectional)
    return {function.__name__: function for function in own}
