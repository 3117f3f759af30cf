"""A case: what is asked, before the truth is known. Its inputs are drawn once, here, and stored in the files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """One question to an implementation.

    `inputs` are flat, dotted names (see tree.py), in the order of the positional arguments. `gradient` asks for the
    gradient of every input; the cotangents are drawn unless given.
    """

    id: str
    operation: str
    about: str
    inputs: Mapping[str, np.ndarray]
    keywords: Mapping[str, Any]
    gradient: bool = True
    cotangents: Mapping[str, np.ndarray] = field(default_factory=dict)
    taps: bool = False
    erratum: str | None = None
    printed: Any = None

    @property
    def spec(self) -> str:
        return self.id.split("/")[0]

    @property
    def order(self) -> list[str]:
        """The positional arguments: the first part of every dotted name, once."""
        return list(dict.fromkeys(name.split(".")[0] for name in self.inputs))

    def cotangent(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        given = self.cotangents.get(name)
        return Draw(f"{self.id} cotangent {name}").normal(*shape) if given is None else given


@dataclass(frozen=True)
class File:
    """The cases of one file, made when they are asked for."""

    path: str
    level: int
    make: Callable[[], list[Any]]

    @cached_property
    def cases(self) -> list[Any]:
        return self.make()


class Draw:
    """Numbers from SHA-256 of a name: the same on every machine and for ever, and no case depends on another."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def _bytes(self, shape: tuple[int, ...], width: int) -> np.ndarray:
        needed = width * int(np.prod(shape, dtype=np.int64))
        blocks = []
        for _ in range(-(-needed // 32)):
            blocks.append(hashlib.sha256(f"{self._name} {self._count}".encode()).digest())
            self._count += 1
        return np.frombuffer(b"".join(blocks)[:needed], np.uint8).reshape(*shape, width).astype(np.int64)

    def normal(self, *shape: int, scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
        """Four bytes summed: close to a normal distribution of this spread, rounded to bfloat16."""
        return bfloat16((self._bytes(shape, 4).sum(axis=-1) - 510) / 148 * scale + offset)

    def uniform(self, *shape: int) -> np.ndarray:
        """In [0, 1), with 8 bits: exact in bfloat16."""
        return np.asarray(self._bytes(shape, 1)[..., 0] / 256)

    def integers(self, *shape: int, high: int) -> np.ndarray:
        """In [0, high)."""
        return np.asarray(self._bytes(shape, 2) @ np.array([256, 1]) % high)

    def mask(self, *shape: int, true: float) -> np.ndarray:
        return self.uniform(*shape) < true


def bfloat16(x: Any) -> np.ndarray:
    """The nearest number of 8 significant bits (ties to even), as float64."""
    bits = np.asarray(x, np.float32).reshape(-1).view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return nearest.astype(np.uint32).view(np.float32).astype(np.float64).reshape(np.shape(x))
