"""Make golden/notes.json: which known mistakes each case catches, with their effect and links to public reports.

    python scripts/make_notes.py             put every mutant of the bank to the golden files and write the notes
    python scripts/make_notes.py --check     write nothing; exit 1 if the notes are not those that would be written

Run it after cases or mutants have changed; it takes a minute or two. What the bank lacks stands in
scripts/golden/notes.toml. Needs numpy.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tomllib
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
sys.path[:0] = [str(SCRIPTS), str(SCRIPTS.parent)]

from libraries import require

require(__doc__, "numpy")

from golden import writer
from refllm.errors import UserError
from refllm.verify import corpus, mutants
from refllm.verify.kills import Kill, kills
from refllm.verify.mutants import Mutant

NOTES = SCRIPTS.parent / "golden/notes.json"
BY_HAND = SCRIPTS / "golden/notes.toml"
KIND_BY_LEVEL = {1: "formula", 2: "wiring", 3: "wiring", 4: "training", 5: "generation", 7: "parallel"}
EFFECTS = {
    frozenset({"value", "gradient"}): "values and gradients are wrong",
    frozenset({"value"}): "values are wrong",
    frozenset({"gradient"}): "the value is right and the gradient wrong: nothing shows but what is trained with it",
    frozenset({"answer"}): "it ends in an error",
}


def note(mutant: Mutant, kill: Kill) -> dict[str, Any]:
    """What is said of a mistake, from what it did to the cases."""
    parts = kill.parts - {"answer"} or kill.parts
    kind = "gradient" if parts == {"gradient"} else KIND_BY_LEVEL[kill.level]
    found = {
        "kind": kind if mutant.dtype == "float64" else "precision",
        "mistake": mutant.about,
        "effect": EFFECTS[parts],
        "links": [mutant.issue] if mutant.issue else [],
    }
    return found | ({"dtype": mutant.dtype} if mutant.dtype != "float64" else {})


def made(found: dict[str, Kill], by_hand: dict[str, Any], cases: list[str]) -> dict[str, Any]:
    """The notes: those of the bank, with what is said of them by hand, and those that are made by hand."""
    bank = {mutant.id: mutant for mutant in mutants.MUTANTS}
    notes = {name: note(bank[name], kill) for name, kill in found.items()}
    by_case: dict[str, set[str]] = {}
    for name, kill in found.items():
        for case in kill.cases:
            by_case.setdefault(case.id, set()).add(name)
    for name, more in by_hand.get("mistake", {}).items():
        if name not in notes:
            raise UserError(f"{BY_HAND.name}: {name} is no mistake of the bank that a case catches")
        notes[name]["links"] += more.get("links", [])
        notes[name]["effect"] = more.get("effect", notes[name]["effect"])
    for more in by_hand.get("note", []):
        if more["id"] in notes:
            raise UserError(f"{BY_HAND.name}: {more['id']} is in the bank; say more of it under [mistake]")
        notes[more["id"]] = {part: more[part] for part in ("kind", "mistake", "effect", "links")}
        for pattern in more["cases"]:
            named = fnmatch.filter(cases, pattern)
            if not named:
                raise UserError(f"{BY_HAND.name}: {more['id']}: there is no case {pattern}")
            for case in named:
                by_case.setdefault(case, set()).add(more["id"])
    return {
        "notes": {name: notes[name] for name in sorted(notes)},
        "cases": {case: sorted(by_case[case]) for case in sorted(by_case)},
    }


def as_bytes(notes: dict[str, Any]) -> bytes:
    """A line a note and a case. What would stand there often stands once: cases list the numbers of their notes, and
    notes the numbers of their effects."""
    number = {name: n for n, name in enumerate(notes["notes"])}
    effects = sorted({note["effect"] for note in notes["notes"].values()})
    told = [{"id": name, **note, "effect": effects.index(note["effect"])} for name, note in notes["notes"].items()]
    cases = {case: [number[name] for name in names] for case, names in notes["cases"].items()}
    lines = {
        "effects": [_line(effect) for effect in effects],
        "notes": [_line(note) for note in told],
        "cases": [f"{_line(case)}:{_line(numbers)}" for case, numbers in cases.items()],
    }
    parts = [
        f'"{part}":{opens}\n' + ",\n".join(lines[part]) + f"\n{closes}"
        for part, opens, closes in (("effects", "[", "]"), ("notes", "[", "]"), ("cases", "{", "}"))
    ]
    return ('{\n"format":2,\n' + ",\n".join(parts) + "\n}\n").encode()


def _line(x: Any) -> str:
    return json.dumps(x, ensure_ascii=False, separators=(",", ":"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the notes of the golden files.")
    parser.add_argument("--check", action="store_true", help="compare with the file and write nothing")
    chosen = parser.parse_args(arguments)
    try:
        golden = corpus.load(corpus.folder(None))
        found = kills(mutants.MUTANTS, golden.cases.values(), "float64", golden.C)
        content = as_bytes(made(found, tomllib.loads(BY_HAND.read_text(encoding="utf-8")), list(golden.cases)))
    except UserError as error:
        print(f"make_notes: {error}", file=sys.stderr)
        return 2
    if chosen.check:
        same = NOTES.is_file() and NOTES.read_bytes() == content
        print("the notes are up to date" if same else f"{NOTES.name} differs; run scripts/make_notes.py")
        return 0 if same else 1
    writer.write(NOTES, content)
    print(f"{NOTES.name}: {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
