// Enough of CUDA to run the kernels of this folder on a CPU, for tests: the threads of a block are
// fibers of one thread, taken in turn; blocks run one after the other.
//
// A barrier that not every thread reaches, or a shuffle that not every lane of a warp reaches, is
// said and ends the process. Shared memory starts as whatever was there, as on a card.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static thread_local

struct Dim3 {
    unsigned x, y, z;
};

namespace host {

constexpr unsigned LANES = 32;
constexpr size_t STACK = 64 * 1024;

struct Barrier {
    unsigned size = 0, arrived = 0, phase = 0;
};

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack;
    bool started = false, done = false;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Barrier> warps;
    std::vector<uint64_t> lanes;
    Barrier all;
    ucontext_t origin;
    jmp_buf scheduler;
    unsigned current = 0, progress = 0;
    void (*body)(void*) = nullptr;
    void* argument = nullptr;
};

inline thread_local Block* block = nullptr;
inline thread_local Dim3 grid_dim, block_dim, block_idx, thread_idx;

// A fiber is entered through its context once; from then on jumps will do, which save no signal
// mask and so cost no system call.
inline void yield() {
    if (_setjmp(block->fibers[block->current].place) == 0) _longjmp(block->scheduler, 1);
}

inline void resume(Fiber& fiber) {
    if (_setjmp(block->scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    swapcontext(&block->origin, &fiber.context);
}

inline void wait(Barrier& barrier) {
    unsigned phase = barrier.phase;
    block->progress++;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        barrier.phase++;
        return;
    }
    while (barrier.phase == phase) yield();
    block->progress++;
}

inline void enter() {
    block->body(block->argument);
    block->fibers[block->current].done = true;
    block->progress++;
    yield();
}

inline void run_block(unsigned threads, void (*body)(void*), void* argument) {
    Block& b = *block;
    b.body = body;
    b.argument = argument;
    b.all = Barrier{threads};
    b.warps.assign((threads + LANES - 1) / LANES, Barrier{LANES});
    b.lanes.assign(threads, 0);
    if (b.fibers.size() < threads) b.fibers.resize(threads);
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = b.fibers[i];
        if (!fiber.stack) fiber.stack = std::make_unique<char[]>(STACK);
        fiber.started = fiber.done = false;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (;;) {
        unsigned live = 0;
        b.progress = 0;
        for (unsigned i = 0; i < threads; i++) {
            if (b.fibers[i].done) continue;
            live++;
            b.current = i;
            thread_idx = Dim3{i, 0, 0};
            resume(b.fibers[i]);
        }
        if (live == 0) return;
        if (b.progress == 0) {
            fprintf(stderr, "threads of a block wait at different barriers\n");
            abort();
        }
    }
}

template <class Body>
void run(Dim3 grid, unsigned threads, Body body) {
    Block state;
    block = &state;
    grid_dim = grid;
    block_dim = Dim3{threads, 1, 1};
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                block_idx = Dim3{x, y, z};
                run_block(threads, [](void* body) { (*static_cast<Body*>(body))(); }, &body);
            }
        }
    }
    block = nullptr;
}

template <class... Args, size_t... I>
void launch(void (*kernel)(Args...), Dim3 grid, unsigned threads, void** args,
            std::index_sequence<I...>) {
    run(grid, threads, [=] { kernel(*static_cast<std::remove_reference_t<Args>*>(args[I])...); });
}

template <class... Args>
int launch(void (*kernel)(Args...), Dim3 grid, unsigned threads, void** args, unsigned n) {
    if (n != sizeof...(Args)) return 1;
    launch(kernel, grid, threads, args, std::index_sequence_for<Args...>{});
    return 0;
}

template <class T>
T shuffle_xor(T value, unsigned mask) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a lane holds eight bytes");
    unsigned thread = thread_idx.x, warp = thread / LANES;
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    block->lanes[thread] = bits;
    wait(block->warps[warp]);
    bits = block->lanes[warp * LANES + ((thread % LANES) ^ mask)];
    wait(block->warps[warp]);
    memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace host

#define gridDim host::grid_dim
#define blockDim host::block_dim
#define blockIdx host::block_idx
#define threadIdx host::thread_idx

inline void __syncthreads() { host::wait(host::block->all); }

template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
    return host::shuffle_xor(value, mask);
}

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
using std::isfinite;
