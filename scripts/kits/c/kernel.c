/* Softmax, layer norm and attention with their gradients, for `refllm verify --lib`. Put yours in their place.
 *
 * `numbers` and `write` are what this file needs of refllm.h: contiguous doubles of a tensor with any strides, and back.
 * A kernel that reads the tensor as it is does without them.
 */
#include <math.h>
#include <stdlib.h>

#include "refllm.h"

static int64_t size(const refllm_tensor *x) {
    int64_t n = 1;
    for (int a = 0; a < x->axes; a++) n *= x->shape[a];
    return n;
}

static int64_t last(const refllm_tensor *x, int from_the_end) { return x->shape[x->axes - from_the_end]; }

static int known(const refllm_tensor *x) { return x->dtype == REFLLM_FLOAT64 || x->dtype == REFLLM_FLOAT32; }

/* Where element i, counted row by row, of a tensor lies. */
static int64_t place(const refllm_tensor *x, int64_t i) {
    int64_t at = 0;
    for (int a = x->axes - 1; a >= 0; i /= x->shape[a], a--) at += i % x->shape[a] * x->strides[a];
    return at;
}

static double *numbers(const refllm_tensor *x) {
    int64_t n = size(x);
    double *y = malloc((n ? n : 1) * sizeof *y);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = place(x, i);
        y[i] = x->dtype == REFLLM_FLOAT64 ? ((double *)x->data)[at] : ((float *)x->data)[at];
    }
    return y;
}

static double *zeros(int64_t n) { return calloc(n ? n : 1, sizeof(double)); }

static void write(refllm_tensor *y, double *values) {
    for (int64_t i = 0, n = size(y); i < n; i++) {
        if (y->dtype == REFLLM_FLOAT64) ((double *)y->data)[i] = values[i];
        else ((float *)y->data)[i] = (float)values[i];
    }
    free(values);
}

/* A row of only -infinity gives zeros. */
static void softmax_row(const double *x, double *y, int64_t n) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = x[i] > most || isnan(x[i]) ? x[i] : most;
    for (int64_t i = 0; i < n; i++) sum += y[i] = most == -INFINITY ? 0 : exp(x[i] - most);
    for (int64_t i = 0; i < n; i++) y[i] = sum == 0 ? 0 : y[i] / sum;
}

static void softmax_row_back(const double *y, const double *dy, double *dx, int64_t n) {
    double along = 0;
    for (int64_t i = 0; i < n; i++) along += y[i] * dy[i];
    for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - along);
}

int refllm_softmax(const refllm_tensor *x, refllm_tensor *y) {
    if (!known(x)) return 1;
    int64_t N = last(x, 1), rows = N ? size(x) / N : 0;
    double *in = numbers(x), *out = zeros(size(x));
    for (int64_t r = 0; r < rows; r++) softmax_row(in + r * N, out + r * N, N);
    write(y, out);
    free(in);
    return 0;
}

int refllm_softmax_back(const refllm_tensor *x, const refllm_tensor *y, const refllm_tensor *dy, refllm_tensor *dx) {
    if (!known(x)) return 1;
    int64_t N = last(x, 1), rows = N ? size(x) / N : 0;
    double *in = numbers(x), *p = zeros(size(x)), *d = numbers(dy), *out = zeros(size(x));
    (void)y; /* in float32 it is rounded: formed again */
    for (int64_t r = 0; r < rows; r++) {
        softmax_row(in + r * N, p + r * N, N);
        softmax_row_back(p + r * N, d + r * N, out + r * N, N);
    }
    write(dx, out);
    free(in), free(p), free(d);
    return 0;
}

/* n = (x - mean) / sqrt(variance + eps) of a row, and 1 / sqrt(variance + eps). */
static double normal_row(const double *x, double *n, int64_t C, double eps) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < C; i++) mean += x[i] / (double)C;
    for (int64_t i = 0; i < C; i++) variance += (x[i] - mean) * (x[i] - mean) / (double)C;
    double r = 1 / sqrt(variance + eps);
    for (int64_t i = 0; i < C; i++) n[i] = (x[i] - mean) * r;
    return r;
}

int refllm_layer_norm(
    const refllm_tensor *x, const refllm_tensor *g, const refllm_tensor *b, double eps, refllm_tensor *y
) {
    if (!known(x)) return 1;
    int64_t C = last(x, 1), rows = C ? size(x) / C : 0;
    double *in = numbers(x), *scale = numbers(g), *shift = numbers(b), *out = zeros(size(x));
    for (int64_t r = 0; r < rows; r++) {
        normal_row(in + r * C, out + r * C, C, eps);
        for (int64_t i = 0; i < C; i++) out[r * C + i] = out[r * C + i] * scale[i] + shift[i];
    }
    write(y, out);
    free(in), free(scale), free(shift);
    return 0;
}

int refllm_layer_norm_back(
    const refllm_tensor *x, const refllm_tensor *g, const refllm_tensor *b, double eps, const refllm_tensor *y,
    const refllm_tensor *dy, refllm_tensor *dx, refllm_tensor *dg, refllm_tensor *db
) {
    if (!known(x)) return 1;
    (void)b, (void)y;
    int64_t C = last(x, 1), rows = C ? size(x) / C : 0;
    double *in = numbers(x), *scale = numbers(g), *d = numbers(dy), *n = zeros(C);
    double *out = zeros(size(x)), *out_g = zeros(C), *out_b = zeros(C);
    for (int64_t r = 0; r < rows; r++) {
        double inverse = normal_row(in + r * C, n, C, eps), mean = 0, along = 0;
        const double *dr = d + r * C;
        for (int64_t i = 0; i < C; i++) {
            mean += dr[i] * scale[i] / (double)C;
            along += dr[i] * scale[i] * n[i] / (double)C;
        }
        for (int64_t i = 0; i < C; i++) {
            out[r * C + i] = inverse * (dr[i] * scale[i] - mean - n[i] * along);
            out_g[i] += dr[i] * n[i];
            out_b[i] += dr[i];
        }
    }
    write(dx, out), write(dg, out_g), write(db, out_b);
    free(in), free(scale), free(d), free(n);
    return 0;
}

/* Attention over all leading axes: q (..., T, D), k (..., S, D), v (..., S, E). With dy it gives dq, dk and dv. */
static int attend(
    const refllm_tensor *q, const refllm_tensor *k, const refllm_tensor *v, int64_t causal,
    const refllm_tensor *allowed, const refllm_tensor *dy, refllm_tensor *y, refllm_tensor *dq, refllm_tensor *dk,
    refllm_tensor *dv
) {
    if (!known(q)) return 1;
    int64_t T = last(q, 2), D = last(q, 1), S = last(k, 2), E = last(v, 1), batch = 1;
    for (int a = 0; a < q->axes - 2; a++) batch *= q->shape[a];
    double *Q = numbers(q), *K = numbers(k), *V = numbers(v), *s = zeros(S), *P = zeros(S);
    double *d = dy ? numbers(dy) : NULL, *dP = zeros(S), *ds = zeros(S);
    double *Y = zeros(batch * T * E), *dQ = zeros(batch * T * D), *dK = zeros(batch * S * D), *dV = zeros(batch * S * E);
    double scale = 1 / sqrt((double)D);
    for (int64_t n = 0; n < batch; n++)
        for (int64_t t = 0; t < T; t++) {
            const double *qt = Q + (n * T + t) * D, *K_n = K + n * S * D, *V_n = V + n * S * E;
            for (int64_t j = 0; j < S; j++) {
                int may = !causal || j <= t + S - T;
                if (may && allowed) { /* its leading axes may be fewer, or of size 1 */
                    int64_t rest = n, at = t * allowed->strides[allowed->axes - 2] + j * allowed->strides[allowed->axes - 1];
                    if (allowed->shape[allowed->axes - 2] == 1) at -= t * allowed->strides[allowed->axes - 2];
                    if (allowed->shape[allowed->axes - 1] == 1) at -= j * allowed->strides[allowed->axes - 1];
                    for (int a = q->axes - 3; a >= 0; rest /= q->shape[a], a--) {
                        int own = a - (q->axes - allowed->axes);
                        if (own >= 0 && allowed->shape[own] > 1) at += rest % q->shape[a] * allowed->strides[own];
                    }
                    may = ((uint8_t *)allowed->data)[at];
                }
                s[j] = may ? 0 : -INFINITY;
                for (int64_t i = 0; may && i < D; i++) s[j] += qt[i] * K_n[j * D + i] * scale;
            }
            softmax_row(s, P, S);
            for (int64_t j = 0; j < S; j++)
                for (int64_t e = 0; e < E; e++) Y[(n * T + t) * E + e] += P[j] * V_n[j * E + e];
            if (!d) continue;
            const double *dt = d + (n * T + t) * E;
            for (int64_t j = 0; j < S; j++) {
                dP[j] = 0;
                for (int64_t e = 0; e < E; e++) {
                    dP[j] += dt[e] * V_n[j * E + e];
                    dV[(n * S + j) * E + e] += P[j] * dt[e];
                }
            }
            softmax_row_back(P, dP, ds, S);
            for (int64_t j = 0; j < S; j++)
                for (int64_t i = 0; i < D; i++) {
                    dQ[(n * T + t) * D + i] += ds[j] * K_n[j * D + i] * scale;
                    dK[(n * S + j) * D + i] += ds[j] * qt[i] * scale;
                }
        }
    if (d) write(dq, dQ), write(dk, dK), write(dv, dV), free(Y), free(d);
    else write(y, Y), free(dQ), free(dK), free(dV);
    free(Q), free(K), free(V), free(s), free(P), free(dP), free(ds);
    return 0;
}

int refllm_attention(
    const refllm_tensor *q, const refllm_tensor *k, const refllm_tensor *v, int64_t causal,
    const refllm_tensor *allowed, refllm_tensor *y
) {
    return attend(q, k, v, causal, allowed, NULL, y, NULL, NULL, NULL);
}

int refllm_attention_back(
    const refllm_tensor *q, const refllm_tensor *k, const refllm_tensor *v, int64_t causal,
    const refllm_tensor *allowed, const refllm_tensor *y, const refllm_tensor *dy, refllm_tensor *dq,
    refllm_tensor *dk, refllm_tensor *dv
) {
    (void)y;
    return attend(q, k, v, causal, allowed, dy, NULL, dq, dk, dv);
}
