"""Multi-head attention of one sequence to another: of the decoder to what the encoder made of the source."""

from refllm.spec.affine import affine
from refllm.spec.array import Array, Pullback, Tree, concatenate
from refllm.spec.attention import attention
from refllm.spec.heads import cut, joined
from refllm.spec.self_attention import unscaled


def cross_attention(
    x: Array, memory: Array, p: Tree, *, heads: int, scaled: bool, attention_mask: Array | None
) -> tuple[Array, Pullback]:
    """XATT: q = x Wq + bq;   k, v = memory Wkv + bkv;   y = concat(attention of each head) Wo + bo

    Queries come from the decoder, keys and values from the output of the encoder. Biases where p has them, and, not
    `scaled`, without the 1/√D, as in T5.
    Source:  Vaswani et al. 2017 (arXiv:1706.03762) sec. 3.2.3; documents 004 sec. 4.1.
    Shapes:  x (..., T, C); memory (..., S, C); Wq (C, I); Wkv (C, 2*I); Wo (I, C); attention_mask bool (..., 1, S)
             -> y (..., T, C)
    Back:    gives dx, dmemory and dp

    >>> p = {"Wq": ones((1, 1)), "Wkv": array([[1., 10.]]), "Wo": ones((1, 1))}  # q = 0: the mean of 20 and 40
    >>> cross_attention(zeros((1, 1)), array([[2.], [4.]]), p, heads=1, scaled=True, attention_mask=None)[0]
    array([[30.]])
    """
    q, q_back = affine(x, p, "q")
    kv, kv_back = affine(memory, p, "kv")
    k, v = kv[..., : q.shape[-1]], kv[..., q.shape[-1] :]
    q_cut = cut(q, heads) if scaled else unscaled(cut(q, heads))
    a, attention_back = attention(q_cut, cut(k, heads), cut(v, heads), causal=False, attention_mask=attention_mask)
    y, out_back = affine(joined(a), p, "o")

    def cross_attention_back(dy: Array) -> tuple[Array, Array, Tree]:
        djoined, dout = out_back(dy)
        dq, dk, dv = attention_back(cut(djoined, heads))
        dq = dq if scaled else unscaled(dq)
        dx, dq_map = q_back(joined(dq))
        dmemory, dkv_map = kv_back(concatenate([joined(dk), joined(dv)], axis=-1))
        return dx, dmemory, {**dq_map, **dkv_map, **dout}

    return y, cross_attention_back
