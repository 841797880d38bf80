// The kernels of this folder as functions of a shared library.

#include "shim.h"

#include "../common.cu"
#include "../pointwise.cu"
#include "../reduce.cu"
#include "../norm.cu"
#include "../attention.cu"
#include "../ctc.cu"
#include "../position_conv.cu"

// Runs a kernel over a grid. `args` are the addresses of its `n` arguments. 1: it takes another
// number of them; 2: there is none of that name.
extern "C" int asr_launch(const char* name, u32 x, u32 y, u32 z, u32 threads, void** args, u32 n) {
#define KERNEL(kernel) \
    if (strcmp(name, #kernel) == 0) return host::launch(kernel, Dim3{x, y, z}, threads, args, n)
    KERNEL(gelu_forward);
    KERNEL(gelu_backward);
    KERNEL(add_bias);
    KERNEL(bias_gelu);
    KERNEL(dropout);
    KERNEL(zero_padding);
    KERNEL(replace_rows);
    KERNEL(keep_rows);
    KERNEL(scaled_sum);
    KERNEL(scaled_copy);
    KERNEL(fill);
    KERNEL(to_bf16);
    KERNEL(swap_last);
    KERNEL(adamw);
    KERNEL(clip_scale);
    KERNEL(column_sums);
    KERNEL(squares);
    KERNEL(total);
    KERNEL(smallest_of_rows);
    KERNEL(cross_entropy_forward);
    KERNEL(cross_entropy_backward);
    KERNEL(layer_norm_forward);
    KERNEL(layer_norm_backward);
    KERNEL(layer_norm_parameters);
    KERNEL(channel_sums);
    KERNEL(group_averages);
    KERNEL(group_norm_forward);
    KERNEL(group_norm_sums);
    KERNEL(group_norm_backward);
    KERNEL(attention_forward);
    KERNEL(attention_delta);
    KERNEL(attention_queries);
    KERNEL(attention_keys);
    KERNEL(attention_strip);
    KERNEL(ctc_log_sums);
    KERNEL(ctc_forward);
    KERNEL(ctc_losses);
    KERNEL(ctc_backward);
    KERNEL(ctc_gradient);
    KERNEL(position_conv);
    KERNEL(turn_weights);
    KERNEL(pad_frames);
#undef KERNEL
    return 2;
}
