"""What belongs to the recurrent language models alone. (test_language_models.py holds the laws of all.)"""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import recurrent_lm
from refllm.parameters import count
from spec_tests.gradients import random_tree


def test_the_documents_model_has_the_parameters_of_its_code_with_one_bias_a_layer() -> None:
    """Embedding V 256; gates 4 (256 512 + 512 512 + 512) and 4 (512 512 + 512 512 + 512); output 512 V."""
    V = 1000
    config = recurrent_lm.document_003(V, 64)
    assert (config.layers, config.width, config.hidden, config.cell) == (2, 256, 512, "lstm")
    assert count(recurrent_lm.shapes(config)) == 256 * V + 1_574_912 + 2_099_200 + 512 * V


def test_a_tied_matrix_gets_the_gradients_of_both_its_uses() -> None:
    same: dict[str, Any] = {"vocabulary": 5, "context": 4, "width": 3, "hidden": 3}
    tied, untied = recurrent_lm.Config(**same, tied=True), recurrent_lm.Config(**same)
    p, ids = random_tree(recurrent_lm.shapes(tied), 0), numpy.random.default_rng(0).integers(0, 5, (2, 4))
    y, back = recurrent_lm.forward(p, ids=ids, config=tied, dropout_mask=None, cache=None)
    twin = {**p, "head": p["token"].T.copy()}
    z, back_twin = recurrent_lm.forward(twin, ids=ids, config=untied, dropout_mask=None, cache=None)
    dy = numpy.random.default_rng(0).standard_normal(y.shape)
    dp, dtwin = back(dy), back_twin(dy)
    numpy.testing.assert_allclose(y, z, rtol=1e-12)
    numpy.testing.assert_allclose(dp["token"], dtwin["token"] + dtwin["head"].T, rtol=1e-12, atol=1e-13)


def test_a_tie_of_unequal_widths_and_an_unknown_cell_are_refused() -> None:
    with pytest.raises(UserError, match="a tied head needs states as wide as the embedding: width 256, hidden 512; "):
        recurrent_lm.Config(vocabulary=5, context=4, tied=True)
    with pytest.raises(UserError, match="cell must be one of rnn, lstm; got 'gru'"):
        recurrent_lm.Config(vocabulary=5, context=4, cell="gru")
    with pytest.raises(UserError, match="layers must be a whole number of at least 1, got 0"):
        recurrent_lm.Config(vocabulary=5, context=4, layers=0)
