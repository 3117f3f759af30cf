"""refllm compress: a smaller model of a trained one, and what that costs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from refllm import checkpoint
from refllm.backend import allow_tf32, device_namespace, generator, to_host
from refllm.commands.cost import TRIED, before_and_after, plot, sample_told, shown_of, table, whole
from refllm.commands.generate import add_run_argument, chosen_run
from refllm.commands.progress import Display, interrupts, silent_divergence
from refllm.data.classification import by_length, marked_texts
from refllm.data.examples import read_labelled
from refllm.directory import occupied, require_empty
from refllm.errors import UserError
from refllm.finetune.distillation import Teacher, distilled
from refllm.finetune.pruning import SCOPES, magnitude_masks, pruned, pruned_tuning, sparsity_of
from refllm.finetune.stored import packed
from refllm.parameters import Tree, count, named_leaves
from refllm.plan import Plan
from refllm.run import Run
from refllm.tasks import Task
from refllm.tasks import load as load_task
from refllm.tasks.classify import Classify
from refllm.tasks.labels import label_log_probabilities, most_probable
from refllm.train import Settings, Trainer, refuse_divergence
from refllm.trained import Trained, load_model
from refllm.workers import Workers, available_cores, require_threads

DESCRIPTION = """Make a smaller model of the one of a run, and show what that costs: size, speed and quality on the
part of the data that the run held out.

example: refllm compress quantise runs/001 --out runs/001-int8
         refllm compress prune runs/001 --sparsity 0.7 --steps 200 --out runs/001-pruned
         refllm compress distil runs/001 --layers 2 --width 64 --out runs/001-small"""

DONE = "compress.json"
LOOKS = 10  # at the loss, while what was not pruned is trained on
LESS_MEMORY = "use --device cpu, a lower --batch or fewer --threads"
SIZES = {
    "layers": "half of them where no size is given, else as many as the run",
    "heads": "as many as the run",
    "width": "that of the run",
    "hidden": "as many times the width as in the run",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="how", required=True, metavar="HOW", prog=parser.prog)
    for name, text in (
        ("distil", "train a smaller model on the probabilities of the trained one"),
        ("prune", "set the smallest weights to zero; train the others on with --steps"),
        ("quantise", "keep weights in 8 bits, with a scale an output channel"),
    ):
        way = ways.add_parser(name, help=text, description=text)
        add_run_argument(way)
        way.add_argument("--out", required=True, metavar="DIR", help="directory of the smaller model")
        way.add_argument("--threads", type=int, default=available_cores(), help="workers (default: the cores)")
        way.add_argument("--json", action="store_true", help="the table as JSON")
        if name != "quantise":
            way.add_argument("--seed", type=int, default=1, help="of weights, order and dropout (default 1)")
            way.add_argument("--batch", type=int, help="examples a step (default: that of the run)")
        ADD[name](way)


def _add_distil(way: argparse.ArgumentParser) -> None:
    for name, default in SIZES.items():
        way.add_argument(f"--{name}", type=int, help=f"{name} of the smaller model (default: {default})")
    way.add_argument("--temperature", type=float, default=2.0, help="of both probabilities (default 2)")
    way.add_argument("--share", type=float, default=0.5, help="of the teacher in the loss; 0: it is not asked (0.5)")
    way.add_argument("--lr", type=float, help="peak of the learning rate (default: that of the run)")
    way.add_argument(
        "--unlabelled", nargs="+", metavar="FILE",
        help="of a classifier: tables or JSON lines of more texts, which get the labels that the teacher gives them",
    )  # fmt: skip
    length = way.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="of training (default: as the run)")
    length.add_argument("--minutes", type=float, help="of training")


def _add_prune(way: argparse.ArgumentParser) -> None:
    way.add_argument("--sparsity", type=float, default=0.5, help="share of the weights that become zero (default 0.5)")
    way.add_argument("--scope", choices=SCOPES, default="tensor", help="of the share: each matrix, or all together")
    way.add_argument("--steps", type=int, default=0, help="of training what is kept (default 0: none)")
    way.add_argument(
        "--lr", type=float, help="with --steps: peak of its learning rate (default: a tenth of that of the run)"
    )


ADD: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "distil": _add_distil, "prune": _add_prune, "quantise": lambda way: None,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A trained model, the directory and task of its run, and the command's flags."""

    directory: Path
    trained: Trained
    task: Task
    options: argparse.Namespace

    @property
    def settings(self) -> Settings:
        """Those of the run, under the flags."""
        o, of_run = self.options, self.trained.description["settings"]
        batch = of_run["batch"] if o.batch is None else o.batch
        return replace(
            Settings(**of_run), batch=batch, seed=o.seed, device=o.device, tf32=o.tf32,
            shards=max(1, min(o.threads, batch)), blas_threads=1,
        )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    require_threads(options.threads)
    out = Path(options.out)
    require_empty(out)
    directory = chosen_run(options.run_directory)
    trained = load_model(directory, options.device)
    if "published" in trained.description:
        raise UserError(f"{directory} is a published model, not a run; fine-tune it first, and give that run")
    if trained.description["model"] == "ngram":
        raise UserError(
            f"{directory} is a run of an n-gram, which counts and has no weights to make smaller; give a run that was "
            "trained by steps (to distil, a classifier or a language model)"
        )
    subject = Subject(directory, trained, load_task(whole(trained.description)), options)
    with occupied(out, until=DONE, fresh=True):  # what is interrupted cannot be gone on with, and leaves nothing
        WAYS[options.how](subject, out)
        rows = before_and_after(directory, out, options)
        data = json.dumps({"how": options.how, **rows}, indent=1) + "\n"
        checkpoint.write_atomically(out / DONE, data.encode())
    shown = shown_of(rows, faster=options.how == "distil")
    picture = plot(shown, out / "compress.png")
    print(data.rstrip() if options.json else f"{table(shown)}\n{sample_told(rows)}".rstrip())
    if options.how != "distil" and not options.json:
        print("It is read back into float32 and computes as many products as before: smaller, not faster.")
    print(f"\n{picture}", file=sys.stderr)
    return 0


def _quantise(subject: Subject, out: Path) -> None:
    _save(subject, subject.trained.parameters, out, form="int8", how={"how": "quantise"})


def _prune(subject: Subject, out: Path) -> None:
    o, p = subject.options, subject.trained.parameters
    masks = magnitude_masks(p, sparsity=o.sparsity, scope=o.scope)
    if o.steps < 0:
        raise UserError(f"steps must not be negative, got {o.steps}")
    for flag in ("lr", "batch"):
        if o.steps == 0 and getattr(o, flag) is not None:
            raise UserError(f"--{flag} is of the training after pruning; give its --steps too, or leave it out")
    p = pruned(p, masks) if o.steps == 0 else _retrained(subject, masks)
    how = {"how": "prune", "sparsity": sparsity_of(p), "scope": o.scope, "steps": o.steps}
    _save(subject, p, out, form="sparse", how=how)


def _retrained(subject: Subject, masks: dict[str, Any]) -> Tree:
    """The parameters after training those that the masks keep.

    Raises: UserError if the training diverges, which its losses show, or the measures of what it leaves.
    """
    from tqdm import tqdm

    o, task = subject.options, subject.task
    lr = 0.1 * subject.settings.lr if o.lr is None else o.lr
    settings, plan = replace(subject.settings, lr=lr), Plan(steps=o.steps, minutes=None, reports=LOOKS)
    tuning = pruned_tuning(
        model=subject.trained.model, config=task.config, parameters=subject.trained.parameters, masks=masks
    )
    feed = task.feed(batch=settings.batch, order=generator(settings.seed, 1), state=None)
    require_number = partial(refuse_divergence, remedy="prune again with a lower --lr")
    with Workers(settings.shards) as workers, silent_divergence():
        trainer = Trainer(
            model=tuning.model, config=task.config, objective=tuning.wrap(task.objective), settings=settings,
            workers=workers,
        )  # fmt: skip
        trainer.initialise()
        for step in tqdm(range(1, o.steps + 1), unit="step", disable=None):
            loss = trainer.step(feed.next_batch(), lr=plan.learning_rate(step, 0.0, settings))
            if plan.reports_due(step, 0.0) > plan.reports_due(step - 1, 0.0):  # each waits for a device
                require_number(float(loss) + float(trainer.norm), step=step)
        full = tuning.full(trainer.parameters.tree)
        looked_at = task.validate(full, device=settings.device, workers=workers, most=TRIED)
        require_number(looked_at["val_loss"] + _sum_of_largest(full), step=o.steps)
        return full


def _sum_of_largest(p: Tree) -> float:
    """The sum of the largest weight of each tensor: infinite or not a number where a weight is."""
    return sum(float(abs(to_host(x)).max(initial=0.0)) for _, x in named_leaves(p))


def _distil(subject: Subject, out: Path) -> None:
    """Trains the student as a run.

    Raises: KeyboardInterrupt if the user has stopped it.
    """
    o, trained, settings = subject.options, subject.trained, subject.settings
    settings = settings if o.lr is None else replace(settings, lr=o.lr)
    config = student_config(trained.config, {name: getattr(o, name) for name in SIZES})
    parameters, fewer = (count(trained.model.shapes(each)) for each in (trained.config, config))
    if fewer >= parameters:
        raise UserError(
            f"the student would have {fewer:,} parameters, the model of the run has {parameters:,}; "
            "give fewer --layers, or a lower --width or --hidden"
        )
    task: Any = load_task({**whole(trained.description), "config": config.as_dict()})
    teacher = Teacher(trained.model, trained.config, trained.parameters, temperature=o.temperature, share=o.share)
    task.objective = distilled(task.objective, teacher)
    unlabelled = 0 if o.unlabelled is None else _learnt_unlabelled(subject, task)
    plan = replace(Plan(**trained.description["plan"]).whole(), patience=None)
    if o.steps is not None or o.minutes is not None:
        plan = replace(plan, steps=o.steps, minutes=o.minutes)
    prepared = Run.begin(out, task=task, settings=settings, plan=plan, workers=Workers(settings.shards))
    prepared.description["compressed"] = {
        "how": "distil", "teacher": str(subject.directory.resolve()), "temperature": o.temperature, "share": o.share,
        "unlabelled": unlabelled,
    }  # fmt: skip
    print(
        f"teacher    {parameters:,} parameters, student {fewer:,}: "
        + ", ".join(f"{name} {getattr(config, name)}" for name in SIZES if hasattr(config, name))
        + (f"; {unlabelled:,} texts without labels" if unlabelled else ""),
        file=sys.stderr,
    )
    with (
        prepared.trainer.workers, Display(prepared, sys.stderr) as display, interrupts() as interrupted,
        silent_divergence(),
    ):  # fmt: skip
        prepared.train(lambda: bool(interrupted), display.on_step, display.on_report)
        if prepared.done:
            prepared.summarise({})
    if not prepared.done:
        print(
            f"Stopped at step {prepared.trainer.step_number:,}. A student cannot be gone on with: nothing is kept.",
            file=sys.stderr,
        )
        raise KeyboardInterrupt


def _learnt_unlabelled(subject: Subject, task: Any) -> int:
    """Adds the texts of --unlabelled to those that a student learns from, under the teacher's labels. How many."""
    o, trained = subject.options, subject.trained
    if not isinstance(task, Classify):
        raise UserError("--unlabelled is for a classifier, the run is none; leave it out")
    if o.share == 0:
        raise UserError("--unlabelled needs a teacher that is asked; give a --share above 0, or leave it out")
    columns = trained.description["columns"]
    examples = read_labelled(o.unlabelled, text=columns["text"], label=columns["label"], needs_label=False)
    marked, _ = marked_texts([one.text for one in examples], tokenizer=task.tokenizer, context=task.config.context)
    with Workers(o.threads) as workers:
        rows = label_log_probabilities(
            trained.parameters, by_length(marked, pad=task.tokenizer.special.pad), config=trained.config,
            device=o.device, workers=workers,
        )  # fmt: skip
    labels = [task.labels[most_probable(row)] for row in rows]
    return task.learn_too([replace(one, label=label) for one, label in zip(examples, labels, strict=True)])


def student_config(teacher: Any, sizes: dict[str, int | None]) -> Any:
    """The teacher's configuration with other sizes: without any, half the layers; the hidden width follows the width.

    Raises: UserError where the teacher has no such size, or nothing would be smaller.
    """
    given = {name: size for name, size in sizes.items() if size is not None}
    missing = [name for name in given if not hasattr(teacher, name)]
    if missing:
        raise UserError(f"the model of the run has no {missing[0]}; leave out --{missing[0]}")
    if not given:
        if getattr(teacher, "layers", 1) < 2:
            raise UserError("the model of the run has no layers to halve; give --width or --hidden")
        given = {"layers": teacher.layers // 2}
    if "width" in given and "hidden" not in given and hasattr(teacher, "hidden"):
        given["hidden"] = max(1, teacher.hidden * given["width"] // teacher.width)
    return replace(teacher, **given)


WAYS: dict[str, Callable[[Subject, Path], None]] = {"distil": _distil, "prune": _prune, "quantise": _quantise}


def _save(subject: Subject, p: Tree, out: Path, *, form: str, how: dict[str, Any]) -> None:
    description = {k: v for k, v in whole(subject.trained.description).items() if k not in ("format", "files")}
    description |= {"form": form, "compressed": {**how, "from": str(subject.directory.resolve())}}
    weights = packed(dict(named_leaves(p)), form)
    checkpoint.save(out / "checkpoint", description, {"weights": weights}, step=description.get("step", 0))
