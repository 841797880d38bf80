// What is done to each value alone.

// GELU, x Phi(x), with the error function itself.
__device__ inline float gelu_of(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678f)); }

// Its derivative, Phi(x) + x phi(x).
__device__ inline float gelu_slope(float x) {
    return 0.5f * (1.0f + erff(x * 0.70710678f)) + x * 0.3989423f * expf(-0.5f * x * x);
}

extern "C" __global__ void gelu_forward(const float* x, float* y, u64 n) {
    for_each(i, n) y[i] = gelu_of(x[i]);
}

extern "C" __global__ void gelu_backward(const float* x, const float* dy, float* dx, u64 n) {
    for_each(i, n) dx[i] = dy[i] * gelu_slope(x[i]);
}

// Adds a bias to each row of `cols` values, in place.
extern "C" __global__ void add_bias(float* y, const float* bias, u32 cols, u64 n) {
    for_each(i, n) y[i] += bias[i % cols];
}

// Adds a bias to each row of `before`, in place, and writes its GELU to `y`, which may be `before`.
extern "C" __global__ void bias_gelu(float* before, const float* bias, float* y, u32 cols, u64 n) {
    for_each(i, n) {
        float x = before[i] + bias[i % cols];
        before[i] = x;
        y[i] = gelu_of(x);
    }
}

// The mask of dropout on the CPU (`dropout.rs`): a hash of the index and the seed.
struct Mask {
    u32 threshold;
    float scale;
    u32 low, high;
};

// What the value with this index is multiplied by.
__device__ inline float kept(Mask mask, u32 index) {
    u32 h = index ^ mask.low;
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = ((h ^ (h >> 15)) ^ mask.high) * 0x846ca68bu;
    h ^= h >> 16;
    return h < mask.threshold ? 0.0f : mask.scale;
}

extern "C" __global__ void dropout(const float* x, float* y, u32 threshold, float scale, u32 low,
                                   u32 high, u64 n) {
    Mask mask = {threshold, scale, low, high};
    for_each(i, n) {
        float factor = kept(mask, (u32)i);
        y[i] = factor > 0.0f ? x[i] * factor : 0.0f;
    }
}

// Clips of `clip` values, of which the first `lengths[c] * dim` stay.
extern "C" __global__ void zero_padding(const float* x, float* y, const u32* lengths, u32 dim,
                                        u64 clip, u64 n) {
    for_each(i, n) y[i] = i % clip < (u64)lengths[i / clip] * dim ? x[i] : 0.0f;
}

// Rows that are masked become `row`.
extern "C" __global__ void replace_rows(const float* x, const float* row, const u32* masked,
                                        float* y, u32 dim, u64 n) {
    for_each(i, n) y[i] = masked[i / dim] ? row[i % dim] : x[i];
}

// Rows whose mask is `kept` stay, the others become zero.
extern "C" __global__ void keep_rows(const float* x, const u32* masked, u32 kept, float* y, u32 dim,
                                     u64 n) {
    for_each(i, n) y[i] = masked[i / dim] == kept ? x[i] : 0.0f;
}

extern "C" __global__ void scaled_sum(const float* a, const float* b, float scale, float* y, u64 n) {
    for_each(i, n) y[i] = scale * (a[i] + b[i]);
}

extern "C" __global__ void scaled_copy(const float* x, float scale, float* y, u64 n) {
    for_each(i, n) y[i] = scale * x[i];
}

extern "C" __global__ void fill(float* y, float value, u64 n) {
    for_each(i, n) y[i] = value;
}

extern "C" __global__ void to_bf16(const float* x, u16* y, u64 n) {
    for_each(i, n) y[i] = bf16_of(x[i]);
}

// (a, b, c) becomes (a, c, b), added to what is there or not.
extern "C" __global__ void swap_last(const float* x, float* y, u32 b, u32 c, u32 accumulate, u64 n) {
    for_each(i, n) {
        u64 plane = i / ((u64)b * c), rest = i % ((u64)b * c);
        float value = x[plane * b * c + rest % b * c + rest / b];
        y[i] = accumulate ? y[i] + value : value;
    }
}

// One step of AdamW (Loshchilov and Hutter 2019). `scale` is the factor of the gradient; where it
// is no number, nothing changes.
extern "C" __global__ void adamw(float* values, float* mean, float* square, const float* gradient,
                                 const float* scale, float beta1, float beta2, float shrink,
                                 float rate, float root, float eps, u64 n) {
    float factor = *scale;
    if (!isfinite(factor)) return;
    for_each(i, n) {
        float g = gradient[i] * factor;
        float m = beta1 * mean[i] + (1.0f - beta1) * g;
        float s = beta2 * square[i] + (1.0f - beta2) * g * g;
        mean[i] = m;
        square[i] = s;
        values[i] = values[i] * shrink - rate * m / (sqrtf(s) * root + eps);
    }
}

// Of the squares of all gradients: the norm of the scaled gradient and the factor of every value,
// which keeps the norm below `clip`; not finite if the norm is not. By the first thread.
extern "C" __global__ void clip_scale(const float* squares, u32 n, double scale, double clip,
                                      float* norm_and_factor) {
    if (threadIdx.x > 0) return;
    double sum = 0.0;
    for (u32 i = 0; i < n; i++) sum += squares[i];
    double norm = sqrt(sum) * scale;
    norm_and_factor[0] = (float)norm;
    norm_and_factor[1] = (float)(!isfinite(norm) ? norm : norm > clip ? scale * (clip / norm) : scale);
}
