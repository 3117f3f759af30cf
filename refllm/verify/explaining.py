"""The results of a run with what explains the wrong ones: the search for an edit, then the bank of known mistakes."""

from __future__ import annotations

from dataclasses import replace

from refllm.verify.by_laws import with_laws
from refllm.verify.explanation import of_earlier_calls, unexplained
from refllm.verify.runner import Result

SECONDS = 10.0  # that the search may take


def explained(results: list[Result], dtype: str, C: float, seconds: float = SECONDS) -> list[Result]:
    """The same results, each wrong answer with its explanations.

    A right answer under a convention that is declared, where the truth is another, says nothing of an edit of the
    specification: it is no evidence against one.
    """
    if not any(result.failed for result in results):
        return results
    try:
        return _explained(results, dtype, C, seconds)
    except Exception as error:  # whatever it is, no report is lost for want of an explanation
        said = [unexplained(error)]
        return [replace(result, diagnosis=said) if result.wrong else result for result in results]


def _explained(results: list[Result], dtype: str, C: float, seconds: float) -> list[Result]:
    from refllm.verify import diagnosis, noise, search  # with the bank, of which a run without failures needs nothing

    evidence = [result for result in results if result.failed or not result.case.declared]
    if not seconds:
        found = list(diagnosis.diagnosed(evidence, dtype))
    else:
        listed, partly = diagnosis.listed(evidence, dtype)
        left, cut = [r for r in evidence if r.case.operation not in listed], set[str]()
        edits = search.explained(left, dtype, seconds, partly, cut)
        decided = {operation for operation, edit in edits.items() if edit.decided}
        left = [r for r in evidence if r.case.operation not in decided]
        lost = noise.recognised(left, dtype, C)
        found = list(diagnosis.diagnosed(evidence, dtype, found=edits, lost=lost, cut=cut))
    found = [replace(r, diagnosis=of_earlier_calls(r.diagnosis)) if r.alone and r.wrong else r for r in found]
    found = list(with_laws(found))
    by_id = {result.case.id: result for result in found}
    return [by_id.get(result.case.id, result) for result in results]
