"""Agreement with PyTorch and transformers: loss and every gradient of every model, in float64 and float32.

    python scripts/crosscheck.py [--only gpt llama ...] [--seed N] [--json]

Needs torch (a CPU build is enough) and, but for gpt and recurrent, transformers; they are oracles, so neither the
package nor its tests need them. A family a file in scripts/crosschecks/; a difference is relative to the largest entry
of its tensor.
Exit status: 0 if everything agrees, 1 if something does not, 2 if a library is not installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

FAMILIES = {  # and what each needs beside NumPy
    "gpt": ("torch",), "recurrent": ("torch",), "llama": ("torch", "transformers"), "bert": ("torch", "transformers"),
    "encoder_decoder": ("torch", "transformers"), "switch": ("torch", "transformers"),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for library in dict.fromkeys(library for family in options.only for library in FAMILIES[family]):
        if importlib.util.find_spec(library) is None:
            print(
                f"crosscheck: {library} is not installed; pip install {library}, or choose by --only", file=sys.stderr
            )
            return 2
    rows: list[dict[str, Any]] = []
    for family in options.only:
        module = importlib.import_module(f"crosschecks.{family}")
        for make in getattr(module, "ROWS", (module.rows,)):
            found = [{"family": family, **row} for row in make(options.seed)]
            rows += found
            if not options.json:
                print("\n".join(map(_line, found)), flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))
    differ = [row for row in rows if not row["agrees"]]
    if not options.json:
        print(f"\n{len(rows)} comparisons, {len(differ)} disagree")
    return 1 if differ else 0


def _line(row: dict[str, Any]) -> str:
    figures = "  ".join(f"{name} {row[name]:.1e}" for name in ("loss", "gradient", "adamw") if name in row)
    where = f"   worst {row['tensor']}" if row.get("tensor") else ""
    name = f"{row['family']}: {row['configuration']}"
    verdict = "" if row["agrees"] else "  DISAGREES"
    return f"{name:<52}{row['dtype']:<9}{figures}  (limit {row['limit']:.0e}){where}{verdict}"


if __name__ == "__main__":
    sys.exit(main())
