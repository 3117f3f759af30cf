"""What is built of the project holds all that its user needs."""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["data-files"]
NEEDED_TO_VERIFY = [
    *(ROOT / "golden").rglob("*.*"), *(ROOT / "scripts/adapters").glob("*.py"), ROOT / "docs/conformance.md",
    *(ROOT / "scripts/consumers").rglob("*.*"), *(ROOT / "scripts/kits").rglob("*.*"),
]  # fmt: skip


def tracked() -> list[str]:
    """The files of the checkout; the test is skipped where there is none."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a checkout with git")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_the_wheel_is_asked_to_hold_what_verifying_needs() -> None:
    for path in NEEDED_TO_VERIFY:
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and "__pycache__" not in name:
            patterns = DATA.get(f"share/refllm/{path.parent.relative_to(ROOT).as_posix()}", [])
            assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), f"{name} is in no data-files"


def test_the_archive_is_asked_to_hold_every_file_of_the_checkout() -> None:
    said = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    grafted = tuple(f"{line.split()[1]}/" for line in said if line.startswith("graft "))
    included = {word for line in said if line.startswith("include ") for word in line.split()[1:]}
    always = {"README.md", "LICENSE", "pyproject.toml", "MANIFEST.in"}
    missing = [name for name in tracked() if not name.startswith(grafted) and name not in included | always]
    assert missing == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The archive of the sources, the wheel that is made of it, and a Python that has the wheel."""
    folder = tmp_path_factory.mktemp("built")
    for name in tracked():
        (folder / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "sources" / name)
    venv.create(folder / "python", with_pip=True)
    python = folder / "python" / ("Scripts" if sys.platform == "win32" else "bin") / "python"

    def run(*words: str) -> None:
        done = subprocess.run(
            [str(python), *words], cwd=folder / "sources", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]

    pip = ("-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "setuptools>=77")
    run("-c", f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})")
    (archive,) = folder.glob("*.tar.gz")
    run(*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(archive))
    (wheel,) = folder.glob("*.whl")
    run(*pip, "install", "--quiet", str(wheel))
    return archive, wheel, python


@pytest.mark.network
def test_the_archive_holds_every_file_of_the_checkout(built: tuple[Path, Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked()) - names == set()


@pytest.mark.network
def test_the_wheel_holds_the_package_and_what_verifying_needs(built: tuple[Path, Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
    assert {name for name in tracked() if name.startswith("refllm/")} <= set(names)
    for path in NEEDED_TO_VERIFY:
        place = f"/data/share/refllm/{path.relative_to(ROOT).as_posix()}"
        assert not path.is_file() or "__pycache__" in place or any(name.endswith(place) for name in names), place


@pytest.mark.network
def test_what_is_installed_verifies_itself_and_says_where_its_page_is(
    built: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    program = str(built[2].with_name("refllm"))
    asked = [[program, "verify", "--self", "--level", "1"], [program, "verify", "--help"], [program, "--help"]]
    said = [subprocess.run(one, cwd=tmp_path, capture_output=True, text=True, check=True).stdout for one in asked]
    page = Path(said[1].partition("How to plug in: ")[2].split("\n")[0])
    assert page.is_absolute()
    assert "# Is your implementation right?" in page.read_text(encoding="utf-8")
    assert (page.parent / "../scripts/adapters/torch_adapter.py").is_file()
    assert f"{built[2]} -m pip install 'matplotlib>=3.9'" in said[2]
