"""Is an implementation right, and if not, what is wrong with it?

    from refllm.verify import check
    check(my_layer_norm, "layer_norm", dtype="float32")      a live function; `checking` says what it gives

corpus     the golden files -> cases, everything about them checked
adapter    a Python module as an implementation; `plugging` what it says of itself, `arrays` those of other libraries,
           `signatures` the names that people have; `external` a command, or files that were written beforehand
runner     an implementation and a case -> a result; `tolerance` says how near is near enough
diagnosis  what the wrong answers of a run are equal to: a known mistake of `mutants`, another convention, a constant
           factor; `candidates` what one of them alone is near to
report     the results of a run; `report_text` shows them, `report_data` gives them as JSON, `pages` as JUnit and as a
           page; `reproduction` says how to see a failure again; `comparison` shows several runs in one table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refllm.verify.checking import Checked, Wrong, check

__all__ = ["Checked", "Wrong", "check"]


def __getattr__(name: str) -> Any:
    """What is for users, imported when it is asked for: the modules of this package stay as light as they are."""
    if name in __all__:
        from refllm.verify import checking

        return getattr(checking, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
