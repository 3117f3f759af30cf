"""Pairs of texts that a tiny encoder-decoder learns in seconds, and its sizes as flags."""

from __future__ import annotations

from pathlib import Path

WORDS = {"one": "eins", "two": "zwei", "red": "rot", "old": "alt", "car": "Auto", "dog": "Hund"}
PAIRS = [(f"{a} {b} {c}", f"{WORDS[a]} {WORDS[b]} {WORDS[c]}") for a in WORDS for b in WORDS for c in WORDS]
TINY = [
    "--encoder-layers", "1", "--decoder-layers", "1", "--heads", "2", "--width", "16", "--context", "24", "--batch",
    "16", "--vocabulary", "280", "--threads", "1", "--dropout", "0",
]  # fmt: skip


def written(folder: Path, pairs: list[tuple[str, str]] = PAIRS) -> tuple[str, str]:
    """Two parallel files."""
    folder.mkdir(exist_ok=True)
    for name, side in (("a.en", 0), ("a.de", 1)):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    return str(folder / "a.en"), str(folder / "a.de")
