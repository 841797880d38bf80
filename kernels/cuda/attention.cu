// Softmax attention in tiles: scores exist for 32 queries and 32 keys at a time.
//
// With keys past a clip's length left out, the score of query i and key j is
// q_i . k_j / sqrt(width) + gate_i strip[frames - 1 + j - i], the second term where there is a
// strip. Tensors are (clips, frames, dim), a head's values side by side; `gate`, `log_sums` and
// `delta` are (clips, heads, frames), `strip` is (heads, 2 frames - 1). Sums are f32. Weights are
// dropped by their place in (clips, heads, frames, frames), after they are normalised.
//
// Blocks of 128 threads: four threads side by side share a row of the tile, each taking every
// fourth column.

#define TILE 32
#define PARTS 4
#define MAX_WIDTH 96
#define PITCH (MAX_WIDTH + 1)
#define COLS (TILE / PARTS)
#define DIMS (MAX_WIDTH / PARTS)

// Sum and maximum over the threads of a row.
__device__ inline float row_sum(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}

__device__ inline float row_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

// Frames `first..first + rows` of one head; those outside `0..end` are zero.
__device__ inline void load_frames(const float* head, int first, int rows, int end, u32 dim,
                                   u32 width, float (*tile)[PITCH]) {
    for (u32 i = threadIdx.x; i < rows * width; i += blockDim.x) {
        u32 row = i / width, col = i % width;
        int frame = first + (int)row;
        tile[row][col] = frame >= 0 && frame < end ? head[(u64)frame * dim + col] : 0.0f;
    }
}

__device__ inline float dot(const float* a, const float* b, u32 width) {
    float sum = 0.0f;
    for (u32 d = 0; d < width; d++) sum += a[d] * b[d];
    return sum;
}

// `sums[col] += sum over j of row[j] tile[j][col]` for this thread's columns.
__device__ inline void add_products(const float* row, float (*tile)[PITCH], u32 part, u32 width,
                                    float* sums) {
    for (u32 j = 0; j < TILE; j++) {
        float weight = row[j];
#pragma unroll
        for (u32 i = 0; i < DIMS; i++) {
            u32 col = part + PARTS * i;
            if (col < width) sums[i] += weight * tile[j][col];
        }
    }
}

// Where one head of one clip lies, and what a thread takes of a tile.
struct Head {
    u32 clip, head, heads, width, valid, row, part;
    u64 start;   // of its values
    u64 scalars; // of its gates and sums
    float scale;
};

__device__ inline Head this_head(const u32* lengths, u32 frames, u32 dim) {
    Head h;
    h.clip = blockIdx.z;
    h.head = blockIdx.y;
    h.heads = gridDim.y;
    h.width = dim / h.heads;
    h.valid = lengths[h.clip];
    h.row = threadIdx.x / PARTS;
    h.part = threadIdx.x % PARTS;
    h.start = (u64)h.clip * frames * dim + h.head * h.width;
    h.scalars = ((u64)h.clip * h.heads + h.head) * frames;
    h.scale = 1.0f / sqrtf((float)h.width);
    return h;
}

__device__ inline float bias_of(const float* strip, u32 head, u32 frames, u32 query, u32 key) {
    return strip[(u64)head * (2 * frames - 1) + frames - 1 + key - query];
}

// What the weight of a key for a query is multiplied by.
__device__ inline float kept_weight(Mask mask, const Head& h, u32 frames, u32 query, u32 key) {
    if (mask.threshold == 0) return 1.0f;
    return kept(mask, (u32)(h.scalars + query) * frames + key);
}

// Blocks: tiles of queries by heads by clips. `log_sums` is for the backward pass.
extern "C" __global__ void attention_forward(const float* q, const float* k, const float* v,
                                             const float* strip, const float* gate,
                                             const u32* lengths, u32 frames, u32 dim,
                                             u32 threshold, float scale, u32 low, u32 high,
                                             float* out, float* log_sums) {
    __shared__ float queries[TILE][PITCH];
    __shared__ float others[TILE][PITCH];
    __shared__ float weights[TILE][TILE + 1];
    Head h = this_head(lengths, frames, dim);
    Mask mask = {threshold, scale, low, high};
    u32 query = blockIdx.x * TILE + h.row;
    bool exists = query < frames;
    float opening = gate && exists ? gate[h.scalars + query] : 0.0f;
    load_frames(q + h.start, blockIdx.x * TILE, TILE, frames, dim, h.width, queries);
    float highest = -INFINITE, total = 0.0f, sums[DIMS];
    for (u32 i = 0; i < DIMS; i++) sums[i] = 0.0f;
    for (u32 first = 0; first < h.valid; first += TILE) {
        __syncthreads();
        load_frames(k + h.start, first, TILE, h.valid, dim, h.width, others);
        __syncthreads();
        float scores[COLS], largest = -INFINITE;
        for (u32 i = 0; i < COLS; i++) {
            u32 col = h.part + PARTS * i, key = first + col;
            scores[i] = -INFINITE;
            if (key < h.valid) {
                scores[i] = dot(queries[h.row], others[col], h.width) * h.scale;
                if (gate && exists) scores[i] += opening * bias_of(strip, h.head, frames, query, key);
            }
            largest = fmaxf(largest, scores[i]);
        }
        float next = fmaxf(highest, row_max(largest));
        float shrink = expf(highest - next), sum = 0.0f;
        for (u32 i = 0; i < COLS; i++) {
            float weight = expf(scores[i] - next);
            u32 col = h.part + PARTS * i;
            weights[h.row][col] = weight * kept_weight(mask, h, frames, query, first + col);
            sum += weight;
        }
        total = total * shrink + row_sum(sum);
        highest = next;
        for (u32 i = 0; i < DIMS; i++) sums[i] *= shrink;
        __syncthreads();
        load_frames(v + h.start, first, TILE, h.valid, dim, h.width, others);
        __syncthreads();
        add_products(weights[h.row], others, h.part, h.width, sums);
    }
    if (!exists) return;
    for (u32 i = 0; i < DIMS; i++) {
        u32 col = h.part + PARTS * i;
        if (col < h.width) out[h.start + (u64)query * dim + col] = sums[i] / total;
    }
    if (h.part == 0) log_sums[h.scalars + query] = highest + logf(total);
}

// `delta`: of each query, the product of its output with that output's gradient.
extern "C" __global__ void attention_delta(const float* out, const float* dout, u32 frames, u32 dim,
                                           u32 heads, float* delta, u64 n) {
    for_each(i, n) {
        u32 width = dim / heads;
        u64 frame = i % frames, head = i / frames % heads, clip = i / frames / heads;
        u64 start = (clip * frames + frame) * dim + head * width;
        delta[i] = dot(out + start, dout + start, width);
    }
}

// Blocks as for `attention_forward`: gradients of the queries and, with a strip, of the gates.
extern "C" __global__ void attention_queries(const float* q, const float* k, const float* v,
                                             const float* strip, const float* gate,
                                             const u32* lengths, const float* dout,
                                             const float* log_sums, const float* delta, u32 frames,
                                             u32 dim, u32 threshold, float scale, u32 low,
                                             u32 high, float* dq, float* dgate) {
    __shared__ float queries[TILE][PITCH];
    __shared__ float upstream[TILE][PITCH];
    __shared__ float others[TILE][PITCH];
    __shared__ float slopes[TILE][TILE + 1];
    Head h = this_head(lengths, frames, dim);
    Mask mask = {threshold, scale, low, high};
    u32 query = blockIdx.x * TILE + h.row;
    bool exists = query < frames;
    float opening = gate && exists ? gate[h.scalars + query] : 0.0f;
    float log_sum = exists ? log_sums[h.scalars + query] : 0.0f;
    float middle = exists ? delta[h.scalars + query] : 0.0f;
    load_frames(q + h.start, blockIdx.x * TILE, TILE, frames, dim, h.width, queries);
    load_frames(dout + h.start, blockIdx.x * TILE, TILE, frames, dim, h.width, upstream);
    float sums[DIMS], opened = 0.0f;
    for (u32 i = 0; i < DIMS; i++) sums[i] = 0.0f;
    for (u32 first = 0; first < h.valid; first += TILE) {
        float dweights[COLS];
        __syncthreads();
        load_frames(v + h.start, first, TILE, h.valid, dim, h.width, others);
        __syncthreads();
        for (u32 i = 0; i < COLS; i++) {
            dweights[i] = dot(upstream[h.row], others[h.part + PARTS * i], h.width);
        }
        __syncthreads();
        load_frames(k + h.start, first, TILE, h.valid, dim, h.width, others);
        __syncthreads();
        for (u32 i = 0; i < COLS; i++) {
            u32 col = h.part + PARTS * i, key = first + col;
            float slope = 0.0f;
            if (exists && key < h.valid) {
                float bias = gate ? bias_of(strip, h.head, frames, query, key) : 0.0f;
                float score = dot(queries[h.row], others[col], h.width) * h.scale + opening * bias;
                float dweight = dweights[i] * kept_weight(mask, h, frames, query, key);
                slope = expf(score - log_sum) * (dweight - middle);
                opened += slope * bias;
            }
            slopes[h.row][col] = slope * h.scale;
        }
        __syncthreads();
        add_products(slopes[h.row], others, h.part, h.width, sums);
    }
    opened = row_sum(opened);
    if (!exists) return;
    for (u32 i = 0; i < DIMS; i++) {
        u32 col = h.part + PARTS * i;
        if (col < h.width) dq[h.start + (u64)query * dim + col] = sums[i];
    }
    if (gate && h.part == 0) dgate[h.scalars + query] = opened;
}

// Blocks: tiles of keys by heads by clips: gradients of keys and values, zero past the length.
extern "C" __global__ void attention_keys(const float* q, const float* k, const float* v,
                                          const float* strip, const float* gate,
                                          const u32* lengths, const float* dout,
                                          const float* log_sums, const float* delta, u32 frames,
                                          u32 dim, u32 threshold, float scale, u32 low, u32 high,
                                          float* dk, float* dv) {
    __shared__ float keys[TILE][PITCH];
    __shared__ float values[TILE][PITCH];
    __shared__ float others[TILE][PITCH];
    __shared__ float shares[TILE][TILE + 1];
    Head h = this_head(lengths, frames, dim);
    Mask mask = {threshold, scale, low, high};
    u32 key = blockIdx.x * TILE + h.row;
    bool valid = key < h.valid;
    load_frames(k + h.start, blockIdx.x * TILE, TILE, h.valid, dim, h.width, keys);
    load_frames(v + h.start, blockIdx.x * TILE, TILE, h.valid, dim, h.width, values);
    float key_sums[DIMS], value_sums[DIMS];
    for (u32 i = 0; i < DIMS; i++) key_sums[i] = value_sums[i] = 0.0f;
    // A tile of keys that are all masked has nothing to add.
    u32 end = blockIdx.x * TILE < h.valid ? frames : 0;
    for (u32 first = 0; first < end; first += TILE) {
        float weights[COLS], factors[COLS];
        __syncthreads();
        load_frames(q + h.start, first, TILE, frames, dim, h.width, others);
        __syncthreads();
        for (u32 i = 0; i < COLS; i++) {
            u32 col = h.part + PARTS * i, query = first + col;
            weights[i] = 0.0f;
            factors[i] = kept_weight(mask, h, frames, query, key);
            if (valid && query < frames) {
                float score = dot(keys[h.row], others[col], h.width) * h.scale;
                if (gate) {
                    float bias = bias_of(strip, h.head, frames, query, key);
                    score += gate[h.scalars + query] * bias;
                }
                weights[i] = expf(score - log_sums[h.scalars + query]);
            }
            shares[h.row][col] = weights[i] * factors[i];
        }
        __syncthreads();
        load_frames(dout + h.start, first, TILE, frames, dim, h.width, others);
        __syncthreads();
        add_products(shares[h.row], others, h.part, h.width, value_sums);
        __syncthreads();
        for (u32 i = 0; i < COLS; i++) {
            u32 col = h.part + PARTS * i, query = first + col;
            float slope = 0.0f;
            if (valid && query < frames) {
                float dweight = dot(values[h.row], others[col], h.width) * factors[i];
                slope = weights[i] * (dweight - delta[h.scalars + query]);
            }
            shares[h.row][col] = slope * h.scale;
        }
        __syncthreads();
        load_frames(q + h.start, first, TILE, frames, dim, h.width, others);
        __syncthreads();
        add_products(shares[h.row], others, h.part, h.width, key_sums);
    }
    if (key >= frames) return;
    for (u32 i = 0; i < DIMS; i++) {
        u32 col = h.part + PARTS * i;
        if (col >= h.width) continue;
        u64 at = h.start + (u64)key * dim + col;
        dk[at] = valid ? key_sums[i] : 0.0f;
        dv[at] = valid ? value_sums[i] : 0.0f;
    }
}

// Blocks: 32 offsets by heads by clips. `dstrip`: (clips, heads, 2 frames - 1), to be summed over
// clips. A row of the tile is a query, a column an offset.
extern "C" __global__ void attention_strip(const float* q, const float* k, const float* v,
                                           const float* strip, const float* gate,
                                           const u32* lengths, const float* dout,
                                           const float* log_sums, const float* delta, u32 frames,
                                           u32 dim, u32 threshold, float scale, u32 low, u32 high,
                                           float* dstrip) {
    __shared__ float rows[TILE][PITCH];
    __shared__ float band[2 * TILE - 1][PITCH];
    __shared__ float slopes[TILE][TILE + 1];
    Head h = this_head(lengths, frames, dim);
    Mask mask = {threshold, scale, low, high};
    u32 offsets = 2 * frames - 1;
    float sums[COLS];
    for (u32 i = 0; i < COLS; i++) sums[i] = 0.0f;
    for (u32 first = 0; first < frames; first += TILE) {
        // Key of the first query at the first offset.
        int lowest = (int)first + (int)(blockIdx.x * TILE) - (int)(frames - 1);
        if (lowest >= (int)h.valid || lowest + 2 * TILE - 1 <= 0) continue;
        float scores[COLS];
        u32 query = first + h.row;
        __syncthreads();
        load_frames(q + h.start, first, TILE, frames, dim, h.width, rows);
        load_frames(k + h.start, lowest, 2 * TILE - 1, h.valid, dim, h.width, band);
        __syncthreads();
        for (u32 i = 0; i < COLS; i++) {
            u32 col = h.part + PARTS * i;
            scores[i] = dot(rows[h.row], band[h.row + col], h.width) * h.scale;
        }
        __syncthreads();
        load_frames(dout + h.start, first, TILE, frames, dim, h.width, rows);
        load_frames(v + h.start, lowest, 2 * TILE - 1, h.valid, dim, h.width, band);
        __syncthreads();
        for (u32 i = 0; i < COLS; i++) {
            u32 col = h.part + PARTS * i, offset = blockIdx.x * TILE + col;
            int key = lowest + (int)(h.row + col);
            if (query >= frames || offset >= offsets || key < 0 || key >= (int)h.valid) continue;
            float opening = gate[h.scalars + query];
            float score = scores[i] + opening * strip[(u64)h.head * offsets + offset];
            float weight = expf(score - log_sums[h.scalars + query]);
            float dweight = dot(rows[h.row], band[h.row + col], h.width);
            dweight *= kept_weight(mask, h, frames, query, (u32)key);
            sums[i] += weight * (dweight - delta[h.scalars + query]) * opening;
        }
    }
    __syncthreads();
    for (u32 i = 0; i < COLS; i++) slopes[h.row][h.part + PARTS * i] = sums[i];
    __syncthreads();
    u32 offset = blockIdx.x * TILE + threadIdx.x;
    if (threadIdx.x >= TILE || offset >= offsets) return;
    float sum = 0.0f;
    for (u32 row = 0; row < TILE; row++) sum += slopes[row][threadIdx.x];
    dstrip[((u64)h.clip * h.heads + h.head) * offsets + offset] = sum;
}
