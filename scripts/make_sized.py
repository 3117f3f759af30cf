"""Make golden/sized: the cases at the sizes of kernels, their truth at probes and in sums, the generator's vectors.

    python scripts/make_sized.py                 write the files and golden/sized/MANIFEST.json
    python scripts/make_sized.py --again         compute every truth again, not only those of new cases
    python scripts/make_sized.py --only matmul   only the files of this operation (may be repeated)
    python scripts/make_sized.py --check         write nothing; exit 1 if a file differs from what would be written

What a case means never changes under its id: a file that would change one is not written, and the exit status is 1.
Needs numpy and mpmath. All takes three minutes of one core, and as many more with --slow.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from libraries import require

require(__doc__, "numpy", "mpmath")

from golden import writer
from golden.sized import corpus, files, vectors

SIZED = ROOT / "golden" / "sized"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the sized cases.")
    parser.add_argument("--only", action="append", choices=list(corpus.operations()), metavar="OPERATION")
    parser.add_argument("--check", action="store_true", help="compare with the folder and write nothing")
    parser.add_argument("--slow", action="store_true", help="contexts of 8,193 too; without it those of before stay")
    parser.add_argument("--again", action="store_true", help="compute every truth again, as --check does")
    chosen = parser.parse_args(arguments)
    again = chosen.again or chosen.check
    stale = _put({"generator.json": (vectors.content(), 0)}, write=not chosen.check)
    for operation in chosen.only or corpus.operations():
        kept = files.kept(SIZED, operation)
        kept = {name: held for name, held in kept.items() if not again or (held[0].get("slow") and not chosen.slow)}
        made, count, digests = files.contents(operation, kept=kept, slow=chosen.slow)
        known = files.frozen()
        if other := [name for name, digest in digests.items() if known.get(name, digest) != digest]:
            print(f"{operation}: the contents of {', '.join(other)} have changed; give what is new a new id")
            return 1
        if not chosen.check:
            files.freeze(digests)
        counted = {name: (content, count if name.endswith(".json") else 0) for name, content in made.items()}
        stale += _put(counted, write=not chosen.check)
        print(f"{operation}: {count} cases, {sum(map(len, made.values()))} bytes", flush=True)
    if chosen.check:
        print("\n".join(f"{name} differs; run scripts/make_sized.py" for name in stale) or "all files are up to date")
    return 1 if chosen.check and stale else 0


def _put(made: dict[str, tuple[bytes, int]], *, write: bool) -> list[str]:
    """Writes files and lists them in the manifest, or says which of them are others."""
    if not write:
        return [name for name, (content, _) in made.items() if not _is(SIZED / name, content)]
    entries = _entries() | {name: files.entry(content, count) for name, (content, count) in made.items()}
    for name, (content, _) in made.items():
        writer.write(SIZED / name, content)
    writer.write(SIZED / "MANIFEST.json", files.manifest(entries))
    return []


def _is(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _entries() -> dict[str, dict[str, Any]]:
    """What the manifest already lists, so that making one file does not forget the others."""
    path = SIZED / "MANIFEST.json"
    listed = json.loads(path.read_text())["files"] if path.is_file() else []
    known = {f"{name}.{ending}" for name in corpus.operations() for ending in ("json", "safetensors")}
    return {entry.pop("path"): entry for entry in listed if entry["path"] in {*known, "generator.json"}}


if __name__ == "__main__":
    sys.exit(main())
