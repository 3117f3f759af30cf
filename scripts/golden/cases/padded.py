"""L5: prompts of unequal length, which are padded on the left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from golden.case import Case
from golden.cases import llama, recurrent_models
from golden.cases.runs import LONGER, LONGER_POST, going_on


def generate_padded() -> list[Case]:
    """Prompts of unequal length that end at the same place. What stands in the padding was chosen to be a word."""
    untied = {**LONGER, "tied": False}

    def case(slug: str, about: str, name: str, padding: list[int], **more: Any) -> Case:
        made = going_on(f"padded-{slug}", about, 4, name, more.pop("config", untied), prompt=(len(padding), 4), **more)
        return replace(made, operation="generate_padded", keywords={**made.keywords, "padding": np.array(padding)})

    return [
        case("left", "a row without padding, one with two places, one with three; positions begin at the first word",
             "GEN/batch 69", [0, 2, 3]),
        case("left-cache", "the same with a cache: the padding stays hidden from every later token", "GEN/batch 69",
             [0, 2, 3], cache=True),
        case("left-post", "sinusoidal positions begin at the first word too", "GEN/batch 2", [1, 0], config=LONGER_POST,
             cache=True),
        case("left-sampled", "the draws of a row are its own, whatever its padding", "GEN/batch 11", [2, 0], cache=True,
             uniforms=[[0.3125, 0.5625, 0.125, 0.875], [0.8125, 0.5625, 0.6875, 0.75]]),
        _padded_from(llama.generate(), "GEN/llama-batch-cache", "llama", "rotary positions are relative: what stands "
                     "in the padding must be hidden all the same", [0, 1]),
        _padded_from(recurrent_models.generate(), "GEN/rnn-batch-state", "rnn", "the state begins at the first word: "
                     "padding does not move it", [1, 0]),
    ]  # fmt: skip


def _padded_from(cases: list[Case], id: str, slug: str, about: str, padding: list[int]) -> Case:
    """A batch that another case goes on with, its first places taken for padding."""
    made = next(case for case in cases if case.id == id)
    keywords = {**made.keywords, "padding": np.array(padding)}
    return replace(made, id=f"GEN/padded-left-{slug}", about=about, operation="generate_padded", keywords=keywords)
