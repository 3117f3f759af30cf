"""Windows of a text, corrupted anew each time: what an encoder-decoder is pre-trained on. (DAE, DATA)"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refllm.data.batching import Batches
from refllm.data.corruption import Ids, Pair, denoising_batch, draw_infilling, text_infilling
from refllm.data.padding import DAMAGED, require_resumable
from refllm.errors import UserError
from refllm.tokenizers.vocabulary import SpecialIds

SHARE, MEAN = 0.3, 3.0  # of the tokens, and of the lengths of the spans: Lewis et al. 2020 sec. 2.2, 5.1


class InfilledWindows:
    """Batches for refllm/objectives/denoising.py: windows of context - 1 tokens, in the order of data/batching.py, with
    spans replaced by [MASK]; [SEP] ends the source and the target.

    The order and the corruption are drawn from one generator each, the second of which begins from the first: then
    `state()` and `from_state` continue both bit for bit.

    Raises:  UserError if the tokens do not fill one window.
    """

    def __init__(
        self,
        tokens: NDArray[np.integer[Any]],
        *,
        context: int,
        batch: int,
        special: SpecialIds,
        generator: np.random.Generator,
    ) -> None:
        require_resumable(generator)
        self.context, self.special = context, special
        self.draws = np.random.default_rng(int(generator.integers(1 << 62)))
        self.windows = Batches(tokens, context=_length(context), batch=batch, generator=generator)

    def next_batch(self) -> dict[str, Any]:
        """The next windows as source (B, S), attention_mask (B, S), ids (B, T) and counted (B, T)."""
        pairs = [self._corrupted(window[1:]) for window in self.windows.next_batch()]
        return denoising_batch(pairs, pad=self.special.pad)

    def _corrupted(self, window: Ids) -> Pair:
        """Drawn again in the rare case that empty spans have made the source longer than the context."""
        while True:
            spans = draw_infilling(len(window), share=SHARE, mean=MEAN, generator=self.draws)
            source, target = text_infilling(window, spans=spans, mask=self.special.mask)
            if len(source) < self.context:
                return np.append(source, self.special.sep), np.append(target, self.special.sep)

    def state(self) -> dict[str, Any]:
        """What `from_state` needs to go on, and to know the text again, ready for JSON."""
        return {"windows": self.windows.state(), "draws": self.draws.bit_generator.state}

    @classmethod
    def from_state(
        cls,
        tokens: NDArray[np.integer[Any]],
        state: Mapping[str, Any],
        *,
        context: int,
        batch: int,
        special: SpecialIds,
    ) -> InfilledWindows:
        """The InfilledWindows that `state()` described, about to draw the same batch.

        Raises: UserError if the state is damaged, or belongs to another text or settings.
        """
        made = cls(tokens, context=context, batch=batch, special=special, generator=np.random.default_rng(0))
        try:
            made.windows = Batches.from_state(tokens, state["windows"], context=_length(context), batch=batch)
            made.draws.bit_generator.state = state["draws"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(DAMAGED) from None
        return made


def _length(context: int) -> int:
    """Tokens of a window: what [SEP] leaves."""
    if context < 2:
        raise UserError(f"a context of {context} has no room for a token and its end; give 2 or more")
    return context - 1
