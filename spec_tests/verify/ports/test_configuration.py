"""What is said of an entry of config.json is said of one that stands there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from refllm.verify.ports.found import Found
from refllm.verify.ports.mistakes import configuration
from refllm.verify.ports.report import extent
from spec_tests.verify.ports.models import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_lines_under_config_json_are_entries_of_it(published: Any, name: str) -> None:
    model = published(name)
    held = json.loads((model.folder / "config.json").read_text())
    places = {
        "config.json": held,
        configuration.OR_TIED: held,
        configuration.ROTATION: {**held, **held.get("rope_parameters", {})},
    }
    shown = 0
    for one in configuration.mistakes(model.program):
        for place, lines in one.lines:
            for line in lines if place in places else ():
                assert line.removeprefix("- ").removeprefix("+ ").partition(":")[0] in places[place], (one.said, line)
                shown += 1
        if "config.json says" in one.said:
            assert one.lines[0][0] in places
    assert shown


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_of_the_configuration_is_tried_with_another_value(published: Any, name: str) -> None:
    """Those of which the shapes of the weights follow leave no choice, nor do those that are off."""
    model = published(name)
    fixed = {
        "vocabulary", "context", "layers", "encoder_layers", "decoder_layers", "width", "hidden", "segments", "labels",
        "dropout", "experts", "encoder_every", "decoder_every", "heads", "kv_heads", "head_width",
    }  # fmt: skip
    off = {"llama": {"farthest", "scaling_scale"}, "encoder_decoder": {"capacity"}}.get(model.program.model, set())
    tried = {entry for one in configuration.mistakes(model.program) for entry in one.change.config}
    for entry, value in model.program.config.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if (
            number
            and value
            and entry not in fixed | off
            and not (entry.startswith("scaling") and model.program.config["scaling"] == "none")
        ):
            assert entry in tried, entry


def test_what_is_there_once_is_in_no_layer(published: Any) -> None:
    for name, kind, said in (("gemma2", "embedding", "the embedding"), ("gemma2", "output", "the output layer")):
        program = published(name).program
        [candidate] = [one for one in configuration.mistakes(program) if configuration.READ.get(
            next(iter(one.change.config))) == kind][:1]  # fmt: skip
        acting = tuple(n for n, step in enumerate(program.steps) if candidate.acts(step))
        assert extent(Found(candidate, acting, acting, 1, 1), program) == said
