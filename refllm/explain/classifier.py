"""Why BERT gives a text its label: the answer as a function of the word vectors, and what a text is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from refllm.backend import Array, namespace
from refllm.errors import UserError
from refllm.explain.attribution import Answer
from refllm.models import bert
from refllm.ops.softmax import log_softmax
from refllm.parameters import Tree
from refllm.tokenizers.vocabulary import SpecialIds

BASELINES = ("mask", "pad", "zeros")
ANSWERS = ("log-probability", "logit")


def word_vectors(p: Tree, *, ids: Array) -> Array:
    """The vectors of the tokens before positions and segments are added: ids (T,) -> x (T, C).

    >>> word_vectors({"token": array([[1.0], [2.0], [3.0]])}, ids=array([2, 0])).tolist()
    [[3.0], [1.0]]
    """
    return p["token"][ids]


def baseline_vectors(p: Tree, *, ids: Array, kind: str, special: SpecialIds) -> Array:
    """The vectors of a text that says nothing: [MASK] or [PAD] for every token, or zeros; [CLS] and [SEP] as they are

    Source:  Sundararajan, Taly & Yan 2017 (arXiv:1703.01365) sec. 2 and 6.4 (zero vectors for text).
    Shapes:  ids (T,) -> b (T, C)
    Raises:  UserError for a kind that is not one of BASELINES.

    >>> from refllm.tokenizers.vocabulary import SPECIAL, special_ids
    >>> p, ids = {"token": arange(14.0).reshape(7, 2)}, array([2, 5, 6, 3])  # [CLS], two words, [SEP]
    >>> baseline_vectors(p, ids=ids, kind="zeros", special=special_ids((*SPECIAL, "a", "b"))).tolist()
    [[4.0, 5.0], [0.0, 0.0], [0.0, 0.0], [6.0, 7.0]]
    """
    if kind not in BASELINES:
        raise UserError(f"a baseline is one of {', '.join(BASELINES)}; got {kind}")
    xp = namespace(ids)
    stays = ((ids == special.cls) | (ids == special.sep))[:, None]
    x = word_vectors(p, ids=ids)
    if kind == "zeros":
        return xp.where(stays, x, 0).astype(x.dtype)
    return xp.where(stays, x, p["token"][special.mask if kind == "mask" else special.pad])


def label_answer(p: Tree, *, segments: Array, label: int, answer: str, config: bert.Config) -> Answer:
    """CLS: F(x) = log P(label | text), or the logit of the label, as a function of the word vectors x of one text

    The model reads rows of a table of word vectors; here the table is the text, and each token its own row. So the
    model's own pullback gives the gradient of every token apart.
    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 4.1; documents 000 sec. 4.2, sec. 9 Q5.
    Shapes:  x (N, T, C); segments (T,) -> F (N,)
    Raises:  UserError for an answer that is not one of ANSWERS.

    >>> config = bert.Config(5, context=4, layers=1, heads=1, width=2, hidden=2, outputs=("classes",), labels=4)
    >>> p, x = map_leaves(zeros, bert.shapes(config)), ones((1, 3, 2))
    >>> f = label_answer(p, segments=array([0, 0, 0]), label=1, answer="log-probability", config=config)
    >>> (f(x)[0] / math.log(4)).tolist()  # a model that knows nothing
    [-1.0]
    """
    if answer not in ANSWERS:
        raise UserError(f"an answer is one of {', '.join(ANSWERS)}; got {answer}")

    def f(x: Array) -> tuple[Array, Callable[[Array], Array]]:
        xp, (N, T, C) = namespace(x), x.shape
        rows = xp.arange(N * T).reshape(N, T)
        encoder: dict[str, Any] = {name: part for name, part in p.items() if name not in bert.OUTPUTS}
        encoder["token"] = x.reshape(N * T, C)
        h, back_h = bert.encode(
            encoder, ids=rows, segments=xp.broadcast_to(segments, (N, T)), attention_mask=None,
            config=replace(config, vocabulary=N * T, outputs=()), dropout_mask=None,
        )  # fmt: skip
        logits, back_logits = bert.class_logits(h, p, dropout_mask=None, rate=0.0)
        z, back_z = (logits, None) if answer == "logit" else log_softmax(logits)

        def back(dy: Array) -> Array:
            dz = xp.zeros_like(z)
            dz[:, label] = dy
            dh, _ = back_logits(dz if back_z is None else back_z(dz))
            return back_h(dh)["token"].reshape(x.shape)

        return z[:, label], back

    return f
