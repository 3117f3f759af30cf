"""Options of the test run, and the subject that the operation tests examine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import hypothesis
import pytest

from spec_tests import subject as subjects

# Deterministic: the same examples on every machine and in every run, so that a failure is one for everybody.
hypothesis.settings.register_profile(
    "spec",
    derandomize=True,
    deadline=None,
    max_examples=30,
    report_multiple_bugs=False,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("spec")


_SUBJECT = pytest.StashKey[subjects.Subject]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take more than a few seconds")
    parser.addoption("--network", action="store_true", help="also run the tests that need a package registry")
    parser.addoption("--adapter", metavar="FILE", help="test the operations of this Python module instead of refllm's")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--adapter")
    config.stash[_SUBJECT] = subjects.adapter(Path(path)) if path else subjects.refllm()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "slow: run with --slow",
        "network": None if config.getoption("--network") else "needs a package registry: run with --network",
        "gpu": None if importlib.util.find_spec("cupy") else "needs CuPy and a CUDA device",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason is not None and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def subject(pytestconfig: pytest.Config) -> subjects.Subject:
    """The implementation under test."""
    return pytestconfig.stash[_SUBJECT]
