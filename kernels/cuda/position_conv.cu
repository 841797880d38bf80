// The grouped convolution that keeps the number of frames, for windows of many taps.

#define CONV_FRAMES 64
#define CONV_OUTPUTS 16
#define CONV_CHANNELS 8
#define CONV_TAPS 32

// `y[t, o] = sum over taps j and channels c of x[t + j - before, c] weight[o, j, c]` within each
// group of `width` channels; frames outside the clip are zero. `x`, `y`: (clips, frames, dim);
// `weight`: (dim, kernel, width). Blocks of 256 threads: 64 frames by 16 outputs of a group by
// clips; `blockIdx.y` counts groups and their pieces of 16 outputs together.
extern "C" __global__ void position_conv(const float* x, const float* weight, u32 frames, u32 dim,
                                         u32 width, u32 kernel, u32 before, float* y) {
    __shared__ float inputs[CONV_FRAMES + CONV_TAPS - 1][CONV_CHANNELS + 1];
    __shared__ float taps[CONV_OUTPUTS][CONV_TAPS * CONV_CHANNELS + 1];
    u32 pieces = (width + CONV_OUTPUTS - 1) / CONV_OUTPUTS;
    u32 group = blockIdx.y / pieces, first_output = blockIdx.y % pieces * CONV_OUTPUTS;
    u32 output = threadIdx.x % CONV_OUTPUTS, lane = threadIdx.x / CONV_OUTPUTS;
    u32 start = blockIdx.x * CONV_FRAMES;
    u64 clip = (u64)blockIdx.z * frames * dim;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (u32 channel = 0; channel < width; channel += CONV_CHANNELS) {
        for (u32 tap = 0; tap < kernel; tap += CONV_TAPS) {
            __syncthreads();
            u32 rows = CONV_FRAMES + CONV_TAPS - 1;
            for (u32 i = threadIdx.x; i < rows * CONV_CHANNELS; i += blockDim.x) {
                u32 row = i / CONV_CHANNELS, c = channel + i % CONV_CHANNELS;
                int t = (int)(start + row + tap) - (int)before;
                bool inside = t >= 0 && t < (int)frames && c < width;
                inputs[row][i % CONV_CHANNELS] =
                    inside ? x[clip + (u64)t * dim + group * width + c] : 0.0f;
            }
            u32 values = CONV_OUTPUTS * CONV_TAPS * CONV_CHANNELS;
            for (u32 i = threadIdx.x; i < values; i += blockDim.x) {
                u32 c = channel + i % CONV_CHANNELS, j = tap + i / CONV_CHANNELS % CONV_TAPS;
                u32 o = i / (CONV_CHANNELS * CONV_TAPS), out = first_output + o;
                bool inside = c < width && j < kernel && out < width;
                u64 at = ((u64)(group * width + out) * kernel + j) * width + c;
                taps[o][i % (CONV_CHANNELS * CONV_TAPS)] = inside ? weight[at] : 0.0f;
            }
            __syncthreads();
            for (u32 j = 0; j < CONV_TAPS; j++) {
                for (u32 c = 0; c < CONV_CHANNELS; c++) {
                    float factor = taps[output][j * CONV_CHANNELS + c];
                    for (u32 i = 0; i < 4; i++) sums[i] += factor * inputs[lane + 16 * i + j][c];
                }
            }
        }
    }
    if (first_output + output >= width) return;
    for (u32 i = 0; i < 4; i++) {
        u32 t = start + lane + 16 * i;
        if (t < frames) y[clip + (u64)t * dim + group * width + first_output + output] = sums[i];
    }
}

// The weights that carry gradients back: output `c` of a group, tap `j` and input `o` get
// `weight[o, c, kernel - 1 - j]`. `weight`: (dim, width, kernel); `y`: (dim, kernel, width).
extern "C" __global__ void turn_weights(const float* weight, u32 width, u32 kernel, float* y, u64 n) {
    for_each(i, n) {
        u64 o = i % width, j = i / width % kernel, row = i / width / kernel;
        u64 group = row / width, c = row % width;
        y[i] = weight[((group * width + o) * width + c) * kernel + kernel - 1 - j];
    }
}

// `before` zero frames, the frames of a clip of `clip` values, zero frames to the length `padded`.
extern "C" __global__ void pad_frames(const float* x, float* y, u64 clip, u64 before, u64 padded,
                                      u64 n) {
    for_each(i, n) {
        u64 at = i % padded;
        y[i] = at >= before && at < before + clip ? x[i / padded * clip + at - before] : 0.0f;
    }
}
