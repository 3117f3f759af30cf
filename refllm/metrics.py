"""Numbers that say how good a model is."""

from __future__ import annotations

import math


def perplexity(nll: float, tokens: int) -> float:
    """PPL: exp(NLL / T), NLL in nats over T predicted tokens

    Source:  documents 004 sec. 3.3; Jelinek et al. 1977.
    Special: infinite where a token had probability 0 or the exponential leaves the numbers.
    Raises:  ValueError if no token was predicted.
    """
    if tokens < 1:
        raise ValueError("perplexity: no token was predicted; give a text of at least two tokens")
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def bits_per_character(nll: float, characters: int) -> float:
    """NLL / (ln 2 · characters): the bits that an ideal coder would spend on a character of the text

    Characters, not tokens, so that models with different tokenizers compare.
    Source:  Shannon 1951 for the unit; documents 004 sec. 3.3 for the loss.
    Raises:  ValueError if there is no character.
    """
    if characters < 1:
        raise ValueError("bits_per_character: the text is empty")
    return nll / (math.log(2) * characters)
