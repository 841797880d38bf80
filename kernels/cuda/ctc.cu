// CTC (Graves et al. 2006) as on the CPU (`ctc.rs`): logarithms in f64, one block per clip.
//
// States are blank, token, blank, ...; an open end stops at the last token, which then accepts
// anything. `labels`: (clips, max_states).

__device__ inline double log_add(double a, double b) {
    double high = a > b ? a : b, low = a > b ? b : a;
    return low == NEVER ? high : high + log1p(exp(low - high));
}

// A block per row of `logits`: the logarithm of its normaliser.
extern "C" __global__ void ctc_log_sums(const float* logits, u32 vocab, double* log_sums) {
    double sum = log_sum_exp(logits + (u64)blockIdx.x * vocab, vocab);
    if (threadIdx.x == 0) log_sums[blockIdx.x] = sum;
}

// What a block knows of its clip.
struct Clip {
    const float* logits;
    const double* log_sums;
    const u32* labels;
    u32 vocab, states, frames;
    bool open;
};

__device__ inline Clip this_clip(u32 clip, const float* logits, const double* log_sums,
                                 const u32* labels, const u32* states, const u32* open,
                                 const u32* lengths, u32 frames, u32 vocab, u32 max_states) {
    Clip c;
    c.logits = logits + (u64)clip * frames * vocab;
    c.log_sums = log_sums + (u64)clip * frames;
    c.labels = labels + (u64)clip * max_states;
    c.vocab = vocab;
    c.states = states[clip];
    c.frames = lengths[clip];
    c.open = open[clip];
    return c;
}

__device__ inline double emission(const Clip& c, u32 t, u32 s) {
    return (double)c.logits[(u64)t * c.vocab + c.labels[s]] - c.log_sums[t];
}

// Whether a path may go to state `s` straight from `s - 2`.
__device__ inline bool skips(const Clip& c, u32 s) {
    return s >= 2 && s % 2 == 1 && c.labels[s] != c.labels[s - 2];
}

// Whether state `s`, once entered, accepts anything.
__device__ inline bool is_free(const Clip& c, u32 s) { return c.open && s + 1 == c.states; }

// Log-probability of arriving in `s` at frame `t` from another state; `before` is the row of
// frame t - 1.
__device__ inline double entering(const Clip& c, const double* before, u32 t, u32 s) {
    if (t == 0) return s < 2 ? emission(c, t, s) : NEVER;
    double sum = s >= 1 ? before[s - 1] : NEVER;
    if (skips(c, s)) sum = log_add(sum, before[s - 2]);
    return sum + emission(c, t, s);
}

// `forward`: (clips, frames, max_states); `likelihoods`: (clips).
extern "C" __global__ void ctc_forward(const float* logits, const double* log_sums,
                                       const u32* labels, const u32* states, const u32* open,
                                       const u32* lengths, u32 frames, u32 vocab, u32 max_states,
                                       double* forward, double* likelihoods) {
    u32 clip = blockIdx.x;
    Clip c = this_clip(clip, logits, log_sums, labels, states, open, lengths, frames, vocab,
                       max_states);
    double* rows = forward + (u64)clip * frames * max_states;
    for (u32 t = 0; t < c.frames; t++) {
        double* row = rows + (u64)t * max_states;
        const double* before = row - (t > 0 ? max_states : 0);
        for (u32 s = threadIdx.x; s < c.states; s += blockDim.x) {
            double value = entering(c, before, t, s);
            if (t > 0) {
                value = log_add(value, before[s] + (is_free(c, s) ? 0.0 : emission(c, t, s)));
            }
            row[s] = value;
        }
        __syncthreads();
    }
    if (threadIdx.x > 0) return;
    if (c.frames == 0) {
        likelihoods[clip] = c.states == 1 ? 0.0 : NEVER;
        return;
    }
    const double* end = rows + (u64)(c.frames - 1) * max_states;
    likelihoods[clip] = c.states == 1 || c.open ? end[c.states - 1]
                                                : log_add(end[c.states - 1], end[c.states - 2]);
}

// The losses of one term, and their weighted sum with those before. A clip of weight 0 takes no
// part.
extern "C" __global__ void ctc_losses(const double* likelihoods, const float* weights,
                                      u32 accumulate, float* losses, float* sums, u64 n) {
    for_each(i, n) {
        losses[i] = (float)-likelihoods[i];
        float loss = weights[i] == 0.0f ? 0.0f : (float)(weights[i] * -likelihoods[i]);
        sums[i] = accumulate ? sums[i] + loss : loss;
    }
}

// In place of the forward variables: the probability that the target, given that it is spelt, is
// in each state at each frame; zero if it cannot be spelt. `scratch`: (clips, 2, max_states).
extern "C" __global__ void ctc_backward(const float* logits, const double* log_sums,
                                        const u32* labels, const u32* states, const u32* open,
                                        const u32* lengths, u32 frames, u32 vocab, u32 max_states,
                                        double* forward, const double* likelihoods,
                                        double* scratch) {
    u32 clip = blockIdx.x;
    Clip c = this_clip(clip, logits, log_sums, labels, states, open, lengths, frames, vocab,
                       max_states);
    double* rows = forward + (u64)clip * frames * max_states;
    double total = likelihoods[clip];
    bool spelt = total != NEVER;
    for (u32 t = c.frames; t-- > 0;) {
        double* row = rows + (u64)t * max_states;
        const double* before = row - (t > 0 ? max_states : 0);
        double* backward = scratch + ((u64)clip * 2 + t % 2) * max_states;
        const double* next = scratch + ((u64)clip * 2 + (t + 1) % 2) * max_states;
        for (u32 s = threadIdx.x; s < c.states; s += blockDim.x) {
            // Log-probability of finishing from state s after frame t.
            double sum;
            if (t + 1 == c.frames) {
                bool ends = s + 1 == c.states || (s + 2 == c.states && !c.open);
                sum = ends ? 0.0 : NEVER;
            } else {
                sum = next[s] + (is_free(c, s) ? 0.0 : emission(c, t + 1, s));
                if (s + 1 < c.states) sum = log_add(sum, next[s + 1] + emission(c, t + 1, s + 1));
                if (s + 2 < c.states && skips(c, s + 2)) {
                    sum = log_add(sum, next[s + 2] + emission(c, t + 1, s + 2));
                }
            }
            backward[s] = sum;
            // Frames that an open end accepts have no say in the loss.
            double inside = is_free(c, s) ? entering(c, before, t, s) : row[s];
            row[s] = spelt ? exp(inside + sum - total) : 0.0;
        }
        __syncthreads();
    }
}

// Blocks: frames by clips: the gradient of one term in the logits, added to that of terms before.
// `following`: (clips, max_states), of each token's state the next one with the same token, or
// none; `leading`: whether none comes before it.
extern "C" __global__ void ctc_gradient(const float* logits, const double* log_sums,
                                        const u32* labels, const u32* following, const u32* leading,
                                        const u32* states, const u32* lengths, const float* weights,
                                        const float* upstream, u32 frames, u32 vocab,
                                        u32 max_states, u32 accumulate, const double* shares,
                                        float* gradient) {
    u32 t = blockIdx.x, clip = blockIdx.y, n = states[clip];
    u64 row = (u64)clip * frames + t;
    float* out = gradient + row * vocab;
    bool counts = t < lengths[clip] && weights[clip] != 0.0f;
    if (!counts) {
        for (u32 i = threadIdx.x; !accumulate && i < vocab; i += blockDim.x) out[i] = 0.0f;
        return;
    }
    float scale = upstream[clip] * weights[clip];
    const double* share = shares + row * max_states;
    float blank = 0.0f, tokens = 0.0f;
    for (u32 s = threadIdx.x; s < n; s += blockDim.x) {
        if (s % 2 == 0) blank += (float)share[s];
        else tokens += (float)share[s];
    }
    blank = block_sum(blank);
    float occupied = scale * (blank + block_sum(tokens));
    float log_sum = (float)log_sums[row];
    for (u32 i = threadIdx.x; i < vocab; i += blockDim.x) {
        float slope = occupied * expf(logits[row * vocab + i] - log_sum);
        out[i] = accumulate ? out[i] + slope : slope;
    }
    __syncthreads();
    u64 first = (u64)clip * max_states;
    if (threadIdx.x == 0) out[labels[first]] -= scale * blank;
    for (u32 s = 1 + 2 * threadIdx.x; s < n; s += 2 * blockDim.x) {
        if (!leading[first + s]) continue;
        float sum = 0.0f;
        for (u32 at = s; at != ALL_LANES; at = following[first + at]) sum += (float)share[at];
        out[labels[first + s]] -= scale * sum;
    }
}
