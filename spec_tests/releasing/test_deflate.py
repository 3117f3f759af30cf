"""Our packer: what it packs is unpacked by zlib, its parts can be joined, and it does pack."""

from __future__ import annotations

import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releasing.deflate import END, _code_lengths, deflated
from spec_tests.releasing import ROOT

CONTENTS = st.one_of(
    st.binary(max_size=3000),
    st.lists(st.sampled_from([b"0.125, ", b"\0" * 40, b'{"dtype": ', b"x", bytes(range(256))]), max_size=200).map(
        b"".join
    ),
    st.tuples(st.binary(max_size=9), st.integers(0, 70_000)).map(
        lambda pair: pair[0] * (pair[1] // max(1, len(pair[0])))
    ),
)


def unpacked(stream: bytes) -> bytes:
    reader = zlib.decompressobj(-15)
    content = reader.decompress(stream)
    assert reader.eof
    assert reader.unused_data == b""
    return content


@given(CONTENTS)
def test_what_is_packed_is_unpacked_by_zlib(content: bytes) -> None:
    assert unpacked(deflated(content) + END) == content


@given(st.lists(CONTENTS, max_size=4))
def test_parts_can_be_joined(contents: list[bytes]) -> None:
    assert unpacked(b"".join(map(deflated, contents)) + END) == b"".join(contents)


@pytest.mark.parametrize("repeat", [2, 257, 258, 259, 1000])
@pytest.mark.parametrize("between", [0, 32_000, 32_767, 32_768, 40_000])
def test_matches_of_every_length_and_distance_are_unpacked(repeat: int, between: int) -> None:
    piece = bytes(i * 7 % 251 for i in range(repeat))
    content = piece + bytes(i * i % 241 for i in range(between)) + piece
    assert unpacked(deflated(content) + END) == content


@pytest.mark.parametrize("longest", [7, 15])
def test_very_uneven_counts_get_codes_that_are_short_enough(longest: int) -> None:
    """Counts of Fibonacci ask for a code as long as there are symbols; what is given is a full code all the same."""
    counts = [1, 1]
    while len(counts) < 19:
        counts.append(counts[-1] + counts[-2])
    lengths = _code_lengths(Counter(dict(enumerate(counts))), longest)
    assert max(lengths.values()) <= longest
    assert sum(2.0**-length for length in lengths.values()) == 1


def test_golden_files_take_no_more_than_an_eighth_above_zlib() -> None:
    contents = [path.read_bytes() for path in sorted((ROOT / "golden/L1").glob("[a-c]*.json"))]
    assert sum(len(deflated(each)) for each in contents) < 1.125 * sum(len(zlib.compress(each, 9)) for each in contents)
