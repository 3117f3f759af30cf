"""What belongs to the hybrid of documents 003 sec. 4.3 alone: two directions, and erratum E9."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.models import hybrid
from refllm.objectives.causal import causal_loss
from refllm.parameters import Tree, count, map_leaves
from spec_tests.gradients import assert_gradients_agree, assert_pure, random_tree

V = 7


def config(**changes: Any) -> hybrid.Config:
    usual = {"vocabulary": V, "context": 6, "heads": 2, "width": 4, "hidden": 3, "bidirectional": True, "dropout": 0.0}
    return hybrid.Config(**{**usual, **changes})


def tokens(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, V, (B, T))


CONFIGS = {"LSTM": config(), "RNN": config(cell="rnn", layers=1, heads=1, width=3), "dropout": config(dropout=0.3)}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
ALLOWED = {"whole": None, "padded": numpy.array([[True, True, True, False], [False, True, True, True]])}


@pytest.mark.one_in(4)
@every_config
@pytest.mark.parametrize("attention_mask", ALLOWED.values(), ids=ALLOWED)
def test_every_parameters_gradient_agrees_with_differences(config: hybrid.Config, attention_mask: Any) -> None:
    random = numpy.random.default_rng(1)
    widths = hybrid.dropout_widths(config)
    dropout_mask = map_leaves(lambda n: random.random((2, 4, n)) < 0.7, widths) if config.dropout else None

    def encode(p: Tree) -> tuple[Any, Callable[[Any], Tree]]:
        return hybrid.encode(
            p, ids=tokens(2, 4), attention_mask=attention_mask, config=config, dropout_mask=dropout_mask
        )

    p = random_tree(hybrid.shapes(config), 0, scale=0.6)
    del p["head"]  # of which the states know nothing
    assert_gradients_agree(encode, p)


@every_config
def test_arguments_are_only_read_and_back_repeats_itself(config: hybrid.Config) -> None:
    p = random_tree(hybrid.shapes(config), 0)
    assert_pure(
        lambda p: hybrid.encode(
            p, ids=tokens(2, 4), attention_mask=ALLOWED["padded"], config=config, dropout_mask=None
        ),
        p,
    )


@every_config
def test_every_state_sees_the_whole_text(config: hybrid.Config) -> None:
    p, ids = random_tree(hybrid.shapes(config), 0), tokens(1, 5)
    y, _ = hybrid.encode(p, ids=ids, attention_mask=None, config=config, dropout_mask=None)
    assert y.shape == (1, 5, 2 * config.hidden)
    for t in range(5):
        other = ids.copy()
        other[0, t] = (ids[0, t] + 1) % V
        z, _ = hybrid.encode(p, ids=other, attention_mask=None, config=config, dropout_mask=None)
        assert (y != z).any(axis=-1).all()


@pytest.mark.parametrize("two_way", [True, False])
def test_padding_behind_a_text_changes_none_of_its_states(two_way: bool) -> None:
    c = config(bidirectional=two_way)
    p, ids, lengths = random_tree(hybrid.shapes(c), 0), tokens(3, 6), [6, 1, 3]
    attention_mask = numpy.arange(6) < numpy.array(lengths)[:, None]
    y, _ = hybrid.encode(p, ids=ids, attention_mask=attention_mask, config=c, dropout_mask=None)
    z, _ = hybrid.encode(
        p, ids=numpy.where(attention_mask, ids, 0), attention_mask=attention_mask, config=c, dropout_mask=None
    )
    for row, n in enumerate(lengths):
        alone, _ = hybrid.encode(p, ids=ids[row : row + 1, :n], attention_mask=None, config=c, dropout_mask=None)
        numpy.testing.assert_allclose(y[row, :n], alone[0], rtol=1e-11, atol=1e-12)
        assert numpy.array_equal(y[row, :n], z[row, :n])


def test_a_language_model_is_the_encoder_without_its_backward_half() -> None:
    c = config(bidirectional=False)
    p, ids = random_tree(hybrid.shapes(c), 0), tokens(2, 5)
    h, _ = hybrid.hidden_states(p, ids=ids, config=c, dropout_mask=None, cache=None)
    y, _ = hybrid.encode(p, ids=ids, attention_mask=None, config=c, dropout_mask=None)
    assert numpy.array_equal(h, y)


def test_the_order_of_the_tokens_matters_to_the_attention_too() -> None:
    """The positions are there: with a recurrent part that sees one step, texts that only swap two tokens differ."""
    c = config(bidirectional=False, cell="rnn", layers=1)
    p = random_tree(hybrid.shapes(c), 0)
    p["layers"][0]["Wh"] *= 0
    y, z = (
        hybrid.forward(p, ids=numpy.array([ids]), config=c, dropout_mask=None, cache=None)[0]
        for ids in ([1, 2, 3], [2, 1, 3])
    )
    assert not numpy.allclose(y[:, -1], z[:, -1])


def test_a_bidirectional_model_is_refused_as_a_language_model() -> None:
    """Erratum E9."""
    c = config()
    p, ids = random_tree(hybrid.shapes(c), 0), tokens(2, 4)
    says = r"a bidirectional model sees the future, so it cannot predict the next token or generate text \(erratum E9\)"
    with pytest.raises(UserError, match=says):
        hybrid.forward(p, ids=ids, config=c, dropout_mask=None, cache=None)
    with pytest.raises(UserError, match=says):
        causal_loss(p, model=hybrid, ids=ids, targets=ids, ignore=None, config=c, dropout_mask=None)


def test_more_tokens_than_the_context_are_refused() -> None:
    for c in (config(), config(bidirectional=False)):
        p = random_tree(hybrid.shapes(c), 0)
        with pytest.raises(ValueError, match="hybrid: 7 tokens do not fit the context of 6; give fewer"):
            hybrid.encode(p, ids=tokens(1, 7), attention_mask=None, config=c, dropout_mask=None)
    with pytest.raises(ValueError, match="hybrid: 7 tokens do not fit"):
        hybrid.forward(p, ids=tokens(1, 7), config=c, dropout_mask=None, cache=None)


def test_the_documents_sizes() -> None:
    """V C + (4 C² + 4 C) + 2 directions x 2 layers of 4 (I N + N² + N) + 2 N V, with I = 512, then 1024."""
    c = hybrid.document_003(64, bidirectional=True)
    V, C, N = 10_000, 512, 512
    layers = sum(2 * 4 * (I * N + N * N + N) for I in (C, 2 * N))
    assert count(hybrid.shapes(c)) == V * C + 4 * C * C + 4 * C + layers + 2 * N * V
    assert c.dropout == 0.1
    one_way = hybrid.document_003(64, bidirectional=False)
    assert count(hybrid.shapes(one_way)) == V * C + 4 * C * C + 4 * C + 2 * 4 * (C * N + N * N + N) + N * V


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"heads": 3}, "heads must divide the width: 4 / 3 is not whole; change one"),
        ({"heads": 0}, "heads must be a whole number of at least 1, got 0"),
        ({"cell": "gru"}, "cell must be one of rnn, lstm; got 'gru'"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        config(**change)
