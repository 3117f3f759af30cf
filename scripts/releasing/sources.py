"""The files that a release is made of: those of a commit, not whatever lies in the folder."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from refllm.errors import UserError

EPOCH = "SOURCE_DATE_EPOCH"  # https://reproducible-builds.org/specs/source-date-epoch/


@dataclass(frozen=True)
class Sources:
    """Contents by path with `/`, which of them can be run, and the moment that is written into what is built."""

    files: Mapping[str, bytes]
    executable: frozenset[str]
    moment: int  # seconds since 1970

    def text(self, path: str) -> str:
        return self.files[path].decode("utf-8")

    def under(self, folder: str) -> dict[str, bytes]:
        """The files of a folder, in order, by their path in it."""
        start = folder.rstrip("/") + "/"
        return {path.removeprefix(start): self.files[path] for path in sorted(self.files) if path.startswith(start)}


def of_commit(root: Path) -> Sources:
    """The files of the commit that is checked out. UserError where the folder has others."""
    if not (root / ".git").exists():
        raise UserError("a release is made from a commit, and this folder is no checkout of git; clone the project")
    changed = _git(root, "status", "--porcelain").decode().splitlines()
    if changed:
        raise UserError(f"{changed[0][3:]} is not committed ({len(changed)} such files); commit or remove them first")
    files, executable = {}, set()
    listed = [line for line in _git(root, "ls-tree", "-r", "-z", "HEAD").decode().split("\0") if line]
    for line, content in zip(listed, _blobs(root, [line.split()[2] for line in listed]), strict=True):
        description, _, path = line.partition("\t")
        mode = description.split()[0]
        if mode not in ("100644", "100755"):
            raise UserError(f"{path} is no plain file (git mode {mode}); a release has no links and no submodules")
        files[path] = content
        if mode == "100755":
            executable.add(path)
    return Sources(files, frozenset(executable), _moment(_git(root, "log", "-1", "--format=%ct").decode().strip()))


def _moment(committed: str) -> int:
    """The moment that the environment asks for, or that of the commit."""
    said = os.environ.get(EPOCH, committed)
    if not re.fullmatch("[0-9]{1,11}", said):
        raise UserError(f"{EPOCH} is {said!r}; it must be a whole number of seconds since 1970, or not set")
    return max(int(said), 315532800)  # 1980, before which a zip has no date


def _blobs(root: Path, digests: list[str]) -> list[bytes]:
    """The contents of many files as they were committed, by one process."""
    said = _git(root, "cat-file", "--batch", given="".join(f"{digest}\n" for digest in digests).encode())
    found, at = [], 0
    for _ in digests:
        end = said.index(b"\n", at)
        size = int(said[at:end].split()[2])
        found.append(said[end + 1 : end + 1 + size])
        at = end + 1 + size + 1
    return found


def _git(root: Path, *words: str, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(["git", *words], cwd=root, input=given, capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("a release is made from a commit, for which git is needed; install it") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise UserError(f"git {words[0]} failed: {said[-1]}")
    return done.stdout
