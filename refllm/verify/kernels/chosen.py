"""What explains the wrong answers to an operation best, after the right ones were asked.

chosen = Chosen(known, "float32", plan)
chosen.said_of(looked)              the lines of a wrong answer that was looked at
chosen.said_of_another(id)          those of one that was not
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cached_property

from refllm.numbers.plans import Plan
from refllm.verify.explanation import Elsewhere, Explanation
from refllm.verify.kernels import axes, conditions, fitting, one_case, properties, relations, tails
from refllm.verify.kernels.causes import Cause, OfBank
from refllm.verify.kernels.causes import causes as all_causes
from refllm.verify.kernels.known import Looked, Match, Operation
from refllm.verify.kernels.matching import WAYS
from refllm.verify.kernels.right import Right
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.work import work
from refllm.verify.tolerance import UNIT

LARGEST = 6_000_000  # the work of the right answers that are asked (sized.work)
RIGHT = 16  # of them, at most
CHECKED = 2  # mistakes with a condition of which all right answers are asked that meet it
BEST = 16  # mistakes that they are asked about
FEWEST = 4  # elements that a mistake must explain which does not explain every answer
SEVERAL = 3  # answers that are enough where what is wrong is a tail in every one
FEW = 64  # elements that one must explain which explains the lesser part of the answers
MANY = 4  # answers that a loss of digits must explain to be named with a condition
NEARLY_ALL = 0.9  # the share of the answers that a loss of digits must explain
FORMAT = 6.0  # bits that the shortest format has of which is spoken
ALIKE, MOSTLY = 1.0, 0.8  # by how many bits answers may differ that lose as many, and how many of them must
NEAR = 0.75  # bits by which the errors of two mistakes differ that lose as many digits
LISTED = 3  # mistakes that lose digits alike of which the names are said
UNKNOWN = "explained by no known mistake"


class Chosen:
    """What explains the wrong answers to an operation, after right ones were asked."""

    def __init__(self, known: Operation, dtype: str, plan: Plan) -> None:
        self.known, self.dtype, self.plan = known, dtype, plan
        self.conditions: dict[Cause, properties.Condition] = {}
        self._contradicted: dict[Cause, list[str]] = {}  # and the cases whose right answers speak against it
        self.order = list(self._sound(sorted(self._named(), key=self._rank)))

    def _named(self) -> list[Cause]:
        """Those that no right answer contradicts, or that a condition tells apart."""
        likely = [cause for cause in sorted(self.known.causes, key=self._rank) if self._is_evident(cause)][:BEST]
        against = self._against([cause for cause in likely if not self._is_somewhere(cause)], self._asked)
        found = list[Cause]()
        for cause in likely:
            if right := against.get(cause):
                self._contradicted[cause] = list(right)
                own = [each.numbers for each in self.known.looked.values() if cause in each.matches]
                condition = conditions.separating(own, list(right.values()))
                told, all_looked = self._told(cause), len(self.known.looked)
                few = told < max(MANY, all_looked) if self._loses(cause) else 2 * told < all_looked
                grounded = min(told, len(self.known.tell_right)) >= conditions.GROUND
                if condition is None or few or not grounded:
                    continue
                self.conditions[cause] = condition
            found.append(cause)
        if not found and len(self.known.tell_wrong) <= 1:
            self.conditions |= one_case.named(self.known, likely, self._contradicted)
            found = [cause for cause in likely if cause in self.conditions]
        return found

    def _sound(self, causes: list[Cause]) -> Iterator[Cause]:
        """Those without a condition, and those that no right answer which meets theirs contradicts: of the best, those
        are asked that were not yet."""
        checked, asked = 0, {sized.id for sized in self._asked}
        for cause in causes:
            condition = self.conditions.get(cause)
            if condition is not None and checked < CHECKED:
                tells = self.known.tell_right
                meets = [x for x in self.known.right if x.id not in asked and x.id in tells and work(x) <= LARGEST]
                against = self._against([cause], [x for x in meets if condition.holds(tells[x.id])][:RIGHT])
                if against[cause]:
                    self._contradicted[cause] += list(against[cause])
                    continue
                checked += 1
            yield cause

    @cached_property
    def _nearly(self) -> list[str]:
        """The mistake that gives most of the answers, where right ones speak against it."""
        told = [c for c in self._contradicted if c not in self.order and 2 * self._told(c) >= len(self.known.looked)]
        if self.order or not told or self._told(cause := min(told, key=self._rank)) < conditions.GROUND:
            return []
        right, looked = self._contradicted[cause], len(self.known.looked)
        gives = f"nearly: {self._told(cause)} of {looked} answers are those of {cause.about} ({cause.id})"
        count = f"{len(right)} right answers are" if right[1:] else "a right answer is"
        return [Elsewhere.of(f"{gives}, but {count} not ({right[0]}{', …' if right[1:] else ''})", cause)]

    def _is_evident(self, cause: Cause) -> bool:
        """Whether it explains enough: most answers where digits are lost, and more than a number or two."""
        told, held = self._told(cause), [each for each in self.known.looked.values() if cause in each.matches]
        if all("nothing" in match.ways.values() for match in self._matches(cause)):
            return False
        looked, count = len(self.known.looked), sum(each.count for each in held)
        if self._loses(cause) and told < NEARLY_ALL * looked:
            return False
        partly = all("partly" in each.matches[cause].ways.values() for each in held)
        if 2 * told <= looked and all(each.matches[cause].spared for each in held):
            return False  # of few answers, and with right gradients that it gets wrong in each
        if 2 * told < looked and (count < FEW or partly or bool(getattr(cause, "sizes", None))):
            return False  # a size that is chosen to fit, a few numbers that fit, or parts of few answers are chance
        return told == looked or count >= FEWEST or (told >= SEVERAL and bool(self._tail))

    def _against(self, causes: list[Cause], among: Iterable[SizedCase]) -> dict[Cause, dict[str, properties.Numbers]]:
        """The right answers that each of these would have got wrong, as what tells cases apart, by their ids."""
        found: dict[Cause, dict[str, properties.Numbers]] = {cause: {} for cause in causes}
        for sized in among if causes else ():
            case = sized.case()
            asked = Right(case, self.dtype, self.plan)
            for cause in causes:
                matches = self._matches(cause)
                in_gradients = all(n.startswith("gradients.") for match in matches for n in match.ways)
                gradients = in_gradients and self.known.gradients
                if not asked.is_right(cause, gradients=gradients, digits=self._rounds(cause)):
                    found[cause][sized.id] = axes.numbers(case)
        return found

    @cached_property
    def _asked(self) -> list[SizedCase]:
        """Right answers of all sizes, as many as their work allows."""
        held, total = list[SizedCase](), 0
        for sized in sorted(self.known.right, key=work):
            total += work(sized)
            if total <= LARGEST:
                held.append(sized)
        return held if len(held) <= RIGHT else [held[n * (len(held) - 1) // (RIGHT - 1)] for n in range(RIGHT)]

    def _is_somewhere(self, cause: Cause) -> bool:
        """Whether it holds in some rows or columns alone, in most of the answers that it explains: right cases may have
        none."""
        held = [each for each in self.known.looked.values() if cause in each.matches]
        partly = [each for each in held if "partly" in each.matches[cause].ways.values()]
        return 2 * len(partly) > len(held) and all(each.where for each in partly)

    def _told(self, cause: Cause) -> int:
        """How many of the answers that were looked at it explains."""
        return len(self._matches(cause))

    @property
    def most_told(self) -> int:
        """How many answers that were looked at the best of them explains."""
        return self._told(self.order[0]) if self.order else 0

    @property
    def explains_most(self) -> bool:
        """Whether something explains more than half of the answers, so that no edit of the text need be searched."""
        return 2 * self.most_told > len(self.known.looked) or bool(self.by_factor)

    def _loses(self, cause: Cause) -> bool:
        """Whether most of what speaks for it are errors of its size, which others may have too."""
        matched = self._matches(cause)
        return 2 * sum("digits" in match.ways.values() for match in matched) > len(matched)

    def _rounds(self, cause: Cause) -> bool:
        ways = {way for match in self._matches(cause) for way in match.ways.values()}
        return bool(ways & {"digits", "roundings"})

    def _way(self, cause: Cause) -> str:
        return max((way for match in self._matches(cause) for way in match.ways.values()), key=WAYS.index)

    def _apart(self, cause: Cause) -> float:
        """How many bits its errors are larger or smaller than those of the answers, in the mean of these."""
        return sum(match.apart for match in self._matches(cause)) / self._told(cause)

    def _rivals(self, cause: Cause) -> list[Cause]:
        """Other mistakes that lose as many digits in as many answers, of which none has these roundings."""
        if not self._loses(cause):
            return []
        told, far = self._told(cause), self._apart(cause) + NEAR
        others = [c for c in self.order if self._loses(c) and self._told(c) >= told and self._apart(c) <= far]
        return list({c.id: c for c in reversed(others) if c.id != cause.id}.values())[::-1]

    def _rank(self, cause: Cause) -> tuple[object, ...]:
        """Those first that explain most answers, in full, without a condition, and are simple. An error of the right
        size counts for less than the same error."""
        matched = self._matches(cause)
        sized = bool(getattr(cause, "sizes", ()))
        full = [match for match in matched if not match.left]
        vague = sum("digits" in match.ways.values() for match in full)
        spared = any(match.spared for match in matched)
        return (
            vague / 4 - len(full), -len(matched), spared, cause in self.conditions,
            max(match.rank for match in matched), self._apart(cause) > NEAR, sized,
        )  # fmt: skip

    def _matches(self, cause: Cause) -> list[Match]:
        return [each.matches[cause] for each in self.known.looked.values() if cause in each.matches]

    # --- in words

    def said_of(self, looked: Looked) -> list[str]:
        """The lines of an answer that was looked at."""
        causes = [cause for cause in self.order if cause in looked.matches]
        if self.most_told < len(self.known.looked) and self.by_factor:
            place = f", {self._tail}" if self._tail else ""
            return [Explanation.of(f"{line}{place}", relations.Factor(line)) for line in self.by_factor]
        if not causes:
            late, total = "", len(all_causes(looked.sized.operation))
            if self.known.tried < total:
                late = f": {self.known.tried:,} of {total:,} were tried in the time there was (--search)"
            tail = [f"wrong in each case that was compared: {self._tail}"] if self._tail else []
            digits = [f"loses digits{self._bits}"] if self._all_lose_as_many and not looked.facts else []
            return [
                f"{UNKNOWN} of {looked.sized.operation}{late}",
                *self._where,
                *tail,
                *(looked.steps or self._steps_elsewhere),
                *looked.facts,
                *self._factors,
                *digits,
                *self._nearly,
            ]
        cause = causes[0]
        match = looked.matches[cause]
        if rivals := self._rivals(cause):
            return [f"{UNKNOWN} of {looked.sized.operation} alone: {self._lost([cause, *rivals])}", *self._where]
        as_well = {c.id for c in causes if looked.matches[c].rank == match.rank and not looked.matches[c].spared}
        alike = len(as_well - {cause.id})
        where = self._place(cause, looked)
        return [self._line(cause, match, where, alike)]

    def _place(self, cause: Cause, looked: Looked) -> str:
        """Where in an answer it holds, if it does so in some places alone, in this answer or in another one."""
        held = [each for each in self.known.looked.values() if cause in each.matches]
        partly = [each for each in held if "partly" in each.matches[cause].ways.values() and each.where]
        if not partly:
            return ""
        if self._tail:
            return f", {self._tail}"
        if looked in partly:
            return f", {looked.where}"
        return f", and in {partly[0].sized.id} {partly[0].where}"

    @cached_property
    def _unknown(self) -> list[Looked]:
        """The answers that nothing explains."""
        return [each for each in self.known.looked.values() if not any(c in each.matches for c in self.order)]

    @cached_property
    def _steps_elsewhere(self) -> list[str]:
        """At which step another answer goes wrong that nothing explains, with its case."""
        return next(([f"{line} ({each.sized.id})" for line in each.steps] for each in self._unknown if each.steps), [])

    def _lost(self, causes: list[Cause]) -> str:
        """That digits are lost, of what several mistakes lose alike."""
        ids = ", ".join(cause.id for cause in causes[:LISTED])
        more = f" and {len(causes) - LISTED} more" if causes[LISTED:] else ""
        return f"it loses digits{self._bits}, which {len(causes)} known mistakes lose alike ({ids}{more})"

    @property
    def _bits(self) -> str:
        """As how many bits, in the middle of the answers that lose digits."""
        bits = sorted(each.bits for each in self.known.looked.values() if each.bits)
        if not bits or not math.isfinite(bits[len(bits) // 2]):
            return ""
        n = round(bits[len(bits) // 2])
        kind = {8: " (bfloat16)", 11: " (float16, tf32)"}.get(n, "")
        return f" as numbers of about {n} bits do{kind}"

    @cached_property
    def _all_lose_as_many(self) -> bool:
        """Whether nearly all that nothing explains has numbers of as many bits, which a format has. An error that is
        small by chance is of another size in each case."""
        bits = sorted(each.bits for each in self._unknown)
        middle = bits[len(bits) // 2] if bits else 0.0
        return middle > FORMAT and sum(abs(each - middle) < ALIKE for each in bits) >= MOSTLY * len(bits)

    @cached_property
    def _factors(self) -> list[str]:
        """That answers which nothing explains are their truth times a number, and by what formula."""
        return relations.said_of_factors([each.factors for each in self._unknown], UNIT[self.dtype])

    @cached_property
    def by_factor(self) -> list[Explanation]:
        """The formula of the number by which all answers are their truth, if nothing else is wrong with them."""
        looked = list(self.known.looked.values())
        if any(sum(x.elements for x in each.factors.values()) != each.count for each in looked):
            return []
        return [
            Explanation.of(line, relations.Factor(line))
            for line in relations.formulas([each.factors for each in looked], UNIT[self.dtype])
        ]

    @cached_property
    def _tail(self) -> str:
        """What is wrong after the last whole tile in every case, and how large the tiles are."""
        return tails.words([each.starts for each in self.known.looked.values()])

    @cached_property
    def _where(self) -> list[str]:
        """In which cases answers are wrong, where one condition tells them from the right ones."""
        right = list(self.known.tell_right.values())
        condition = conditions.clean(list(self.known.tell_wrong.values()), right)
        if condition is None:
            return []
        no_others = not any(map(condition.holds, right))
        return [f"wrong in the cases where {condition.words}{', and in no others' if no_others else ''}"]

    def said_of_another(self, id: str) -> list[str]:
        """What explains all that were looked at, if the condition holds here too."""
        if not self.order or any(not each.matches for each in self.known.looked.values()):
            return []
        cause = self.order[0]
        match, condition = self._matches(cause)[0], self.conditions.get(cause)
        if self._rivals(cause):
            operation = next(iter(self.known.looked.values())).sized.operation
            return [f"{UNKNOWN} of {operation} alone: it loses digits{self._bits}"]
        here = self.known.numbers.get(id)
        holds = condition is None or (here is not None and condition.holds(here))
        if not holds or any(cause not in each.matches for each in self.known.looked.values()):
            return []
        return [self._line(cause, match, " (as are the smaller ones that were compared)", 0)]

    def _line(self, cause: Cause, match: Match, where: str, alike: int) -> Explanation:
        how = "loses digits as" if {"digits", "roundings"} & set(match.ways.values()) else "equal to"
        named = match.left or match.spared or (cause.gradients_alone and not isinstance(cause, OfBank))
        of = ", ".join(relations.said(name) for name in match.ways) + ": " if named else ""
        only = self._only(cause)
        others = f"; {alike} other known mistake{'s' if alike > 1 else ''} would give the same" if alike else ""
        name = f" ({cause.id})" if cause.id else ""
        return Explanation.of(f"{of}{how} {self._about(cause)}{name}{where}{only}{others}", cause)

    def _about(self, cause: Cause) -> str:
        return fitting.about(cause, list(self.known.looked.values()), self.order, self.conditions, self._way(cause))

    def _only(self, cause: Cause) -> str:
        """Where it holds, if right answers speak against it elsewhere: the condition that tells them apart."""
        condition = self.conditions.get(cause)
        if condition is None:
            return ""
        if len(self.known.looked) == 1:
            return one_case.where(condition, self._contradicted.get(cause, []))
        return f", in the cases where {condition.words}{condition.between if condition.is_near else ''}"
