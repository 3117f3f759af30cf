// Softmax and layer norm with their gradients in CUDA, for `refllm verify --lib`. Put your kernels in their place.
//
// Each function is a host wrapper: it copies its arrays to the device, launches, and copies what came back. It takes
// float32 and contiguous arrays; what it does not take it says by returning 1.
#include <cfloat>
#include <cmath>
#include <vector>

#include "refllm.h"

using In = const refllm_tensor *;
using Out = refllm_tensor *;

static const int THREADS = 128;
static const char *problem = nullptr;
extern "C" const char *refllm_message(void) { return problem; }

static int64_t size(In x) {
    int64_t n = 1;
    for (int a = 0; a < x->axes; a++) n *= x->shape[a];
    return n;
}

static bool usable(In x) {
    int64_t step = 1;
    for (int a = x->axes - 1; a >= 0; step *= x->shape[a], a--)
        if (x->shape[a] > 1 && x->strides[a] != step) return false;
    return x->dtype == REFLLM_FLOAT32;
}

// An array on the device, gone with its scope.
struct Device {
    float *data = nullptr;
    int64_t n;
    explicit Device(In x) : n(size(x)) {
        cudaMalloc(&data, (n ? n : 1) * sizeof(float));
        cudaMemcpy(data, x->data, n * sizeof(float), cudaMemcpyHostToDevice);
    }
    explicit Device(int64_t count) : n(count) {
        cudaMalloc(&data, (n ? n : 1) * sizeof(float));
        cudaMemset(data, 0, n * sizeof(float));
    }
    Device(const Device &) = delete;
    ~Device() { cudaFree(data); }
    void to(Out y) const { cudaMemcpy(y->data, data, n * sizeof(float), cudaMemcpyDeviceToHost); }
};

// 0 if everything went well on the device, or 2 with its message.
static int finished() {
    cudaError_t status = cudaDeviceSynchronize();
    if (status == cudaSuccess) status = cudaGetLastError();
    problem = status == cudaSuccess ? nullptr : cudaGetErrorString(status);
    return status == cudaSuccess ? 0 : 2;
}

// The sum, or the largest, over the threads of a block; every thread gets it.
template <bool LARGEST> __device__ float over_block(float x) {
    __shared__ float held[THREADS];
    held[threadIdx.x] = x;
    __syncthreads();
    for (int step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) {
            float other = held[threadIdx.x + step];
            held[threadIdx.x] = LARGEST ? (other > held[threadIdx.x] || isnan(other) ? other : held[threadIdx.x])
                                        : held[threadIdx.x] + other;
        }
        __syncthreads();
    }
    float found = held[0];
    __syncthreads();
    return found;
}

// A block a row. A row of only -infinity gives zeros.
__global__ void softmax_rows(const float *x, float *y, int64_t N) {
    const float *row = x + blockIdx.x * N;
    float most = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x; i < N; i += THREADS) most = row[i] > most || isnan(row[i]) ? row[i] : most;
    most = over_block<true>(most);
    for (int64_t i = threadIdx.x; i < N; i += THREADS) sum += most == -INFINITY ? 0 : expf(row[i] - most);
    sum = over_block<false>(sum);
    for (int64_t i = threadIdx.x; i < N; i += THREADS)
        y[blockIdx.x * N + i] = sum == 0 ? 0 : expf(row[i] - most) / sum;
}

__global__ void softmax_rows_back(const float *y, const float *dy, float *dx, int64_t N) {
    int64_t at = blockIdx.x * N;
    float along = 0;
    for (int64_t i = threadIdx.x; i < N; i += THREADS) along += y[at + i] * dy[at + i];
    along = over_block<false>(along);
    for (int64_t i = threadIdx.x; i < N; i += THREADS) dx[at + i] = y[at + i] * (dy[at + i] - along);
}

__global__ void normal_rows(const float *x, float *n, float *inverse, int64_t C, float eps) {
    int64_t at = blockIdx.x * C;
    float sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < C; i += THREADS) sum += x[at + i] - x[at];
    float mean = x[at] + over_block<false>(sum) / C;  // from the first number on: a constant row is exactly 0
    for (int64_t i = threadIdx.x; i < C; i += THREADS) squares += (x[at + i] - mean) * (x[at + i] - mean);
    float r = 1 / sqrtf(over_block<false>(squares) / C + eps);
    for (int64_t i = threadIdx.x; i < C; i += THREADS) n[at + i] = (x[at + i] - mean) * r;
    if (threadIdx.x == 0) inverse[blockIdx.x] = r;
}

__global__ void scaled_rows(const float *n, const float *g, const float *b, float *y, int64_t C) {
    for (int64_t i = threadIdx.x; i < C; i += THREADS) y[blockIdx.x * C + i] = n[blockIdx.x * C + i] * g[i] + b[i];
}

__global__ void layer_norm_rows_back(
    const float *n, const float *inverse, const float *g, const float *dy, float *dx, int64_t C
) {
    int64_t at = blockIdx.x * C;
    float sum = 0, along = 0;
    for (int64_t i = threadIdx.x; i < C; i += THREADS) {
        sum += dy[at + i] * g[i];
        along += dy[at + i] * g[i] * n[at + i];
    }
    sum = over_block<false>(sum) / C, along = over_block<false>(along) / C;
    for (int64_t i = threadIdx.x; i < C; i += THREADS)
        dx[at + i] = inverse[blockIdx.x] * (dy[at + i] * g[i] - sum - n[at + i] * along);
}

// A thread a column, which adds up its rows in their order.
__global__ void layer_norm_columns(
    const float *n, const float *dy, float *dg, float *db, int64_t rows, int64_t C
) {
    int64_t i = blockIdx.x * static_cast<int64_t>(THREADS) + threadIdx.x;
    if (i >= C) return;
    for (int64_t r = 0; r < rows; r++) {
        dg[i] += dy[r * C + i] * n[r * C + i];
        db[i] += dy[r * C + i];
    }
}

extern "C" int refllm_softmax(In x, Out y) {
    if (!usable(x)) return 1;
    int64_t N = x->shape[x->axes - 1], rows = N ? size(x) / N : 0;
    Device in(x), out(size(x));
    if (rows) softmax_rows<<<rows, THREADS>>>(in.data, out.data, N);
    int status = finished();
    out.to(y);
    return status;
}

extern "C" int refllm_softmax_back(In x, In y, In dy, Out dx) {
    if (!usable(x) || !usable(y) || !usable(dy)) return 1;
    int64_t N = x->shape[x->axes - 1], rows = N ? size(x) / N : 0;
    Device probabilities(y), d(dy), out(size(x));
    if (rows) softmax_rows_back<<<rows, THREADS>>>(probabilities.data, d.data, out.data, N);
    int status = finished();
    out.to(dx);
    return status;
}

extern "C" int refllm_layer_norm(In x, In g, In b, double eps, Out y) {
    if (!usable(x) || !usable(g) || !usable(b)) return 1;
    int64_t C = x->shape[x->axes - 1], rows = C ? size(x) / C : 0;
    Device in(x), scale(g), shift(b), n(size(x)), inverse(rows), out(size(x));
    if (rows) {
        normal_rows<<<rows, THREADS>>>(in.data, n.data, inverse.data, C, static_cast<float>(eps));
        scaled_rows<<<rows, THREADS>>>(n.data, scale.data, shift.data, out.data, C);
    }
    int status = finished();
    out.to(y);
    return status;
}

extern "C" int refllm_layer_norm_back(In x, In g, In, double eps, In, In dy, Out dx, Out dg, Out db) {
    if (!usable(x) || !usable(g) || !usable(dy)) return 1;
    int64_t C = x->shape[x->axes - 1], rows = C ? size(x) / C : 0;
    Device in(x), scale(g), d(dy), n(size(x)), inverse(rows), out(size(x)), out_g(C), out_b(C);
    if (rows) {
        normal_rows<<<rows, THREADS>>>(in.data, n.data, inverse.data, C, static_cast<float>(eps));
        layer_norm_rows_back<<<rows, THREADS>>>(n.data, inverse.data, scale.data, d.data, out.data, C);
        int blocks = static_cast<int>((C + THREADS - 1) / THREADS);
        layer_norm_columns<<<blocks, THREADS>>>(n.data, d.data, out_g.data, out_b.data, rows, C);
    }
    int status = finished();
    out.to(dx), out_g.to(dg), out_b.to(db);
    return status;
}
