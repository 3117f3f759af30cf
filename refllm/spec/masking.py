"""Which words of a text are hidden for the masked language model, and what stands in their place."""

from collections.abc import Sequence

from refllm.spec.array import Array, integers, nearest

MASKED, REPLACED = 0.8, 0.1  # of the selected places become [MASK], become another word; the rest stay
NO_TARGET = -1


def mask_words(
    *, ids: Array, which: Array, how: Array, words: Array, special: Array, mask: int, share: float
) -> tuple[Array, Array, Array]:
    """MLM: of every text the share of its ordinary words, rounded, but at least one, is selected

    The places with the smallest numbers in `which` are selected. Where `how` is below 0.8 the word becomes `mask`, from
    there below 0.9 the one in `words`, else it stays. The loss is asked at every selected place, also at those that
    stay. A text with fewer places than the longest has slots at the end with position 0 and target -1.
    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3.1; documents 000 sec. 3.2, 001 ch. 3 sec. 1.2.
    Shapes:  ids (B, T); which (B, T) in [0, 1); how (B, T) in [0, 1); words (B, T) -> ids (B, T), positions (B, M),
             targets (B, M)

    >>> draws = {"which": array([[0.9, 0.1, 0.5, 0.3]]), "how": array([[0.5, 0.85, 0.5, 0.5]])}
    >>> text = {"ids": array([[2, 7, 8, 9]]), "words": array([[5, 5, 5, 5]])}
    >>> mask_words(**text, **draws, special=array([2]), mask=4, share=0.67)  # 7 and 9: one is replaced, one masked
    (array([[2, 5, 8, 4]]), array([[1, 3]]), array([[7, 9]]))
    """
    B, T = ids.shape
    corrupted, positions, targets = [], [], []
    for b in range(B):
        ordinary = [t for t in range(T) if ids[b, t] not in special]
        count = max(1, nearest(share * len(ordinary)))
        selected = sorted(sorted(ordinary, key=lambda t: which[b, t])[:count])
        text = list(ids[b])
        for t in selected:
            if how[b, t] < MASKED:
                text[t] = mask
            elif how[b, t] < MASKED + REPLACED:
                text[t] = words[b, t]
        corrupted.append(text)
        positions.append(selected)
        targets.append([ids[b, t] for t in selected])
    return integers(corrupted), padded(positions, 0), padded(targets, NO_TARGET)


def padded(rows: Sequence[Sequence[int]], filling: int) -> Array:
    """Rows of unequal length as one array, filled at the end."""
    longest = max(map(len, rows))
    return integers([[*row, *[filling] * (longest - len(row))] for row in rows])
