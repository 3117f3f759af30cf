"""JAX as an implementation: forward functions, differentiated by JAX itself.

refllm verify scripts/adapters/jax_adapter.py --dtype bfloat16
"""

import functools

import jax
import numpy
from jax import numpy as jnp

jax.config.update("jax_enable_x64", True)

DTYPES = ["float64", "float32", "bfloat16"]
PRECISION = {"jax": None}  # None: that of the arrays


def use_dtype(dtype):
    PRECISION["jax"] = jnp.bfloat16 if dtype == "bfloat16" else None


def tensor(x):
    return jnp.asarray(x, PRECISION["jax"] if x.dtype.kind == "f" else None)


def array(x):
    return numpy.array(x.astype("float32") if x.dtype == jnp.bfloat16 else x)


def differentiable(forward):
    """A function of JAX arrays as an operation on NumPy arrays: y, back = operation(x, W, ..., keyword=...)."""

    def operation(*arrays, **keywords):
        inputs, f = jax.tree.map(tensor, arrays), functools.partial(forward, **keywords)
        y = jax.jit(f)(*inputs)

        def back(*dy):
            dy = jax.tree.map(tensor, dy if isinstance(y, tuple) else dy[0])
            dx = jax.jit(lambda dy, *x: jax.vjp(f, *x)[1](dy))(dy, *inputs)
            return jax.tree.map(array, dx if len(dx) > 1 else dx[0])

        return jax.tree.map(array, y), back

    return operation


def attend(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = jnp.tril(jnp.ones((T, S), bool), S - T if causal else S)
    mask = mask if allowed is None else mask & allowed
    scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1]).astype(q.dtype)
    return some_softmax(scores, mask) @ v


def some_softmax(x, mask=None):
    mask = x != -jnp.inf if mask is None else mask  # which NaN is
    some = mask.any(-1, keepdims=True)  # a row without a number is zero here, NaN in JAX
    return jnp.where(some, jax.nn.softmax(jnp.where(mask, x, jnp.where(some, -jnp.inf, 0))), 0)


def split(x, W, b, *, heads, parts):
    y = (x @ W + b).reshape(*x.shape[:-1], parts, heads, -1)
    return tuple(y[..., part, :, :].swapaxes(-2, -3) for part in range(parts))


def nll(logits, *, targets, ignore, reduction):
    counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
    chosen = numpy.where(counted, targets, 0)[..., None]
    each = -jnp.where(counted, jnp.take_along_axis(jax.nn.log_softmax(logits), chosen, -1)[..., 0], 0)
    return each if reduction == "none" else each.sum() / (max(1, int(counted.sum())) if reduction == "mean" else 1)


def sines(p, *, width):
    angle = p.astype(jnp.float64)[..., None] / 10000 ** (jnp.arange(0, width, 2) / width)
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*p.shape, -1)[..., :width].astype(p.dtype)


def norm(x, g, b, *, eps):
    c = x - x.mean(-1, keepdims=True)
    return g * c * jax.lax.rsqrt((c * c).mean(-1, keepdims=True) + eps) + b


def ln(x, p, eps):
    return norm(x, p["g"], p["b"], eps=eps)


def feed(x, p, *, activation):
    return ACTIVATIONS[activation](x @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]


def attend_self(x, p, *, heads, causal, allowed):
    parts = split(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)
    y = attend(*parts, causal=causal, allowed=allowed).swapaxes(-2, -3).reshape(x.shape)
    return y @ p["Wo"] + p["bo"]


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
    x = x * c["width"] ** 0.5 if c.get("scaled_embedding") else x
    x = x + (p["position"][:T] if "position" in p else sines(jnp.arange(T, dtype=x.dtype), width=c["width"]))
    for each in p["layers"]:
        how = {name: c[name] for name in ("norm", "heads", "activation", "eps")}
        x = layer(x, each, causal=True, allowed=None, **how)
    x = ln(x, p["norm"], c["eps"]) if c["norm"] == "pre" else x
    return x @ (p["token"].T if c["tied"] else p["head"])


def loss(p, *, ids, targets, ignore, config):
    return nll(model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")


gelus = {f"gelu_{form}": functools.partial(jax.nn.gelu, approximate=form == "tanh") for form in ("erf", "tanh")}
ACTIVATIONS = {"relu": jax.nn.relu, **gelus}
relu, gelu_erf, gelu_tanh = map(differentiable, ACTIVATIONS.values())
linear = differentiable(lambda x, W, b: x @ W + b)
matmul = differentiable(jnp.matmul)
heads = differentiable(split)
embedding = differentiable(lambda E, *, ids: E[ids])
sinusoidal = differentiable(sines)
add_positions = differentiable(lambda x, P, *, positions: x + P[positions])
attention = differentiable(attend)
softmax = differentiable(some_softmax)
log_softmax = differentiable(jax.nn.log_softmax)
cross_entropy = differentiable(nll)
mean_squared_error = differentiable(lambda x, t: ((x - t) ** 2).mean())
layer_norm = differentiable(norm)
dropout = differentiable(lambda x, *, keep, rate: x * keep / (1 - rate))
feed_forward, self_attention, transformer_layer = map(differentiable, (feed, attend_self, layer))
gpt, gpt_loss = map(differentiable, (model, loss))


def recurrence(step, x, state, valid):
    """The first of the states after each step, and the last states; where not valid, they pass."""
    valid = numpy.ones(x.shape[:2], bool) if valid is None else valid

    def one(state, now):
        x, valid = now
        new = [jnp.where(valid[:, None], a, b) for a, b in zip(step(x, state), state, strict=True)]
        return new, new[0]

    state, seen = jax.lax.scan(one, state, (x.swapaxes(0, 1), valid.T))
    return seen.swapaxes(0, 1), state


def elman(x, h, Wx, Wh, b, *, valid):
    return recurrence(lambda x, state: [jnp.tanh(x @ Wx + state[0] @ Wh + b)], x, [h], valid)[0]


def long_short(x, h, c, Wx, Wh, b, *, valid):
    def step(x, state):
        i, f, g, o = jnp.split(x @ Wx + state[0] @ Wh + b, 4, -1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return [jax.nn.sigmoid(o) * jnp.tanh(c), c]

    y, (_, c) = recurrence(step, x, [h, c], valid)
    return y, c


rnn, lstm = map(differentiable, (elman, long_short))


# --- Llama and longer context ---


def rms(x, g, *, eps):
    return g * x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps)


def waves(x, positions, base):
    D = x.shape[-1]
    angle = positions[..., None] / base ** (jnp.arange(0, D, 2) / D)
    return jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)


def turn_halves(x, *, positions, base):
    (a, b), (c, s) = jnp.split(x, 2, -1), waves(x, positions, base)
    return jnp.concatenate([a * c - b * s, b * c + a * s], -1)


def turn_pairs(x, *, positions, base):
    a, b, (c, s) = x[..., 0::2], x[..., 1::2], waves(x, positions, base)
    return jnp.stack([a * c - b * s, b * c + a * s], -1).reshape(x.shape)


def bucket(n, K, farthest):
    near, steps = K // 2, numpy.log(numpy.maximum(n, 1) / (K // 2)) / numpy.log(farthest / (K // 2)) * (K - K // 2)
    return numpy.where(n < near, n, numpy.minimum(near + (steps + 1e-9).astype(int), K - 1))


def t5(E, *, queries, keys, farthest, both):
    d, K = numpy.arange(1 - keys, queries), len(E) // (1 + both)
    return E[bucket(abs(d) if both else numpy.maximum(-d, 0), K, farthest) + K * both * (d > 0)].T


def attend_by_distance(q, k, v, r, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = jnp.tril(jnp.ones((T, S), bool), S - T if causal else S)
    mask = mask if allowed is None else mask & allowed
    bias = r[:, numpy.arange(S) - numpy.arange(T)[:, None] + T - 1]
    scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1]).astype(q.dtype) + bias
    return some_softmax(scores, jnp.broadcast_to(mask, scores.shape)) @ v


def smoothed(logits, *, targets, ignore, smoothing, reduction):
    counted = numpy.ones(targets.shape, bool) if ignore is None else targets != ignore
    own = nll(logits, targets=targets, ignore=ignore, reduction="none")
    uniform = jnp.where(counted, -jax.nn.log_softmax(logits).mean(-1), 0)
    each = (1 - smoothing) * own + smoothing * uniform
    return each if reduction == "none" else each.sum() / (max(1, int(counted.sum())) if reduction == "mean" else 1)


def contrast(a, b, *, temperature):
    a, b = (x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-30) for x in (a, b))
    return -jnp.diag(jax.nn.log_softmax(a @ b.T / temperature)).mean()


rms_norm, rotary_halves, rotary_interleaved = map(differentiable, (rms, turn_halves, turn_pairs))
silu, multiply = map(differentiable, (jax.nn.silu, jnp.multiply))
repeat_heads = differentiable(lambda k, *, groups: jnp.repeat(k, groups, -3))
t5_bias_causal = differentiable(functools.partial(t5, both=False))
t5_bias_bidirectional = differentiable(functools.partial(t5, both=True))
alibi = differentiable(lambda m, *, queries, keys: -m[:, None] * abs(numpy.arange(1 - keys, queries)))
relative_attention = differentiable(attend_by_distance)
smoothed_cross_entropy, info_nce = map(differentiable, (smoothed, contrast))
l2_penalty = differentiable(lambda w, *, strength: strength / 2 * (w * w).sum())


def gated(x, p, *, activation):
    return (GATES[activation](x @ p["Wg"]) * (x @ p["W1"])) @ p["W2"]


def attend_grouped(x, p, *, heads, kv_heads, rotation, positions, base, causal, allowed, r=None):
    def cut(W, n):
        return (x @ p[W]).reshape(*x.shape[:-1], n, -1).swapaxes(-2, -3)

    q, k, v = cut("Wq", heads), cut("Wk", kv_heads), cut("Wv", kv_heads)
    own = positions if positions.ndim == 1 else positions[:, None]
    if rotation is not None:
        q, k = (TURNS[rotation](z, positions=own, base=base) for z in (q, k))
    k, v = (jnp.repeat(z, heads // kv_heads, -3) for z in (k, v))
    masks = {"causal": causal, "allowed": allowed}
    y = attend(q, k, v, **masks) if r is None else attend_by_distance(q, k, v, r, **masks)
    return y.swapaxes(-2, -3).reshape(*x.shape[:-1], -1) @ p["Wo"]


def gated_layer(x, p, *, eps, **how):
    x = x + attend_grouped(rms(x, p["norm1"]["g"], eps=eps), p["attention"], causal=True, **how)
    return x + gated(rms(x, p["norm2"]["g"], eps=eps), p["feed_forward"], activation="silu")


def slopes(n):
    below = 2 ** int(numpy.log2(n))
    powers = [2 ** (-8 * h / below) for h in range(1, below + 1)]
    return numpy.array((powers + [2 ** (-4 * h / below) for h in range(1, 2 * below, 2)])[:n])


def llama_model(p, *, ids, config):
    x, T, c, r = p["token"][ids], ids.shape[-1], config, None
    if c["positions"] == "relative":
        r = t5(p["relative"], queries=T, keys=T, farthest=128, both=False)
    if c["positions"] == "alibi":
        r = jnp.asarray(-slopes(c["heads"])[:, None] * abs(numpy.arange(1 - T, T)), x.dtype)
    how = {name: c[name] for name in ("heads", "kv_heads", "base", "eps")}
    rotation = c["positions"] if c["positions"] in TURNS else None
    for each in p["layers"]:
        x = gated_layer(x, each, rotation=rotation, positions=numpy.arange(T), allowed=None, r=r, **how)
    return rms(x, p["norm"]["g"], eps=c["eps"]) @ (p["token"].T if c["tied"] else p["head"])


def llama_mean(p, *, ids, targets, ignore, config):
    return nll(llama_model(p, ids=ids, config=config), targets=targets, ignore=ignore, reduction="mean")


GATES, TURNS = {**ACTIVATIONS, "silu": jax.nn.silu}, {"rotary": turn_halves, "rotary_interleaved": turn_pairs}
gated_feed_forward, grouped_attention, llama_layer = map(differentiable, (gated, attend_grouped, gated_layer))
llama, llama_loss = map(differentiable, (llama_model, llama_mean))


# --- a switch layer ---


def at_slots(slots, size, dtype):
    """(..., size, T): 1 where a token has a slot."""
    return (slots[..., None, :] == jnp.arange(size)[:, None]).astype(dtype)


def send(x, *, slots, experts, capacity):
    y = at_slots(slots, experts * capacity, x.dtype) @ x
    return y.reshape(*x.shape[:-2], experts, capacity, -1)


def bring(z, g, *, slots):
    *texts, E, K, C = z.shape
    return g[..., None] * (at_slots(slots, E * K, z.dtype).swapaxes(-1, -2) @ z.reshape(*texts, E * K, C))


def balanced(p, *, chosen, valid):
    counted = jnp.ones(chosen.shape, p.dtype) if valid is None else jnp.asarray(valid, p.dtype)
    number = jnp.maximum(counted.sum(-1, keepdims=True), 1)
    shares = (jax.nn.one_hot(chosen, p.shape[-1], dtype=p.dtype) * counted[..., None]).sum(-2) / number
    return p.shape[-1] * (shares * (p * counted[..., None]).sum(-2) / number).sum(-1)


def pick(p, *, chosen):
    return jnp.take_along_axis(p, chosen[..., None], -1)[..., 0]


def route(x, p, *, activation, capacity, valid):
    P = jax.nn.softmax(x @ p["Wr"])
    chosen, E = P.argmax(-1), P.shape[-1]
    takes = jax.nn.one_hot(chosen, E, dtype=int) * (1 if valid is None else valid[..., None])
    place = (takes.cumsum(-2) * takes).sum(-1)
    slots = jnp.where((place > 0) & (place <= capacity), chosen * capacity + place - 1, E * capacity)
    z = send(x, slots=slots, experts=E, capacity=capacity)
    h = ACTIVATIONS[activation](z @ p["W1"] + (p["b1"][:, None] if "b1" in p else 0))
    z = h @ p["W2"] + (p["b2"][:, None] if "b2" in p else 0)
    return bring(z, pick(P, chosen=chosen), slots=slots), balanced(P, chosen=chosen, valid=valid)


def switch_states(p, *, ids, capacity, config):
    T, c, spread = ids.shape[-1], config, 0
    x = p["token"][ids] + p["position"][:T]
    for each in p["layers"]:
        how = {name: c[name] for name in ("heads", "activation", "eps")}
        if "switch" not in each:
            x = layer(x, each, norm="pre", causal=True, allowed=None, **how)
            continue
        n = ln(x, each["norm1"], c["eps"])
        x = x + attend_self(n, each["attention"], heads=c["heads"], causal=True, allowed=None)
        n = ln(x, each["norm2"], c["eps"])
        y, of_layer = route(n, each["switch"], activation=c["activation"], capacity=capacity, valid=None)
        x, spread = x + y, spread + of_layer.mean()
    return ln(x, p["norm"], c["eps"]) @ p["token"].T, spread


def switch_mean(p, *, ids, targets, ignore, config):
    places = int(config["capacity_factor"] * ids.shape[-1] / config["experts"])
    logits, spread = switch_states(p, ids=ids, capacity=places, config=config)
    return nll(logits, targets=targets, ignore=ignore, reduction="mean") + config["balance"] * spread


def pool(h, *, valid):
    counted = jnp.ones(h.shape[:-1], h.dtype) if valid is None else jnp.asarray(valid, h.dtype)
    return (h * counted[..., None]).sum(-2) / jnp.maximum(counted.sum(-1, keepdims=True), 1)


gate, mean_pool = differentiable(pick), differentiable(pool)
load_balance, dispatch, combine, switch_layer = map(differentiable, (balanced, send, bring, route))
expert_matmul, expert_linear = differentiable(jnp.matmul), differentiable(lambda x, W, b: x @ W + b[:, None])
switch = differentiable(lambda p, *, ids, config: switch_states(p, ids=ids, capacity=ids.shape[-1], config=config)[0])
switch_loss = differentiable(switch_mean)


# --- recurrent models, BERT, encoder-decoder ---


def affine(x, p, name):
    return x @ p[f"W{name}"] + p.get(f"b{name}", 0)


def window_of(x, past, *, places, valid):
    x = x if valid is None else x * valid[..., None]
    line = jnp.concatenate([past, x], 1)
    return jnp.concatenate([line[:, places - 1 - k : line.shape[1] - k] for k in range(places)], -1)


def from_zeros(x, p, *, cell, valid):
    zeros, weights = jnp.zeros((len(x), len(p["Wh"])), x.dtype), (p["Wx"], p["Wh"], p["b"])
    if cell == "rnn":
        return elman(x, zeros, *weights, valid=valid)
    return long_short(x, zeros, zeros, *weights, valid=valid)[0]


def both_ways(x, p, *, cell, valid):
    turned = None if valid is None else valid[:, ::-1]
    behind = from_zeros(x[:, ::-1], p["backward"], cell=cell, valid=turned)
    return jnp.concatenate([from_zeros(x, p["forward"], cell=cell, valid=valid), behind[:, ::-1]], -1)


def stacked(x, layers, *, cell, valid):
    for p in layers:
        x = (both_ways if "backward" in p else from_zeros)(x, p, cell=cell, valid=valid)
    return x


def recurrent_model(p, *, ids, config):
    x = stacked(p["token"][ids], p["layers"], cell=config["cell"], valid=None)
    return x @ (p["token"].T if config["tied"] else p["head"])


def window_model(p, *, ids, config):
    x, n = p["token"][ids], config["order"]
    x = window_of(x, jnp.zeros((len(x), n - 2, x.shape[-1]), x.dtype), places=n - 1, valid=None)
    return p["b"] + jnp.tanh(p["d"] + x @ p["H"]) @ p["U"] + (x @ p["W"] if "W" in p else 0)


def mixed_states(p, *, ids, allowed, config):
    x = p["token"][ids]
    x = x + sines(jnp.arange(ids.shape[1], dtype=x.dtype), width=config["width"])
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
        h = jnp.tanh(h[:, 0] @ p["pooler"]["W"] + p["pooler"]["b"])
    return h @ p[output]["W"] + p[output]["b"]


def pretraining(p, *, targets, ignore, pairs, **text):
    words, classes = (bert_model(p, output=output, **text) for output in ("masked", "pair"))
    masked = nll(words, targets=targets, ignore=ignore, reduction="mean")
    return masked, nll(classes, targets=pairs, ignore=None, reduction="mean")


def classifier(p, *, targets, weights=None, smoothing=0.0, **text):
    y = bert_model(p, output="classes", **text)
    each = smoothed(y, targets=targets, ignore=None, smoothing=smoothing, reduction="none")
    return each.mean() if weights is None else (each * weights.astype(y.dtype)).sum() / weights.astype(y.dtype).sum()


def spans(p, *, possible, targets, **text):
    y = bert_model(p, output="span", **text).swapaxes(1, 2)
    y = y if possible is None else jnp.where(possible[:, None], y, -jnp.inf)
    return nll(y, targets=targets, ignore=None, reduction="mean")


def cut(y, heads, parts):
    y = y.reshape(*y.shape[:-1], parts, heads, -1)
    return [y[..., part, :, :].swapaxes(-2, -3) for part in range(parts)]


def join_heads(a, p):
    a = a.swapaxes(-2, -3)
    return affine(a.reshape(*a.shape[:-2], -1), p, "o")


def read(x, memory, p, *, heads, scaled, allowed):
    (q,), (k, v) = cut(affine(x, p, "q"), heads, 1), cut(affine(memory, p, "kv"), heads, 2)
    q = q if scaled else q * q.shape[-1] ** 0.5
    return join_heads(attend(q, k, v, causal=False, allowed=allowed), p)


def attend_near(x, p, *, heads, scaled, causal, allowed, r):
    q, k, v = cut(affine(x, p, "qkv"), heads, 3)
    q = q if scaled else q * q.shape[-1] ** 0.5
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
    x = p["token"][ids] * (c["width"] ** 0.5 if c["scaled_embedding"] else 1)
    if c["positions"] == "learned":
        x = x + stack["position"][:T]
    if c["positions"] == "sinusoidal":
        x = x + sines(jnp.arange(T, dtype=x.dtype), width=c["width"])
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
    h = h / config["width"] ** 0.5 if config["scaled_output"] else h
    return h @ (p["token"].T if config["tied"] else p["head"])


def shifted(targets, start, ignore):
    ids = numpy.concatenate([0 * targets[:, :1] + start, targets[:, :-1]], 1)
    return numpy.where(ids == ignore, start, ids)


def translation(p, *, targets, start, ignore, smoothing, **texts):
    logits = both_halves(p, ids=shifted(targets, start, ignore), **texts)
    return smoothed(logits, targets=targets, ignore=ignore, smoothing=smoothing, reduction="mean")


def restoration(p, *, ids, counted, start, **texts):
    logits = both_halves(p, ids=shifted(ids, start, -1), **texts)
    return nll(logits, targets=numpy.where(counted, ids, -1), ignore=-1, reduction="mean")


window, bidirectional, hybrid_states = map(differentiable, (window_of, both_ways, mixed_states))
recurrent_lm, nnlm, hybrid = map(differentiable, (recurrent_model, window_model, mixed_model))
recurrent_lm_loss, nnlm_loss, hybrid_loss = (
    differentiable(mean_of(model)) for model in (recurrent_model, window_model, mixed_model)
)
bert, pretraining_loss, classifier_loss = map(differentiable, (bert_model, pretraining, classifier))
span_loss, cross_attention, encoder_decoder = map(differentiable, (spans, read, both_halves))
seq2seq_loss, denoising_loss = map(differentiable, (translation, restoration))
tanh = differentiable(jnp.tanh)
