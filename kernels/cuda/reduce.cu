// Sums over rows and columns, in an order that the shape alone decides.

#define TILE_COLS 32
#define TILE_ROWS 8

// Sums this block's 32 columns over its rows, a value per thread in, one per column out: what the
// threads of the first row of the tile return counts.
__device__ inline float over_tile_rows(float value) {
    __shared__ float tile[TILE_ROWS][TILE_COLS];
    u32 col = threadIdx.x % TILE_COLS, row = threadIdx.x / TILE_COLS;
    __syncthreads();
    tile[row][col] = value;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < TILE_ROWS; i++) total += tile[i][col];
    return total;
}

// Blocks of 256 threads: columns by `blockIdx.x`, `chunk` rows by `blockIdx.y`.
// `out`: (chunks, cols).
extern "C" __global__ void column_sums(const float* x, u32 rows, u32 cols, u32 chunk, float* out) {
    u32 col = blockIdx.x * TILE_COLS + threadIdx.x % TILE_COLS;
    u32 end = min(rows, (blockIdx.y + 1) * chunk);
    float sum = 0.0f;
    if (col < cols) {
        for (u32 row = blockIdx.y * chunk + threadIdx.x / TILE_COLS; row < end; row += TILE_ROWS) {
            sum += x[(u64)row * cols + col];
        }
    }
    sum = over_tile_rows(sum);
    if (threadIdx.x < TILE_COLS && col < cols) out[(u64)blockIdx.y * cols + col] = sum;
}

// The sum of the squares of each block's values.
extern "C" __global__ void squares(const float* x, float* out, u64 n) {
    float sum = 0.0f;
    for_each(i, n) sum += x[i] * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// The sum of `n` values, by one block.
extern "C" __global__ void total(const float* x, float* out, u32 n) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = sum;
}

// A block per row: the column of its smallest value, the first if there are several. What is no
// number is never smallest; a row of such has column 0.
extern "C" __global__ void smallest_of_rows(const float* x, const float* bias, u32 cols,
                                            u32* found) {
    __shared__ float values[WARP];
    __shared__ u32 columns[WARP];
    const float* row = x + (u64)blockIdx.x * cols;
    float best = INFINITE;
    u32 at = ALL_LANES;
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) {
        float value = row[i] + bias[i];
        if (value < best) {
            best = value;
            at = i;
        }
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        float value = __shfl_xor_sync(ALL_LANES, best, offset);
        u32 column = __shfl_xor_sync(ALL_LANES, at, offset);
        if (value < best || (value == best && column < at)) {
            best = value;
            at = column;
        }
    }
    if (threadIdx.x % WARP == 0) {
        values[threadIdx.x / WARP] = best;
        columns[threadIdx.x / WARP] = at;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (u32 i = 1; i < blockDim.x / WARP; i++) {
            if (values[i] < best || (values[i] == best && columns[i] < at)) {
                best = values[i];
                at = columns[i];
            }
        }
        found[blockIdx.x] = at == ALL_LANES ? 0 : at;
    }
}

// A block per row: the natural logarithm of the sum of exponentials.
__device__ inline double log_sum_exp(const float* row, u32 cols) {
    float largest = -INFINITE;
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) largest = fmaxf(largest, row[i]);
    largest = block_max(largest);
    if (!isfinite(largest)) return largest;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < cols; i += blockDim.x) sum += expf(row[i] - largest);
    return (double)largest + log((double)block_sum(sum));
}

// Negative log-probability of each row's target.
extern "C" __global__ void cross_entropy_forward(const float* logits, const u32* targets,
                                                 u32 classes, float* losses) {
    const float* row = logits + (u64)blockIdx.x * classes;
    double sum = log_sum_exp(row, classes);
    if (threadIdx.x == 0) losses[blockIdx.x] = (float)(sum - row[targets[blockIdx.x]]);
}

// Its gradient, (softmax - onehot) dy.
extern "C" __global__ void cross_entropy_backward(const float* logits, const u32* targets,
                                                  const float* dy, u32 classes, float* gradient) {
    u64 start = (u64)blockIdx.x * classes;
    float sum = (float)log_sum_exp(logits + start, classes);
    float upstream = dy[blockIdx.x];
    u32 target = targets[blockIdx.x];
    for (u32 i = threadIdx.x; i < classes; i += blockDim.x) {
        float slope = upstream * expf(logits[start + i] - sum);
        gradient[start + i] = i == target ? slope - upstream : slope;
    }
}
