"""Options of the test run, and the subject that the operation tests examine."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest
from threadpoolctl import threadpool_limits

from refllm.verify import corpus
from spec_tests import devices, gradients, sampling
from spec_tests import subject as subjects

# Deterministic: the same examples on every machine and in every run, so that a failure is one for everybody.
hypothesis.settings.register_profile(
    "spec",
    derandomize=True,
    deadline=None,
    max_examples=15,
    report_multiple_bugs=False,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("sample", hypothesis.settings.get_profile("spec"), max_examples=10)
hypothesis.settings.register_profile("slow", hypothesis.settings.get_profile("spec"), max_examples=30)


_SUBJECT = pytest.StashKey[subjects.Subject]()
_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take more than a few seconds")
    parser.addoption("--every", action="store_true", help="every subject of a law that is sampled (see one_in)")
    parser.addoption("--tools", action="store_true", help="also run the tests that need tools of other languages")
    parser.addoption("--network", action="store_true", help="also run the tests that need a package registry")
    parser.addoption("--require", metavar="MODULES", help="fail where one of these is missing, for which tests skip")
    parser.addoption("--adapter", metavar="FILE", help="test the operations of this Python module instead of refllm's")
    parser.addoption(
        "--device",
        choices=("cpu", "double", "cuda"),
        default="cpu",
        help="where the operations run: on the host, on the strict double of CuPy, or on a GPU",
    )


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        _limit_blas()
    missing = [name for name in (config.getoption("--require") or "").split(",") if name and find_spec(name) is None]
    if missing:
        raise pytest.UsageError(f"--require: this Python has no {', '.join(missing)}")
    hypothesis.settings.load_profile(
        "slow" if config.getoption("--slow") else "sample" if sampling.is_sampled(config) else "spec"
    )
    gradients.EVERY_ELEMENT = config.getoption("--slow")
    corpus.load = _read_once(corpus.load)  # type: ignore[assignment]
    config.stash[_SUBJECT] = _chosen(config.getoption("--adapter"), config.getoption("--device"))


def _limit_blas() -> None:
    """A process a core: threads of BLAS, here and in what a test starts, would only wait for each other."""
    threadpool_limits(1, user_api="blas")
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def _read_once(load: Callable[[Path], corpus.Corpus]) -> Callable[[Path], corpus.Corpus]:
    """The golden files of the checkout are read once a process. What a folder must be is tested with other folders."""
    kept: list[corpus.Corpus] = []

    def once(root: Path) -> corpus.Corpus:
        if root != corpus.folder(None):
            return load(root)
        if not kept:
            kept.append(load(root))
        return kept[0]

    return once


def _chosen(path: str | None, device: str) -> subjects.Subject:
    if path is None:
        return subjects.refllm() if device == "cpu" else subjects.on_device(_usable(device))
    if device != "cpu":
        raise pytest.UsageError("--adapter takes and returns NumPy arrays; leave out --device")
    return subjects.adapter(Path(path))


def _usable(device: str) -> devices.Device:
    if device == "double":
        return devices.DOUBLE
    if reason := devices.why_no_gpu():
        raise pytest.UsageError(reason)
    return devices.CUDA


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "slow: run with --slow",
        "tools": None if config.getoption("--tools") else "needs a compiler, node, go or cargo: run with --tools",
        "network": None if config.getoption("--network") else "needs a package registry: run with --network",
        "gpu": devices.why_no_gpu(),
        "host": None if config.getoption("--device") == "cpu" else "a promise for NumPy arrays alone",
        "own": None if config.getoption("--adapter") is None else "what refllm refuses, and its words, are its own",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason is not None and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    if sampling.is_sampled(config):
        left_out = sampling.left_out(items)
        config.stash[_LEFT_OUT] = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    # The kill matrix takes longest: at the beginning one process has it, and none is left alone with it at the end.
    items.sort(key=lambda item: "known" not in getattr(item, "fixturenames", ()))


def pytest_report_collectionfinish(config: pytest.Config) -> str | None:
    count = config.stash.get(_LEFT_OUT, 0)
    return f"{count} further subjects of laws that are sampled wait for --every" if count else None


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> subjects.Subject:
    """The implementation under test."""
    return pytestconfig.stash[_SUBJECT]
