// Layer norm over rows, group norm over time and channels.

// Mean and reciprocal deviation of this block's row.
__device__ inline void row_statistics(const float* row, u32 dim, float eps, float* mean,
                                      float* scale) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < dim; i += blockDim.x) sum += row[i];
    *mean = block_sum(sum) / dim;
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < dim; i += blockDim.x) {
        float distance = row[i] - *mean;
        squares += distance * distance;
    }
    *scale = 1.0f / sqrtf(block_sum(squares) / dim + eps);
}

// A block per row.
extern "C" __global__ void layer_norm_forward(const float* x, const float* weight,
                                              const float* bias, float eps, u32 dim, float* y) {
    u64 start = (u64)blockIdx.x * dim;
    float mean, scale;
    row_statistics(x + start, dim, eps, &mean, &scale);
    for (u32 i = threadIdx.x; i < dim; i += blockDim.x) {
        y[start + i] = (x[start + i] - mean) * scale * weight[i] + bias[i];
    }
}

// A block per row: the gradient of `x`, and the row's mean and reciprocal deviation.
extern "C" __global__ void layer_norm_backward(const float* x, const float* dy, const float* weight,
                                               float eps, u32 dim, float* dx, float* statistics) {
    u64 start = (u64)blockIdx.x * dim;
    float mean, scale;
    row_statistics(x + start, dim, eps, &mean, &scale);
    float sum = 0.0f, along = 0.0f;
    for (u32 i = threadIdx.x; i < dim; i += blockDim.x) {
        float slope = dy[start + i] * weight[i];
        sum += slope;
        along += slope * (x[start + i] - mean);
    }
    sum = block_sum(sum) / dim;
    along = block_sum(along) * scale / dim;
    for (u32 i = threadIdx.x; i < dim; i += blockDim.x) {
        float unit = (x[start + i] - mean) * scale;
        dx[start + i] = scale * (dy[start + i] * weight[i] - sum - unit * along);
    }
    if (threadIdx.x == 0) {
        statistics[2 * blockIdx.x] = mean;
        statistics[2 * blockIdx.x + 1] = scale;
    }
}

// Sums over `chunk` rows, as `column_sums`: `out` (chunks, 2, dim), first the gradient of the
// weight, then that of the bias.
extern "C" __global__ void layer_norm_parameters(const float* x, const float* dy,
                                                 const float* statistics, u32 rows, u32 dim,
                                                 u32 chunk, float* out) {
    u32 col = blockIdx.x * TILE_COLS + threadIdx.x % TILE_COLS;
    u32 end = min(rows, (blockIdx.y + 1) * chunk);
    float dw = 0.0f, db = 0.0f;
    if (col < dim) {
        for (u32 row = blockIdx.y * chunk + threadIdx.x / TILE_COLS; row < end; row += TILE_ROWS) {
            float slope = dy[(u64)row * dim + col];
            float unit = (x[(u64)row * dim + col] - statistics[2 * row]) * statistics[2 * row + 1];
            dw += slope * unit;
            db += slope;
        }
    }
    dw = over_tile_rows(dw);
    db = over_tile_rows(db);
    if (threadIdx.x < TILE_COLS && col < dim) {
        out[(u64)blockIdx.y * 2 * dim + col] = dw;
        out[((u64)blockIdx.y * 2 + 1) * dim + col] = db;
    }
}

// Sums over `chunk` valid frames of clip `blockIdx.z`: `out` (clips, chunks, channels). Without
// `mean` (clips, channels) the values, with it the squares of their distances.
extern "C" __global__ void channel_sums(const float* x, const float* mean, const u32* lengths,
                                        u32 frames, u32 channels, u32 chunk, float* out) {
    u32 clip = blockIdx.z, col = blockIdx.x * TILE_COLS + threadIdx.x % TILE_COLS;
    u32 end = min(lengths[clip], (blockIdx.y + 1) * chunk);
    float sum = 0.0f;
    if (col < channels) {
        float middle = mean ? mean[(u64)clip * channels + col] : 0.0f;
        for (u32 t = blockIdx.y * chunk + threadIdx.x / TILE_COLS; t < end; t += TILE_ROWS) {
            float value = x[((u64)clip * frames + t) * channels + col] - middle;
            sum += mean ? value * value : value;
        }
    }
    sum = over_tile_rows(sum);
    if (threadIdx.x < TILE_COLS && col < channels) {
        out[((u64)clip * gridDim.y + blockIdx.y) * channels + col] = sum;
    }
}

// Averages plane `plane` of sums (clips, chunks, planes, channels) over the frames and channels of
// each group, weighted by channel where there are weights. Every channel gets its group's value:
// the average, or with `eps >= 0` the reciprocal root of that of squares. Blocks: groups by clips.
extern "C" __global__ void group_averages(const float* sums, const float* weight, const u32* lengths,
                                          u32 chunks, u32 planes, u32 plane, u32 channels, float eps,
                                          float* out) {
    u32 clip = blockIdx.y, width = channels / gridDim.x, first = blockIdx.x * width;
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < width * chunks; i += blockDim.x) {
        u32 chunk = i / width, channel = first + i % width;
        u64 row = ((u64)clip * chunks + chunk) * planes + plane;
        float value = sums[row * channels + channel];
        sum += weight ? weight[channel] * value : value;
    }
    sum = block_sum(sum) / ((float)width * max(lengths[clip], 1u));
    float value = eps >= 0.0f ? 1.0f / sqrtf(sum + eps) : sum;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        out[(u64)clip * channels + first + i] = value;
    }
}

// `mean` and `scale`: (clips, channels). Frames past a clip's length are zero.
extern "C" __global__ void group_norm_forward(const float* x, const float* mean, const float* scale,
                                              const float* weight, const float* bias,
                                              const u32* lengths, u32 frames, u32 channels, float* y,
                                              u64 n) {
    for_each(i, n) {
        u32 channel = i % channels;
        u64 frame = i / channels, clip = frame / frames, at = clip * channels + channel;
        bool valid = frame % frames < lengths[clip];
        y[i] = valid ? (x[i] - mean[at]) * scale[at] * weight[channel] + bias[channel] : 0.0f;
    }
}

// Sums over `chunk` valid frames: `out` (clips, chunks, 2, channels), the gradient times the
// normalised value, then the gradient.
extern "C" __global__ void group_norm_sums(const float* x, const float* dy, const float* mean,
                                           const float* scale, const u32* lengths, u32 frames,
                                           u32 channels, u32 chunk, float* out) {
    u32 clip = blockIdx.z, col = blockIdx.x * TILE_COLS + threadIdx.x % TILE_COLS;
    u32 end = min(lengths[clip], (blockIdx.y + 1) * chunk);
    float along = 0.0f, sum = 0.0f;
    if (col < channels) {
        u64 at = (u64)clip * channels + col;
        for (u32 t = blockIdx.y * chunk + threadIdx.x / TILE_COLS; t < end; t += TILE_ROWS) {
            u64 i = ((u64)clip * frames + t) * channels + col;
            along += dy[i] * (x[i] - mean[at]) * scale[at];
            sum += dy[i];
        }
    }
    along = over_tile_rows(along);
    sum = over_tile_rows(sum);
    if (threadIdx.x < TILE_COLS && col < channels) {
        u64 row = ((u64)clip * gridDim.y + blockIdx.y) * 2;
        out[row * channels + col] = along;
        out[(row + 1) * channels + col] = sum;
    }
}

// `along` and `sum`: averages over groups of what `group_norm_sums` found, weighted.
extern "C" __global__ void group_norm_backward(const float* x, const float* dy, const float* mean,
                                               const float* scale, const float* weight,
                                               const float* along, const float* sum,
                                               const u32* lengths, u32 frames, u32 channels,
                                               float* dx, u64 n) {
    for_each(i, n) {
        u32 channel = i % channels;
        u64 frame = i / channels, clip = frame / frames, at = clip * channels + channel;
        float unit = (x[i] - mean[at]) * scale[at];
        float slope = scale[at] * (dy[i] * weight[channel] - sum[at] - unit * along[at]);
        dx[i] = frame % frames < lengths[clip] ? slope : 0.0f;
    }
}
