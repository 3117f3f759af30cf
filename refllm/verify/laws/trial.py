"""A further call, and how its answer is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from refllm.verify.case import Case, Response
from refllm.verify.law import Law

if TYPE_CHECKING:
    from refllm.verify.runner import Result


@dataclass(frozen=True)
class Trial:
    """A question that differs from that of a case in something of which a law says what it changes."""

    law: str
    case: Case
    done: str  # what was done, as the sentence begins: "with other rows beside it"
    judge: Callable[[Response], Law | None]
    refusable: bool = False  # whether it may raise: then that is a note
    about: str = ""  # where it is tried: what is about the same is tried once for an operation
    needs: str = ""  # what an implementation must be seen doing, of its `sees`
    parts: tuple[tuple[str, Trial], ...] = ()  # the same of one argument alone each, to say which breaks the law
    instead: Callable[[], Case | None] | None = None  # a case whose answer a broken one may be, for a known reason
    reason: str = ""


@dataclass(frozen=True)
class Base:
    """A case that was answered, from which trials are made."""

    result: Result
    response: Response
    dtype: str
    C: float
    seed: int
    declares: bool  # whether the implementation, or an answer of it to this operation, differs by a convention

    @property
    def case(self) -> Case:
        return self.result.case
