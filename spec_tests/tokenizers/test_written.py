"""Byte pairs as a tokenizer.json: read again, it gives the same ids."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from refllm.tokenizers import BytePairTokenizer
from refllm.tokenizers.published.tokenizer import PublishedTokenizer
from refllm.tokenizers.published.written import tokenizer_json

LEARNT = BytePairTokenizer.train(
    "the cat sat on the mat, 1234 times; _and_ then\n\n  some\tmore. " * 20, vocabulary=320
)
WRITTEN = PublishedTokenizer({"tokenizer.json": tokenizer_json(LEARNT) or ""}, size=LEARNT.size)
TEXTS = [
    "the cat sat", " the  cat\n\n sat\t on", "12345 and 1 2", "_and_;; then...", "x" * 200 + "!" * 70, " ", "\r\n \n",
    "\u00bd\u00b2 \u2167 \u4e00\u4e8c\u3007",
    "e\u0301 \u0e01\u0e33 \u0627\u0644", "\x1c\x1f\x85\u3000 a", "\U0001f642\U0001f3fd\u200d",
]  # fmt: skip


@given(
    st.one_of(
        st.sampled_from(TEXTS),
        st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=60),
        st.text("the cat_1 \n\t;", max_size=60),
    )
)
def test_the_written_tokenizer_has_the_ids_of_the_learnt_one(text: str) -> None:
    ids = LEARNT.encode(text).tolist()
    assert WRITTEN.encode(text).tolist() == ids
    assert WRITTEN.decode(ids) == text


def test_tokens_of_the_same_bytes_have_no_published_form() -> None:
    a, b, c = b"abc"
    twice = BytePairTokenizer(((a, b), (b, c), (256, c), (a, 257)))
    assert twice.vocabulary[258] == twice.vocabulary[259]
    assert tokenizer_json(twice) is None
    assert json.loads(tokenizer_json(BytePairTokenizer(((a, b),))) or "")["model"]["vocab"]["ab"] == 256
