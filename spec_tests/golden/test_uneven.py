"""A mean over tokens is asked of texts of which differently many count, where the mean of the texts' means is another.

The mean per text is the usual mistake of such a loss (issue 24725 of the library transformers), and no case whose texts
count alike shows it.
"""

from __future__ import annotations

from functools import cache

import numpy
import pytest

from refllm.verify import corpus
from refllm.verify.case import Case

OF_EACH_TEXT = {"load_balance", "switch_layer"}  # by definition a number of each text
LEFT_OUT = ("ignore", "valid", "counted")  # the keywords that say which places count


@cache
def averaging() -> dict[str, list[Case]]:
    """The cases of every operation that leaves places out and gives one number for the rest."""
    found: dict[str, list[Case]] = {}
    for case in corpus.load(corpus.folder(None)).cases.values():
        scalar = any(truth.value.shape == () for truth in case.outputs.values())
        if scalar and case.operation not in OF_EACH_TEXT and any(name in case.keywords for name in LEFT_OUT):
            found.setdefault(case.operation, []).append(case)
    return found


def counts(case: Case) -> set[int]:
    """How many places of a text count, of the texts of which some do."""
    name = next(name for name in LEFT_OUT if name in case.keywords)
    if case.keywords[name] is None or case.keywords.get("reduction", "mean") != "mean":
        return set()
    chosen = case.keywords[name]
    counted = numpy.asarray(case.keywords["targets"] != chosen if name == "ignore" else chosen)
    return set(counted.reshape(-1, counted.shape[-1]).sum(axis=-1).tolist()) - {0}


def test_the_losses_that_leave_places_out_are_found() -> None:
    assert {"cross_entropy", "smoothed_cross_entropy", "z_loss", "llama_loss", "denoising_loss"} <= averaging().keys()
    assert len(averaging()) >= 16


@pytest.mark.parametrize("operation", averaging())
def test_some_case_has_texts_of_which_differently_many_places_count(operation: str) -> None:
    assert any(len(counts(case)) > 1 for case in averaging()[operation])
