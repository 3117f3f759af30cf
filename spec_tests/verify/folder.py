"""A small golden folder to damage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refllm.verify import corpus

GOLDEN = corpus.folder(None)


class Folder:
    """A golden folder of a few files, with a manifest that agrees with them."""

    FILES = ("L0/loader", "L1/relu", "L1/attention", "L2/feed_forward")

    def __init__(self, root: Path) -> None:
        self.root = root
        manifest = json.loads((GOLDEN / "MANIFEST.json").read_text())
        self.entries = {
            entry["path"]: entry for entry in manifest["files"] if entry["path"].rpartition(".")[0] in self.FILES
        }
        for path in self.entries:
            (root / path).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy(GOLDEN / path, root / path)
        self.manifest = {**manifest, "files": list(self.entries.values())}
        self.settle()

    def settle(self) -> None:
        """Writes the manifest, with the sizes, sums and counts of what is there now."""
        for path, entry in self.entries.items():
            content = (self.root / path).read_bytes()
            entry["bytes"], entry["sha256"] = len(content), hashlib.sha256(content).hexdigest()
        self.manifest["cases"] = sum(entry["cases"] for entry in self.entries.values())
        self.write_manifest()

    def write_manifest(self) -> None:
        (self.root / "MANIFEST.json").write_text(json.dumps(self.manifest))

    def edit(self, path: str, change: Callable[[list[Any]], object]) -> None:
        """Changes the cases of a file and settles the manifest."""
        content = json.loads((self.root / path).read_text())
        change(content["cases"])
        (self.root / path).write_text(json.dumps(content))
        self.settle()
