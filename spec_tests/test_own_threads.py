"""Laws of the threads of BLAS: who sets their number gives it back."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from refllm.own_threads import one_thread_of_blas


def threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_blas_has_one_thread_in_the_context_and_its_own_number_after() -> None:
    with threadpool_limits(2, user_api="blas"):
        with one_thread_of_blas():
            assert threads() == {1}
            with one_thread_of_blas():
                assert threads() == {1}
            assert threads() == {1}, "the inner one has not set it and must not give it back"
        assert threads() == {2}


def test_an_error_gives_the_threads_back() -> None:
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(ZeroDivisionError), one_thread_of_blas():
            raise ZeroDivisionError
        assert threads() == {2}
        with one_thread_of_blas():
            assert threads() == {1}
