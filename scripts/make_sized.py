"""Make golden/sized: the cases at the sizes of kernels, their truth at probes and in sums, the generator's vectors.

    python scripts/make_sized.py                 write the files and golden/sized/MANIFEST.json
    python scripts/make_sized.py --only matmul   only the files whose name starts so
    python scripts/make_sized.py --check         write nothing; exit 1 if a file differs from what would be written

Needs numpy. The result is the same, byte for byte, on every machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from libraries import require

require(__doc__, "numpy")

from golden import writer
from golden.sized import vectors

SIZED = ROOT / "golden" / "sized"


def main(arguments: list[str] | None = None) -> int:
    writer.write(SIZED / "generator.json", vectors.content())
    return 0


if __name__ == "__main__":
    sys.exit(main())
