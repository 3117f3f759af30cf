"""Agreement with transformers: loss and every gradient of BERT and its heads on random weights, and token ids."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refllm.models import bert
from refllm.objectives.classification import classification_loss
from refllm.objectives.pretraining import pretraining_loss
from refllm.objectives.span import span_loss
from refllm.parameters import Tree, map_leaves, named_leaves
from refllm.tokenizers.wordpiece import WordPieceTokenizer

LIMITS = {"float64": 1e-10, "float32": 1e-5}

SMALL: dict[str, Any] = {"vocabulary": 61, "context": 24, "layers": 3, "heads": 4, "width": 32, "hidden": 64}
ODD: dict[str, Any] = {"vocabulary": 7, "context": 9, "layers": 2, "heads": 1, "width": 6, "hidden": 10}
CONFIGURATIONS: dict[str, tuple[str, bert.Config]] = {
    "BERT, MLM and NSP": ("pretraining", bert.Config(**SMALL, outputs=("masked", "pair"))),
    "BERT, classifier": ("classification", bert.Config(**SMALL, outputs=("classes",), labels=5)),
    "BERT, question answering": ("span", bert.Config(**SMALL, outputs=("span",))),
    "BERT, one head, tanh GELU": (
        "pretraining",
        bert.Config(**ODD, activation="gelu_tanh", outputs=("masked", "pair")),
    ),
    "BERT, a length of 1": (
        "pretraining",
        bert.Config(**{**ODD, "context": 1, "heads": 3}, outputs=("masked", "pair")),
    ),
}


@dataclass(frozen=True)
class Batch:
    """Ragged texts of two segments; the first fills the context."""

    ids: Any
    segments: Any
    lengths: Any
    positions: Any
    targets: Any
    pair: Any
    labels: Any
    spans: Any

    @property
    def attended(self) -> Any:
        return np.arange(self.ids.shape[1]) < self.lengths[:, None]

    @property
    def attention_mask(self) -> Any:
        return self.attended[:, None, None, :]


def draw(config: bert.Config, rng: np.random.Generator, rows: int = 3) -> Batch:
    T = config.context
    lengths = np.array([T, *rng.integers(1, T + 1, rows - 1)])
    positions = rng.permuted(np.tile(np.arange(T), (rows, 1)), axis=1)[:, : max(1, T // 6)] % lengths[:, None]
    positions = np.sort(positions, axis=1)
    repeated = np.concatenate([np.zeros((rows, 1), bool), np.diff(positions) == 0], axis=1)
    ends = np.sort(rng.integers(0, lengths[:, None], (rows, 2)), axis=1)
    return Batch(
        ids=rng.integers(0, config.vocabulary, (rows, T)),
        segments=(np.arange(T) >= lengths[:, None] // 2).astype(np.int64),
        lengths=lengths,
        positions=positions,
        targets=np.where(repeated, -1, rng.integers(0, config.vocabulary, positions.shape)),
        pair=rng.integers(0, 2, rows),
        labels=rng.integers(0, config.labels, rows),
        spans=ends,
    )


def ours(kind: str, p: Tree, config: bert.Config, b: Batch) -> tuple[Any, Tree]:
    """The mean loss and its gradient."""
    inputs: dict[str, Any] = {
        "model": bert, "ids": b.ids, "segments": b.segments, "attention_mask": b.attention_mask, "config": config,
        "dropout_mask": None,
    }  # fmt: skip
    if kind == "pretraining":
        (masked, pairs), back = pretraining_loss(
            p, positions=b.positions, targets=b.targets, pair=b.pair, ignore=-1, **inputs
        )
        shares = [np.asarray(1 / n, masked.dtype) for n in ((b.targets >= 0).sum(), len(b.pair))]
        return masked * shares[0] + pairs * shares[1], back(*shares)
    if kind == "classification":
        y, back_tree = classification_loss(p, targets=b.labels, weights=None, smoothing=0.0, **inputs)
        share = np.asarray(1 / len(b.labels), y.dtype)
    else:
        y, back_tree = span_loss(p, answer_mask=None, targets=b.spans, ignore=None, **inputs)
        share = np.asarray(1 / b.spans.size, y.dtype)
    return y * share, back_tree(share)


def theirs(kind: str, config: bert.Config, dtype: str, p: Tree, b: Batch) -> tuple[float, dict[str, Any]]:
    """The same by transformers: its model with our parameters, and its gradients under our names."""
    import torch
    import transformers

    settings = transformers.BertConfig(
        vocab_size=config.vocabulary, max_position_embeddings=config.context, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, hidden_size=config.width, intermediate_size=config.hidden,
        type_vocab_size=config.segments, layer_norm_eps=config.eps, num_labels=config.labels,
        hidden_act={"gelu_erf": "gelu", "gelu_tanh": "gelu_new"}[config.activation],
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation="eager",
        pad_token_id=None,  # or transformers withholds the gradient of that row
    )  # fmt: skip
    kinds = {
        "pretraining": transformers.BertForPreTraining,
        "classification": transformers.BertForSequenceClassification,
        "span": transformers.BertForQuestionAnswering,
    }
    if kind == "span":
        settings.num_labels = 2
    model = kinds[kind](settings).to(getattr(torch, dtype))
    parameters = dict(model.named_parameters())
    places = places_of(kind, config)
    assert set(parameters) == {place.name for place in places}, "not the parameters that were expected"
    given = dict(named_leaves(p))
    with torch.no_grad():
        for place in places:
            part = torch.tensor(given[place.path][..., place.columns])
            parameters[place.name].copy_(part.T if place.transposed else part)
    words = np.full(b.ids.shape, -100)
    rows, slots = np.nonzero(b.targets >= 0)
    words[rows, b.positions[rows, slots]] = b.targets[rows, slots]
    labels = {
        "pretraining": {"labels": torch.tensor(words), "next_sentence_label": torch.tensor(b.pair)},
        "classification": {"labels": torch.tensor(b.labels)},
        "span": {
            "start_positions": torch.tensor(b.spans[:, 0]),
            "end_positions": torch.tensor(b.spans[:, 1]),
        },
    }
    mask = torch.tensor(b.attended.astype(np.int64))
    loss = model(torch.tensor(b.ids), attention_mask=mask, token_type_ids=torch.tensor(b.segments), **labels[kind]).loss
    loss.backward()
    gradients = {path: np.zeros_like(leaf) for path, leaf in given.items()}
    for place in places:
        g = parameters[place.name].grad
        gradients[place.path][..., place.columns] = (g.T if place.transposed else g).numpy()
    return loss.item(), gradients


class Place(NamedTuple):
    """Where the parameter `path` of ours, or some columns of it, is in transformers' model."""

    path: str
    name: str
    columns: slice = slice(None)
    transposed: bool = False


def places_of(kind: str, config: bert.Config) -> list[Place]:
    C = config.width

    def norm(path: str, name: str) -> list[Place]:
        return [Place(f"{path}.g", f"{name}.weight"), Place(f"{path}.b", f"{name}.bias")]

    def linear(W: str, b: str, name: str, columns: slice = slice(None)) -> list[Place]:
        return [Place(W, f"{name}.weight", columns, True), Place(b, f"{name}.bias", columns)]

    places = [
        Place("token", "bert.embeddings.word_embeddings.weight"),
        Place("position", "bert.embeddings.position_embeddings.weight"),
        Place("segment", "bert.embeddings.token_type_embeddings.weight"),
        *norm("norm", "bert.embeddings.LayerNorm"),
    ]
    for i in range(config.layers):
        path, name = f"layers.{i}", f"bert.encoder.layer.{i}"
        for j, part in enumerate(("query", "key", "value")):
            W, b = f"{path}.attention.Wqkv", f"{path}.attention.bqkv"
            places += linear(W, b, f"{name}.attention.self.{part}", slice(j * C, (j + 1) * C))
        places += linear(f"{path}.attention.Wo", f"{path}.attention.bo", f"{name}.attention.output.dense")
        places += linear(f"{path}.feed_forward.W1", f"{path}.feed_forward.b1", f"{name}.intermediate.dense")
        places += linear(f"{path}.feed_forward.W2", f"{path}.feed_forward.b2", f"{name}.output.dense")
        places += norm(f"{path}.norm1", f"{name}.attention.output.LayerNorm")
        places += norm(f"{path}.norm2", f"{name}.output.LayerNorm")
    if kind != "span":  # transformers gives that model no pooler
        places += linear("pooler.W", "pooler.b", "bert.pooler.dense")
    if kind == "pretraining":
        places += linear("masked.W", "masked.b", "cls.predictions.transform.dense")
        places += norm("masked.norm", "cls.predictions.transform.LayerNorm")
        places.append(Place("masked.bias", "cls.predictions.bias"))
        places += linear("pair.W", "pair.b", "cls.seq_relationship")
    elif kind == "classification":
        places += linear("classes.W", "classes.b", "classifier")
    else:
        places += linear("span.W", "span.b", "qa_outputs")
    return places


def zeros_of(kind: str, config: bert.Config) -> set[str]:
    """The parameters whose gradient is exactly zero: what shifts the scores of every place alike moves no softmax over
    the places. Both sides then hold rounding, which is compared relative to the largest gradient of all."""
    return {"span.b", f"layers.{config.layers - 1}.norm2.b"} if kind == "span" else set()


def worst(mine: dict[str, Any], other: dict[str, Any], zeros: set[str]) -> tuple[float, str]:
    """The largest difference relative to its tensor's largest entry, and the tensor."""
    largest = max(float(np.abs(g).max()) for g in other.values())
    errors = []
    for name, g in other.items():
        scale = largest if name in zeros else max(float(np.abs(g).max()), 1e-30)
        errors.append((float(np.abs(mine[name] - g).max()) / scale, name))
    return max(errors)


def check(kind: str, config: bert.Config, dtype: str, seed: int) -> dict[str, Any]:
    """The worst differences of one configuration."""
    rng = np.random.default_rng(seed)
    fresh = bert.initial(config, rng)
    p = map_leaves(lambda a: (a + 0.1 * rng.standard_normal(a.shape)).astype(dtype), fresh)
    b = draw(config, rng)
    loss, gradient = ours(kind, p, config, b)
    reference, gradients = theirs(kind, config, dtype, p, b)
    error, tensor = worst(dict(named_leaves(gradient)), gradients, zeros_of(kind, config))
    return {"loss": abs(float(loss) - reference) / abs(reference), "gradient": error, "tensor": tensor}


def rows(seed: int) -> list[dict[str, Any]]:
    """A row a configuration and precision: what `scripts/crosscheck.py` prints."""
    found = []
    for name, (kind, config) in CONFIGURATIONS.items():
        for dtype, limit in LIMITS.items():
            row = check(kind, config, dtype, seed)
            agrees = row["loss"] <= limit and row["gradient"] <= limit
            found.append({"configuration": name, "dtype": dtype, "limit": limit, "agrees": agrees, **row})
    return [*found, *(tokenizer_row(seed, lower=lower) for lower in (True, False))]


TEXT = "The quick brown fox (aged 12) isn't lazy: naïve café-goers, 中文字符 and e-mail@example.org said “hello” … £5!"


def tokenizer_row(seed: int, *, lower: bool) -> dict[str, Any]:
    """Whether WordPiece gives transformers' ids, for plain text and for drawn characters: as `loss` the share of texts
    that differ, as `tensor` the first of them."""
    import transformers

    rng = np.random.default_rng(seed)
    mine = WordPieceTokenizer(WordPieceTokenizer.train(TEXT * 3, vocabulary=160, lower=True).vocabulary, lower)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("".join(f"{token}\n" for token in mine.vocabulary), encoding="utf-8")
        other = transformers.BertTokenizer(str(path), do_lower_case=lower)
    alphabet = list(TEXT + "éÉßøİıあ한글\u0301\u00ad\u200b\t\n\u00a0\u2028€$^`~|")
    texts = [TEXT, *("".join(rng.choice(alphabet, 40)) for _ in range(200))]
    wrong = [text for text in texts if mine.encode(text).tolist() != other.encode(text, add_special_tokens=False)]
    return {
        "configuration": f"WordPiece, {'lower' if lower else 'cased'}", "dtype": "ids", "limit": 0.0,
        "loss": len(wrong) / len(texts), "gradient": 0.0, "tensor": ascii(wrong[0]) if wrong else "",
        "agrees": not wrong,
    }  # fmt: skip
