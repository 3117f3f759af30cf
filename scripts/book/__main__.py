"""`scripts/docs`: builds the book, or only checks it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/docs", description="Builds the book from docs/ and from the text of refllm/spec."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build/docs", metavar="DIR", help="default: build/docs")
    parser.add_argument("--check", action="store_true", help="only check; nothing is left behind")
    parser.add_argument("--draft", action="store_true", help="build although something is missing or wrong")
    given = parser.parse_args(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "html" if given.check else given.out
        if foreign(out):
            print(f"docs: {out} holds other files than a book; choose another --out", file=sys.stderr)
            return 2
        status = build(out, Path(folder) / "doctrees", draft=given.draft)
    if status == 0 or given.draft:
        where = "checked" if given.check else f"built {out / 'index.html'}"
        print(f"docs: {where} in {time.monotonic() - start:.0f} s", file=sys.stderr)
    else:
        print("docs: the faults are above; --draft builds in spite of them", file=sys.stderr)
    return 0 if given.draft else status


def foreign(out: Path) -> bool:
    """Whether the folder holds something else than a book that was built before."""
    return out.exists() and not (out / ".buildinfo").is_file() and (not out.is_dir() or any(out.iterdir()))


def build(out: Path, doctrees: Path, *, draft: bool) -> int:
    from sphinx.cmd.build import build_main

    from book import accessible, clicks, pages

    if out.exists():
        shutil.rmtree(out)
    strict = [] if draft else ["--fail-on-warning"]
    options = ["-q", "-n", "-E", "-a", "-b", "html", "-d", str(doctrees), "-D", f"book_figures={out / 'figures'}"]
    status = build_main([*options, *strict, str(ROOT / "docs"), str(out)])
    shutil.rmtree(out / ".doctrees", ignore_errors=True)
    accessible.repair(out)
    faults = [*pages.faults(out), *clicks.faults(out, clicks.unplanned())] if out.exists() else []
    for fault in faults:
        print(f"docs: {fault}", file=sys.stderr)
    return status or int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
