"""The n-gram language model: what a Transformer must beat. (NGRAM)

Counts are made once, on the host, by sorting integer-coded n-grams; nothing here is learnt by gradient. For generation
and scoring it has the form of the other models: `Config`, `shapes`, and `forward`, whose logits are log probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.parameters import Tree

Tokens: TypeAlias = NDArray[np.integer[Any]]

BLOCK = 1 << 18  # tokens of a long text whose probabilities are looked up together


@dataclass(frozen=True)
class Level:
    """The n-grams of one length n that were seen, and all that a probability needs of them.

    An n-gram is coded as (number of its context among the (n-1)-grams seen) * V + its last token, so that codes stay
    below V * tokens for any n.
    """

    codes: NDArray[np.int64]  # (G,) sorted; the place of a code is the number of its n-gram
    counts: NDArray[np.int64]  # (G,) c: occurrences, or below the highest order distinct tokens seen before it
    totals: NDArray[np.int64]  # one for each (n-1)-gram: the sum of c over its n-grams
    kinds: NDArray[np.int64]  # one for each (n-1)-gram: how many of its n-grams have c > 0
    discount: float

    def find(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the n-grams with these codes, -1 where not seen."""
        places = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[places] == codes, places, -1)


@dataclass(frozen=True)
class NGram:
    """Interpolated Kneser-Ney, for a token w after the context h (n - 1 tokens), h' being h without its first token:

        p_n(w | h) = max(c(h w) - D_n, 0) / c(h .)  +  D_n N(h .) / c(h .) * p_(n-1)(w | h')
        p_0(w)     = 1 / V

    c counts occurrences at the highest order, and below it how many distinct tokens were seen before the n-gram
    (continuations); c(h .) = sum_w c(h w); N(h .) = the number of w with c(h w) > 0; p_n = p_(n-1) where c(h .) = 0.
    D_n = n_1 / (n_1 + 2 n_2), where n_i is the number of n-grams with c = i; 1/2 where n_1 = 0, for which no estimate
    is defined and D = 0 would give what was never seen a probability of zero.

    n counts the token itself: n = 0 is the uniform model, 1 the unigram, 2 the bigram; a "context of two" is n = 3.

    Source: Chen & Goodman 1999 (doi:10.1006/csla.1999.0128) sec. 2.7 and 4.1.1; Kneser & Ney 1995; documents 001 ch. 1.
    Laws:   the probabilities of all V tokens sum to 1 after any context, and none is 0.
    """

    n: int
    vocabulary: int
    levels: tuple[Level, ...]

    @classmethod
    def fit(cls, tokens: Tokens, *, n: int, vocabulary: int) -> NGram:
        """Count the sequences of 1 … n tokens.

        The vocabulary is not estimated: give that of the text to be scored too, or it meets tokens without a number.

        Raises: UserError if n < 0, vocabulary < 1, a token is not in [0, vocabulary), or there are fewer than n.

        >>> model = NGram.fit(array([0, 1, 0, 1, 0, 2]), n=2, vocabulary=3)
        >>> p = model.probability(array([0]))
        >>> bool(p[1] > p[2] > p[0] > 0), float(p.sum().round(12))  # 0 1 was seen twice, 0 2 once, 0 0 never
        (True, 1.0)
        """
        return cls.fit_orders(tokens, orders=[n], vocabulary=vocabulary)[n]

    @classmethod
    def fit_orders(cls, tokens: Tokens, *, orders: Sequence[int], vocabulary: int) -> dict[int, NGram]:
        """`fit` for several n in little more time than for the greatest: they count the same sequences."""
        for n in orders:
            if n < 0 or vocabulary < 1:
                raise UserError(f"an n-gram model needs n of 0 or more and a vocabulary; got {n} and {vocabulary}")
        row, longest = in_vocabulary(tokens, vocabulary), max(orders)
        if len(row) < longest:
            raise UserError(f"a text of {len(row)} tokens holds no {longest}-gram; give more text or a smaller n")
        levels: list[Level] = []  # below the highest order
        highest: dict[int, Level] = {}
        numbers = np.zeros(len(row) + 1, np.int64)  # of the (length-1)-grams, in the order of the text
        codes, contexts = np.zeros(0, np.int64), 1
        for length in range(1, longest + 1):
            here = numbers[: len(row) - length + 1] * vocabulary + row[length - 1 :]
            longer, first, inverse = np.unique(here, return_index=True, return_inverse=True)
            if length > 1:  # a continuation is a distinct longer n-gram, seen at the place where that one first ends
                counts = np.bincount(numbers[first + 1], minlength=len(codes))
                levels.append(level(codes, counts, contexts=contexts, vocabulary=vocabulary))
                contexts = len(codes)
            codes, numbers = longer, inverse
            if length in orders:
                counts = np.bincount(numbers, minlength=len(codes))
                highest[length] = level(codes, counts, contexts=contexts, vocabulary=vocabulary)
        return {n: cls(n, vocabulary, (*levels[: n - 1], highest[n]) if n else ()) for n in orders}

    def probability(self, context: Tokens) -> NDArray[np.float64]:
        """p(w | the last n - 1 tokens of the context) for every w, (V,); after fewer, a lower order.

        Raises: UserError if a token is not in the vocabulary.
        """
        history = in_vocabulary(context, self.vocabulary)
        p = np.full(self.vocabulary, 1 / self.vocabulary)
        for length, one in enumerate(self.levels[: len(history) + 1]):
            number = 0
            for below, token in zip(self.levels, history[len(history) - length :], strict=False):
                number = int(below.find(np.array([number * self.vocabulary + token]))[0])
                if number < 0:
                    return p
            if one.totals[number] == 0:
                continue
            start, stop = np.searchsorted(one.codes, np.array([number, number + 1]) * self.vocabulary)
            p *= one.discount * one.kinds[number] / one.totals[number]
            p[one.codes[start:stop] % self.vocabulary] += (
                np.maximum(one.counts[start:stop] - one.discount, 0) / one.totals[number]
            )
        return p

    def probabilities(self, tokens: Tokens) -> NDArray[np.float64]:
        """The probability of each token of a text after all those before it, (T,): `probability` for a whole text.

        Raises: UserError if a token is not in the vocabulary.
        """
        row = in_vocabulary(tokens, self.vocabulary)
        p = np.empty(len(row))
        for start in range(0, len(row), BLOCK):
            known = min(start, max(0, self.n - 1))  # what went before is context alone
            p[start : start + BLOCK] = self._probabilities(row[start - known : start + BLOCK])[known:]
        return p

    def _probabilities(self, row: NDArray[np.int64]) -> NDArray[np.float64]:
        p = np.full(len(row), 1 / self.vocabulary)
        context = np.zeros(len(row), np.int64)
        for one in self.levels:
            number = one.find(context * self.vocabulary + row)  # a context of -1 gives a code below 0: not found
            count = np.where(number >= 0, one.counts[number], 0)
            total = np.where(context >= 0, one.totals[context], 0)
            backed_off = one.discount * one.kinds[context] * p
            p = np.where(total > 0, (np.maximum(count - one.discount, 0) + backed_off) / np.maximum(total, 1), p)
            context = np.append(-1, number)[: len(row)]
        return p

    def bits_per_token(self, tokens: Tokens, *, past: int) -> float:
        """-mean log2 p over the tokens after the first `past`, which are context only.

        Raises: UserError if no token is left, or a token is not in the vocabulary.
        """
        scored = self.probabilities(tokens)[past:]
        if len(scored) == 0:
            raise UserError(f"there is no token to score after the first {past}; give a longer text")
        return float(-np.log2(scored).mean())


def level(codes: NDArray[np.int64], counts: NDArray[np.int64], *, contexts: int, vocabulary: int) -> Level:
    """The sums over the n-grams of each context, and the discount D = n_1 / (n_1 + 2 n_2)."""
    context = codes // vocabulary
    totals = np.bincount(context, weights=counts, minlength=contexts).astype(np.int64)
    kinds = np.bincount(context[counts > 0], minlength=contexts)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return Level(codes, counts, totals, kinds, once / (once + 2 * twice) if once else 0.5)


def in_vocabulary(tokens: Tokens, vocabulary: int) -> NDArray[np.int64]:
    """The tokens as one row of int64.

    Raises: UserError if one of them is not in [0, vocabulary).
    """
    row = np.asarray(tokens)
    if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
        raise ValueError(f"tokens must be one row (N,) of integers; got {row.dtype} {row.shape}")
    if row.size and not 0 <= row.min() <= row.max() < vocabulary:
        raise UserError(
            f"tokens must be in [0, {vocabulary}), found {row.min()} to {row.max()}; "
            "fit the n-gram model with the vocabulary of the tokenizer"
        )
    return row.astype(np.int64)


def log_probabilities(model: NGram, before: Tokens, tokens: Tokens) -> NDArray[np.float64]:
    """log p of each of `tokens`, which follow `before`, (T,).

    >>> nothing = NGram.fit(array([0, 1]), n=0, vocabulary=4)  # the uniform model
    >>> (log_probabilities(nothing, array([0]), array([1, 3])) / math.log(4)).tolist()
    [-1.0, -1.0]
    """
    past = min(len(before), max(0, model.n - 1))
    return np.log(model.probabilities(np.concatenate([before[len(before) - past :], tokens]))[past:])


CHOICES = ("order",)


@dataclass(frozen=True)
class Config:
    """The order n, and how many n-grams of each length 1 ... n were seen; `context` limits a piece that is scored."""

    vocabulary: int
    order: int
    sizes: tuple[int, ...]
    context: int = 1024

    def __post_init__(self) -> None:
        settle_fields(self)
        object.__setattr__(self, "sizes", tuple(self.sizes))  # a list, from JSON
        if self.order < 1 or len(self.sizes) != self.order:
            raise UserError(f"an n-gram model of order {self.order} needs as many sizes, got {len(self.sizes)}")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def config_of(model: NGram) -> Config:
    return Config(model.vocabulary, model.n, tuple(len(one.codes) for one in model.levels))


def shapes(config: Config) -> Tree:
    """The arrays of the levels; the discount follows from the counts."""
    contexts = (1, *config.sizes[:-1])
    return {
        "levels": [
            {"codes": (size,), "counts": (size,), "totals": (before,), "kinds": (before,)}
            for size, before in zip(config.sizes, contexts, strict=True)
        ]
    }


def tree_of(model: NGram) -> Tree:
    """What a checkpoint holds of a model."""
    names = ("codes", "counts", "totals", "kinds")
    return {"levels": [{name: getattr(one, name) for name in names} for one in model.levels]}


def of_tree(p: Tree, config: Config) -> NGram:
    levels = tuple(
        level(one["codes"], one["counts"], contexts=len(one["totals"]), vocabulary=config.vocabulary)
        for one in p["levels"]
    )
    return NGram(config.order, config.vocabulary, levels)


def state_shapes(config: Config) -> Tree:
    """The last n - 1 tokens, each plus 1: 0 stands where there is none."""
    return {"last": (config.order - 1,)}


def forward(
    p: Tree, *, ids: Tokens, config: Config, dropout_mask: None, cache: Any
) -> tuple[NDArray[np.float64], Callable[[Any], Tree]]:
    """NGRAM: y = log p(w | the tokens up to the place) for every w

    Source:  Chen & Goodman 1999; documents 001 ch. 1.
    Shapes:  ids (B, T) in [0, V) -> y (B, T, V)
    Special: nothing here has a gradient; `back` refuses.

    >>> nothing = NGram.fit(array([0, 1]), n=1, vocabulary=2)
    >>> y, _ = forward(tree_of(nothing), ids=array([[0]]), config=config_of(nothing), dropout_mask=None, cache=None)
    >>> np.exp(y).round(12).tolist()  # each was seen once
    [[[0.5, 0.5]]]
    """
    model, past = of_tree(p, config), config.order - 1
    before = np.zeros((len(ids), past), np.int64) if cache is None else cache.layers["last"]
    token_mask = None if cache is None else cache.advance(ids.shape[1])
    codes = ids + 1 if token_mask is None else np.where(token_mask, ids + 1, 0)
    text = np.concatenate([before, codes], axis=1)
    if cache is not None:
        cache.layers = {"last": text[:, text.shape[1] - past :]}
    y = np.empty((*ids.shape, config.vocabulary))
    for b, t in np.ndindex(*ids.shape):
        seen = text[b, t + 1 : t + 1 + past]
        y[b, t] = np.log(model.probability(seen[seen > 0] - 1))

    def back(dy: Any) -> Tree:
        raise ValueError("ngram: counts have no gradient; fit them with NGram.fit")

    return y, back
