"""Tables of names: which published tensors make up each of our parameters, and how."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from refllm.backend import Array
from refllm.errors import UserError
from refllm.parameters import Tree, named_leaves
from refllm.pretrained.fields import Fields

MOST_NAMED = 6  # tensors that a message names


class Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Entry:
    """One of our parameters: the tensors `names`, each transposed or not, side by side along its last axis; without
    their first `skipped` rows. With `experts` they are stacked along a first axis."""

    path: str
    names: tuple[str, ...]
    transposed: bool = False
    skipped: int = 0
    stacked: bool = False

    def shapes(self, ours: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The shape of each tensor, from that of our parameter."""
        if self.stacked:
            one = ours[1:]
        else:
            one = (*ours[:-1], ours[-1] // len(self.names))
        one = one[::-1] if self.transposed else one
        return [(one[0] + self.skipped, *one[1:])] * len(self.names)

    def joined(self, tensors: list[Array]) -> Array:
        """Our parameter. Of one tensor it is a view."""
        parts = [t[self.skipped :].T if self.transposed else t[self.skipped :] for t in tensors]
        if self.stacked:
            return np.stack(parts)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)

    def parted(self, leaf: Array) -> list[Array]:
        """The tensors, from our parameter; what was skipped is zeros."""
        parts = list(leaf) if self.stacked else np.split(leaf, len(self.names), axis=-1)
        parts = [part.T if self.transposed else part for part in parts]
        if self.skipped:
            parts = [np.concatenate([np.zeros((self.skipped, *part.shape[1:]), part.dtype), part]) for part in parts]
        return parts


@dataclass(frozen=True)
class Architecture:
    """A published architecture: `model` is ours, `classes` the published names that are supported, `prefix` what names
    begin with and may lack, but for those that `outer` matches. `ignored` are buffers that hold no parameter, `aliases`
    tensors that must be equal to another, `zeros` tensors that must be zero."""

    model: str
    classes: tuple[str, ...]
    prefix: str
    config: Callable[[Fields, Mapping[str, Shaped]], Any]
    table: Callable[[Any], list[Entry]]
    written: Callable[[Any], dict[str, Any]]
    outer: str = r"(?!)"
    ignored: str = r"(?!)"
    aliases: Callable[[Any], dict[str, str]] = field(default=lambda config: {})
    zeros: Callable[[Any], dict[str, tuple[int, ...]]] = field(default=lambda config: {})
    renamed: tuple[tuple[str, str], ...] = ()


def plain(name: str, architecture: Architecture) -> str:
    """A published name with the ending in use today and with the prefix off."""
    for old, new in architecture.renamed:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name.removeprefix(architecture.prefix)


def published(name: str, architecture: Architecture) -> str:
    """A plain name as it is written."""
    return name if re.match(architecture.outer, name) else architecture.prefix + name


def matched(tensors: Mapping[str, Any], architecture: Architecture) -> dict[str, str]:
    """The tensors that count by their plain name, as the name that they have in the file.

    Raises: UserError where two have the same.
    """
    found: dict[str, str] = {}
    ignored = re.compile(architecture.ignored)
    for name in tensors:
        short = plain(name, architecture)
        if ignored.fullmatch(short):
            continue
        if short in found:
            raise UserError(f"the tensors {found[short]} and {name} are one and the same; remove one of them")
        found[short] = name
    return found


def require_fit(
    shapes: Tree, tensors: Mapping[str, Shaped], names: Mapping[str, str], architecture: Architecture, config: Any
) -> None:
    """UserError, with names and shapes, unless the tensors are exactly those of the table."""
    leaves = dict(named_leaves(shapes))
    wanted: dict[str, tuple[int, ...]] = {}
    for entry in architecture.table(config):
        for name, shape in zip(entry.names, entry.shapes(leaves[entry.path]), strict=True):
            wanted[name] = shape
    extra = architecture.zeros(config) | {
        alias: wanted[name] for alias, name in architecture.aliases(config).items() if name in wanted
    }
    missing = [f"{published(name, architecture)} {shape}" for name, shape in wanted.items() if name not in names]
    unknown = [
        f"{names[name]} {tensors[names[name]].shape}" for name in names if name not in wanted and name not in extra
    ]
    other = [
        f"{names[name]} {tensors[names[name]].shape}, should be {shape}"
        for name, shape in (extra | wanted).items()
        if name in names and tensors[names[name]].shape != shape
    ]
    problems = [
        f"{what} {_listed(which)}"
        for what, which in (("missing:", missing), ("unknown:", unknown), ("of another shape:", other))
        if which
    ]
    if problems:
        raise UserError(
            f"the tensors are not those of {architecture.classes[0]} with this config.json: {'; '.join(problems)}; "
            "get the files of one and the same model"
        )


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
