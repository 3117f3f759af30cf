"""The run that another one begins from: `fit --from`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refllm import checkpoint
from refllm.backend import to_device
from refllm.errors import UserError
from refllm.invocation import command
from refllm.models import LANGUAGE_MODELS
from refllm.pretrained.folder import digest_of, is_folder, open_folder, tokenizer_in
from refllm.tasks.stored import stored_model


@dataclass(frozen=True)
class Start:
    """Where the run is, which weights it had, and these by path; no weights where the new run's checkpoint has them."""

    directory: str
    digest: str
    weights: dict[str, Any] | None  # arrays, or piecewise
    config: Any = None
    tokenizer: Any = None
    model: str = ""
    published: bool = False

    def as_dict(self) -> dict[str, str]:
        return {"directory": self.directory, "sha256": self.digest}


def begun_from(directory: Path, *, model: str | None, device: str, piecewise: bool = False) -> Start:
    """A trained run, or a published model, of that kind as the beginning of another one; None for any language model.
    Its weights are read now, or `piecewise` when they are asked for.

    Raises: UserError if it is one of another model.
    """
    if is_folder(directory):
        return _published(directory, model=model, device=device, piecewise=piecewise)
    description, _ = checkpoint.load(directory / "checkpoint")
    _require_model(directory, description.get("model"), model)
    stored = stored_model(directory)
    digest = stored.description["files"]["weights"]["sha256"]
    weights: dict[str, Any]
    if piecewise:
        weights = dict(stored.piecewise_weights())
    else:
        weights = {path: to_device(x, device) for path, x in stored.weights().items()}
    kind = str(description["model"])
    return Start(str(directory.resolve()), digest, weights, stored.config, stored.tokenizer, kind)


def _published(directory: Path, *, model: str | None, device: str, piecewise: bool) -> Start:
    folder = open_folder(directory)
    _require_model(directory, folder.architecture.model, model)
    tokenizer = tokenizer_in(directory, size=folder.config.vocabulary)
    weights: dict[str, Any]
    if piecewise:
        weights = dict(folder.piecewise_leaves())
    else:
        weights = {path: to_device(x, device) for path, x in folder.leaves().items()}
    return Start(
        str(directory.resolve()),
        digest_of(directory),
        weights,
        folder.config,
        tokenizer,
        folder.architecture.model,
        True,
    )


def _require_model(directory: Path, found: Any, wanted: str | None) -> None:
    if wanted is None and found not in LANGUAGE_MODELS:
        raise UserError(
            f"{directory} holds a model of the kind {found}, which predicts no next token; give one that does "
            f"({', '.join(LANGUAGE_MODELS)})"
        )
    if wanted is not None and found != wanted:
        what = "published model" if is_folder(directory) else "run"
        raise UserError(
            f"{directory} is a {what} of {found}, and this one begins from one of {wanted}; "
            f"make one by {command('pretrain', '--model', wanted)}"
        )


def started(saved: dict[str, str] | None) -> Start | None:
    """What a run that is resumed began from, without its weights: those that count are the run's own."""
    return None if saved is None else Start(saved["directory"], saved["sha256"], None)


def restored(description: dict[str, Any]) -> Start | None:
    """The start of a run that is resumed: with its weights where some of them stay as they are, else without, since the
    weights that count are the run's own by now.

    Raises: UserError if the weights are needed, and gone or no longer the same.
    """
    saved = description["from"]
    if saved is None or tuning_of(description)["tune"] == "all":
        return None if saved is None else Start(saved["directory"], saved["sha256"], None)
    device = description["settings"]["device"]
    start = begun_from(Path(saved["directory"]), model=description["model"], device=device)
    if start.digest != saved["sha256"]:
        raise UserError(f"{start.directory} has been trained on since the run began from it; begin a new run")
    return start


def tuning_of(description: dict[str, Any]) -> dict[str, Any]:
    """What of the model a run trains, the options of refllm.finetune.by_name; all of it where the run says nothing."""
    options: dict[str, Any] = description.get("tuning", {"tune": "all"})
    return options
