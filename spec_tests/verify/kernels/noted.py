"""Kernels that were written for a test, each with what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.runner import Result
from spec_tests.verify.kernels.test_diagnosis import told

Kernel = Callable[..., Any]


class Noted(dict[str, tuple[str, Kernel, str]]):
    """By name: the operation, the kernel, and what is said of it."""

    def wrong(self, operation: str, said: str) -> Callable[[Kernel], Kernel]:
        def noted(function: Kernel) -> Kernel:
            self[function.__name__] = operation, function, said
            return function

        return noted

    def found(self, name: str) -> list[Result]:
        """The wrong answers of a kernel in float32, with what is said of them."""
        operation, function, _ = self[name]
        return told(Functions(name, {operation: function}, {}, ("float64", "float32")), operation, "float32")

    def is_named(self, name: str) -> None:
        lines = [line for result in self.found(name) for line in result.diagnosis]
        assert any(self[name][2] in line for line in lines), lines

    def is_named_first(self, name: str) -> None:
        """And nothing else is said first of any wrong answer."""
        found, said = self.found(name), self[name][2]
        lines = [line for result in found for line in result.diagnosis]
        assert any(said in line for line in lines), lines
        firsts = [line for result in found for line in result.diagnosis[:1] if isinstance(line, Explanation)]
        assert all(said in line for line in firsts), lines
