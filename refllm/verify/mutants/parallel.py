"""Mistakes of parallel shards: parts that count twice or not at all, the part of another rank, another divisor."""

from __future__ import annotations

from refllm.spec.data_parallel import data_parallel_cross_entropy, sharded_adamw, sharded_clip, sharded_squares
from refllm.spec.expert_parallel import expert_parallel_layer
from refllm.spec.pipeline_parallel import pipeline_stage
from refllm.spec.sequence_parallel import ring_attention, sequence_parallel_dropout, sequence_parallel_norm
from refllm.spec.shard import shard
from refllm.spec.tensor_parallel import (
    column_parallel_linear,
    head_parallel_attention,
    parallel_feed_forward,
    row_parallel_linear,
)
from refllm.spec.vocabulary_parallel import (
    vocabulary_parallel_cross_entropy,
    vocabulary_parallel_embedding,
    vocabulary_parallel_sums,
)
from refllm.verify.mutants.bank import Edited, Edits, edit

COLUMNS = "y, linear_back = linear(x, W[:, own], b[own])"
COLUMNS_BACK = "return dx, among_zeros(dW, own, W.shape[-1], axis=-1), among_zeros(db, own, len(b), axis=0)"
ROWS, WITH_BIAS = "product, matmul_back = matmul(x[..., own], W[own])", "y = product + b * int(rank == 0)"
MAPS = (
    'mine = {"W1": p["W1"][:, own], "b1": p["b1"][own], "W2": p["W2"][own], "b2": p["b2"] * int(rank == 0)}'
)  # fmt: skip
OF_HEADS = "rows_of_own = slice(own.start * D, own.stop * D)"
QKV = 'mine = {"Wqkv": Wqkv[:, :, rows_of_own].reshape(C, -1), "bqkv": bqkv[:, rows_of_own].reshape(-1)}'
OUT = 'mine = {**mine, "Wo": p["Wo"][rows_of_own], "bo": p["bo"] * int(rank == 0)}'
HERE = "here = (ids >= own.start) & (ids < own.stop)"
EMBEDDED = "return where(here[..., None], y, 0), vocabulary_parallel_embedding_back"
TARGET, OF_TARGET = (
    "t = where(here, pick(z, index), 0)",
    "of_target = where(one_hot(index, own.stop - own.start), where(here, dt, 0)[..., None], 0)",
)
TOGETHER, COUNT = "whole, log_sum_exp_back = log_sum_exp(parts)", "count = max(1, int(counted.sum()))"
LOSSES, SHARE = (
    "losses = where(counted, whole - sum(t, axis=0, keepdims=False), 0)",
    "w = where(counted, dy / count, 0)",
)
NORM = "y, layer_norm_back = layer_norm(x[..., own, :], g, b, eps=eps)"
NORM_BACK = "return among_zeros(dx, own, T, axis=-2), dg, db"
DROPPED = "y, dropout_back = dropout(x[..., own, :], dropout_mask=dropout_mask[..., own, :], rate=rate)"
SEEN = "seen = arange(T) <= arange(T)[:, None] if causal else everywhere((T, T))"
MERGED = "(y, l), merge_back = merge_attention(y, l, next_y, next_l)"
GOING_ROUND = f"for (next_y, next_l), _ in turns[1:]:\n    {MERGED}\n    merges.append(merge_back)"
TURN_BACK = "dq_turn, dk_turn, dv_turn = turns[turn][1](dturn, dl_turn)"
KEYS_BACK, VALUES_BACK = (
    "dk = dk + among_zeros(dk_turn, blocks[turn], T, axis=-2)",
    "dv = dv + among_zeros(dv_turn, blocks[turn], T, axis=-2)",
)
SLOTS = "slots = slots_of(chosen, experts=E, capacity=capacity, token_mask=None)"
WEIGHTS = "mine = {name: w[own] for name, w in p.items()}"
COMBINED = "y, combine_back = combine(among_zeros(a, own, E, axis=-3), g, slots=slots)"
EXPERTS_BACK = "return dx, dg, {name: among_zeros(dw, own, E, axis=0) for name, dw in dmine.items()}"
LAYERS = "own = shard(len(layers), ranks=ranks, rank=rank)"
LAYER_BACK, ADDED = "da, dlayer = kept[m][n - own.start](dh)", "dlayers[n] = plus(dlayers[n], dlayer)"
COUNTED = "counted = targets.size if ignore is None else int((targets != ignore).sum())"
OF_OWN = "(targets[own].size if ignore is None else int((targets[own] != ignore).sum()))"
DATA, DATA_BACK = (
    "return loss / count, data_parallel_cross_entropy_back",
    "return among_zeros(loss_back(dy / count), own, B, axis=0)",
)
CUT = "squares = squares + total(x[own] * x[own])"
EITHER = f"if is_cut:\n    {CUT}\nelif rank == 0:\n    squares = squares + total(x * x)"
TOTAL_NORM = "norm = sqrt(total(squares))"
REDUCED = "mine = sum(g, axis=0, keepdims=False)[own]"
SHRUNK = "shrunk = where(decayed[own], p[own] * (1 - lr * decay), p[own])"
MEGATRON = "https://github.com/NVIDIA/Megatron-LM/issues/7452"
FIRST = ": own.stop - own.start"  # as many places as the own, but the first ones


def columns(new: str) -> Edits:
    return edit(column_parallel_linear, COLUMNS, f"y, linear_back = linear(x, {new})")


def norm_back(dg: str, db: str) -> Edits:
    return edit(sequence_parallel_norm, NORM_BACK, f"return among_zeros(dx, own, T, axis=-2), {dg}, {db}")


def merged(new: str) -> Edits:
    return edit(ring_attention, MERGED, f"(y, l), merge_back = {new}")


def experts_back(dg: str, dw: str) -> Edits:
    new = f"return dx, {dg}, {{name: among_zeros({dw}, own, E, axis=0) for name, dw in dmine.items()}}"
    return edit(expert_parallel_layer, EXPERTS_BACK, new)


def counted(new: str) -> Edits:
    return edit(data_parallel_cross_entropy, COUNTED, f"counted = {new}")


def moved(mine: str = "mine", shrunk: str = "shrunk") -> Edits:
    lines = {REDUCED: f"mine = {mine}"} if mine != "mine" else {SHRUNK: f"shrunk = {shrunk}"}
    return edit(sharded_adamw, *(line for pair in lines.items() for line in pair))


# fmt: off
MUTANTS = [
    Edited("PAR/shards-floor", "shards of size // ranks places, which leave out what does not divide",
           edit(shard, "longest = -(-size // ranks)", "longest = size // ranks")),
    Edited("PAR/column-interleaved", "a column-parallel map with every n-th column",
           columns("W[:, rank::ranks], b[rank::ranks]")),
    Edited("PAR/column-bias-once", "a column-parallel map with the bias on the first rank alone",
           columns("W[:, own], b[own] * int(rank == 0)")),
    Edited("PAR/column-averaged", "a column-parallel map whose gradient of the input is averaged over the ranks",
           edit(column_parallel_linear, COLUMNS_BACK, COLUMNS_BACK.replace("dx,", "dx / ranks,"))),
    Edited("PAR/row-bias-everywhere", "a row-parallel map that adds the bias on every rank",
           edit(row_parallel_linear, WITH_BIAS, "y = product + b"),
           "https://github.com/huggingface/text-generation-inference/issues/1036"),
    Edited("PAR/row-bias-shares", "a row-parallel map that adds a share of the bias on every rank, and so divides its "
           "gradient", edit(row_parallel_linear, WITH_BIAS, "y = product + b / ranks"),
           "https://github.com/pytorch/torchtitan/pull/4332"),
    Edited("PAR/row-bias-forgotten", "a row-parallel map without the bias",
           edit(row_parallel_linear, WITH_BIAS, "y = product")),
    Edited("PAR/row-first-inputs", "a row-parallel map whose ranks all read the first entries of the input",
           edit(row_parallel_linear, ROWS, f"product, matmul_back = matmul(x[..., {FIRST}], W[own])")),
    Edited("PAR/feed-forward-bias-everywhere", "a feed-forward layer that adds its second bias on every rank",
           edit(parallel_feed_forward, MAPS, MAPS.replace('p["b2"] * int(rank == 0)', 'p["b2"]')),
           "https://github.com/Wenyueh/MinivLLM/issues/80"),
    Edited("PAR/feed-forward-bias-once", "a feed-forward layer with the first bias on the first rank alone",
           edit(parallel_feed_forward, MAPS, MAPS.replace('p["b1"][own]', 'p["b1"][own] * int(rank == 0)'))),
    Edited("PAR/feed-forward-interleaved", "a feed-forward layer whose first map has every n-th column and whose "
           "second has consecutive rows",
           edit(parallel_feed_forward, MAPS, MAPS.replace('p["W1"][:, own]', 'p["W1"][:, rank::ranks]'))),
    Edited("PAR/heads-contiguous", "heads cut as one piece of the columns of queries, keys and values",
           edit(head_parallel_attention, QKV, "piece = slice(3 * own.start * D, 3 * own.stop * D)\n"
                'mine = {"Wqkv": p["Wqkv"][:, piece], "bqkv": p["bqkv"][piece]}'),
           "https://github.com/deepspeedai/DeepSpeed/pull/3844"),
    Edited("PAR/heads-first", "heads of which every rank takes the first ones",
           edit(head_parallel_attention, OF_HEADS, "rows_of_own = slice(0, (own.stop - own.start) * D)")),
    Edited("PAR/heads-bias-everywhere", "attention that adds the bias of its output on every rank",
           edit(head_parallel_attention, OUT, OUT.replace('p["bo"] * int(rank == 0)', 'p["bo"]'))),
    Edited("PAR/embedding-unmasked", "an embedding that gives its first own row for the words of other ranks",
           edit(vocabulary_parallel_embedding, EMBEDDED, "return y, vocabulary_parallel_embedding_back")),
    Edited("PAR/embedding-gradient-unmasked", "an embedding whose first own row gets the gradients of the words of "
           "other ranks", edit(vocabulary_parallel_embedding, "dE = embedding_back(where(here[..., None], dy, 0))",
                         "dE = embedding_back(dy)")),
    Edited("PAR/embedding-after-first", "an embedding whose ranks do not have their first word",
           edit(vocabulary_parallel_embedding, HERE, "here = (ids > own.start) & (ids < own.stop)")),
    Edited("PAR/sums-target-unmasked", "a rank that sends its first logit for the targets of others",
           edit(vocabulary_parallel_sums, TARGET, "t = pick(z, index)")),
    Edited("PAR/sums-gradient-unmasked", "a rank whose first logit gets the gradient of the targets of others",
           edit(vocabulary_parallel_sums, OF_TARGET,
                "of_target = where(one_hot(index, own.stop - own.start), dt[..., None], 0)")),
    Edited("PAR/sums-last-lost", "a rank that leaves its last logit out of the sum",
           edit(vocabulary_parallel_sums, "l, log_sum_exp_back = log_sum_exp(z)",
                "l, log_sum_exp_back = log_sum_exp(z[..., :-1] if z.shape[-1] > 1 else z)")),
    Edited("PAR/sums-whole-vocabulary", "a rank that sends the log-sum-exp of all logits, which it has gathered, so "
           "that the loss is too large by the logarithm of the ranks",
           edit(vocabulary_parallel_sums, "l, log_sum_exp_back = log_sum_exp(z)",
                "l, log_sum_exp_back = log_sum_exp(logits)[0], None"), MEGATRON),
    Edited("PAR/sums-padding-counted", "a rank whose row is padded by a logit of 0, which counts",
           edit(vocabulary_parallel_sums, "l, log_sum_exp_back = log_sum_exp(z)",
                "l, log_sum_exp_back = log_sum_exp(among_zeros(z, slice(0, z.shape[-1]), z.shape[-1] + 1, axis=-1))"),
           "https://github.com/unslothai/unsloth/pull/10616"),
    Edited("PAR/sums-filled", "a rank whose row is filled with logits of 0, which count, to the length of others",
           edit(vocabulary_parallel_sums, "l, log_sum_exp_back = log_sum_exp(z)",
                "z = among_zeros(logits[..., own], slice(0, own.stop - own.start), -(-V // ranks), axis=-1)\n"
                "l, log_sum_exp_back = log_sum_exp(z)"), "https://github.com/unslothai/unsloth/pull/10616"),
    Edited("PAR/vocabulary-loss-sum-of-logs", "a loss that adds the log-sum-exps of the ranks",
           edit(vocabulary_parallel_cross_entropy, TOGETHER,
                "whole, log_sum_exp_back = sum(parts, keepdims=False), None")),
    Edited("PAR/vocabulary-loss-own-sum", "a loss with the log-sum-exp of the first rank alone",
           edit(vocabulary_parallel_cross_entropy, TOGETHER, "whole, log_sum_exp_back = l[0], None")),
    Edited("PAR/vocabulary-loss-first-target", "a loss that knows the targets of the first rank alone",
           edit(vocabulary_parallel_cross_entropy, LOSSES, "losses = where(counted, whole - t[0], 0)")),
    Edited("PAR/vocabulary-loss-counts-ignored", "a vocabulary-parallel loss divided by ignored targets too",
           edit(vocabulary_parallel_cross_entropy, COUNT, "count = max(1, targets.size)")),
    Edited("PAR/vocabulary-loss-of-every-rank", "a vocabulary-parallel loss whose gradient is that of the sum over all "
           "ranks, each of which has the whole of it",
           edit(vocabulary_parallel_cross_entropy, SHARE, "w = where(counted, dy * len(l) / count, 0)")),
    Edited("PAR/vocabulary-loss-divided", "a vocabulary-parallel loss whose gradient is divided by the ranks",
           edit(vocabulary_parallel_cross_entropy, SHARE, "w = where(counted, dy / len(l) / count, 0)")),
    Edited("PAR/norm-averaged", "a norm over places whose gain and bias get the mean over the ranks",
           norm_back("dg / ranks", "db / ranks")),
    Edited("PAR/norm-first-rank", "a norm over places whose gain and bias get the gradient of the first rank alone",
           norm_back("dg * int(rank == 0)", "db * int(rank == 0)"),
           "https://github.com/NVIDIA/Megatron-LM/issues/1446"),
    Edited("PAR/norm-bias-first-rank", "a norm over places whose bias gets the gradient of the first rank alone",
           norm_back("dg", "db * int(rank == 0)")),
    Edited("PAR/norm-first-places", "a norm of which every rank takes the first places",
           edit(sequence_parallel_norm, NORM, f"y, layer_norm_back = layer_norm(x[..., {FIRST}, :], g, b, eps=eps)")),
    Edited("PAR/dropout-same-draws", "dropout whose ranks all use the same draws",
           edit(sequence_parallel_dropout, DROPPED,
                DROPPED.replace("dropout_mask[..., own, :]", f"dropout_mask[..., {FIRST}, :]")),
           "https://github.com/PaddlePaddle/PaddleFleetX/pull/1005"),
    Edited("PAR/dropout-rate-by-ranks", "dropout that scales by a share of the rate",
           edit(sequence_parallel_dropout, DROPPED, DROPPED.replace("rate=rate", "rate=rate / ranks"))),
    Edited("PAR/ring-causal-in-block", "ring attention whose causal mask counts places within a block",
           edit(ring_attention, SEEN, "own_size = own.stop - own.start\n"
                "seen = arange(T) % own_size <= arange(T)[:, None] % own_size if causal else everywhere((T, T))"),
           "https://github.com/zhuzilin/ring-flash-attention/issues/54"),
    Edited("PAR/ring-triangle-in-earlier-blocks", "ring attention that sees of earlier ranks' blocks a triangle alone",
           edit(ring_attention, SEEN, "n = max(1, -(-T // ranks))\nplaces = arange(T)\n"
                "earlier = places // n <= (places // n)[:, None]\n"
                "seen = earlier & (places % n <= (places % n)[:, None]) if causal else everywhere((T, T))")),
    Edited("PAR/ring-not-causal", "ring attention that ignores `causal`",
           edit(ring_attention, SEEN, "seen = everywhere((T, T))")),
    Edited("PAR/ring-averaged", "ring attention that averages what the turns give",
           merged("((y + next_y) / 2, l), None")),
    Edited("PAR/ring-added", "ring attention that adds what the turns give", merged("(y + next_y, l), None")),
    Edited("PAR/ring-first-weight", "ring attention that merges each turn with the log-sum-exp of the first",
           merged("(merge_attention(y, l, next_y, next_l)[0][0], l), None")),
    Edited("PAR/ring-own-alone", "ring attention that never looks at what comes round",
           edit(ring_attention, GOING_ROUND, GOING_ROUND.replace("turns[1:]", "turns[:0]"))),
    Edited("PAR/ring-one-turn-short", "ring attention that ends one turn early",
           edit(ring_attention, GOING_ROUND, GOING_ROUND.replace("turns[1:]", "turns[1:-1]"))),
    Edited("PAR/ring-stale-keys", "ring attention whose backward pass uses the own keys and values in every turn",
           edit(ring_attention, TURN_BACK, TURN_BACK.replace("turns[turn]", "turns[0]")),
           "https://github.com/huggingface/diffusers/issues/14265"),
    Edited("PAR/ring-weights-constant", "ring attention whose backward pass takes the weights of the turns for "
           "constants",
           edit(ring_attention, TURN_BACK, TURN_BACK.replace("dl_turn", "0 * dl_turn")),
           "https://github.com/NVIDIA/Megatron-LM/issues/1464"),
    Edited("PAR/ring-gradients-stay", "ring attention whose gradients of keys and values do not go back to their rank",
           edit(ring_attention, KEYS_BACK, KEYS_BACK.replace("blocks[turn]", "own"),
                VALUES_BACK, VALUES_BACK.replace("blocks[turn]", "own"))),
    Edited("PAR/experts-capacity-by-ranks", "experts that have a share of the capacity on every rank",
           edit(expert_parallel_layer, SLOTS, f"capacity = max(1, capacity // ranks)\n{SLOTS}")),
    Edited("PAR/experts-first-weights", "ranks that all have the weights of the first experts",
           edit(expert_parallel_layer, WEIGHTS, f"mine = {{name: w[{FIRST}] for name, w in p.items()}}")),
    Edited("PAR/experts-no-gate", "experts of other ranks whose tokens are not multiplied by their probability",
           edit(expert_parallel_layer, COMBINED, COMBINED.replace(", g,", ", 0 * g + 1,"))),
    Edited("PAR/experts-gradient-by-ranks", "experts whose gradient is as many times too large as there are ranks",
           experts_back("dg", "dw * ranks"), "https://github.com/deepspeedai/DeepSpeed/issues/6545"),
    Edited("PAR/experts-gradient-divided", "experts whose gradient is divided by the ranks, as if all had them",
           experts_back("dg", "dw / ranks")),
    Edited("PAR/experts-router-forgotten", "experts of other ranks that send no gradient to the router",
           experts_back("0 * dg", "dw")),
    Edited("PAR/stage-interleaved", "a pipeline whose ranks have every n-th layer",
           edit(pipeline_stage, LAYERS, "own = slice(rank, None, ranks)")),
    Edited("PAR/stage-first-layers", "a pipeline whose ranks all have the first layers",
           edit(pipeline_stage, LAYERS, f"{LAYERS}\nown = slice(0, own.stop - own.start)"), MEGATRON),
    Edited("PAR/stage-averaged", "a pipeline whose gradients are divided by the micro-batches once more",
           edit(pipeline_stage, ADDED, "dlayers[n] = plus(dlayers[n], each(lambda w: w / len(x), dlayer))")),
    Edited("PAR/stage-last-micro-batch", "a pipeline that keeps the gradient of the last micro-batch alone",
           edit(pipeline_stage, ADDED, "dlayers[n] = dlayer")),
    Edited("PAR/stage-stale", "a pipeline that goes back through what it kept of the last micro-batch",
           edit(pipeline_stage, LAYER_BACK, LAYER_BACK.replace("kept[m]", "kept[-1]"))),
    Edited("PAR/data-own-mean", "a loss that every rank divides by its own count", counted(OF_OWN),
           "https://github.com/huggingface/transformers/issues/34191"),
    Edited("PAR/data-mean-of-means", "a loss that is the mean of the ranks' means", counted(f"ranks * {OF_OWN}"),
           "https://github.com/huggingface/transformers/issues/37766"),
    Edited("PAR/data-counts-ignored", "a loss over ranks that is divided by all targets, ignored ones too",
           counted("targets.size")),
    Edited("PAR/data-averaged", "a loss over ranks that is averaged where it should be summed",
           edit(data_parallel_cross_entropy, DATA, DATA.replace("loss / count", "loss / count / ranks"))),
    Edited("PAR/data-gradient-averaged", "a loss over ranks whose gradient alone is averaged where it should be summed",
           edit(data_parallel_cross_entropy, DATA_BACK, DATA_BACK.replace("dy / count", "dy / count / ranks")),
           "https://github.com/huggingface/transformers/pull/34373"),
    Edited("PAR/data-gradient-own-count", "a loss over ranks whose gradient alone is divided by the own count",
           edit(data_parallel_cross_entropy, DATA_BACK,
                DATA_BACK.replace("dy / count", f"dy / max(1, {OF_OWN})")), MEGATRON),
    Edited("PAR/data-gradient-by-ranks", "a loss over ranks whose gradient is as many times too large as there are "
           "ranks",
           edit(data_parallel_cross_entropy, DATA_BACK, DATA_BACK.replace("dy / count", "dy * ranks / count")),
           "https://github.com/huggingface/transformers/issues/35203"),
    Edited("PAR/squares-of-every-rank", "a norm that counts what all ranks have once for each of them",
           edit(sharded_squares, EITHER, EITHER.replace("elif rank == 0:", "else:")),
           "https://github.com/NVIDIA-NeMo/RL/pull/3788"),
    Edited("PAR/squares-cut-first-rank", "a norm that counts what is cut on the first rank alone, as if all had it",
           edit(sharded_squares, EITHER, f"if is_cut and rank == 0:\n    {CUT}\nelif rank == 0:\n"
                "    squares = squares + total(x * x)"), MEGATRON),
    Edited("PAR/squares-without-cut", "a norm without what is cut",
           edit(sharded_squares, EITHER, "if not is_cut and rank == 0:\n    squares = squares + total(x * x)"),
           "https://github.com/NVIDIA/Megatron-LM/pull/5916"),
    Edited("PAR/squares-of-nobody", "a norm without what all ranks have",
           edit(sharded_squares, EITHER, f"if is_cut:\n    {CUT}")),
    Edited("PAR/squares-uncut", "a norm that counts all rows of what is cut on every rank",
           edit(sharded_squares, CUT, "squares = squares + total(x * x)")),
    Edited("PAR/squares-root", "a rank that sends its norm, not its square",
           edit(sharded_squares, "return squares", "return sqrt(squares)"),
           "https://github.com/facebookresearch/fairscale/pull/167"),
    Edited("PAR/clip-own-norm", "clipping by the norm of what the rank has",
           edit(sharded_clip, TOTAL_NORM, "norm = sqrt(total(g[0] * g[0]) + total(g[-1] * g[-1]))")),
    Edited("PAR/clip-sum-of-norms", "clipping by the sum of the ranks' norms",
           edit(sharded_clip, TOTAL_NORM, "norm = total(sqrt(squares))")),
    Edited("PAR/clip-mean", "clipping by the root of the mean of the ranks' squares",
           edit(sharded_clip, TOTAL_NORM, "norm = sqrt(total(squares) / len(squares))")),
    Edited("PAR/adamw-averaged", "a cut optimiser that averages gradients which should be summed",
           moved("sum(g, axis=0, keepdims=False)[own] / len(g)")),
    Edited("PAR/adamw-own-gradient", "a cut optimiser that takes the gradient of its own rank alone",
           moved("g[rank][own]")),
    Edited("PAR/adamw-first-gradient", "a cut optimiser whose ranks all take the first stretch of the gradient",
           moved(f"sum(g, axis=0, keepdims=False)[{FIRST}]")),
    Edited("PAR/adamw-first-decay", "a cut optimiser whose ranks all decay what the first stretch says",
           moved(shrunk=f"where(decayed[{FIRST}], p[own] * (1 - lr * decay), p[own])")),
    Edited("PAR/adamw-all-decay", "a cut optimiser that knows no parameter without decay",
           moved(shrunk="p[own] * (1 - lr * decay)")),
]
