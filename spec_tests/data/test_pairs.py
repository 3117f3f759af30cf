"""Laws of pairs of texts: their split, their ids, their batches."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.examples import Pair, folded
from refllm.data.pairs import IGNORE, PairBatches, connected, encoded, encoded_pairs, pair_batch, split_pairs
from refllm.errors import UserError
from refllm.tokenizers.marked import MarkedTokenizer

TOKENIZER = MarkedTokenizer.train("one two three four one two three", vocabulary=270)
PAIRS = [Pair(f"one {n}", f"{n} two" * (1 + n % 3), f"f:{n}") for n in range(30)]
names = st.sampled_from("abcdefgh")


@given(edges=st.lists(st.tuples(names, names.map(str.upper)), max_size=12))
def test_edges_are_of_one_part_if_and_only_if_a_path_joins_them(edges: list[tuple[str, str]]) -> None:
    parts = connected(edges)
    for i, edge in enumerate(edges):
        reached, before = set(edge), set[str]()
        while reached != before:
            before = set(reached)
            reached |= {end for other in edges if set(other) & reached for end in other}
        assert [part == parts[i] for part in parts] == [bool(set(other) & reached) for other in edges]


def test_equal_sources_and_equal_targets_stay_on_one_side() -> None:
    pairs = [Pair(f"S{n // 2}", f"T {(n + 1) // 2 if n % 20 else 'x' + str(n)}", f"f:{n}") for n in range(200)]
    pairs += [Pair(f"  s{n}", f"other {n}", "g:1") for n in range(0, 100, 7)]
    train, held_out = split_pairs(pairs, validation=0.3, seed=0)
    assert sorted(train + held_out, key=id) == sorted(pairs, key=id)
    for side in ("source", "target"):
        seen = {folded(getattr(pair, side)) for pair in train}
        assert not seen & {folded(getattr(pair, side)) for pair in held_out}
    assert 0 < len(held_out) <= 0.3 * len(pairs)


def test_pairs_that_all_have_one_target_are_told_to_be_one() -> None:
    with pytest.raises(UserError, match=r"60 examples are too few .*; distinct .*: 1 \(those that"):
        split_pairs([Pair(f"S{n}", "T", f"f:{n}") for n in range(60)], validation=0.1, seed=0)


def test_a_word_is_spelled_the_same_at_the_beginning_and_within() -> None:
    first, within = (encoded(text, tokenizer=TOKENIZER).tolist() for text in ("two", "one two"))
    assert within[-len(first) :] == first
    assert first[-1] == TOKENIZER.special.sep
    assert encoded(" two\n", tokenizer=TOKENIZER).tolist() == first


def test_pairs_that_do_not_fit_are_left_out_and_counted() -> None:
    lengths = [max(len(encoded(text, tokenizer=TOKENIZER)) for text in (pair.source, pair.target)) for pair in PAIRS]
    for context in (1, min(lengths), max(lengths) - 1, max(lengths)):
        fitting, left_out = encoded_pairs(PAIRS, tokenizer=TOKENIZER, context=context)
        assert len(fitting) == sum(length <= context for length in lengths)
        assert len(fitting) + left_out == len(PAIRS)


def test_a_batch_holds_the_pairs_and_marks_the_padding() -> None:
    pairs, _ = encoded_pairs(PAIRS[:5], tokenizer=TOKENIZER, context=99)
    batch = pair_batch(pairs, special=TOKENIZER.special)
    for row, (source, target) in enumerate(pairs):
        assert batch["source"][row][batch["attention_mask"][row]].tolist() == source.tolist()
        assert batch["targets"][row][batch["targets"][row] != IGNORE].tolist() == target.tolist()


def test_batches_go_on_where_they_were_left_to_the_bit() -> None:
    pairs, _ = encoded_pairs(PAIRS, tokenizer=TOKENIZER, context=99)
    how = {"special": TOKENIZER.special, "batch": 4}
    batches = PairBatches.of(pairs, **how, order=numpy.random.default_rng(3), state=None)  # type: ignore[arg-type]
    for _ in range(11):
        batches.next_batch()
    again = PairBatches.of(pairs, **how, order=numpy.random.default_rng(9), state=batches.state())  # type: ignore[arg-type]
    for _ in range(9):
        one, other = batches.next_batch(), again.next_batch()
        assert all(numpy.array_equal(one[name], other[name]) for name in one)


def test_no_pair_gives_no_batch() -> None:
    with pytest.raises(UserError, match="no training pair fits the context"):
        PairBatches.of([], special=TOKENIZER.special, batch=4, order=numpy.random.default_rng(0), state=None)
