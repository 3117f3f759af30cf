"""Makes everything that is released, from the commit that is checked out.

    ./scripts/release --out DIR             the wheel, the archive of the sources, the packages of the golden files
    ./scripts/release --out DIR --vectors   the packages of the golden files alone
    ./scripts/release --record              after a release: keeps what its cases are, for the next to compare with

The same commit makes the same bytes on every machine and in every folder; SHA256SUMS lists them. RELEASING.md has the
steps. SOURCE_DATE_EPOCH, if set, is the date in the wheel and the archive of the sources, instead of the commit's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from refllm.errors import UserError
from releasing import crate, difference, go, npm, package, python, record, sources, vectors, versions

ROOT = Path(__file__).resolve().parents[2]


def packages(given: sources.Sources) -> dict[str, bytes]:
    """The packages of the golden files, by their path in the folder of the release."""
    found = package.of(given)
    made = {name: content for kind in (vectors, npm, go, crate) for name, content in kind.made(found).items()}
    return made | {f"CHANGES-{found.versions.vectors}.md": difference.as_text(found.change).encode()}


def require_new(out: Path) -> None:
    """UserError where there is something already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and is not an empty folder; choose another one for --out")


def write(out: Path, made: dict[str, bytes]) -> None:
    """All of them or nothing, with their digests."""
    require_new(out)
    made = made | {"SHA256SUMS": vectors.sums(made)}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
        try:
            for name, content in made.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
            partial.chmod(0o755)
            if out.exists():
                out.rmdir()  # it is empty; Windows replaces no folder
            os.replace(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None


def keep(given: sources.Sources, root: Path) -> Path:
    """Writes the record of this version into the checkout. UserError where another one is kept for it."""
    said = versions.of(given)
    difference.since_the_last_release(given)
    path = root / record.FOLDER / f"{said.specification}.json"
    content = record.dumps(record.of(given.under("golden")))
    if path.is_file() and path.read_bytes() != content:
        raise UserError(f"{path.name} is kept already and says something else; a version is released once")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        prog="release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a folder that does not exist yet, or an empty one")
    parser.add_argument("--vectors", action="store_true", help="without the wheel and the archive of the sources")
    parser.add_argument("--record", action="store_true", help="keep what the cases of this version are")
    chosen = parser.parse_args(arguments)
    if chosen.record == (chosen.out is not None) or (chosen.record and chosen.vectors):
        parser.error("say where to make the release (--out DIR), or --record after it")
    try:
        given = sources.of_commit(root)
        if chosen.record:
            print(f"{keep(given, root).relative_to(root)}: commit it")
            return 0
        require_new(chosen.out)
        made = packages(given) | ({} if chosen.vectors else python.made(given))
        write(chosen.out, made)
    except UserError as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    for name, content in sorted(made.items()):
        if "/" not in name or name.endswith(".zip"):
            print(f"{len(content):>9}  {chosen.out / name}")
    print(f"digests: {chosen.out / 'SHA256SUMS'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
