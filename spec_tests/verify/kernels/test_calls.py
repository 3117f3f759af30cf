"""A map that is taken over some tiles of its inner width alone, in one of several shares, is named with that share; and
what is carried over the borders of chunks, with what is lost or counted twice there."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.verify import plain
from spec_tests.verify.kernels.noted import Noted

TEXT = plain.operations()
KERNELS = Noted()
wrong = KERNELS.wrong


def gated(share: Callable[..., Any]) -> Callable[..., Any]:
    """A gated layer whose dx is made of what comes back through the gate and through the other map."""

    def gated_feed_forward(x: Array, p: Any, *, activation: str) -> Any:
        g, h = x @ p["Wg"], x @ p["W1"]
        y, right = TEXT["gated_feed_forward"](x, p, activation=activation)
        f, activation_back = TEXT[activation](g)

        def back(dy: Array) -> Any:
            da = dy @ p["W2"].T
            return share(activation_back(da * h), da * f, p), right(dy)[1]

        return y, back

    return gated_feed_forward


@wrong("gated_feed_forward", "whose gradient takes dx from first_back(dh) of the last part of 64 columns alone")
def last_tile_of_the_other_map(x: Array, p: Any, *, activation: str) -> Any:
    def share(dg: Array, dh: Array, p: Any) -> Any:
        last = (dh.shape[-1] - 1) // 64 * 64
        return dg @ p["Wg"].T + dh[..., last:] @ p["W1"][:, last:].T

    return gated(share)(x, p, activation=activation)


@wrong(
    "gated_feed_forward",
    "whose gradient takes dx_gate from gate_back(activation_back(df)) of the first 64 columns alone",
)
def first_tile_of_the_gate(x: Array, p: Any, *, activation: str) -> Any:
    def share(dg: Array, dh: Array, p: Any) -> Any:
        return dg[..., :64] @ p["Wg"][:, :64].T + dh @ p["W1"].T

    return gated(share)(x, p, activation=activation)


@wrong("feed_forward", 'that takes y from affine(a, p, "2") of the last part of 128 columns alone')
def last_tile_of_the_second_map(x: Array, p: Any, *, activation: str) -> Any:
    _, right = TEXT["feed_forward"](x, p, activation=activation)
    h = x @ p["W1"] + p.get("b1", 0)
    a = TEXT[activation](h)[0]
    last = (a.shape[-1] - 1) // 128 * 128
    return a[..., last:] @ p["W2"][last:] + p.get("b2", 0), right


def in_chunks(size: int, at_border: Callable[[Array, Array], tuple[Array, Array]]) -> Callable[..., Any]:
    """An LSTM whose way back, from the last step on, goes through chunks, each differentiated by itself."""

    def lstm(x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array, *, valid: Array | None) -> Any:
        T, states, cells, parts = x.shape[1], h, c, []
        borders = [0, *[n for n in range(1, T) if (T - n) % size == 0], T]
        for first, last in itertools.pairwise(borders):
            there = None if valid is None else valid[:, first:last]
            (y, cells), back = TEXT["lstm"](x[:, first:last], states, cells, Wx, Wh, b, valid=there)
            states = y[:, -1] if last > first else states
            parts.append((first, last, y, back))

        def lstm_back(dy: Array, dc: Array) -> Any:
            dh, dx, sums = numpy.zeros_like(h), [], [0.0, 0.0, 0.0]
            for first, last, _, back in reversed(parts):
                given = dy[:, first:last].copy()
                if last > first:
                    given[:, -1] += dh
                dx_here, dh, dc, *more = back(given, dc)
                dx.append(dx_here)
                sums = [one + other for one, other in zip(sums, more, strict=True)]
                if first:
                    dh, dc = at_border(dh, dc)
            return numpy.concatenate(dx[::-1], axis=1), dh, dc, *sums

        return (numpy.concatenate([y for _, _, y, _ in parts], axis=1), cells), lstm_back

    return lstm


KERNELS["cells_twice"] = (
    "lstm",
    in_chunks(8, lambda dh, dc: (dh, 2 * dc)),
    "whose gradient doubles dc at the borders of chunks of 8 steps, from the last step on",
)
KERNELS["states_lost"] = (
    "lstm",
    in_chunks(16, lambda dh, dc: (0 * dh, dc)),
    "whose gradient loses dh at the borders of chunks of 16 steps, from the last step on",
)


@wrong(
    "gru_reset_after", "whose gradient carries dh, not times z, over the borders of chunks of 8 steps, from the first"
)
def update_gate_lost(x: Array, h: Array, Wx: Array, Wh: Array, b: Array, c: Array, *, valid: Array | None) -> Any:
    """What a state gives to the state after it passes whole from the first step of a chunk on the way back."""
    (B, T), N = x.shape[:2], h.shape[-1]
    y, _ = TEXT["gru_reset_after"](x, h, Wx, Wh, b, c, valid=valid)
    states = numpy.concatenate([h[:, None], y], axis=1)
    there = numpy.ones((B, T), bool) if valid is None else valid

    def back(dy: Array) -> Any:
        dh, ds, du = numpy.zeros_like(h), numpy.zeros((B, T, 3 * N), x.dtype), numpy.zeros((B, T, 3 * N), x.dtype)
        for t in reversed(range(T)):
            before, on = states[:, t], there[:, t, None]
            s, u = x[:, t] @ Wx + b, before @ Wh
            r, z = numpy.split(1 / (1 + numpy.exp(-(s + u)[:, : 2 * N])), 2, axis=1)
            q = u[:, 2 * N :] + c
            n = numpy.tanh(s[:, 2 * N :] + r * q)
            dh = dh + dy[:, t]
            dn = dh * (1 - z) * (1 - n * n)
            a = numpy.concatenate([dn * q * r * (1 - r), dh * (before - n) * z * (1 - z)], axis=1)
            ds[:, t] = numpy.where(on, numpy.concatenate([a, dn], axis=1), 0)
            du[:, t] = numpy.where(on, numpy.concatenate([a, dn * r], axis=1), 0)
            passed = dh if t > 0 and t % 8 == 0 else dh * z
            dh = numpy.where(on, passed + du[:, t] @ Wh.T, dh)
        rows, more = ds.reshape(-1, 3 * N), du.reshape(-1, 3 * N)
        dWh = states[:, :-1].reshape(-1, N).T @ more
        dx, dWx = (rows @ Wx.T).reshape(x.shape), x.reshape(-1, x.shape[-1]).T @ rows
        return dx, dh, dWx, dWh, rows.sum(axis=0), more.sum(axis=0)[2 * N :]

    return y, back


@wrong("embedding", "in which of the tiles of 32 places that have an index the last alone counts")
def sums_of_tiles_stored(E: Array, *, ids: Array) -> Any:
    def back(dy: Array) -> Array:
        dE, flat, given = numpy.zeros_like(E), ids.reshape(-1), dy.reshape(-1, E.shape[-1])
        for first in range(0, len(flat), 32):
            tile = flat[first : first + 32]
            for row in numpy.unique(tile):
                dE[row] = given[first : first + 32][tile == row].sum(axis=0)
        return dE

    return E[ids], back


@wrong("linear", "added up over the last 2 parts of 16 rows alone, each of which overwrites an older one")
def sums_in_two_slots(x: Array, W: Array, b: Array) -> Any:
    y, right = TEXT["linear"](x, W, b)

    def back(dy: Array) -> Any:
        slots, rows = numpy.zeros((2, len(b)), b.dtype), dy.reshape(-1, len(b))
        for tile in range(0, len(rows), 16):
            slots[tile // 16 % 2] = rows[tile : tile + 16].sum(axis=0)
        return *right(dy)[:2], slots.sum(axis=0)

    return y, back


@wrong("cross_entropy", "whose indices are one too small where they are the first of a block of 32")
def owner_of_a_border(logits: Array, *, targets: Array, ignore: int | None, reduction: str) -> Any:
    moved = numpy.where((targets > 0) & (targets % 32 == 0) & (targets != ignore), targets - 1, targets)
    return TEXT["cross_entropy"](logits, targets=moved, ignore=ignore, reduction=reduction)


@wrong("attention", "come from the first 32 columns of a head, as the gradient recomputes them")
def scores_of_32_columns(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
    D, T, S = q.shape[-1], q.shape[-2], k.shape[-2]
    y, _ = TEXT["attention"](q, k, v, causal=causal, allowed=allowed)
    seen = numpy.tri(T, S, S - T, dtype=bool) if causal else numpy.ones((T, S), bool)
    seen = seen if allowed is None else seen & allowed

    def softmaxed(n: int) -> tuple[Array, Array]:
        s = numpy.where(seen, q[..., :n] @ k[..., :n].swapaxes(-1, -2) / numpy.sqrt(D), -numpy.inf).astype(q.dtype)
        top = s.max(axis=-1, keepdims=True)
        return s, numpy.where(numpy.isinf(top), 0, top)

    def back(dy: Array) -> Any:
        whole, top = softmaxed(D)
        Z = numpy.exp(whole - top).sum(axis=-1, keepdims=True)
        P = numpy.exp(softmaxed(32)[0] - top) / numpy.where(Z == 0, 1, Z)
        ds = P * (dy @ v.swapaxes(-1, -2) - (dy * y).sum(axis=-1, keepdims=True)) / numpy.sqrt(D)
        dq, dk = ds @ k, ds.swapaxes(-1, -2) @ q
        return dq.astype(q.dtype), dk.astype(q.dtype), P.swapaxes(-1, -2) @ dy

    return y, back


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", KERNELS)
def test_a_share_of_some_tiles_and_a_border_of_chunks_are_named(name: str) -> None:
    KERNELS.is_named_first(name)
