"""What a classifier must beat: one answer for everything, and counting words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from refllm.tokenizers.vocabulary import words

PSEUDO_COUNTS = (1.0, 0.3, 0.1, 0.03, 0.01)


def majority(counts: Mapping[str, int], texts: int) -> list[str]:
    """The most frequent training label for every text; of equally frequent ones the first in their order."""
    return [max(sorted(counts), key=lambda label: counts[label])] * texts


def has_naive_bayes() -> bool:
    """Whether scikit-learn (the extra `eval`) is installed."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def naive_bayes(texts: Sequence[str], labels: Sequence[str], unknown: Sequence[str]) -> list[str] | None:
    """Multinomial Naive Bayes over the counts of words and punctuation marks; None if the texts hold none

    The words are those that WordPiece cuts, so that both see the same. The pseudo-count is the one with which five
    folds of the training texts are labelled best: with add-one, a large vocabulary drowns in it.
    Source:  Manning et al. 2008, Introduction to Information Retrieval, sec. 13.2; scikit-learn's MultinomialNB.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.naive_bayes import MultinomialNB

    counter = CountVectorizer(analyzer=partial(words, lower=True))
    try:
        counted = counter.fit_transform(texts)
    except ValueError:  # scikit-learn's word for an empty vocabulary
        return None
    folds = KFold(min(5, len(texts)), shuffle=True, random_state=0)

    def share(alpha: float) -> float:
        return float(cross_val_score(MultinomialNB(alpha=alpha), counted, labels, cv=folds).mean())

    model = MultinomialNB(alpha=max(PSEUDO_COUNTS, key=share)).fit(counted, labels)
    return [str(label) for label in model.predict(counter.transform(unknown))]
