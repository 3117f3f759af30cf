// Softmax, layer norm and attention with their gradients, for `refllm verify --lib`. Put yours in their place.
//
// `numbers` and `write` are what this file needs of refllm.h: contiguous doubles of a tensor with any strides, and
// back. A kernel that reads the tensor as it is does without them.
#include <cmath>
#include <limits>
#include <vector>

#include "refllm.h"

using Row = std::vector<double>;
using In = const refllm_tensor *;
using Out = refllm_tensor *;

static const double infinity = std::numeric_limits<double>::infinity();

static int64_t size(In x) {
    int64_t n = 1;
    for (int a = 0; a < x->axes; a++) n *= x->shape[a];
    return n;
}

static int64_t last(In x, int from_the_end) { return x->shape[x->axes - from_the_end]; }

static bool known(In x) { return x->dtype == REFLLM_FLOAT64 || x->dtype == REFLLM_FLOAT32; }

static Row numbers(In x) {
    Row y(size(x));
    for (int64_t i = 0; i < (int64_t)y.size(); i++) {
        int64_t at = 0, rest = i;
        for (int a = x->axes - 1; a >= 0; rest /= x->shape[a], a--) at += rest % x->shape[a] * x->strides[a];
        y[i] = x->dtype == REFLLM_FLOAT64 ? static_cast<double *>(x->data)[at] : static_cast<float *>(x->data)[at];
    }
    return y;
}

static void write(Out y, const Row &values) {
    for (size_t i = 0; i < values.size(); i++)
        if (y->dtype == REFLLM_FLOAT64) static_cast<double *>(y->data)[i] = values[i];
        else static_cast<float *>(y->data)[i] = static_cast<float>(values[i]);
}

// A row of only -infinity gives zeros.
static void softmax_row(const double *x, double *y, int64_t n) {
    double most = -infinity, sum = 0;
    for (int64_t i = 0; i < n; i++) most = x[i] > most || std::isnan(x[i]) ? x[i] : most;
    for (int64_t i = 0; i < n; i++) sum += y[i] = most == -infinity ? 0 : std::exp(x[i] - most);
    for (int64_t i = 0; i < n; i++) y[i] = sum == 0 ? 0 : y[i] / sum;
}

static void softmax_row_back(const double *y, const double *dy, double *dx, int64_t n) {
    double along = 0;
    for (int64_t i = 0; i < n; i++) along += y[i] * dy[i];
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - along);
}

// n = (x - mean) / sqrt(variance + eps) of a row, and 1 / sqrt(variance + eps).
static double normal_row(const double *x, double *n, int64_t C, double eps) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < C; i++) mean += x[i] / static_cast<double>(C);
    for (int64_t i = 0; i < C; i++) variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(C);
    double r = 1 / std::sqrt(variance + eps);
    for (int64_t i = 0; i < C; i++) n[i] = (x[i] - mean) * r;
    return r;
}

// Whether query t of batch n may attend key j: the leading axes of the mask may be fewer, or of size 1.
static bool may_attend(In q, In allowed, int64_t n, int64_t t, int64_t j) {
    int last_axis = allowed->axes - 1;
    int64_t at = (allowed->shape[last_axis] > 1 ? j : 0) * allowed->strides[last_axis];
    at += (allowed->shape[last_axis - 1] > 1 ? t : 0) * allowed->strides[last_axis - 1];
    for (int a = q->axes - 3; a >= 0; n /= q->shape[a], a--) {
        int own = a - (q->axes - allowed->axes);
        if (own >= 0 && allowed->shape[own] > 1) at += n % q->shape[a] * allowed->strides[own];
    }
    return static_cast<uint8_t *>(allowed->data)[at];
}

// Attention over all leading axes: q (..., T, D), k (..., S, D), v (..., S, E). With dy it gives dq, dk and dv.
static int attend(In q, In k, In v, bool causal, In allowed, In dy, Out y, Out dq, Out dk, Out dv) {
    if (!known(q)) return 1;
    int64_t T = last(q, 2), D = last(q, 1), S = last(k, 2), E = last(v, 1), batch = 1;
    for (int a = 0; a < q->axes - 2; a++) batch *= q->shape[a];
    Row Q = numbers(q), K = numbers(k), V = numbers(v), d = dy ? numbers(dy) : Row(), Y(batch * T * E);
    Row dQ(Q.size()), dK(K.size()), dV(V.size()), s(S), P(S), dP(S), ds(S);
    double scale = 1 / std::sqrt(static_cast<double>(D));
    for (int64_t n = 0; n < batch; n++)
        for (int64_t t = 0; t < T; t++) {
            const double *qt = &Q[0] + (n * T + t) * D, *Kn = K.data() + n * S * D, *Vn = V.data() + n * S * E;
            for (int64_t j = 0; j < S; j++) {
                bool may = (!causal || j <= t + S - T) && (!allowed || may_attend(q, allowed, n, t, j));
                s[j] = may ? 0 : -infinity;
                for (int64_t i = 0; may && i < D; i++) s[j] += qt[i] * Kn[j * D + i] * scale;
            }
            softmax_row(s.data(), P.data(), S);
            for (int64_t j = 0; j < S; j++)
                for (int64_t e = 0; e < E; e++) Y[(n * T + t) * E + e] += P[j] * Vn[j * E + e];
            if (!dy) continue;
            const double *dt = d.data() + (n * T + t) * E;
            for (int64_t j = 0; j < S; j++) {
                dP[j] = 0;
                for (int64_t e = 0; e < E; e++) {
                    dP[j] += dt[e] * Vn[j * E + e];
                    dV[(n * S + j) * E + e] += P[j] * dt[e];
                }
            }
            softmax_row_back(P.data(), dP.data(), ds.data(), S);
            for (int64_t j = 0; j < S; j++)
                for (int64_t i = 0; i < D; i++) {
                    dQ[(n * T + t) * D + i] += ds[j] * Kn[j * D + i] * scale;
                    dK[(n * S + j) * D + i] += ds[j] * qt[i] * scale;
                }
        }
    if (dy) write(dq, dQ), write(dk, dK), write(dv, dV);
    else write(y, Y);
    return 0;
}

extern "C" int refllm_softmax(In x, Out y) {
    if (!known(x)) return 1;
    int64_t N = last(x, 1);
    Row in = numbers(x), out(in.size());
    for (size_t r = 0; r < in.size(); r += N) softmax_row(&in[r], &out[r], N);
    write(y, out);
    return 0;
}

extern "C" int refllm_softmax_back(In x, In, In dy, Out dx) {
    if (!known(x)) return 1;
    int64_t N = last(x, 1);
    Row in = numbers(x), d = numbers(dy), p(in.size()), out(in.size());
    for (size_t r = 0; r < in.size(); r += N) {
        softmax_row(&in[r], &p[r], N);
        softmax_row_back(&p[r], &d[r], &out[r], N);
    }
    write(dx, out);
    return 0;
}

extern "C" int refllm_layer_norm(In x, In g, In b, double eps, Out y) {
    if (!known(x)) return 1;
    int64_t C = last(x, 1);
    Row in = numbers(x), scale = numbers(g), shift = numbers(b), out(in.size());
    for (size_t r = 0; r < in.size(); r += C) {
        normal_row(&in[r], &out[r], C, eps);
        for (int64_t i = 0; i < C; i++) out[r + i] = out[r + i] * scale[i] + shift[i];
    }
    write(y, out);
    return 0;
}

extern "C" int refllm_layer_norm_back(In x, In g, In, double eps, In, In dy, Out dx, Out dg, Out db) {
    if (!known(x)) return 1;
    int64_t C = last(x, 1);
    Row in = numbers(x), scale = numbers(g), d = numbers(dy), n(C), out(in.size()), out_g(C), out_b(C);
    for (size_t r = 0; r < in.size(); r += C) {
        double inverse = normal_row(&in[r], n.data(), C, eps), mean = 0, along = 0;
        for (int64_t i = 0; i < C; i++) {
            mean += d[r + i] * scale[i] / static_cast<double>(C);
            along += d[r + i] * scale[i] * n[i] / static_cast<double>(C);
        }
        for (int64_t i = 0; i < C; i++) {
            out[r + i] = inverse * (d[r + i] * scale[i] - mean - n[i] * along);
            out_g[i] += d[r + i] * n[i];
            out_b[i] += d[r + i];
        }
    }
    write(dx, out), write(dg, out_g), write(db, out_b);
    return 0;
}

extern "C" int refllm_attention(In q, In k, In v, int64_t causal, In allowed, Out y) {
    return attend(q, k, v, causal, allowed, nullptr, y, nullptr, nullptr, nullptr);
}

extern "C" int refllm_attention_back(
    In q, In k, In v, int64_t causal, In allowed, In, In dy, Out dq, Out dk, Out dv
) {
    return attend(q, k, v, causal, allowed, dy, nullptr, dq, dk, dv);
}
