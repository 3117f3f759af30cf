"""What changed in the golden files since the release before, which number that raises, and who is affected."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from refllm.errors import UserError
from releasing import record, versions
from releasing.sources import Sources

CORRECTIONS = "scripts/releasing/corrections.toml"
_SAID = {
    "added": "New cases. An implementation that was right may fail one of them.",
    "withdrawn": "Cases that were wrong and are gone. Nobody has to do anything but forget them.",
    "corrected": "Cases that were wrong and are put right under their id. Who passed them may fail, and the reverse.",
    "judgement": "Cases whose tolerance or conventions were derived again. The answers are the same; who was "
    "near the border may pass or fail now.",
    "words": "Cases about which something is said better. Nobody's results change.",
}


@dataclass(frozen=True)
class Difference:
    """Ids of cases by what happened to them."""

    before: str | None  # the spec_version of the release before; None where there was none
    after: str
    format: bool = False
    calibration: bool = False
    cases: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in _SAID})
    reasons: dict[str, dict[str, str]] = field(default_factory=dict)  # id -> what was wrong, who is affected

    @property
    def level(self) -> int | None:
        """Which number of the version must rise: 0 format, 1 cases, 2 corrections; None where nothing changed."""
        if self.format:
            return 0
        if self.cases["added"] or self.cases["judgement"] or self.calibration:
            return 1
        return 2 if any(self.cases.values()) else None


def between(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Difference:
    """What happened from one record to another."""
    if before is None:
        every = {name: [] for name in _SAID} | {"added": sorted(after["cases"])}
        return Difference(None, after["spec_version"], cases=every)
    old, new = before["cases"], after["cases"]
    cases: dict[str, list[str]] = {name: [] for name in _SAID}
    cases["added"] = sorted(set(new) - set(old))
    cases["withdrawn"] = sorted(set(old) - set(new))
    for name in sorted(set(old) & set(new)):
        changed = [part for part in record.PARTS if old[name][part] != new[name][part]]
        if changed:
            kind = "corrected" if changed[0] == "meaning" else changed[0]
            cases[kind].append(name)
    return Difference(
        before["spec_version"],
        after["spec_version"],
        before["format"] != after["format"],
        before["C"] != after["C"],
        cases,
    )


def since_the_last_release(sources: Sources) -> Difference:
    """From the newest record of an earlier version. UserError where the version does not say what has changed."""
    now = record.of(sources.under("golden"))
    known = _records(sources)
    version = versions.number(now["spec_version"])
    newer = [said for said in known if versions.number(said) > version]
    if newer:
        raise UserError(f"specification {newer[-1]} is released already, and this is {now['spec_version']}")
    for said in [said for said in known if versions.number(said) == version]:
        found = between(known[said], now)
        if found.level is not None:
            raise UserError(
                f"specification {said} is released and has other cases ({_some(found)}); raise spec_version in "
                f"scripts/golden/writer.py to {_raised(said, found.level)} and make the golden files again"
            )
    earlier = [said for said in known if versions.number(said) < version]
    found = between(known[earlier[-1]] if earlier else None, now)
    return _explained(_checked(found), sources)


def _records(sources: Sources) -> dict[str, Any]:
    """The records of the releases, oldest first."""
    found = [json.loads(content) for content in sources.under(record.FOLDER).values()]
    return {
        each["spec_version"]: each for each in sorted(found, key=lambda each: versions.number(each["spec_version"]))
    }


def _checked(found: Difference) -> Difference:
    """UserError where a lower number was raised than what changed asks for."""
    if found.before is None or found.level is None:
        return found
    least = versions.number(_raised(found.before, found.level))
    if versions.number(found.after) < least:
        raise UserError(
            f"spec_version {found.after} follows {found.before}, but {_some(found)}; it must be "
            f"{_raised(found.before, found.level)} (scripts/golden/writer.py)"
        )
    return found


def _raised(version: str, level: int) -> str:
    numbers = list(versions.number(version))
    numbers[level:] = [numbers[level] + 1] + [0] * (2 - level)
    return ".".join(str(each) for each in (numbers if numbers[2] else numbers[:2]))


def _some(found: Difference) -> str:
    """What changed, in a few words."""
    parts = [f"{len(ids)} {name} ({ids[0]}{', …' if ids[1:] else ''})" for name, ids in found.cases.items() if ids]
    parts += ["another format"] * found.format + ["another C"] * found.calibration
    return ", ".join(parts).replace("judgement", "judged otherwise").replace("words", "described otherwise")


def _explained(found: Difference, sources: Sources) -> Difference:
    """With what was wrong in the cases that were corrected or withdrawn. UserError where nobody has said."""
    said = tomllib.loads(sources.text(CORRECTIONS)).get("correction", [])
    known = {each["case"]: each for each in said if each["spec_version"] == found.after}
    for name in [*found.cases["corrected"], *found.cases["withdrawn"]]:
        if not {"what", "affected"} <= set(known.get(name, {})):
            raise UserError(
                f"{name} was corrected or withdrawn in {found.after}, and {CORRECTIONS} does not say what was wrong "
                "and who is affected; ids never change their meaning otherwise"
            )
        found.reasons[name] = {part: known[name][part] for part in ("what", "affected")}
    return found


def as_data(found: Difference) -> dict[str, Any]:
    """CHANGES.json."""
    return {
        "spec_version": found.after,
        "before": found.before,
        "format_changed": found.format,
        "calibration_changed": found.calibration,
        "cases": {name: {"about": _SAID[name], "ids": ids} for name, ids in found.cases.items()},
        "corrections": found.reasons,
    }


def as_text(found: Difference) -> str:
    """CHANGES.md."""
    if found.before is None:
        return f"# Vectors {found.after}\n\nThe first release: {len(found.cases['added'])} cases.\n"
    lines = [f"# Vectors {found.after}: what changed since {found.before}", ""]
    if found.format:
        lines += ["The format is another one: a reader of the files has to change. golden/README.md describes it.", ""]
    if found.calibration:
        lines += ["The factor C of the tolerance is another one: every verdict may change.", ""]
    for name, ids in found.cases.items():
        if ids:
            lines += [f"## {len(ids)} {_HEADS[name]}", "", _SAID[name], "", *(_line(each, found) for each in ids), ""]
    return "\n".join(lines) if found.level is not None else "\n".join([*lines, "No case changed.", ""])


_HEADS = {"added": "added", "withdrawn": "withdrawn", "corrected": "corrected", "judgement": "judged otherwise",
          "words": "described otherwise"}  # fmt: skip


def _line(name: str, found: Difference) -> str:
    reason = found.reasons.get(name)
    return f"- `{name}`" + (f": {reason['what']} Who is affected: {reason['affected']}" if reason else "")
