"""Our parameters by the names that the published files have for them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from refllm.pretrained.folder import Folder

MOST = 3  # tensors that make up one of ours and are named
Names = Mapping[str, str]  # of ours, layers.*.attention.Wq, to theirs, model.layers.*.self_attn.q_proj.weight


def names_in_files(folder: Folder) -> Names:
    """The leaves, and the branches whose leaves have a name in common; a * stands for the number of a layer."""
    found: dict[str, list[str]] = {}
    for entry in folder.entries:
        ours = _starred(entry.path)
        if ours not in found:
            found[ours] = [_starred(folder.names.get(name, name)) for name in entry.names]
    leaves = {path: _listed(names) for path, names in found.items()}
    return {**_branches(found), **leaves}


def mentioned(text: str, names: Names) -> list[tuple[str, str]]:
    """Those of ours that stand in a text, and what they are in the files."""
    found = []
    for ours in sorted(names, key=len, reverse=True):
        as_a_word = rf"(?<![\w.*]){re.escape(ours)}(?![\w*]|\.\w)"
        if re.search(as_a_word, text):
            found.append((text.index(ours), ours))
    return [(ours, names[ours]) for _, ours in sorted(found)]


def _starred(name: str) -> str:
    """A name with a * for its first number, that of the layer."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name, count=1)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if names[MOST:] else "")


def _branches(leaves: Mapping[str, list[str]]) -> dict[str, str]:
    """layers.*.norm1 is model.layers.*.input_layernorm."""
    under: dict[str, list[str]] = {}
    for path, names in leaves.items():
        parts = path.split(".")
        for n in range(1, len(parts)):
            under.setdefault(".".join(parts[:n]), []).extend(names)
    found = {path: _common(names) for path, names in under.items()}
    return {path: name for path, name in found.items() if name and not name.endswith("*") and path[-1] != "*"}


def _common(names: list[str]) -> str:
    """The parts with which all of them begin, the last one apart."""
    begun = []
    for parts in zip(*(name.split(".")[:-1] for name in names), strict=False):
        if len(set(parts)) > 1:
            break
        begun.append(parts[0])
    return ".".join(begun)
