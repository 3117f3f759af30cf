"""Laws of what the book draws from training: it was written with the settings of the script, and meets what the page
states of it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np

import book_lstm as script
from refllm.models import recurrent_lm
from refllm.parameters import map_leaves

ROOT = Path(__file__).resolve().parents[2]
LSTM = json.loads((ROOT / "docs/data/lstm.json").read_text(encoding="utf-8"))


def test_the_curve_of_the_lstm_was_made_with_the_settings_of_the_script() -> None:
    settings = {"characters": script.TRAINED, "context": script.CONTEXT, "batch": script.BATCH, "rate": script.RATE}
    assert {name: LSTM[name] for name in settings} == settings
    assert len(LSTM["loss"]) == len(LSTM["held_out"]) == script.EPOCHS


def test_the_loss_of_the_lstm_falls_at_every_epoch_as_far_as_the_document_prints() -> None:
    """documents 003 sec. 5.4: from 2.0752 to 0.4251 in ten epochs."""
    assert all(later < earlier for earlier, later in itertools.pairwise(LSTM["loss"]))
    assert LSTM["loss"][0] > 2
    assert LSTM["loss"][-1] < 0.5


def test_a_step_of_the_script_lowers_the_loss_of_its_windows() -> None:
    config = recurrent_lm.Config(vocabulary=5, context=4, layers=1, width=3, hidden=4)
    p = map_leaves(np.float32, recurrent_lm.initial(config, np.random.default_rng(0)))
    moments = [map_leaves(np.zeros_like, p) for _ in range(2)]
    windows = np.random.default_rng(1).integers(0, 5, (3, 5))
    before, back = script.mean_loss(p, windows, config)
    script.update(p, back(), moments, 1)
    assert script.mean_loss(p, windows, config)[0] < before


def test_the_figures_of_the_context_draw_what_the_measurements_say() -> None:
    page = (ROOT / "docs/measurements.md").read_text(encoding="utf-8")
    rows = {" ".join(line.split()) for line in page.splitlines()}
    measured = json.loads((ROOT / "docs/data/context.json").read_text(encoding="utf-8"))
    for name, steps in measured["memory"]["steps"].items():
        said = {f"{name} {each['context']:,} {each['megabytes']} MB {each['seconds']:.2f} s" for each in steps}
        assert len(said) == 5
        assert said <= rows
    for name, bits in measured["beyond"]["bits"].items():
        assert " ".join([name, *("-" if each is None else f"{each:.3f}" for each in bits)]) in rows
    for part in ("memory", "beyond"):
        assert f"`{measured[part]['command']}" in page
