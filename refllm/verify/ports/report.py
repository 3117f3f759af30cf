"""What is said of a port."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from refllm.verify.case import Response
from refllm.verify.ports import digits, places
from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.chosen import Input, untried
from refllm.verify.ports.file_names import Names, mentioned
from refllm.verify.ports.found import Found, Searched
from refllm.verify.ports.judged import Judged
from refllm.verify.ports.port import case_of
from refllm.verify.ports.program import Program, Step
from refllm.verify.ports.relation import relation
from refllm.verify.runner import Result
from refllm.verify.verdict import Verdict

WIDTH = 80
MOST_PLACES = 6  # layers that are listed


@dataclass(frozen=True)
class PortReport:
    """The answers to the inputs, and what explains the wrong ones."""

    port: str
    folder: str
    model: str  # its model_type
    program: Program
    dtype: str
    answers: list[Judged]
    faults: dict[str, str]  # by input, why there is no answer
    skipped: dict[str, str]
    found: Searched
    names: Names = field(default_factory=dict)  # what our parameters are called in the files
    further: list[str] = field(default_factory=list)
    coarser: str = ""  # the precision whose digits it has, where nothing else is wrong

    @property
    def ran(self) -> int:
        return len(self.answers) + len(self.faults)

    @property
    def right(self) -> bool:
        return self.ran > 0 and not self.faults and all(one.right for one in self.answers)

    @property
    def begins(self) -> tuple[str, str]:
        """The first value that differs on any input, and the last one before it, which agrees on all."""
        order = dict.fromkeys(name for answer in self.answers for name in answer.truth.values)
        given = {name for answer in self.answers for name in answer.compared}
        names = [name for name in order if name in given]
        wrong = {name for answer in self.answers for name in answer.wrong}
        at = next((n for n, name in enumerate(names) if name in wrong), None)
        if at is None:
            return "", ""
        return names[at], names[at - 1] if at else ""

    def differs_on(self, name: str) -> list[str]:
        """The inputs on which a value differs."""
        return [answer.truth.input.name for answer in self.answers if name in answer.wrong]


# --- on a terminal ----------------------------------------------------------------------------------------------------


def as_text(report: PortReport) -> str:
    lines = [*_head(report), *_table(report), *_notes(report), *_begins(report), *_mistakes(report), ""]
    return "\n".join(line for n, line in enumerate(lines) if line or n == 0 or lines[n - 1])


def _head(report: PortReport) -> Iterator[str]:
    verdict = "RIGHT" if report.right else "WRONG"
    if report.right and report.skipped:
        verdict += f" on {report.ran} of {report.ran + len(report.skipped)} inputs"
    yield f"{verdict}  {report.port}, a port of {report.folder} ({report.model}), in {report.dtype}"
    yield ""


def _table(report: PortReport) -> Iterator[str]:
    yield f"{'input':8} {'tokens':>6} {'values':>6}   worst"
    for name, reason in report.faults.items():
        yield from _wrapped(f"{name:8} {'':6} {'':6}   FAULT: {reason}", " " * 25)
    for answer in report.answers:
        given = answer.truth.input
        worst = max(answer.compared, key=lambda n: answer.compared[n].far)
        one = answer.compared[worst]
        said = one.problem if one.problem and one.wrong else f"{_times(one.far)} ({worst})"
        yield from _wrapped(
            f"{given.name:8} {given.tokens:6} {len(answer.compared):6}   {'' if answer.right else 'WRONG: '}{said}",
            " " * 25,
        )
    for name, reason in report.skipped.items():
        yield from _wrapped(f"{name:8} {'':6} {'':6}   not run: {reason}", " " * 25)
    yield ""


def _times(far: float) -> str:
    """How far a value is off, beside what rounding may do."""
    if not math.isfinite(far):
        return "no finite number"
    return f"{far:.2f} of what rounding may do" if far < 10 else f"{far:,.0f} times what rounding may do"


def _notes(report: PortReport) -> Iterator[str]:
    unknown = sorted({name for answer in report.answers for name in answer.unknown})
    if unknown:
        more = f" and {len(unknown) - 4} more" if unknown[4:] else ""
        yield from _wrapped(f"not compared, as no value has the name: {', '.join(unknown[:4])}{more}", "  ")
    for what in untried(report.program):
        yield from _wrapped(f"not tried: {what}", "  ")
    for line in report.further:
        yield from _wrapped(line, "  ")


def _begins(report: PortReport) -> Iterator[str]:
    first, before = report.begins
    if not first or report.coarser:
        return
    if len({name for answer in report.answers for name in answer.compared}) > 1:
        on = report.differs_on(first)
        some = f", on {', '.join(on)}" if len(on) < len(report.answers) else ""
        yield from _wrapped(f"differs first   {places.in_words(first, report.program)} ({first}{some})", " " * 16)
        agrees = f"{places.in_words(before, report.program)} ({before})" if before else "nothing before it was given"
        yield from _wrapped(f"agrees before   {agrees}", " " * 16)
    if given := relation(report.answers, first):
        yield from _wrapped(f"it gave         {given}", " " * 16)
    said = "" if any(answer.unfit for answer in report.answers) else triage(report)
    yield from _wrapped(f"by the inputs   {said}", " " * 16) if said else ()


def _mistakes(report: PortReport) -> Iterator[str]:
    for n, one in enumerate(report.found.found):
        yield ""
        yield from _wrapped(f"{'mistake' if n == 0 else 'and'}         {located(one, report.program)}", " " * 16)
        if said := one.candidate.said:
            yield from _wrapped(f"                {said}", " " * 16)
        yield f"                in {extent(one, report.program)}"
        yield from _diff(one)
        for ours, theirs in mentioned(_parameters_of(one.candidate), report.names):
            yield from _wrapped(f"                {ours} is {theirs}", " " * 18)
        for other in one.others:
            yield from _wrapped(f"or              {_short(other)}", " " * 18)
    if not report.right and not report.faults:
        yield ""
        yield from _wrapped(_conclusion(report), "  ")


def _conclusion(report: PortReport) -> str:
    wrong = sum(not answer.right for answer in report.answers)
    if report.coarser:
        return digits.in_words(report.dtype, report.coarser)
    unfit = {name: problem for answer in reversed(report.answers) for name, problem in answer.unfit.items()}
    if report.program.answer in unfit or (unfit and all(answer.fit.right for answer in report.answers)):
        problem = unfit.get(report.program.answer) or next(iter(unfit.values()))
        return f"{problem}. Mend this first: no mistake of the model was sought, as none explains it."
    if report.found.complete and report.found.found:
        what = "this mistake" if len(report.found.found) == 1 else "these mistakes"
        return f"The text with {what} gives all that the port gave, on {wrong} of {wrong} wrong inputs."
    tried = _tried(report.found)
    if report.found.found:
        return f"More is wrong: with this in the text the port still differs. {tried}."
    return f"{tried}, and none of them gives these numbers. Values on the way (taps) say where it is."


def _tried(found: Searched) -> str:
    """How many mistakes were tried, and whether that is all of them."""
    if found.ended == "interrupted":
        return f"The search was interrupted after {found.tried:,} mistakes"
    if found.ended == "time":
        return f"{found.tried:,} mistakes were tried in the time there was (more with --search SECONDS)"
    return f"All {found.tried:,} mistakes that show here were tried"


def _parameters_of(candidate: Candidate) -> str:
    """What is said of a mistake that is in the weights; nothing for another one."""
    if not any(place == "parameters" for place, _ in candidate.lines):
        return ""
    return "\n".join([candidate.said, *(line for _, lines in candidate.lines for line in lines)])


def _diff(one: Found) -> Iterator[str]:
    for place, lines in one.candidate.lines:
        yield f"                {place}"
        for line in lines:
            yield from _wrapped(f"                  {line}", " " * 22)


def _short(candidate: Candidate) -> str:
    lines = [line for _, held in candidate.lines for line in held if line.startswith("+")]
    return candidate.said or "; ".join(lines)


def _wrapped(text: str, lead: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=lead, break_long_words=False, break_on_hyphens=False,
                         drop_whitespace=True, initial_indent="") or [text]  # fmt: skip


# --- in words ---------------------------------------------------------------------------------------------------------


def located(one: Found, program: Program) -> str:
    """layer 3, rotary: q after turning"""
    return places.in_words(one.first, program) if one.first else "what it changes is not seen"


def extent(one: Found, program: Program) -> str:
    if one.candidate.change.steps is not None:
        return "the order of the layers"
    steps = [program.steps[n] for n in one.places]
    layers = [step for step in steps if step.kind.endswith("layer")]
    all_layers = [program.steps[n] for n in one.acting if program.steps[n].kind.endswith("layer")]
    of_kind = [step for step in program.steps if step.kind in {layer.kind for layer in layers}]
    if len(layers) == len(all_layers) == len(of_kind) > 1:
        halves = {step.kind.removesuffix("layer").strip() for step in layers}
        of_half = f" of the {halves.pop()}" if len(halves) == 1 and "" not in halves else ""
        return f"every layer{of_half} ({len(layers)})"
    listed = (
        [places.where(step.place).rstrip(", ") for step in layers]
        if layers else [_part_of_model(step, program) for step in steps]
    )  # fmt: skip
    more = f" and {len(listed) - MOST_PLACES} more" if listed[MOST_PLACES:] else ""
    alone = " alone" if len(listed) == 1 and len(all_layers) > 1 else ""
    return ("; " if any("," in one for one in listed) else ", ").join(listed[:MOST_PLACES]) + more + alone


def _part_of_model(step: Step, program: Program) -> str:
    half = places.where(step.place).rstrip(", ")
    return f"the {places.operation(step.place, program)}{f' of the {half}' if half else ''}"


def triage(report: PortReport) -> str:
    """What it says that some inputs are right and others are not."""
    right = {a.truth.input.name for a in report.answers if a.right}
    wrong = {a.truth.input.name for a in report.answers if a.wrong}
    if not wrong or not right:
        return "wrong with one token already" if "one" in wrong else ""
    if wrong == {"padded"}:
        return "right without padding, wrong with it: the mask of padding, or positions beside it"
    if wrong == {"far"}:
        return "right on short texts, wrong on a long one: a window, or what far distances have in common"
    if "one" in right:
        return (
            "right with one token, wrong with more: what attention sees and weighs, its scores, positions, or the mask"
        )
    return f"right: {', '.join(sorted(right))}; wrong: {', '.join(sorted(wrong))}"


# --- for programs -----------------------------------------------------------------------------------------------------


def as_data(report: PortReport) -> dict[str, Any]:
    first, before = report.begins
    return {
        "port": report.port, "model": report.folder, "model_type": report.model, "precision": report.dtype,
        "verdict": "pass" if report.right else "fail",
        "inputs": {
            **{answer.truth.input.name: _answer(answer) for answer in report.answers},
            **{name: {"status": "fault", "reason": reason, "wrong": []} for name, reason in report.faults.items()},
            **{name: {"status": "skip", "reason": reason, "wrong": []} for name, reason in report.skipped.items()},
        },
        "differs_first": _value(first, report.program), "agrees_before": _value(before, report.program),
        "given_instead": relation(report.answers, first) if first else "", "by_the_inputs": triage(report),
        "mistakes": [_mistake(one, report.program, report.names) for one in report.found.found],
        "explained": report.found.complete, "tried": report.found.tried, "search_ended": report.found.ended,
        "only_digits_missing": report.coarser,
    }  # fmt: skip


def _answer(answer: Judged) -> dict[str, Any]:
    worst = max((one.far for one in answer.compared.values()), default=0.0)
    return {
        "status": "pass" if answer.right else "fail", "reason": "", "tokens": answer.truth.input.tokens,
        "ratio": worst if math.isfinite(worst) else None, "compared": list(answer.compared), "unknown": answer.unknown,
        "wrong": [
            {"value": name, "ratio": one.far if math.isfinite(one.far) else None, "problem": one.problem}
            for name, one in answer.compared.items() if one.wrong
        ],
    }  # fmt: skip


def _value(name: str, program: Program) -> dict[str, str] | None:
    if not name:
        return None
    return {"value": name, "operation": places.operation(name, program), "words": places.in_words(name, program)}


def _mistake(one: Found, program: Program, names: Names) -> dict[str, Any]:
    return {
        "said": one.candidate.said, "located": _value(one.first, program), "in": extent(one, program),
        "places": [program.steps[n].place for n in one.places],
        "in_the_files": dict(mentioned(_parameters_of(one.candidate), names)),
        "diff": [line for place, lines in one.candidate.lines for line in (place, *lines)],
        "or": [_short(other) for other in one.others],
    }  # fmt: skip


def results(report: PortReport, inputs: Sequence[Input]) -> list[Result]:
    """One for each input, as a file for other programs has them."""
    answers = {answer.truth.input.name: answer for answer in report.answers}
    found = []
    lines = [line for line in as_text(report).splitlines()[1:] if line.strip()]
    for given in inputs:
        case = case_of(given)
        if given.name in report.faults:
            found.append(Result(case, "fault", report.faults[given.name]))
        elif given.name in report.skipped:
            found.append(Result(case, "skip", report.skipped[given.name]))
        elif answers[given.name].right:
            found.append(Result(case, "pass", "", response=Response({}, None)))
        else:
            wrong = [
                Verdict(f"value {name}", "values", f"{name}: {_times(one.far)}")
                for name, one in answers[given.name].compared.items() if one.wrong
            ]  # fmt: skip
            found.append(Result(case, "fail", "", wrong[:1], diagnosis=lines))
    return found
