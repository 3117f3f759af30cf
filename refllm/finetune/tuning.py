"""A tuning: the leaves that are trained, and how the parameters of the whole model are made of them.

    q = expand(p)          p the trained leaves, q the full tree
    L(p) = loss(q)         any objective, as it is
    dp = back(dq)          the pullback of expand

The trainer sees the trained leaves alone, by path; moments, clipping, decay and checkpoints are therefore theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeAlias

from refllm.backend import Array, to_host
from refllm.errors import UserError
from refllm.parameters import NamedLeaf, Tree, count, from_names, named_leaves
from refllm.piecewise import Piecewise, whole_array

Leaves: TypeAlias = dict[str, Any]  # by path, `layers.0.attention.Wqkv`
Rebuild: TypeAlias = Callable[[Leaves, Leaves], tuple[Leaves, Callable[[Leaves], Leaves]]]


@dataclass(frozen=True)
class TrainedPart:
    """What a Trainer gets in the place of a model file: the shapes and the start of the trained leaves.

    It belongs to the configuration that the tuning was made for, and does not look at the one that a Trainer hands it.
    """

    leaves: Leaves
    start: Callable[[Any], Iterable[NamedLeaf]]  # from a generator, of all leaves of the model and of the tuning
    structure: Tree = None  # of the whole model, where all of it is trained

    @property
    def in_layers(self) -> TrainedPart | WholeModel:
        """The same with its layers in lists, where all of the model is trained."""
        return self if self.structure is None else WholeModel(self)

    def shapes(self, config: Any) -> Tree:
        return dict(self.leaves)

    def initial(self, config: Any, generator: Any) -> Tree:
        """Host arrays, as `initial_leaves` gives them."""
        start = dict(self.initial_leaves(config, generator))
        return {path: whole_array(start[path]) for path in self.leaves}

    def initial_leaves(self, config: Any, generator: Any) -> Iterator[NamedLeaf]:
        """Arrays of the host, or piecewise; what is not given by a trained model is drawn from the generator."""
        for path, leaf in self.start(generator):
            if path in self.leaves:
                yield path, leaf if isinstance(leaf, Piecewise) else to_host(leaf)


@dataclass(frozen=True)
class WholeModel:
    """A part that is all of a model, as the tree of the model: for a Trainer that goes through it layer by layer."""

    part: TrainedPart

    def shapes(self, config: Any) -> Tree:
        return self.part.structure

    def initial(self, config: Any, generator: Any) -> Tree:
        return from_names(self.part.structure, self.part.initial(config, generator))

    def initial_leaves(self, config: Any, generator: Any) -> Iterator[NamedLeaf]:
        return self.part.initial_leaves(config, generator)


@dataclass(frozen=True)
class Tuning:
    """`model` is for the Trainer, `frozen` holds the leaves that stay as they are, `options` say how it was made.

    `rebuild` makes all leaves of the model from the trained and the frozen ones, and gives the pullback to the trained.
    """

    options: dict[str, Any]
    structure: Tree  # the shapes of the whole model
    model: Any  # a TrainedPart; Any, since a Trainer asks for a module and uses these two functions of it
    frozen: Leaves
    rebuild: Rebuild

    @property
    def count(self) -> int:
        """The number of trained parameters."""
        return count(self.model.leaves)

    @property
    def share(self) -> float:
        """Trained parameters in shares of the model's."""
        return self.count / count(self.structure)

    def expand(self, trained: Tree) -> tuple[Tree, Callable[[Tree], Tree]]:
        """The full tree, in the dtype of the trained leaves (by path or as a tree), and the pullback of its gradient.

        What is not computed is shared with the trained and the frozen leaves. A tree of all leaves is the full one.
        """
        if self.model.structure is not None and trained.keys() != self.model.leaves.keys():
            return trained, lambda dfull: dfull
        trained = dict(named_leaves(trained))
        dtype = next(iter(trained.values())).dtype
        frozen = {path: leaf.astype(dtype, copy=False) for path, leaf in self.frozen.items()}
        leaves, back_leaves = self.rebuild(trained, frozen)

        def back(dfull: Tree) -> Tree:
            return back_leaves(dict(named_leaves(dfull)))

        return from_names(self.structure, leaves), back

    def full(self, trained: Tree) -> Tree:
        """The parameters of the whole model."""
        return self.expand(trained)[0]

    def wrap(self, objective: Any) -> Tuned:
        """The objective (refllm/train.py) of the whole model as one of the trained leaves."""
        return Tuned(self, objective)


@dataclass(frozen=True)
class Tuned:
    """An objective of the trained leaves: the wrapped one on the full tree, its gradient pulled back."""

    tuning: Tuning
    objective: Any

    def totals(self, batch: Tree) -> Any:
        return self.objective.totals(batch)

    def dropout_shapes(self, batch: Tree) -> Tree:
        return self.objective.dropout_shapes(batch)

    def loss(
        self, p: Tree, batch: Tree, *, totals: Any, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        full, back_full = self.tuning.expand(p)
        y, back = self.objective.loss(full, batch, totals=totals, dropout_mask=dropout_mask)
        return y, lambda dy: back_full(back(dy))


def everything(*, model: ModuleType, config: Any, parameters: Tree | None) -> Tuning:
    """All parameters, from those that are given and fresh ones for the rest."""
    tuning = selected(lambda path: True, {"tune": "all"}, model=model, config=config, parameters=parameters)
    return replace(tuning, model=replace(tuning.model, structure=tuning.structure))


def selected(
    is_trained: Callable[[str], bool],
    options: dict[str, Any],
    *,
    model: ModuleType,
    config: Any,
    parameters: Tree | None,
) -> Tuning:
    """The leaves whose path is chosen, and those that are new; the rest frozen."""
    structure = model.shapes(config)
    known = known_leaves(structure, parameters)
    trained = {path: s for path, s in named_leaves(structure) if path not in known or is_trained(path)}
    if not trained:
        raise UserError("nothing is left to train; let more layers be trained, or give the model a new head")
    return Tuning(
        options=options,
        structure=structure,
        model=TrainedPart(trained, lambda generator: begun_leaves(model, config, generator, known)),
        frozen={path: leaf for path, leaf in known.items() if path not in trained},
        rebuild=lambda p, frozen: (frozen | p, lambda dfull: {path: dfull[path] for path in trained}),
    )


def known_leaves(structure: Tree, parameters: Tree | None) -> Leaves:
    """The leaves of `parameters` that the model has. UserError where one has another shape."""
    shapes, known = dict(named_leaves(structure)), {}
    for path, leaf in named_leaves({} if parameters is None else parameters):
        if path not in shapes:
            continue
        if leaf.shape != shapes[path]:
            raise UserError(
                f"the trained model does not fit: {path} is {leaf.shape}, should be {shapes[path]}; "
                "give the new model the sizes of the trained one"
            )
        known[path] = leaf
    return known


def begun_leaves(model: ModuleType, config: Any, generator: Any, known: Leaves) -> Iterator[NamedLeaf]:
    """The known leaves of a model, and fresh ones for the rest. All are drawn, so that which are known changes none of
    the others."""
    for path, leaf in model.initial_leaves(config, generator):
        yield path, known.get(path, leaf)


def require_trained(tune: str, parameters: Tree | None) -> None:
    if parameters is None or not named_leaves(parameters):
        raise UserError(f"the tuning {tune!r} needs a trained model to start from; give one, or tune all")
