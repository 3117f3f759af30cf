"""The command lines of the pages that have a test of their own, and those that cannot be run by any."""

from __future__ import annotations

from spec_tests.written_pages import Line

# What a line begins with, or the page that it stands in; and what runs it.
ELSEWHERE = {
    "docs/libraries.md": "spec_tests/test_compare_libraries.py::test_the_command_of_a_row_works",
    "scripts/kits/": "spec_tests/kits/test_kits.py::test_the_kit_builds_and_passes_by_the_command_of_its_readme",
    "pytest --refllm": "spec_tests/test_pytest.py::test_the_command_lines_of_the_pages_work",
    "cc -O2 -shared": "spec_tests/furnished.py::prepared",
    "... write": "spec_tests/commands/test_verify.py::test_requests_are_written_once_and_answers_to_them_are_read",
    "./scripts/release --out": "spec_tests/releasing/test_python.py::releases",
    "./scripts/release --record": "spec_tests/releasing/test_command.py::test_a_record_is_kept_once",
    "./scripts/docs --check": ".ci/run::scripts/docs --check",
    "./scripts/docs": "spec_tests/book/test_build.py::test_a_book_that_lacks_something_is_built_as_a_draft_alone",
    "cd release && sha256sum": "spec_tests/releasing/test_packages.py::test_the_digests_are_those_of_the_files",
    "sha256sum --check": "spec_tests/releasing/test_packages.py::test_the_digests_are_those_of_the_files",
}

# And why nothing runs it here; the test prints it as skipped.
NOT_HERE = {
    "scripts/kits/cuda/": "needs nvcc and a GPU; test_kits.py compiles it where nvcc is",
    "scripts/kits/triton/": "needs triton and a GPU",
    "scripts/kits/webgpu/": "needs Deno and a GPU",
    "refllm verify --self --device cuda": "needs a GPU: ./scripts/gpu_check",
    "./scripts/test --device=cuda": "needs a GPU: ./scripts/gpu_check",
    "mpiexec -n 4 -hosts a,b": "needs two machines",
    "scripts/measure_scaling.py network": "needs root, for network namespaces",
    "npm publish": "needs the token of a registry",
    "twine upload": "needs the token of a registry",
    "cargo publish": "needs the token of a registry",
}


def matches(begins: str, line: Line) -> bool:
    return line.text.startswith(begins) or line.page.startswith(begins)


def is_elsewhere(line: Line) -> bool:
    return any(matches(begins, line) for begins in (*ELSEWHERE, *NOT_HERE))
