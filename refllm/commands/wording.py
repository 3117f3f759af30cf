"""Words that several commands use for what they say."""

from __future__ import annotations

from typing import Any

from refllm.plan import Plan
from refllm.ranks import Ranks
from refllm.run import Run


def counted(number: float, noun: str) -> str:
    """A number and its noun, whose plural ends in s: "1 worker", "2,000 steps", "0.5 minutes"."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def who_works(prepared: Run) -> str:
    """Who shares the batches of a training, and what of the moments each keeps."""
    trainer, settings = prepared.trainer, prepared.settings
    if not trainer.workers.apart:
        return counted(settings.shards, "worker")
    held, what = [trainer.m, trainer.v], "moments"
    if trainer.cut is not None:
        held, what = [*held, trainer.cut.own], "parameters and moments"
    kept = sum(one.vector.nbytes for one in held) / 1e6
    ranks = counted(trainer.workers.count, "rank")
    if isinstance(trainer.workers, Ranks) and trainer.workers.exchange.told:
        ranks = f"{ranks} with a GPU each that exchange {trainer.workers.exchange.told}"
    return f"{ranks}, {kept:,.3g} MB of {what} each" if trainer.workers.cut else ranks


def length_of(plan: Plan) -> str:
    """How long a training takes, or how much longer."""
    length = counted(plan.steps, "step") if plan.steps is not None else counted(float(plan.minutes or 0), "minute")
    return f"{length} more after {counted(plan.after_steps, 'step')}" if plan.after_steps else length


def what_was_read(measured: dict[str, Any]) -> str:
    """What the measures of a language model are measures of."""
    read, of = measured["val_examples"], measured["val_of"]
    return "the held-out text" if read >= of else f"{read:,} of the {of:,} windows of the held-out text, evenly spread"


def part_of(measured: dict[str, Any], what: str) -> str:
    """The held-out examples that were read, as all or as some of them."""
    read, of = measured["val_examples"], measured["val_of"]
    return f"the {of:,} {what} held out" if read >= of else f"{read:,} of the {of:,} {what} held out, evenly spread"


def time_told(summary: dict[str, Any], prepared: Run) -> str:
    """The steps of a run, and what has taken how long until now."""
    parts = {"reading": "reading_seconds", "training": "training_seconds", "evaluation": "evaluation_seconds"}
    told = ", ".join(f"{name} {summary[key]:.0f} s" for name, key in parts.items())
    whole = prepared.clock.elapsed() if not prepared.plan.training_alone else summary["seconds"]
    return f"{counted(summary['steps'], 'step')} in {whole:.0f} s ({told}), {summary['tokens_per_second']:,} tokens/s"
