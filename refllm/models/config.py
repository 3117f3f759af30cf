"""What the configuration of every model has."""

from __future__ import annotations

from typing import Protocol


class ModelConfig(Protocol):
    """The fields that objectives may read whatever the model; each model's file declares its own configuration."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def dropout(self) -> float: ...
