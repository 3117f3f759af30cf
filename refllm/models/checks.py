"""What the models ask of their configurations, UserError with the remedy otherwise, and of their parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any, Protocol

from refllm.backend import is_array_class
from refllm.errors import UserError
from refllm.parameters import Tree, misfit, named_leaves, surely_fits


class Held(Protocol):
    """What a cache or a carried state says of itself."""

    @property
    def length(self) -> int: ...


def require_parameters(
    model: str, p: Tree, config: Any, shapes: Callable[[Any], Tree], *, cache: Held | None = None
) -> None:
    """The parameters have the structure, the shapes and one dtype of what `shapes(config)` declares: UserError
    otherwise. Fewer layers, a norm without its shift or the table of a smaller vocabulary would give numbers too.

    What goes on from a cache has been looked at when it began.
    """
    if cache is not None and cache.length:
        return
    tree = _declared(shapes, config)
    like = p["token"] if isinstance(p, dict) and "token" in p else None
    if like is not None and is_array_class(type(like)) and surely_fits(p, tree, type(like), like.dtype):
        return
    wrong = misfit(p, tree)
    if wrong is not None:
        raise UserError(
            f"{model}: the parameters are not those of the config: {wrong}; give those that were made with it, or the "
            "config that they were made with"
        )


@lru_cache(maxsize=64)
def _declared(shapes: Callable[[Any], Tree], config: Any) -> Tree:
    return shapes(config)


def require_draws(model: str, dropout_mask: Tree | None, widths: Callable[[Any], Tree], config: Any) -> None:
    """A tree with a draw for every use of dropout: ValueError otherwise. Each draw is checked where it is used."""
    if dropout_mask is None:
        return
    wanted, given = ([path for path, _ in named_leaves(tree)] for tree in (widths(config), dropout_mask))
    if set(wanted) != set(given):
        missing, more = (", ".join(sorted({*a} - {*b}))[:200] or "none" for a, b in ((wanted, given), (given, wanted)))
        raise ValueError(
            f"{model}: dropout_mask must be a tree of draws, one for each of `dropout_widths(config)`; "
            f"missing: {missing}; too many: {more}"
        )


def require_whole(config: Any, *names: str, least: int = 1) -> None:
    """These fields are whole numbers of at least `least`."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")


def require_heads_divide_width(config: Any, *, otherwise: str = "") -> None:
    """Every head has a whole width; `otherwise` names another remedy."""
    if config.width % config.heads:
        raise UserError(
            f"heads must divide the width: {config.width} / {config.heads} is not whole; change one{otherwise}"
        )


def require_dropout(config: Any) -> None:
    """The rate leaves something: 0 <= rate < 1."""
    if not 0 <= config.dropout < 1:
        raise UserError(f"dropout must be at least 0 and below 1, got {config.dropout}")


def require_positive(config: Any, name: str) -> None:
    """The field is a finite number above 0."""
    if not 0 < getattr(config, name) < math.inf:
        raise UserError(f"{name} must be a positive number, got {getattr(config, name)}")


def require_one_of(config: Any, name: str, known: Collection[str]) -> None:
    """The field names something that there is."""
    if getattr(config, name) not in known:
        raise UserError(f"{name} must be one of {', '.join(known)}; got {getattr(config, name)!r}")


def require_layers_within(config: Any, arrays: int) -> None:
    """The configuration asks for no more layers than there are arrays: it is known to be false before the shapes of all
    its layers are written down."""
    for name in ("layers", "encoder_layers", "decoder_layers"):
        if getattr(config, name, 0) > arrays:
            raise UserError(
                f"the model has {getattr(config, name):,} {name.replace('_', ' ')}, the file of its weights only "
                f"{arrays:,} arrays; they do not belong together: use another checkpoint"
            )
