"""What belongs to the neural probabilistic language model alone. (test_language_models.py holds the laws of all.)"""

from __future__ import annotations

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import nnlm
from refllm.parameters import count
from refllm.spec import nnlm as text
from spec_tests.gradients import random_tree

CONFIG = nnlm.Config(vocabulary=5, context=8, order=4, width=3, hidden=6, direct=True)


@pytest.mark.parametrize(("V", "n", "m", "h"), [(17_964, 6, 100, 60), (16_383, 5, 60, 50), (7, 2, 1, 1)])
def test_the_parameters_are_as_many_as_the_paper_counts(V: int, n: int, m: int, h: int) -> None:
    """|V| (1 + n m + h) + h (1 + (n - 1) m), sec. 2."""
    config = nnlm.Config(vocabulary=V, context=8, order=n, width=m, hidden=h, direct=True)
    assert count(nnlm.shapes(config)) == V * (1 + n * m + h) + h * (1 + (n - 1) * m)


def test_it_is_what_the_text_says() -> None:
    p, ids = random_tree(nnlm.shapes(CONFIG), 0), numpy.array([[3, 1, 4, 1, 0]])
    y, _ = nnlm.forward(p, ids=ids, config=CONFIG, dropout_mask=None, cache=None)
    numpy.testing.assert_allclose(y, text.nnlm(p, ids=ids, config=vars(CONFIG))[0], rtol=1e-12)


def test_a_token_further_back_than_the_order_does_not_matter() -> None:
    p, ids = random_tree(nnlm.shapes(CONFIG), 0), numpy.random.default_rng(0).integers(0, 5, (1, 8))
    other = ids.copy()
    other[0, 2] = (ids[0, 2] + 1) % 5
    y, z = (nnlm.forward(p, ids=a, config=CONFIG, dropout_mask=None, cache=None)[0][0] for a in (ids, other))
    differs = (y != z).any(axis=-1)
    assert differs.tolist() == [False, False, True, True, True, False, False, False]


def test_without_direct_connections_the_words_reach_the_output_through_tanh_alone() -> None:
    """With U = 0 the output is b whatever is read; with direct connections it is not."""
    ids = numpy.random.default_rng(0).integers(0, 5, (1, 8))
    for direct in (False, True):
        config = nnlm.Config(vocabulary=5, context=8, order=4, width=3, hidden=6, direct=direct)
        p = random_tree(nnlm.shapes(config), 0)
        p["U"] *= 0
        y, _ = nnlm.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
        assert numpy.allclose(y, p["b"]) is not direct


def test_an_order_that_sees_no_token_is_refused() -> None:
    with pytest.raises(UserError, match="order must be a whole number of at least 2, got 1"):
        nnlm.Config(vocabulary=5, context=8, order=1)
