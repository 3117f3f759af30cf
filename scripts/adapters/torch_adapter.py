"""PyTorch as an implementation: forward functions, differentiated by PyTorch itself.

refllm verify scripts/adapters/torch_adapter.py --dtype bfloat16
"""

import contextlib
import functools
import math

import torch
from torch.nn import functional as F  # noqa: N812  (its customary name)

DTYPES = ["float64", "float32", "bfloat16"]
PRECISION = {"torch": None}  # None: that of the arrays


def use_dtype(dtype):
    PRECISION["torch"] = torch.bfloat16 if dtype == "bfloat16" else None


def over(f, x):
    """The tree x with f at every leaf."""
    if isinstance(x, dict):
        return {name: over(f, child) for name, child in x.items()}
    return type(x)(over(f, child) for child in x) if isinstance(x, list | tuple) else f(x)


def tensor(x):
    return torch.tensor(x.copy(), dtype=PRECISION["torch"] if x.dtype.kind == "f" else None)


def array(x):
    return (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy().copy()


def differentiable(forward):
    """A function of tensors as an operation on arrays: y, back = operation(x, W, ..., keyword=...)."""

    def operation(*arrays, **keywords):
        inputs = over(lambda x: tensor(x).requires_grad_(), arrays)
        y = forward(*inputs, **{n: tensor(x) if hasattr(x, "dtype") else x for n, x in keywords.items()})

        def back(*dy):
            leaves, dy = [], [tensor(d) for d in dy]
            over(leaves.append, inputs)
            found = iter(torch.autograd.grad(y, leaves, dy, retain_graph=True, materialize_grads=True))
            dx = over(lambda _: array(next(found)), inputs)
            return dx if len(dx) > 1 else dx[0]

        return over(array, y), back

    return operation


KERNELS = []  # of torch.nn.attention.SDPBackend; none: PyTorch chooses


def fused(q, k, v, *, mask=None, causal=False):
    """PyTorch's fused kernels take four dimensions, (B, H, T, D), and no others."""
    lead, (T, S) = q.shape[:-2], (q.shape[-2], k.shape[-2])
    q, k, v = (x.reshape(math.prod(x.shape[:-2]), 1, *x.shape[-2:]) if x.ndim != 4 else x for x in (q, k, v))
    if mask is not None:
        mask = mask.expand(*lead, T, S).reshape(*q.shape[:-1], S)
    with torch.nn.attention.sdpa_kernel(KERNELS) if KERNELS else contextlib.nullcontext():
        try:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        except RuntimeError as error:
            raise NotImplementedError(f"not with {KERNELS}: {error}") from None
    return y.reshape(*lead, T, v.shape[-1])


def attend(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    if allowed is None and (T == S or not causal):
        return fused(q, k, v, causal=causal)
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T if causal else S)
    mask = mask if allowed is None else mask & allowed
    some = mask.any(-1, keepdim=True)  # a row without a key is zero here, NaN in some of PyTorch's kernels
    return torch.where(some, fused(q, k, v, mask=mask | ~some), 0)


def some_softmax(x):
    nothing = (x == -math.inf).all(-1, keepdim=True)
    return torch.where(nothing, 0, torch.softmax(torch.where(nothing, 0, x), -1))


def split(x, W, b, *, heads, parts):
    return (x @ W + b).unflatten(-1, (parts, heads, -1)).movedim(-3, 0).transpose(-2, -3).unbind()


def nll(logits, *, targets, ignore, reduction, smoothing=0.0):
    each = F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).long(), reduction="none", label_smoothing=smoothing,
        ignore_index=-1 if ignore is None else ignore,
    )  # fmt: skip
    count = max(1, targets.numel() if ignore is None else int((targets != ignore).sum()))
    return each.reshape(targets.shape) if reduction == "none" else each.sum() / (count if reduction == "mean" else 1)


def sines(p, *, width):
    angle = p.double()[..., None] / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width].to(p.dtype)


def optimiser(rule):
    def update(p, g, m, v, *, step, lr, beta1, beta2, eps, decay):
        p, g, m, v = (tensor(z).clone() for z in (p, g, m, v))
        p.grad, chosen = g, rule([p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
        chosen.state[p] = {"step": torch.tensor(step - 1.0), "exp_avg": m, "exp_avg_sq": v}
        chosen.step()
        return array(p), array(m), array(v)

    return update


def ln(x, p, eps):
    return F.layer_norm(x, x.shape[-1:], p["g"], p["b"], eps)


def feed(x, p, *, activation):
    return ACTIVATIONS[activation](x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


def attend_self(x, p, *, heads, causal, allowed):
    parts = split(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)
    return attend(*parts, causal=causal, allowed=allowed).transpose(-2, -3).flatten(-2) @ p["Wo"] + p["bo"]


def layer(x, p, *, norm, heads, causal, allowed, activation, eps):
    a, f = p["attention"], p["feed_forward"]
    how = {"heads": heads, "causal": causal, "allowed": allowed}
    if norm == "pre":
        x = x + attend_self(ln(x, p["norm1"], eps), a, **how)
        return x + feed(ln(x, p["norm2"], eps), f, activation=activation)
    x = ln(x + attend_self(x, a, **how), p["norm1"], eps)
    return ln(x + feed(x, f, activation=activation), p["norm2"], eps)


def model(p, *, ids, config):
    x, T, c = p["token"][ids], ids.shape[-1], config
    x = x * math.sqrt(c["width"]) if c.get("scaled_embedding") else x
    x = x + (p["position"][:T] if "position" in p else sines(torch.arange(T).to(x.dtype), width=c["width"]))
    for each in p["layers"]:
        how = {name: c[name] for name in ("norm", "heads", "activation", "eps")}
        x = layer(x, each, causal=True, allowed=None, **how)
    x = ln(x, p["norm"], c["eps"]) if c["norm"] == "pre" else x
    return x @ (p["token"].T if c["tied"] else p["head"])


def loss(p, *, ids, targets, ignore, config):
    return nll(model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")


ACTIVATIONS = {"relu": F.relu, "gelu_erf": F.gelu, "gelu_tanh": functools.partial(F.gelu, approximate="tanh")}
relu, gelu_erf, gelu_tanh = map(differentiable, ACTIVATIONS.values())
linear = differentiable(lambda x, W, b: F.linear(x, W.T, b))
matmul = differentiable(torch.matmul)
heads = differentiable(split)
embedding = differentiable(lambda E, *, ids: F.embedding(ids, E))
sinusoidal = differentiable(sines)
add_positions = differentiable(lambda x, P, *, positions: x + F.embedding(positions, P))
attention = differentiable(attend)
softmax = differentiable(some_softmax)
log_softmax = differentiable(lambda x: torch.log_softmax(x, -1))
cross_entropy = differentiable(nll)
mean_squared_error = differentiable(F.mse_loss)
layer_norm = differentiable(lambda x, g, b, *, eps: F.layer_norm(x, g.shape, g, b, eps))
dropout = differentiable(lambda x, *, keep, rate: x * keep / (1 - rate))
adam, adamw = optimiser(torch.optim.Adam), optimiser(torch.optim.AdamW)
feed_forward, self_attention, transformer_layer = map(differentiable, (feed, attend_self, layer))
gpt, gpt_loss = map(differentiable, (model, loss))


def recurrence(step, x, state, valid):
    """The first of the states after each step, and the last states; where not valid, they pass."""
    seen = []
    for t in range(x.shape[1]):
        new = step(x[:, t], state)
        stays = torch.zeros(len(x), 1) > 0 if valid is None else ~valid[:, t, None]
        state = [torch.where(stays, a, b) for a, b in zip(state, new, strict=True)]
        seen.append(state[0])
    return torch.stack(seen, 1), state


def elman(x, h, Wx, Wh, b, *, valid):
    if valid is None:
        weights = [Wx.T, Wh.T, b, 0 * b]
        return torch.rnn_tanh(x, h[None], weights, True, 1, 0.0, False, False, True)[0]
    step = lambda x, state: [torch.rnn_tanh_cell(x, state[0], Wx.T, Wh.T, b, 0 * b)]
    return recurrence(step, x, [h], valid)[0]


def long_short(x, h, c, Wx, Wh, b, *, valid):
    if valid is None:
        y, _, c = torch.lstm(x, [h[None], c[None]], [Wx.T, Wh.T, b, 0 * b], True, 1, 0.0, False, False, True)
        return y, c[0]
    y, (_, c) = recurrence(lambda x, s: torch.lstm_cell(x, s, Wx.T, Wh.T, b, 0 * b), x, [h, c], valid)
    return y, c


rnn, lstm = map(differentiable, (elman, long_short))


# --- Llama and longer context ---


def rms(x, g, *, eps):
    return g * x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)


def waves(x, positions, base):
    D = x.shape[-1]
    angle = positions.double()[..., None] / base ** (torch.arange(0, D, 2, dtype=torch.float64) / D)
    return angle.cos().to(x.dtype), angle.sin().to(x.dtype)


def turn_halves(x, *, positions, base):
    (a, b), (c, s) = x.chunk(2, -1), waves(x, positions, base)
    return torch.cat([a * c - b * s, b * c + a * s], -1)


def turn_pairs(x, *, positions, base):
    a, b, (c, s) = x[..., 0::2], x[..., 1::2], waves(x, positions, base)
    return torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)


def bucket(n, K, farthest):
    far = K // 2 + ((n.clamp(1) / (K // 2)).log() / math.log(farthest / (K // 2)) * (K - K // 2)).long()
    return torch.where(n < K // 2, n, far.clamp(max=K - 1))


def t5(E, *, queries, keys, farthest, both):
    d, K = torch.arange(1 - keys, queries), len(E) // (1 + both)
    return E[bucket(d.abs() if both else (-d).clamp(0), K, farthest) + K * both * (d > 0)].T


def attend_by_distance(q, k, v, r, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T if causal else S)
    mask = (mask if allowed is None else mask & allowed).expand(*q.shape[:-1], S)
    bias = r[:, torch.arange(S) - torch.arange(T)[:, None] + T - 1]
    some = mask.any(-1, keepdim=True)
    bias = torch.where(mask | ~some, bias, -math.inf)
    return torch.where(some, fused(q, k, v, mask=bias), 0)


def contrast(a, b, *, temperature):
    cosines = F.cosine_similarity(a[:, None], b, dim=-1)
    return F.cross_entropy(cosines / temperature, torch.arange(len(a)))


rms_norm, rotary_halves, rotary_interleaved = map(differentiable, (rms, turn_halves, turn_pairs))
silu, multiply = map(differentiable, (F.silu, torch.mul))
repeat_heads = differentiable(lambda k, *, groups: k.repeat_interleave(groups, -3))
t5_bias_causal = differentiable(functools.partial(t5, both=False))
t5_bias_bidirectional = differentiable(functools.partial(t5, both=True))
alibi = differentiable(lambda m, *, queries, keys: -m[:, None] * torch.arange(1 - keys, queries).abs())
relative_attention = differentiable(attend_by_distance)
smoothed_cross_entropy, info_nce = map(differentiable, (nll, contrast))
l2_penalty = differentiable(lambda w, *, strength: strength / 2 * (w * w).sum())


def gated(x, p, *, activation):
    return (GATES[activation](x @ p["Wg"]) * (x @ p["W1"])) @ p["W2"]


def attend_grouped(x, p, *, heads, kv_heads, rotation, positions, base, causal, allowed, r=None):
    q, k, v = (
        (x @ p[W]).unflatten(-1, (n, -1)).transpose(-2, -3)
        for W, n in zip(GROUPED, (heads, kv_heads, kv_heads), strict=True)
    )
    own = positions if positions.ndim == 1 else positions[:, None]
    if rotation is not None:
        q, k = (TURNS[rotation](z, positions=own, base=base) for z in (q, k))
    k, v = (z.repeat_interleave(heads // kv_heads, -3) for z in (k, v))
    masks = {"causal": causal, "allowed": allowed}
    y = attend(q, k, v, **masks) if r is None else attend_by_distance(q, k, v, r, **masks)
    return y.transpose(-2, -3).flatten(-2) @ p["Wo"]


def gated_layer(x, p, *, eps, **how):
    x = x + attend_grouped(rms(x, p["norm1"]["g"], eps=eps), p["attention"], causal=True, **how)
    return x + gated(rms(x, p["norm2"]["g"], eps=eps), p["feed_forward"], activation="silu")


def slopes(n):
    below = 2 ** int(math.log2(n))
    powers = [2 ** (-8 * h / below) for h in range(1, below + 1)]
    return torch.tensor((powers + [2 ** (-4 * h / below) for h in range(1, 2 * below, 2)])[:n])


def llama_model(p, *, ids, config):
    x, T, c, r = p["token"][ids], ids.shape[-1], config, None
    if c["positions"] == "relative":
        r = t5(p["relative"], queries=T, keys=T, farthest=128, both=False)
    if c["positions"] == "alibi":
        r = (-slopes(c["heads"])[:, None] * torch.arange(1 - T, T).abs()).to(x.dtype)
    how = {name: c[name] for name in ("heads", "kv_heads", "base", "eps")}
    rotation = c["positions"] if c["positions"] in TURNS else None
    for each in p["layers"]:
        x = gated_layer(x, each, rotation=rotation, positions=torch.arange(T), allowed=None, r=r, **how)
    return rms(x, p["norm"]["g"], eps=c["eps"]) @ (p["token"].T if c["tied"] else p["head"])


def llama_mean(p, *, ids, targets, ignore, config):
    return nll(llama_model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")


GROUPED, GATES, TURNS = (
    ("Wq", "Wk", "Wv"),
    {**ACTIVATIONS, "silu": F.silu},
    {"rotary": turn_halves, "rotary_interleaved": turn_pairs},
)
gated_feed_forward, grouped_attention, llama_layer = map(differentiable, (gated, attend_grouped, gated_layer))
llama, llama_loss = map(differentiable, (llama_model, llama_mean))


# --- a switch layer ---


def at_slots(slots, size, dtype):
    """(..., size, T): 1 where a token has a slot."""
    return (slots[..., None, :] == torch.arange(size)[:, None]).to(dtype)


def send(x, *, slots, experts, capacity):
    return (at_slots(slots, experts * capacity, x.dtype) @ x).unflatten(-2, (experts, capacity))


def bring(z, g, *, slots):
    there = at_slots(slots, z.shape[-3] * z.shape[-2], z.dtype).transpose(-1, -2)
    return g[..., None] * (there @ z.flatten(-3, -2))


def balanced(p, *, chosen, valid):
    counted = torch.ones(chosen.shape, dtype=p.dtype) if valid is None else valid.to(p.dtype)
    number = counted.sum(-1, keepdim=True).clamp(1)
    shares = (F.one_hot(chosen, p.shape[-1]) * counted[..., None]).sum(-2) / number
    return p.shape[-1] * (shares * (p * counted[..., None]).sum(-2) / number).sum(-1)


def route(x, p, *, activation, capacity, valid):
    P = torch.softmax(x @ p["Wr"], -1)
    chosen, E = P.argmax(-1), P.shape[-1]
    takes = F.one_hot(chosen, E) * (1 if valid is None else valid[..., None])
    place = (takes.cumsum(-2) * takes).sum(-1)
    slots = torch.where((place > 0) & (place <= capacity), chosen * capacity + place - 1, E * capacity)
    z = send(x, slots=slots, experts=E, capacity=capacity)
    h = ACTIVATIONS[activation](z @ p["W1"] + (p["b1"][:, None] if "b1" in p else 0))
    z = h @ p["W2"] + (p["b2"][:, None] if "b2" in p else 0)
    y = bring(z, P.gather(-1, chosen[..., None])[..., 0], slots=slots)
    return y, balanced(P, chosen=chosen, valid=valid)


def switch_states(p, *, ids, capacity, config):
    T, c, spread = ids.shape[-1], config, 0
    x = p["token"][ids] + p["position"][:T]
    for each in p["layers"]:
        how = {name: c[name] for name in ("heads", "activation", "eps")}
        if "switch" not in each:
            x = layer(x, each, norm="pre", causal=True, allowed=None, **how)
            continue
        x = x + attend_self(
            ln(x, each["norm1"], c["eps"]), each["attention"], heads=c["heads"], causal=True, allowed=None
        )
        n = ln(x, each["norm2"], c["eps"])
        y, of_layer = route(n, each["switch"], activation=c["activation"], capacity=capacity, valid=None)
        x, spread = x + y, spread + of_layer.mean()
    return ln(x, p["norm"], c["eps"]) @ p["token"].T, spread


def switch_mean(p, *, ids, targets, ignore, config):
    places = int(config["capacity_factor"] * ids.shape[-1] / config["experts"])
    logits, spread = switch_states(p, ids=ids, capacity=places, config=config)
    return nll(logits, targets=targets, ignore=ignore, reduction="mean") + config["balance"] * spread


gate = differentiable(lambda p, *, chosen: p.gather(-1, chosen[..., None])[..., 0])
load_balance, dispatch, combine, switch_layer = map(differentiable, (balanced, send, bring, route))
expert_matmul, expert_linear = differentiable(torch.matmul), differentiable(lambda x, W, b: x @ W + b[:, None])
mean_pool = differentiable(
    lambda h, *, valid: (
        h.mean(-2) if valid is None else (h * valid[..., None]).sum(-2) / valid.sum(-1, keepdim=True).clamp(1)
    )
)
switch = differentiable(lambda p, *, ids, config: switch_states(p, ids=ids, capacity=ids.shape[-1], config=config)[0])
switch_loss = differentiable(switch_mean)


# --- recurrent models, BERT, encoder-decoder ---


def affine(x, p, name):
    return x @ p[f"W{name}"] + p.get(f"b{name}", 0)


def window_of(x, past, *, places, valid):
    x = x if valid is None else x * valid[..., None]
    line = torch.cat([past, x], 1)
    return torch.cat([line[:, places - 1 - k : line.shape[1] - k] for k in range(places)], -1)


def from_zeros(x, p, *, cell, valid):
    zeros, weights = torch.zeros((len(x), len(p["Wh"])), dtype=x.dtype), (p["Wx"], p["Wh"], p["b"])
    if cell == "rnn":
        return elman(x, zeros, *weights, valid=valid)
    return long_short(x, zeros, zeros, *weights, valid=valid)[0]


def both_ways(x, p, *, cell, valid):
    turned = None if valid is None else valid.flip(1)
    behind = from_zeros(x.flip(1), p["backward"], cell=cell, valid=turned)
    return torch.cat([from_zeros(x, p["forward"], cell=cell, valid=valid), behind.flip(1)], -1)


def stacked(x, layers, *, cell, valid):
    for p in layers:
        x = (both_ways if "backward" in p else from_zeros)(x, p, cell=cell, valid=valid)
    return x


def recurrent_model(p, *, ids, config):
    x = stacked(p["token"][ids], p["layers"], cell=config["cell"], valid=None)
    return x @ (p["token"].T if config["tied"] else p["head"])


def window_model(p, *, ids, config):
    x, n = p["token"][ids], config["order"]
    x = window_of(x, torch.zeros((len(x), n - 2, x.shape[-1]), dtype=x.dtype), places=n - 1, valid=None)
    return p["b"] + torch.tanh(p["d"] + x @ p["H"]) @ p["U"] + (x @ p["W"] if "W" in p else 0)


def mixed_states(p, *, ids, allowed, config):
    x = p["token"][ids]
    x = x + sines(torch.arange(ids.shape[1]).to(x.dtype), width=config["width"])
    keys = None if allowed is None else allowed[:, None, None, :]
    x = attend_self(x, p["attention"], heads=config["heads"], causal=not config["bidirectional"], allowed=keys)
    return stacked(x, p["layers"], cell=config["cell"], valid=allowed)


def mixed_model(p, *, ids, config):
    return mixed_states(p, ids=ids, allowed=None, config=config) @ p["head"]


def mean_of(model):
    def mean(p, *, ids, targets, ignore, config):
        return nll(model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")

    return mean


def bert_states(p, *, ids, segments, allowed, config):
    x = ln(p["token"][ids] + p["position"][: ids.shape[1]] + p["segment"][segments], p["norm"], config["eps"])
    how = {name: config[name] for name in ("heads", "activation", "eps")}
    for each in p["layers"]:
        x = layer(x, each, norm="post", causal=False, allowed=allowed, **how)
    return x


def bert_model(p, *, output, config, **text):
    h = bert_states(p, config=config, **text)
    if output == "hidden":
        return h
    if output == "masked":
        q = p["masked"]
        t = ln(ACTIVATIONS[config["activation"]](h @ q["W"] + q["b"]), q["norm"], config["eps"])
        return t @ p["token"].T + q["bias"]
    if output != "span":
        h = torch.tanh(h[:, 0] @ p["pooler"]["W"] + p["pooler"]["b"])
    return h @ p[output]["W"] + p[output]["b"]


def pretraining(p, *, targets, ignore, pairs, **text):
    words, classes = (bert_model(p, output=output, **text) for output in ("masked", "pair"))
    masked = nll(words, targets=targets, ignore=ignore, reduction="mean")
    return masked, nll(classes, targets=pairs, ignore=None, reduction="mean")


def classifier(p, *, targets, weights=None, smoothing=0.0, **text):
    y = bert_model(p, output="classes", **text)
    each = nll(y, targets=targets, ignore=None, smoothing=smoothing, reduction="none")
    return each.mean() if weights is None else (each * weights.to(y.dtype)).sum() / weights.to(y.dtype).sum()


def spans(p, *, possible, targets, **text):
    y = bert_model(p, output="span", **text).mT
    y = y if possible is None else torch.where(possible[:, None], y, -math.inf)
    return nll(y, targets=targets, ignore=None, reduction="mean")


def cut(y, heads, parts):
    y = y.reshape(*y.shape[:-1], parts, heads, -1)
    return [y[..., part, :, :].transpose(-2, -3) for part in range(parts)]


def join_heads(a, p):
    a = a.transpose(-2, -3)
    return affine(a.reshape(*a.shape[:-2], -1), p, "o")


def read(x, memory, p, *, heads, scaled, allowed):
    (q,), (k, v) = cut(affine(x, p, "q"), heads, 1), cut(affine(memory, p, "kv"), heads, 2)
    q = q if scaled else q * math.sqrt(q.shape[-1])
    return join_heads(attend(q, k, v, causal=False, allowed=allowed), p)


def attend_near(x, p, *, heads, scaled, causal, allowed, r):
    q, k, v = cut(affine(x, p, "qkv"), heads, 3)
    q = q if scaled else q * math.sqrt(q.shape[-1])
    how = {"causal": causal, "allowed": allowed}
    return join_heads(attend(q, k, v, **how) if r is None else attend_by_distance(q, k, v, r, **how), p)


def some_norm(x, p, eps):
    return ln(x, p, eps) if "b" in p else rms(x, p["g"], eps=eps)


def some_feed(x, p, activation):
    f = ACTIVATIONS[activation]
    return affine(f(x @ p["Wg"]) * (x @ p["W1"]) if "Wg" in p else f(affine(x, p, "1")), p, "2")


def half(p, ids, stack, *, config, keys, memory):
    c, T, r = config, ids.shape[1], None
    relative, causal = c["positions"] == "relative", memory is not None
    x = p["token"][ids] * (math.sqrt(c["width"]) if c["scaled_embedding"] else 1)
    if c["positions"] == "learned":
        x = x + stack["position"][:T]
    if c["positions"] == "sinusoidal":
        x = x + sines(torch.arange(T).to(x.dtype), width=c["width"])
    if relative:
        r = t5(stack["relative"], queries=T, keys=T, farthest=c["farthest"], both=not causal)
    x = some_norm(x, stack["embedding_norm"], c["eps"]) if c["embedding_norm"] else x
    how = {"heads": c["heads"], "scaled": not relative}
    own = {"causal": causal, "allowed": None if causal else keys, "r": r, **how}
    for each in stack["layers"]:
        parts = [("attention", lambda z, q: attend_near(z, q, **own))]
        parts += [("cross_attention", lambda z, q: read(z, memory, q, allowed=keys, **how))] if causal else []
        parts += [("feed_forward", lambda z, q: some_feed(z, q, c["activation"]))]
        for n, (name, f) in enumerate(parts, start=1):
            norm = functools.partial(some_norm, p=each[f"norm{n}"], eps=c["eps"])
            x = x + f(norm(x), each[name]) if c["norm"] == "pre" else norm(x + f(x, each[name]))
    return some_norm(x, stack["norm"], c["eps"]) if c["norm"] == "pre" else x


def both_halves(p, *, source, allowed, ids, config):
    how = {"config": config, "keys": None if allowed is None else allowed[:, None, None, :]}
    memory = half(p, source, p["encoder"], memory=None, **how)
    h = half(p, ids, p["decoder"], memory=memory, **how)
    h = h / math.sqrt(config["width"]) if config["scaled_output"] else h
    return h @ (p["token"].T if config["tied"] else p["head"])


def shifted(targets, start, ignore):
    ids = torch.cat([0 * targets[:, :1] + start, targets[:, :-1]], 1)
    return torch.where(ids == ignore, start, ids)


def translation(p, *, targets, start, ignore, smoothing, **texts):
    logits = both_halves(p, ids=shifted(targets, start, ignore), **texts)
    return nll(logits, targets=targets, ignore=ignore, smoothing=smoothing, reduction="mean")


def restoration(p, *, ids, counted, start, **texts):
    logits = both_halves(p, ids=shifted(ids, start, -1), **texts)
    return nll(logits, targets=torch.where(counted, ids, -1), ignore=-1, reduction="mean")


window, bidirectional, hybrid_states = map(differentiable, (window_of, both_ways, mixed_states))
recurrent_lm, nnlm, hybrid = map(differentiable, (recurrent_model, window_model, mixed_model))
recurrent_lm_loss, nnlm_loss, hybrid_loss = (
    differentiable(mean_of(model)) for model in (recurrent_model, window_model, mixed_model)
)
bert, pretraining_loss, classifier_loss = map(differentiable, (bert_model, pretraining, classifier))
span_loss, cross_attention, encoder_decoder = map(differentiable, (spans, read, both_halves))
seq2seq_loss, denoising_loss = map(differentiable, (translation, restoration))
tanh = differentiable(torch.tanh)
