"""Agreement with PyTorch: loss and every gradient of torch.nn.RNN and LSTM, in both directions, over packed sequences
of unequal length and from a given state, and of the models over them, on random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refllm.blocks.recurrent import recurrent_layers, recurrent_layers_shapes
from refllm.models import hybrid, nnlm, recurrent_lm
from refllm.objectives.causal import causal_loss
from refllm.ops.position import sinusoidal
from refllm.ops.recurrent import lstm, rnn
from refllm.parameters import Tree, from_names, map_leaves, named_leaves

LIMITS = {"float64": 1e-10, "float32": 1e-5}  # of the largest entry of each tensor
IGNORE = -1
LENGTHS = np.array([13, 1, 8])
I, N = 11, 9

# Cell, layers, both directions, sequences of unequal length.
STACKS: dict[str, tuple[str, int, bool, bool]] = {
    f"nn.{cell.upper()}, {layers} layer{'s' * (layers > 1)}{', bidirectional' * two_way}{', packed' * packed}": (
        cell,
        layers,
        two_way,
        packed,
    )
    for cell in ("rnn", "lstm")
    for layers in (1, 2)
    for two_way, packed in ((False, False), (False, True), (True, False), (True, True))
}
MODELS: dict[str, Any] = {
    "RNN-LM": recurrent_lm.Config(vocabulary=61, context=24, layers=2, width=16, hidden=20, cell="rnn"),
    "LSTM-LM": recurrent_lm.Config(vocabulary=61, context=24, layers=2, width=16, hidden=20),
    "LSTM-LM, tied, a length of 1": recurrent_lm.Config(vocabulary=7, context=1, width=6, hidden=6, tied=True),
    "NNLM": nnlm.Config(vocabulary=61, context=24, order=5, width=16, hidden=20),
    "NNLM, direct": nnlm.Config(vocabulary=61, context=24, order=5, width=16, hidden=20, direct=True),
    "hybrid, causal": hybrid.Config(vocabulary=61, context=24, heads=4, width=16, hidden=20, dropout=0.0),
    "hybrid, bidirectional, padded": hybrid.Config(
        vocabulary=61, context=24, heads=4, width=16, hidden=20, bidirectional=True, dropout=0.0
    ),
}


def rows(seed: int) -> list[dict[str, Any]]:
    """The worst differences by configuration and dtype."""
    checks: dict[str, Callable[[str, int], dict[str, Any]]] = {
        **{name: _of_stack(*how) for name, how in STACKS.items()},
        **{f"nn.{cell.upper()}, from a state": _of_state(cell) for cell in ("rnn", "lstm")},
        **{name: _of_model(config) for name, config in MODELS.items()},
    }
    found = []
    for name, check in checks.items():
        for dtype, limit in LIMITS.items():
            row = check(dtype, seed)
            agrees = row["loss"] <= limit and row["gradient"] <= limit
            found.append({"configuration": name, "dtype": dtype, "limit": limit, "agrees": agrees, **row})
    return found


def _of_stack(cell: str, layers: int, two_way: bool, packed: bool) -> Callable[[str, int], dict[str, Any]]:
    """The loss is Σ y weights over the places of the texts."""

    def check(dtype: str, seed: int) -> dict[str, Any]:
        import torch

        rng = np.random.default_rng(seed)
        shapes = recurrent_layers_shapes(I, N, layers=layers, cell=cell, bidirectional=two_way)
        p = _random(shapes, rng, dtype)
        B, T = len(LENGTHS), int(LENGTHS.max())
        x = rng.standard_normal((B, T, I)).astype(dtype)
        token_mask = np.arange(T) < LENGTHS[:, None] if packed else None
        weights = rng.standard_normal((B, T, 2 * N if two_way else N)).astype(dtype)
        if token_mask is not None:
            weights *= token_mask[..., None]

        y, back = recurrent_layers(x, p, cell=cell, token_mask=token_mask, states=None, dropout_mask=None, rate=0.0)
        dx, dp = back(weights)

        module = _module(torch, cell, I, N, p, two_way)
        z = torch.tensor(x, requires_grad=True)
        theirs = _run(torch, module, z, LENGTHS if packed else None)
        loss = (theirs * torch.tensor(weights)).sum()
        loss.backward()
        gradients = {"x": z.grad.numpy(), **_gradients(module, shapes)}
        return _row(y * weights, {"x": dx, **dict(named_leaves(dp))}, loss.item(), gradients)

    return check


def _of_state(cell: str) -> Callable[[str, int], dict[str, Any]]:
    """One layer from a state that is not zero, whose gradient is compared too; the last cell has a part in the loss."""

    def check(dtype: str, seed: int) -> dict[str, Any]:
        import torch

        rng = np.random.default_rng(seed)
        shapes = recurrent_layers_shapes(I, N, layers=1, cell=cell, bidirectional=False)
        p = _random(shapes, rng, dtype)
        x = rng.standard_normal((3, 12, I)).astype(dtype)
        states = [rng.standard_normal((3, N)).astype(dtype) for _ in range(2 if cell == "lstm" else 1)]
        weights = [rng.standard_normal(shape).astype(dtype) for shape in [(3, 12, N), *[(3, N)] * (len(states) - 1)]]
        run: Callable[..., Any] = lstm if cell == "lstm" else rnn
        value, back = run(x, *states, *p[0].values(), token_mask=None)
        values = value if isinstance(value, tuple) else (value,)
        names = ["x", *("h", "c")[: len(states)], *(f"0.{name}" for name in p[0])]
        gradient = dict(zip(names, back(*weights), strict=True))

        module = _module(torch, cell, I, N, p, False)
        z, *begin = (torch.tensor(a, requires_grad=True) for a in (x, *states))
        given = tuple(s[None] for s in begin)
        y, last = module(z, given if cell == "lstm" else given[0])
        parts = (y, last[1][0]) if cell == "lstm" else (y,)
        loss = sum((part * torch.tensor(w)).sum() for part, w in zip(parts, weights, strict=True))
        loss.backward()
        theirs = {name: s.grad.numpy() for name, s in zip(names, (z, *begin), strict=False)}
        terms = np.concatenate([(value * w).ravel() for value, w in zip(values, weights, strict=True)])
        return _row(terms, gradient, loss.item(), {**theirs, **_gradients(module, shapes)})

    return check


def _of_model(config: Any) -> Callable[[str, int], dict[str, Any]]:
    """The mean loss of the next token; of a bidirectional model that of a label at each place of padded texts."""

    def check(dtype: str, seed: int) -> dict[str, Any]:
        import torch

        model = {recurrent_lm.Config: recurrent_lm, nnlm.Config: nnlm, hybrid.Config: hybrid}[type(config)]
        rng = np.random.default_rng(seed)
        p = _random(model.shapes(config), rng, dtype)
        ids = rng.integers(0, config.vocabulary, (3, min(config.context, 13)))
        targets = rng.integers(0, config.vocabulary, ids.shape)
        targets[0, -1] = IGNORE
        attention_mask = None
        if getattr(config, "bidirectional", False):
            attention_mask = np.arange(ids.shape[1]) < LENGTHS[:, None]
            targets[~attention_mask] = IGNORE
        count = int((targets >= 0).sum())
        loss, back = causal_loss(
            p, model=_Encoder(attention_mask) if attention_mask is not None else model,  # type: ignore[arg-type]
            ids=ids, targets=targets, ignore=IGNORE, config=config, dropout_mask=None,
        )  # fmt: skip
        gradient = dict(named_leaves(back(np.asarray(1 / count, dtype))))

        leaves = {name: torch.tensor(a, requires_grad=True) for name, a in named_leaves(p)}
        tree, modules = from_names(model.shapes(config), leaves), {}
        if "layers" in p:
            modules["layers"] = _module(
                torch, config.cell, config.width, config.hidden, p["layers"], attention_mask is not None
            )
        if "attention" in p:
            modules["attention"] = _attention(torch, config, p["attention"])
        logits = _torch_logits(torch, tree, modules, torch.tensor(ids), attention_mask, config)
        reference = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORE
        )
        reference.backward()
        theirs = {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}
        if "layers" in modules:
            shapes = model.shapes(config)["layers"]
            theirs |= {f"layers.{name}": a for name, a in _gradients(modules["layers"], shapes).items()}
        if "attention" in modules:
            theirs |= _attention_gradients(modules["attention"])
        return _row(loss / count, gradient, reference.item(), theirs)

    return check


class _Encoder:
    """A bidirectional model where `causal_loss` expects one that predicts: the targets are labels here."""

    head, add_head_gradient = staticmethod(hybrid.head), staticmethod(hybrid.add_head_gradient)

    def __init__(self, attention_mask: Any) -> None:
        self.attention_mask = attention_mask

    def hidden_states(self, p: Tree, *, ids: Any, config: Any, dropout_mask: Any, cache: Any) -> Any:
        return hybrid.encode(p, ids=ids, attention_mask=self.attention_mask, config=config, dropout_mask=dropout_mask)


def _torch_logits(torch: Any, p: Tree, modules: dict[str, Any], ids: Any, attention_mask: Any, config: Any) -> Any:
    F, T = torch.nn.functional, ids.shape[1]
    x = F.embedding(ids, p["token"])
    if isinstance(config, nnlm.Config):
        seen = F.pad(x, (0, 0, config.order - 2, 0))
        x = torch.cat([seen[:, i : i + T] for i in reversed(range(config.order - 1))], dim=-1)
        logits = p["b"] + torch.tanh(p["d"] + x @ p["H"]) @ p["U"]
        return logits + x @ p["W"] if config.direct else logits
    if isinstance(config, recurrent_lm.Config):
        return _run(torch, modules["layers"], x, None) @ (p["token"].T if config.tied else p["head"])
    table, _ = sinusoidal(np.arange(T, dtype=np.float64), width=config.width)
    x = x + torch.tensor(table, dtype=x.dtype)
    future = None if attention_mask is not None else torch.ones(T, T, dtype=torch.bool).triu(1)
    padding = None if attention_mask is None else torch.tensor(~attention_mask)
    a, _ = modules["attention"](x, x, x, attn_mask=future, key_padding_mask=padding, need_weights=False)
    return _run(torch, modules["layers"], a, None if attention_mask is None else LENGTHS) @ p["head"]


def _run(torch: Any, module: Any, x: Any, lengths: Any) -> Any:
    """The states of all places, zeros behind the end of a packed text."""
    if lengths is None:
        return module(x)[0]
    rnns = torch.nn.utils.rnn
    packed = rnns.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    return rnns.pad_packed_sequence(module(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def _module(torch: Any, cell: str, inputs: int, width: int, layers: list[Tree], two_way: bool) -> Any:
    """torch.nn.RNN or LSTM with these weights; of its two biases the second is zero."""
    kind = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM}[cell]
    like = torch.tensor(next(iter(dict(named_leaves(layers)).values())))
    module = kind(inputs, width, len(layers), batch_first=True, bidirectional=two_way, dtype=like.dtype)
    with torch.no_grad():
        for suffix, q in _by_suffix(layers):
            for name, value in (("weight_ih", q["Wx"].T), ("weight_hh", q["Wh"].T), ("bias_ih", q["b"])):
                getattr(module, name + suffix).copy_(torch.tensor(np.ascontiguousarray(value)))
            getattr(module, "bias_hh" + suffix).zero_()
    return module


def _gradients(module: Any, shapes: list[Tree]) -> dict[str, Any]:
    """Those of refllm's names."""
    found = []
    for suffix, _ in _by_suffix(shapes):
        ih, hh, b = (getattr(module, name + suffix).grad.numpy() for name in ("weight_ih", "weight_hh", "bias_ih"))
        found.append({"Wx": ih.T, "Wh": hh.T, "b": b})
    names = [name for name, _ in named_leaves(shapes)]
    return dict(zip(names, [a for q in found for a in q.values()], strict=True))


def _by_suffix(layers: list[Tree]) -> list[tuple[str, Tree]]:
    """PyTorch's ending of the names, and the parameters, in the order of refllm."""
    pairs = []
    for i, q in enumerate(layers):
        pairs += [(f"_l{i}", q["forward"]), (f"_l{i}_reverse", q["backward"])] if "backward" in q else [(f"_l{i}", q)]
    return pairs


def _attention(torch: Any, config: hybrid.Config, q: Tree) -> Any:
    dtype = torch.tensor(q["bo"]).dtype
    module = torch.nn.MultiheadAttention(config.width, config.heads, batch_first=True, dtype=dtype)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.tensor(np.ascontiguousarray(q["Wqkv"].T)))
        module.in_proj_bias.copy_(torch.tensor(q["bqkv"]))
        module.out_proj.weight.copy_(torch.tensor(np.ascontiguousarray(q["Wo"].T)))
        module.out_proj.bias.copy_(torch.tensor(q["bo"]))
    return module


def _attention_gradients(module: Any) -> dict[str, Any]:
    return {
        "attention.Wqkv": module.in_proj_weight.grad.numpy().T,
        "attention.bqkv": module.in_proj_bias.grad.numpy(),
        "attention.Wo": module.out_proj.weight.grad.numpy().T,
        "attention.bo": module.out_proj.bias.grad.numpy(),
    }


def _random(shapes: Tree, rng: Any, dtype: str) -> Tree:
    return map_leaves(lambda shape: (0.4 * rng.standard_normal(shape)).astype(dtype), shapes)


def _row(terms: Any, ours: dict[str, Any], their_loss: float, theirs: dict[str, Any]) -> dict[str, Any]:
    """The differences: of the loss, Σ terms, relative to Σ |term|; of a gradient, to its tensor's largest entry."""
    assert sorted(ours) == sorted(theirs), f"{sorted(ours)} instead of {sorted(theirs)}"
    worst, tensor = max(
        (float(np.abs(ours[name] - theirs[name]).max() / max(np.abs(theirs[name]).max(), 1e-30)), name) for name in ours
    )
    loss = abs(float(np.sum(terms)) - their_loss) / float(np.sum(np.abs(terms)))
    return {"loss": loss, "gradient": worst, "tensor": tensor}
