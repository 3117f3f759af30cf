"""What each process of torch_parallel_adapter.py runs: PyTorch's parallel layers, pipeline, data parallelism, shards.

An operation takes tensors and the keywords of a case, `rank` the one that is asked for. It gives its value, and a
function from the gradient of that to pairs of lists: tensors that were made of the inputs, and their gradients.
"""

import pickle
import sys

import torch
from torch import nn
from torch.distributed import pipelining, tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional as F  # noqa: N812  (its customary name)
from torch_adapter import ACTIVATIONS, array, over
from torch_adapter import tensor as tensor_of

JOB = {}  # "mesh": all processes


def here():
    return JOB["mesh"].get_local_rank()


def own(size, rank):
    """The places of an axis that PyTorch gives to a rank."""
    longest = -(-size // JOB["mesh"].size())
    return slice(min(size, longest * rank), min(size, longest * (rank + 1)))


def kept(x, rank):
    """The rows of one rank, and 0 in place of the others."""
    mask = torch.zeros_like(x)
    mask[own(len(x), rank)] = 1
    return x * mask


def cut(x, placement):
    return tensor.distribute_tensor(x.detach(), JOB["mesh"], [placement])


def whole(x):
    return x.full_tensor() if isinstance(x, DTensor) else x


def begun(y, dy, rank):
    """The gradient that a rank begins with where each has a value of its own."""
    return dy if here() == rank else torch.zeros_like(y)


def cut_layer(module, plan, weights, x, *, apply=None, same):
    """The module with these weights, cut by the plan, on x. `same`: all ranks have the same value, and so the same
    gradient of it."""
    with torch.no_grad():
        for name, w in weights.items():
            module.get_parameter(name).copy_(w)
    module = parallelize_module(module, JOB["mesh"], plan)
    seen = x.detach().requires_grad_(x.is_floating_point())
    y = (apply or module)(seen)

    def back(dy, rank):
        y.backward(dy if same else begun(y, dy, rank))
        gradients = [whole(module.get_parameter(name).grad) for name in weights]
        made, seen_too = list(weights.values()), seen.grad is not None
        return made + [x] * seen_too, gradients + [seen.grad] * seen_too

    return y, back


def linear(W):
    return nn.Linear(*W.shape, dtype=W.dtype)


def column_parallel_linear(x, W, b, *, ranks, rank):
    return cut_layer(linear(W), ColwiseParallel(), {"weight": W.T, "bias": b}, x, same=False)


def row_parallel_linear(x, W, b, *, ranks, rank):
    weights = {"weight": kept(W, rank).T, "bias": b * (rank == 0)}
    return cut_layer(linear(W), RowwiseParallel(input_layouts=Replicate()), weights, x, same=True)


def parallel_feed_forward(x, p, *, activation, ranks, rank):
    """The default between the two maps, a tensor without the sizes of the others, takes all parts to be equal."""
    module = nn.ModuleDict({"up": linear(p["W1"]), "down": linear(p["W2"])})
    weights = {"up.weight": p["W1"].T, "up.bias": p["b1"]}
    weights |= {"down.weight": kept(p["W2"], rank).T, "down.bias": p["b2"] * (rank == 0)}
    plan = {"up": ColwiseParallel(use_local_output=False), "down": RowwiseParallel()}
    apply = lambda x: module["down"](ACTIVATIONS[activation](module["up"](x)))
    return cut_layer(module, plan, weights, x, apply=apply, same=True)


def head_parallel_attention(x, p, *, heads, causal, allowed, ranks, rank):
    """Queries, keys and values are three maps, as in PyTorch's tutorial; a rank's columns must be whole heads."""
    C, D = len(p["Wo"]), len(p["Wo"]) // heads
    if -(-C // ranks) % D:
        raise NotImplementedError("the columns of a rank are no whole heads")
    three = ("query", "key", "value")
    maps = {name: nn.Linear(x.shape[-1], C, dtype=x.dtype) for name in three}
    module = nn.ModuleDict({**maps, "out": linear(p["Wo"])})
    weights = {f"{name}.weight": W.T for name, W in zip(three, p["Wqkv"].chunk(3, -1), strict=True)}
    weights |= {f"{name}.bias": b for name, b in zip(three, p["bqkv"].chunk(3), strict=True)}
    weights |= {"out.weight": kept(p["Wo"], rank).T, "out.bias": p["bo"] * (rank == 0)}

    def apply(x):
        q, k, v = (module[name](x).unflatten(-1, (-1, D)).transpose(-2, -3) for name in three)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal).transpose(-2, -3).flatten(-2)
        size = {"shape": (*x.shape[:-1], C), "stride": x.new_empty(*x.shape[:-1], C).stride()}
        return module["out"](DTensor.from_local(y, JOB["mesh"], [Shard(y.ndim - 1)], **size))

    plan = {**{name: ColwiseParallel() for name in three}, "out": RowwiseParallel()}
    return cut_layer(module, plan, weights, x, apply=apply, same=True)


def vocabulary_parallel_embedding(E, *, ids, ranks, rank):
    module = nn.Embedding(*E.shape, dtype=E.dtype)
    return cut_layer(module, RowwiseParallel(input_layouts=Replicate()), {"weight": kept(E, rank)}, ids, same=True)


def sequence_parallel_norm(x, g, b, *, eps, ranks, rank):
    module = nn.LayerNorm(x.shape[-1], eps=eps, dtype=x.dtype)
    plan = SequenceParallel(sequence_dim=x.ndim - 2, use_local_output=True)
    apply = lambda x: module(x[..., own(x.shape[-2], here()), :])
    return cut_layer(module, plan, {"weight": g, "bias": b}, x, apply=apply, same=False)


def cross_entropy(logits, *, targets, ignore, reduction):
    z = cut(logits.reshape(-1, logits.shape[-1]), Shard(1)).requires_grad_()
    how = {"reduction": reduction, "ignore_index": -100 if ignore is None else ignore}
    with loss_parallel():
        y = F.cross_entropy(z, targets.reshape(-1), **how)

    def back(dy, rank):
        with loss_parallel():
            y.backward(cut(dy.reshape(y.shape), Replicate()))
        return [logits], [whole(z.grad).reshape(logits.shape)]

    return whole(y).reshape(targets.shape if reduction == "none" else ()), back


class Logits(nn.Module):
    """The logits are the parameters, so that their gradient is what the ranks exchange."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits.detach().clone())

    def forward(self, targets, ignore, rows):
        z = self.logits[rows].flatten(0, -2)
        return F.cross_entropy(z, targets[rows].flatten(), ignore_index=ignore, reduction="sum")


def data_parallel_cross_entropy(logits, *, targets, ignore, ranks, rank):
    """The ranks' gradients are averaged: who wants their sum multiplies the loss by the number of ranks."""
    model, ignore = nn.parallel.DistributedDataParallel(Logits(logits)), -100 if ignore is None else ignore
    rows = own(len(logits), here())
    counted = (targets[rows] != ignore).sum()
    torch.distributed.all_reduce(counted)
    y = model(targets, ignore, rows) / counted.clamp(min=1)

    def back(dy, rank):
        (y * ranks).backward(begun(y, dy, rank))
        return [logits], [model.module.logits.grad]

    return y, back


class Layers(nn.Module):
    def __init__(self, layers, activation):
        super().__init__()
        copies = [{name: nn.Parameter(w.detach().clone()) for name, w in layer.items()} for layer in layers]
        self.layers, self.activation = nn.ModuleList(map(nn.ParameterDict, copies)), ACTIVATIONS[activation]

    def forward(self, h):
        for p in self.layers:
            h = h + self.activation(h @ p["W1"] + p["b1"]) @ p["W2"] + p["b2"]
        return h


def pipeline_stage(x, p, *, activation, ranks, rank):
    """The stage that is asked for has its layers, and the others none: they pass on what they get. By default the
    schedule divides gradients by the number of micro-batches, for a loss that is a mean of each. The value is found
    with a gradient of 0, which leaves nothing in the gradients that are formed later."""
    layers = p["layers"][own(len(p["layers"]), rank)] if here() == rank else []
    module, first, last = Layers(layers, activation), here() == 0, here() == ranks - 1
    seen = x.detach().clone().requires_grad_()

    def run(dy):
        stage = pipelining.PipelineStage(module, here(), ranks, torch.device("cpu"))
        loss = lambda y, d: (y * d).sum()
        schedule = pipelining.ScheduleGPipe(stage, n_microbatches=len(x), loss_fn=loss, scale_grads=False)
        y = schedule.step(*[seen] * first, target=dy if last else None)
        return from_rank(y.detach() if last else torch.empty_like(x), ranks - 1)

    def back(dy, rank):
        run(dy)
        both = zip(layers, module.layers, strict=True)
        pairs = [(w, copies[name].grad) for layer, copies in both for name, w in layer.items()]
        dx = from_rank(seen.grad if first else torch.empty_like(x), 0)
        return [x, *(w for w, _ in pairs)], [dx, *(dw for _, dw in pairs)]

    return run(torch.zeros_like(x)), back


def from_rank(x, rank):
    x = x.contiguous()
    torch.distributed.broadcast(x, src=rank)
    return x


def sharded_squares(g, *, ranks, rank, **keywords):
    """From the norm of DTensors, cut or not: one that all ranks have counts once."""
    parts = [
        cut(kept(x, rank), Shard(0)) if is_cut else cut(x * (rank == 0), Replicate())
        for x, is_cut in zip(g, keywords["cut"], strict=True)
    ]
    return whole(nn.utils.get_total_norm(parts)) ** 2, None


def sharded_clip(g, squares, *, clip):
    norm = whole(nn.utils.get_total_norm([cut(squares.sqrt(), Shard(0))]))
    parameters = [nn.Parameter(torch.zeros_like(x)) for x in g]
    for parameter, x in zip(parameters, g, strict=True):
        parameter.grad = x.detach().clone()
    nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return (norm, [parameter.grad for parameter in parameters]), None


class Weighted(nn.Module):
    """A loss whose gradient is what it is given."""

    def __init__(self, p):
        super().__init__()
        self.p = nn.Parameter(p.detach().clone())

    def forward(self, g):
        return (self.p * g).sum()


def sharded_adamw(p, g, m, v, *, decayed, step, lr, beta1, beta2, eps, decay, ranks, rank):
    """fully_shard cuts the parameters, and averages the ranks' gradients where they are cut. A parameter decays or does
    not: both are made, and each place takes its own."""

    def stepped(strength):
        model = fully_shard(Weighted(p), mesh=JOB["mesh"])
        (ranks * model(g[here()].detach())).backward()
        rule = torch.optim.AdamW([model.p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=strength)
        rule.state[model.p] = {"step": torch.tensor(step - 1.0), "exp_avg": moment(m), "exp_avg_sq": moment(v)}
        rule.step()
        return model.p, rule.state[model.p]["exp_avg"], rule.state[model.p]["exp_avg_sq"]

    def moment(x):
        mine = x.detach().clone() if here() == rank else torch.zeros_like(p[own(len(p), here())])
        return DTensor.from_local(mine, JOB["mesh"], [Shard(0)], shape=p.shape, stride=(1,))

    both = [[x.to_local().detach().clone() for x in stepped(strength)] for strength in (decay, 0.0)]
    (with_decay, m, v), (without, _, _) = both
    return (torch.where(decayed[own(len(p), here())], with_decay, without), m, v), None


def answer(name, arrays, keywords, dy):
    """The value, and the gradients of the arrays where one of the value is given."""
    inputs = over(lambda x: tensor_of(x).requires_grad_(), arrays)
    keywords = {n: tensor_of(x) if hasattr(x, "dtype") else x for n, x in keywords.items()}
    y, back = globals()[name](*inputs, **keywords)
    if dy is None:
        return over(array, y), None
    leaves = []
    over(leaves.append, inputs)
    made, of_made = back(*map(tensor_of, dy), keywords.get("rank", 0))
    gradients = iter(torch.autograd.grad(made, leaves, of_made, materialize_grads=True))
    return over(array, y), over(lambda _: array(next(gradients)), inputs)


def serve(*, count, meeting, rank):
    """Answers questions until there are no more."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=meeting, world_size=count, rank=rank)
    JOB["mesh"] = tensor.init_device_mesh("cpu", (count,))
    replies, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        try:
            found = answer(*question)
        except Exception as error:
            found = error
        pickle.dump(found, replies)
        replies.flush()
    torch.distributed.destroy_process_group()
