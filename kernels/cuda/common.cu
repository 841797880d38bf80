// What every kernel here uses. The sources are joined in one translation unit: this file first.
//
// Matrices are row-major. Statistics and sums are f32 or wider. Nothing is summed with atomics, so
// that a step repeats exactly. Blocks are one-dimensional, whole warps of at most 1024 threads.

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

#define WARP 32
#define ALL_LANES 0xffffffffu
#define INFINITE __uint_as_float(0x7f800000u)
#define NEVER (-(double)INFINITE)

__device__ inline float warp_sum(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, offset);
    }
    return value;
}

__device__ inline float warp_max(float value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, offset));
    }
    return value;
}

// The sum over the block, the same for every thread.
__device__ inline float block_sum(float value) {
    __shared__ float parts[WARP];
    value = warp_sum(value);
    __syncthreads();  // whoever read the parts of the sum before is done
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    float total = 0.0f;
    for (u32 i = 0; i < blockDim.x / WARP; i++) total += parts[i];
    return total;
}

__device__ inline float block_max(float value) {
    __shared__ float parts[WARP];
    value = warp_max(value);
    __syncthreads();
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    float largest = parts[0];
    for (u32 i = 1; i < blockDim.x / WARP; i++) largest = fmaxf(largest, parts[i]);
    return largest;
}

// The values that this thread of the whole grid takes: `for_each(i, n)`.
#define for_each(i, n)                                                        \
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (u64)(n); \
         i += (u64)gridDim.x * blockDim.x)

// The nearest bf16, ties to even; what is no number stays none.
__device__ inline u16 bf16_of(float value) {
    u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (u16)((bits >> 16) | 0x40u);
    return (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
