/* The golden files from C: operations by hand, forward and backward, judged by the tolerance of golden/README.md.
 *
 *     cc -std=c99 -O2 -o consumer consumer.c -lm               (add -DREAL=float for single precision)
 *     ./consumer check golden/L1/attention.json ...            reads the cases, prints what fails
 *     refllm verify --cmd './consumer answer {request} {response}' --level 1 --dtype float64
 *     ./consumer answer REQUEST RESPONSE [REQUEST RESPONSE ...]          several in one go
 *
 * Exit status: 0 all that ran is right, 1 something is wrong, 2 could not run. To check code of your own, put it in
 * place of an operation below; the rest stays. Arrays are row-major; n counts rows, dX is the gradient of X.
 */
#include <errno.h>
#include <float.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#ifndef REAL
#define REAL double
#endif
typedef REAL real;
#undef I  /* the imaginary unit: here a width */

static const bool single = sizeof(real) == sizeof(float);

enum { AXES = 8, ARRAYS = 4, MOST = 1 << 28 };
static const char *file_name = "";  /* what is being read, for messages */
static char case_id[80];
static size_t limit;  /* elements that an array may have: the bytes of the file that asks for it */

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: %s%s", file_name, case_id, *case_id ? ": " : "");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static void need(bool holds, const char *what) { if (!holds) die("%s", what); }

/* ---- JSON, read in place: a value is a pointer to its first character. Nothing passes the NUL at the end. ---- */

typedef const char *json;
static char *text;

static void malformed(const char *p) { die("malformed JSON, or cut short, at byte %ld", (long)(p - text)); }
static const char *blank(const char *p) { return p + strspn(p, " \t\r\n"); }

/* What follows a value. */
static const char *past(json v) {
    int depth = 0;
    do {
        if (*v == '"') {
            for (v++; *v != '"'; v++) {
                if (*v == '\\') v++;
                if ((unsigned char)*v < ' ') malformed(v);
            }
            v++;
        } else if (*v && strchr("{}[],:", *v)) {
            bool opens = *v == '{' || *v == '[', closes = *v == '}' || *v == ']';
            if (!opens && !depth) malformed(v);
            depth += opens - closes;
            v++;
        } else {
            size_t length = strcspn(v, "\"{}[],: \t\r\n");
            if (!length) malformed(v);
            v += length;
        }
        v = blank(v);
    } while (depth);
    return v;
}

static json first(json list, char bracket) {
    if (!list || *list != bracket) die("a list or an object is missing");
    json v = blank(list + 1);
    return *v == ']' || *v == '}' ? NULL : v;
}

static json following(json v) {
    v = past(v);
    if (*v != ',' && *v != ']' && *v != '}') malformed(v);
    return *v == ',' ? blank(v + 1) : NULL;
}

static bool is(json v, const char *word) {
    size_t length = strlen(word);
    return v && *v == '"' && !strncmp(v + 1, word, length) && v[1 + length] == '"';
}

static json find(json object, const char *name) {
    for (json key = first(object, '{'); key;) {
        json value = past(key);
        if (*value != ':') malformed(value);
        value = blank(value + 1);
        if (is(key, name)) return value;
        key = following(value);
    }
    return NULL;
}

static json member(json object, const char *name) {
    json v = find(object, name);
    if (!v) die("%s is missing", name);
    return v;
}

static double number(json v) {
    if (is(v, "NaN")) return NAN;
    if (is(v, "Infinity")) return INFINITY;
    if (is(v, "-Infinity")) return -INFINITY;
    if (!strncmp(v, "true", 4) || !strncmp(v, "false", 5)) return *v == 't';
    char *end;
    double x = strtod(v, &end);
    if (end == v || blank(end) != past(v) || !isfinite(x)) die("a number is missing, or beyond float64");
    return x;
}

/* ---- Arrays ---- */

typedef struct {
    int rank;
    size_t shape[AXES], count;
    double *exact;  /* as it stands in the file */
    real *at;       /* in the precision of this program */
} array;

static void *taken[128];
static int takings;

static void *take(size_t count, size_t size) {
    if (count > limit) die("asks for an array of more numbers than its file has bytes");
    void *memory = takings < 128 ? calloc(count ? count : 1, size) : NULL;  /* none may have no address */
    if (!memory) die("not enough memory");
    return taken[takings++] = memory;
}

static void release(void) { while (takings) free(taken[--takings]); }

/* An axis may be empty. The others are limited all the same: loops run over them. */
static array fresh(int rank, const size_t *shape) {
    array a = {.rank = rank, .count = 1};
    size_t others = 1;
    for (int i = 0; i < rank; i++) {
        size_t size = shape[i] ? shape[i] : 1;
        if (others > limit / size) die("asks for an array of more numbers than its file has bytes");
        others *= size;
        a.count *= a.shape[i] = shape[i];
    }
    a.at = take(a.count, sizeof *a.at);
    return a;
}

static array like(array a) { return fresh(a.rank, a.shape); }
static size_t last(array a) { return a.rank ? a.shape[a.rank - 1] : 1; }

/* How many rows along the last axis: also where they are empty. */
static size_t rows_of(array a) {
    size_t rows = 1;
    for (int i = 0; i + 1 < a.rank; i++) rows *= a.shape[i];
    return rows;
}

static bool same_shape(array a, array b) {
    return a.rank == b.rank && !memcmp(a.shape, b.shape, (size_t)a.rank * sizeof *a.shape);
}

static array tensor(json v, const char *name, const char *dtype) {
    size_t shape[AXES], count = 0;
    int rank = 0;
    json stored = member(v, "dtype");
    if (!is(stored, dtype) && !(is(stored, "float32") && !strcmp(dtype, "float64"))) die("%s must be %s", name, dtype);
    for (json s = first(member(v, "shape"), '['); s; s = following(s)) {
        double size = number(s);
        if (rank == AXES || !(size >= 0 && size <= MOST && size == floor(size))) die("%s has no possible shape", name);
        shape[rank++] = (size_t)size;
    }
    array a = fresh(rank, shape);
    a.exact = take(a.count, sizeof *a.exact);
    for (json x = first(member(v, "data"), '['); x; x = following(x), count++)
        if (count < a.count) a.at[count] = (real)(a.exact[count] = number(x));
    if (count != a.count) die("%s: the shape needs %zu numbers, there are %zu", name, a.count, count);
    return a;
}

/* ---- The operations. A call holds the inputs; an operation fills in the outputs and, given dy, the gradients. ---- */

typedef struct {
    json keywords;
    array in[ARRAYS], out[ARRAYS], grad[ARRAYS];
    bool backward;
    array dy;
} call;

static double scalar(const call *c, const char *name) { return number(member(c->keywords, name)); }

/* Begins a call with one output: true if the gradients are asked for. */
static bool begin(call *c, array y) {
    c->out[0] = y;
    if (!c->backward) return false;
    need(same_shape(y, c->dy), "the cotangent does not have the shape of the output");
    for (int i = 0; i < ARRAYS && c->in[i].at; i++) c->grad[i] = like(c->in[i]);
    return true;
}

static size_t place(array ids, size_t i, size_t rows) {
    double id = ids.exact[i];
    need(id >= 0 && id < (double)rows && id == floor(id), "an id is outside the table");
    return (size_t)id;
}

/* y = x W (+ b) */
static void linear(call *c) {
    array x = c->in[0], W = c->in[1], b = c->in[2];
    need(x.rank && W.rank == 2 && last(x) == W.shape[0], "x W: the widths differ");
    need(!b.at || (b.rank == 1 && b.count == W.shape[1]), "b does not have the width of the output");
    size_t I = W.shape[0], O = W.shape[1], rows = rows_of(x), shape[AXES];
    memcpy(shape, x.shape, sizeof shape);
    shape[x.rank - 1] = O;
    array y = fresh(x.rank, shape);
    bool backward = begin(c, y);
    for (size_t n = 0; n < rows; n++)
        for (size_t o = 0; o < O; o++) {
            real sum = b.at ? b.at[o] : 0, dy = backward ? c->dy.at[n * O + o] : 0;
            for (size_t i = 0; i < I; i++) sum += x.at[n * I + i] * W.at[i * O + o];
            y.at[n * O + o] = sum;
            for (size_t i = 0; i < I && backward; i++) {
                c->grad[0].at[n * I + i] += dy * W.at[i * O + o];
                c->grad[1].at[i * O + o] += dy * x.at[n * I + i];
            }
            if (backward && b.at) c->grad[2].at[o] += dy;
        }
}

/* y = E[ids] */
static void embedding(call *c) {
    array E = c->in[0], ids = tensor(member(c->keywords, "ids"), "ids", "int64");
    need(E.rank == 2 && ids.rank < AXES, "E must be a table");
    size_t width = E.shape[1], shape[AXES];
    memcpy(shape, ids.shape, sizeof shape);
    shape[ids.rank] = width;
    array y = fresh(ids.rank + 1, shape);
    bool backward = begin(c, y);
    for (size_t n = 0; n < ids.count; n++) {
        size_t row = place(ids, n, E.shape[0]);
        for (size_t i = 0; i < width; i++) {
            y.at[n * width + i] = E.at[row * width + i];
            if (backward) c->grad[0].at[row * width + i] += c->dy.at[n * width + i];
        }
    }
}

/* y = g (x - mean) / sqrt(var + eps) + b */
static void layer_norm(call *c) {
    array x = c->in[0], g = c->in[1], b = c->in[2];
    size_t C = last(x);
    need(x.rank && g.rank == 1 && b.rank == 1 && g.count == C && b.count == C, "g and b must have the width of x");
    array y = like(x);
    real eps = (real)scalar(c, "eps"), *h = take(C, sizeof *h);
    bool backward = begin(c, y);
    for (size_t n = 0; n < x.count; n += C) {
        real mean = 0, variance = 0;
        for (size_t i = 0; i < C; i++) mean += x.at[n + i];
        mean /= (real)C;
        for (size_t i = 0; i < C; i++) variance += (x.at[n + i] - mean) * (x.at[n + i] - mean);
        real scale = 1 / sqrt(variance / (real)C + eps);
        for (size_t i = 0; i < C; i++) {
            h[i] = (x.at[n + i] - mean) * scale;
            y.at[n + i] = g.at[i] * h[i] + b.at[i];
        }
        if (!backward) continue;
        const real *dy = c->dy.at + n;
        real sum = 0, along = 0;  /* of dh = g dy: its mean, and its mean along h */
        for (size_t i = 0; i < C; i++) {
            sum += g.at[i] * dy[i] / (real)C;
            along += g.at[i] * dy[i] * h[i] / (real)C;
            c->grad[1].at[i] += dy[i] * h[i];
            c->grad[2].at[i] += dy[i];
        }
        for (size_t i = 0; i < C; i++) c->grad[0].at[n + i] = scale * (g.at[i] * dy[i] - sum - h[i] * along);
    }
}

/* p = softmax(x); a row of only -inf gives zeros, one with NaN or inf only NaN. Returns log sum exp(x), 0 if the sum is. */
static real softmax_row(const real *x, real *p, size_t width) {
    real top = -INFINITY, sum = 0;
    for (size_t i = 0; i < width; i++)
        if (x[i] > top) top = x[i];
    if (top == (real)-INFINITY) top = 0;
    for (size_t i = 0; i < width; i++) sum += p[i] = exp(x[i] - top);
    if (sum == 0) sum = 1;
    for (size_t i = 0; i < width; i++) p[i] /= sum;
    return top + log(sum);
}

static void softmax(call *c) {
    array x = c->in[0], y = like(x);
    bool backward = begin(c, y);
    for (size_t n = 0, V = last(x); n < x.count; n += V) {
        real along = 0;
        softmax_row(x.at + n, y.at + n, V);
        for (size_t i = n; i < n + V && backward; i++) along += y.at[i] * c->dy.at[i];
        for (size_t i = n; i < n + V && backward; i++) c->grad[0].at[i] = y.at[i] * (c->dy.at[i] - along);
    }
}

/* -log softmax(logits)[target]; the mean is over the targets that are not ignored */
static void cross_entropy(call *c) {
    array logits = c->in[0], targets = tensor(member(c->keywords, "targets"), "targets", "int64");
    json reduction = member(c->keywords, "reduction"), ignore = member(c->keywords, "ignore");
    bool mean = is(reduction, "mean"), each = is(reduction, "none");
    size_t V = last(logits), kept = 0;
    need(mean || each || is(reduction, "sum"), "the reduction must be mean, sum or none");
    array rows = logits;
    rows.rank--;
    need(logits.rank && same_shape(rows, targets), "one target a row of logits is needed");
    for (size_t n = 0; n < targets.count; n++) kept += *ignore == 'n' || targets.exact[n] != number(ignore);
    real weight = mean && kept ? 1 / (real)kept : 1, *p = take(V, sizeof *p);
    array y = each ? like(targets) : fresh(0, NULL);
    bool backward = begin(c, y);
    for (size_t n = 0; n < targets.count; n++) {
        if (*ignore != 'n' && targets.exact[n] == number(ignore)) continue;
        size_t target = place(targets, n, V);
        real loss = softmax_row(logits.at + n * V, p, V) - logits.at[n * V + target];
        y.at[each ? n : 0] += weight * loss;
        for (size_t i = 0; i < V && backward; i++)
            c->grad[0].at[n * V + i] = weight * c->dy.at[each ? n : 0] * (p[i] - (i == target));
    }
}

/* y = f(x), where f also gives its slope */
static void each_element(call *c, real f(real x, real *slope)) {
    array x = c->in[0], y = like(x);
    bool backward = begin(c, y);
    for (size_t i = 0; i < x.count; i++) {
        real slope;
        y.at[i] = f(x.at[i], &slope);
        if (backward) c->grad[0].at[i] = slope * c->dy.at[i];
    }
}

/* x Phi(x), whose slope is Phi(x) + x phi(x) */
static real gelu_erf_of(real x, real *slope) {
    real share = erfc(-x * (real)0.70710678118654752440) / 2;
    *slope = share + x * exp(-x * x / 2) * (real)0.39894228040143267794;
    return x * share;
}

/* x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3) */
static real gelu_tanh_of(real x, real *slope) {
    const real a = (real)0.79788456080286535588, cubic = (real)0.044715;
    real t = tanh(a * (x + cubic * x * x * x)), du = a * (1 + 3 * cubic * x * x);
    *slope = ((1 + t) + x * (1 - t * t) * du) / 2;
    return x * (1 + t) / 2;
}

static void gelu_erf(call *c) { each_element(c, gelu_erf_of); }
static void gelu_tanh(call *c) { each_element(c, gelu_tanh_of); }

/* A boolean array that broadcasts to (..., T, S), at query t and key s of matrix n; the leading axes are those of q. */
static bool permits(array mask, array q, size_t S, size_t n, size_t t, size_t s) {
    size_t offset = 0, stride = 1;
    need(mask.rank <= q.rank, "allowed has too many axes");
    for (int axis = 1; axis <= mask.rank; axis++) {  /* from the last one on */
        size_t size = mask.shape[mask.rank - axis], full = axis == 1 ? S : q.shape[q.rank - axis];
        size_t index = axis == 1 ? s : axis == 2 ? t : n % full;
        need(size == 1 || size == full, "allowed does not broadcast to (..., T, S)");
        if (axis > 2) n /= full;
        if (size > 1) offset += index * stride;
        stride *= size;
    }
    return mask.exact[offset] != 0;
}

/* y = softmax(q k^T / sqrt(D)) v, one query at a time: no T x S matrix is kept */
static void attention(call *c) {
    array q = c->in[0], k = c->in[1], v = c->in[2];
    int r = q.rank;
    need(r >= 2 && k.rank == r && v.rank == r, "q, k and v must be stacks of matrices");
    for (int i = 0; i < r - 2; i++)
        need(q.shape[i] == k.shape[i] && q.shape[i] == v.shape[i], "the leading axes of q, k and v differ");
    size_t T = q.shape[r - 2], S = k.shape[r - 2], D = last(q), E = last(v), shape[AXES];
    need(last(k) == D && v.shape[r - 2] == S, "q k^T v: the widths differ");
    json allowed = member(c->keywords, "allowed");
    array mask = *allowed == 'n' ? (array){0} : tensor(allowed, "allowed", "bool");
    bool causal = scalar(c, "causal") != 0;
    memcpy(shape, q.shape, sizeof shape);
    shape[r - 1] = E;
    array y = fresh(r, shape);
    real *p = take(S, sizeof *p), *dp = take(S, sizeof *dp);
    const real scale = 1 / sqrt((real)D);
    bool backward = begin(c, y);
    for (size_t row = 0; row < rows_of(q); row++) {
        size_t n = row / T, t = row % T;
        const real *qt = q.at + row * D, *kn = k.at + n * S * D, *vn = v.at + n * S * E;
        for (size_t s = 0; s < S; s++) {
            p[s] = 0;
            for (size_t d = 0; d < D; d++) p[s] += qt[d] * kn[s * D + d];
            p[s] *= scale;
            if ((causal && s + T > t + S) || (mask.at && !permits(mask, q, S, n, t, s))) p[s] = -INFINITY;
        }
        softmax_row(p, p, S);
        for (size_t s = 0; s < S; s++)
            for (size_t e = 0; e < E; e++) y.at[row * E + e] += p[s] * vn[s * E + e];
        if (!backward) continue;
        real *dq = c->grad[0].at + row * D, *dk = c->grad[1].at + n * S * D, *dv = c->grad[2].at + n * S * E;
        real along = 0;
        for (size_t s = 0; s < S; s++) {
            dp[s] = 0;
            for (size_t e = 0; e < E; e++) {
                dp[s] += c->dy.at[row * E + e] * vn[s * E + e];
                dv[s * E + e] += c->dy.at[row * E + e] * p[s];
            }
            along += p[s] * dp[s];
        }
        for (size_t s = 0; s < S; s++) {
            real dscore = p[s] * (dp[s] - along) * scale;
            for (size_t d = 0; d < D; d++) {
                dq[d] += dscore * kn[s * D + d];
                dk[s * D + d] += dscore * qt[d];
            }
        }
    }
}

/* p = p (1 - lr decay) - lr mhat / (sqrt(vhat) + eps); Adam instead adds decay p to the gradient */
static void adam_step(call *c, bool decoupled) {
    array p = c->in[0], g = c->in[1], m = c->in[2], v = c->in[3];
    need(same_shape(p, g) && same_shape(p, m) && same_shape(p, v), "p, g, m and v must have one shape");
    double step = scalar(c, "step"), beta1 = scalar(c, "beta1"), beta2 = scalar(c, "beta2");
    real lr = (real)scalar(c, "lr"), decay = (real)scalar(c, "decay"), eps = (real)scalar(c, "eps");
    real b1 = (real)beta1, rest1 = (real)(1 - beta1), b2 = (real)beta2, rest2 = (real)(1 - beta2);
    real correction1 = (real)(1 - pow(beta1, step)), correction2 = (real)(1 - pow(beta2, step));
    for (size_t i = 0; i < p.count; i++) {
        real gradient = decoupled ? g.at[i] : g.at[i] + decay * p.at[i];
        m.at[i] = b1 * m.at[i] + rest1 * gradient;
        v.at[i] = b2 * v.at[i] + rest2 * gradient * gradient;
        if (decoupled) p.at[i] *= 1 - lr * decay;
        p.at[i] -= lr * (m.at[i] / correction1) / (sqrt(v.at[i] / correction2) + eps);
    }
    c->out[0] = p, c->out[1] = m, c->out[2] = v;
}

static void adam(call *c) { adam_step(c, false); }
static void adamw(call *c) { adam_step(c, true); }

typedef struct {
    const char *name, *in[ARRAYS + 1], *out[ARRAYS + 1];
    void (*run)(call *);
} operation;

static const operation operations[] = {
    {"linear", {"x", "W", "b"}, {"y"}, linear},
    {"matmul", {"x", "W"}, {"y"}, linear},
    {"embedding", {"E"}, {"y"}, embedding},
    {"layer_norm", {"x", "g", "b"}, {"y"}, layer_norm},
    {"softmax", {"x"}, {"y"}, softmax},
    {"cross_entropy", {"logits"}, {"y"}, cross_entropy},
    {"gelu_erf", {"x"}, {"y"}, gelu_erf},
    {"gelu_tanh", {"x"}, {"y"}, gelu_tanh},
    {"attention", {"q", "k", "v"}, {"y"}, attention},
    {"adam", {"p", "g", "m", "v"}, {"p", "m", "v"}, adam},
    {"adamw", {"p", "g", "m", "v"}, {"p", "m", "v"}, adamw},
};

static const operation *chosen(json record) {
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (is(member(record, "operation"), operations[i].name)) return operations + i;
    return NULL;
}

/* A case of a golden file and a request have these parts in common. */
static call run(const operation *op, json record) {
    call c = {.keywords = member(record, "keywords")};
    for (int i = 0; op->in[i]; i++) c.in[i] = tensor(member(member(record, "inputs"), op->in[i]), op->in[i], "float64");
    json cotangents = find(record, "cotangents"), dy = cotangents ? find(cotangents, "y") : NULL;
    c.backward = dy != NULL;
    if (dy) c.dy = tensor(dy, "the cotangent", "float64");
    op->run(&c);
    return c;
}

/* ---- check FILES: golden files of level 1 ---- */

static json read_file(const char *path) {
    file_name = path;
    *case_id = 0;
    FILE *file = fopen(path, "rb");
    if (!file) die("%s", strerror(errno));
    long size = fseek(file, 0, SEEK_END) ? -1 : ftell(file);
    if (size < 0 || size > MOST) die("not a file that could be read, or too large");
    rewind(file);
    text = calloc(1, (size_t)size + 1);
    if (!text || fread(text, 1, (size_t)size, file) != (size_t)size) die("could not be read");
    fclose(file);
    limit = (size_t)size;
    if (past(blank(text)) != text + size) die("something follows the JSON");
    return blank(text);
}

/* A condition, which bounds nothing unless it is a finite number. */
static array condition(json v, array t, const char *what) {
    array S = tensor(v, what, "float64");
    need(same_shape(t, S), "value and condition differ in shape");
    for (size_t i = 0; i < S.count; i++)
        need(S.exact[i] >= 0 && isfinite(S.exact[i]), "a condition is not a finite number from 0 on");
    return S;
}

/* |y - t| <= C (u (S + |t| + max|t| along the last axis) + 2^-53 W) + tiny; only NaN meets NaN, only infinity infinity */
static bool judge(array y, json record, const char *group, const char *name, double C) {
    const double u = single ? ldexp(1, -24) : ldexp(1, -53), tiny = single ? (double)FLT_MIN : DBL_MIN;
    char what[64];
    snprintf(what, sizeof what, "%s%s", strcmp(group, "gradients") ? "" : "gradient ", name);
    json truth = member(member(record, group), name), wide = find(record, "wide");
    wide = wide ? find(wide, group) : NULL;
    wide = wide ? find(wide, name) : NULL;
    array t = tensor(member(truth, "value"), what, "float64");
    array S = condition(member(truth, "condition"), t, what), W = wide ? condition(wide, t, what) : (array){0};
    if (!same_shape(y, t)) {
        printf("FAIL %s: %s has another shape\n", case_id, what);
        return false;
    }
    size_t width = last(t);
    for (size_t i = 0; i < t.count; i++) {
        double row = 0, got = (double)y.at[i], value = t.exact[i];
        for (size_t j = i - i % width; j < i - i % width + width; j++)
            if (isfinite(t.exact[j]) && fabs(t.exact[j]) > row) row = fabs(t.exact[j]);
        double error = u * (S.exact[i] + fabs(value) + row) + (wide ? ldexp(W.exact[i], -53) : 0);
        double allowed = isfinite(value) ? C * error + tiny : 0;
        if (got == value || (isnan(got) && isnan(value)) || fabs(got - value) <= allowed) continue;
        printf("FAIL %s: %s[%zu] is %.9g, the truth %.9g: %.3g times the tolerance\n", case_id, what, i, got, value,
               fabs(got - value) / allowed);
        return false;
    }
    return true;
}

static bool passes(const operation *op, json record, double C) {
    call c = run(op, record);
    bool good = true, gradients = find(record, "gradients") != NULL;
    for (int i = 0; op->out[i]; i++) good &= judge(c.out[i], record, "outputs", op->out[i], C);
    for (int i = 0; op->in[i] && gradients; i++) {
        need(c.grad[i].at != NULL, "gradients stand where there are none");
        good &= judge(c.grad[i], record, "gradients", op->in[i], C);
    }
    return good;
}

/* From the manifest, which lies one folder above the golden file. */
static double calibration(const char *path) {
    char manifest[4096];
    int folder = (int)strlen(path);
    while (folder && path[folder - 1] != '/') folder--;
    if (snprintf(manifest, sizeof manifest, "%.*s../MANIFEST.json", folder, path) >= 4096) die("too long a path");
    double C = number(member(member(read_file(manifest), "calibration"), "C"));
    free(text);
    return C;
}

static int check(int count, char **paths) {
    long passed = 0, failed = 0, skipped = 0;
    for (int i = 0; i < count; i++) {
        double C = calibration(paths[i]);
        for (json record = first(member(read_file(paths[i]), "cases"), '['); record; record = following(record)) {
            json id = member(record, "id") + 1;
            snprintf(case_id, sizeof case_id, "%.*s", (int)strcspn(id, "\"\n"), id);
            const operation *op = chosen(record);
            bool good = op && passes(op, record, C);
            skipped += !op, passed += op && good, failed += op && !good;
            release();
        }
        free(text);
    }
    printf("%ld passed, %ld failed, %ld skipped\n", passed, failed, skipped);
    return failed ? 1 : passed ? 0 : 2;
}

/* ---- answer REQUEST RESPONSE ...: for refllm verify ---- */

static void put(FILE *file, const char *name, array a, bool more) {
    fprintf(file, "\"%s\": {\"dtype\": \"%s\", \"shape\": [", name, single ? "float32" : "float64");
    for (int i = 0; i < a.rank; i++) fprintf(file, "%s%zu", i ? ", " : "", a.shape[i]);
    fputs("], \"data\": [", file);
    for (size_t i = 0; i < a.count; i++) {
        double x = (double)a.at[i];
        if (i) fputs(", ", file);
        if (isfinite(x)) fprintf(file, "%.*g", single ? 9 : 17, x);
        else fputs(isnan(x) ? "\"NaN\"" : x > 0 ? "\"Infinity\"" : "\"-Infinity\"", file);
    }
    fputs(more ? "]},\n" : "]}\n", file);
}

static void answer(const char *request, const char *response) {
    char paths[2][4096];
    snprintf(paths[0], sizeof paths[0], "%s/request.json", request);
    snprintf(paths[1], sizeof paths[1], "%s/response.json", response);
    json record = read_file(paths[0]);
    const operation *op = is(member(record, "dtype"), single ? "float32" : "float64") ? chosen(record) : NULL;
    call c = op ? run(op, record) : (call){0};
    FILE *file = fopen(paths[1], "w");
    file_name = paths[1];
    if (!file) die("%s", strerror(errno));
    fputs(op ? "{\"outputs\": {\n" : "{\"skip\": \"it does not have this operation in this dtype\"}\n", file);
    for (int i = 0; op && op->out[i]; i++) put(file, op->out[i], c.out[i], op->out[i + 1] != NULL);
    if (op) fputs("}, \"gradients\": {\n", file);
    for (int i = 0; op && op->in[i] && c.grad[i].at; i++) put(file, op->in[i], c.grad[i], op->in[i + 1] != NULL);
    if (op) fputs("}}\n", file);
    if (fclose(file)) die("%s", strerror(errno));
    release();
    free(text);
}

int main(int count, char **words) {
    if (count >= 3 && !strcmp(words[1], "check")) return check(count - 2, words + 2);
    if (count >= 4 && count % 2 == 0 && !strcmp(words[1], "answer")) {
        for (int i = 2; i < count; i += 2) answer(words[i], words[i + 1]);
        return 0;
    }
    fputs("usage: consumer check golden/L1/FILE.json ... | consumer answer REQUEST RESPONSE ...\n", stderr);
    return 2;
}
