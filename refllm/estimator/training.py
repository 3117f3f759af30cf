"""A task trained in memory: what a run does, without its directory."""

from __future__ import annotations

import numpy as np

from refllm.backend import generator
from refllm.parameters import Tree, map_leaves
from refllm.plan import Best, Plan, criterion
from refllm.tasks.classify import Classify
from refllm.timing import Timing
from refllm.train import Settings, Trainer, refuse_divergence
from refllm.workers import Workers


def trained_in_memory(task: Classify, settings: Settings, plan: Plan, workers: Workers) -> tuple[Tree, int]:
    """The parameters that training leaves, the best on what is held out, and the steps that it took."""
    trainer = Trainer(
        model=task.model, config=task.config, objective=task.objective, settings=settings, workers=workers
    )
    trainer.initialise()
    batches = task.feed(batch=settings.batch, order=generator(settings.seed, 1), state=None)
    best, kept, reported = Best(), None, 0
    assert plan.steps is not None
    most = Timing().decide(plan, examples=task.examples_held_out, batch=settings.batch, step=0, progress=0.0)
    while trainer.step_number < plan.steps and (plan.patience is None or best.waited < plan.patience):
        lr = plan.learning_rate(trainer.step_number + 1, 0.0, settings)
        loss = trainer.step(batches.next_batch(), lr=lr)
        refuse_divergence(float(loss), step=trainer.step_number, remedy="fit with a lower lr")
        if task.examples_held_out and plan.reports_due(trainer.step_number, 0.0) > reported:
            reported = plan.reports_due(trainer.step_number, 0.0)
            found = task.validate(trainer.parameters.tree, device=settings.device, workers=workers, most=most)
            refuse_divergence(found["val_loss"], step=trainer.step_number, remedy="fit with a lower lr")
            if best.is_beaten(criterion(found), trainer.step_number):
                kept = map_leaves(np.array, trainer.parameters.tree)
    return trainer.parameters.tree if kept is None else kept, trainer.step_number
