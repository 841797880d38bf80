//! The `asr` binary.

#![deny(unsafe_code)]

use std::process::ExitCode;

/// Training and decoding allocate large buffers all the time; the system's allocator returns
/// them to the kernel and asks for them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has the allocator keep freed memory for ten seconds instead of one: training steps free
/// and allocate the same buffers again and again, and a step may take longer than a second.
#[expect(unsafe_code, reason = "the allocator's options are set through C")]
fn keep_freed_memory() {
    use std::ffi::{c_int, c_long};
    /// `mi_option_purge_delay` of mimalloc 3.
    const PURGE_DELAY: c_int = 15;
    unsafe extern "C" {
        fn mi_option_set(option: c_int, value: c_long);
    }
    // SAFETY: declared as in `mimalloc.h`; any value is a delay in milliseconds.
    unsafe { mi_option_set(PURGE_DELAY, 10_000) };
}

#[expect(unsafe_code, reason = "the environment is set before any thread starts")]
fn main() -> ExitCode {
    // SAFETY: nothing has been started yet.
    unsafe { asr_kernels::threads::confine_candle() };
    keep_freed_memory();
    asr::cli::main()
}
