//! The `asr` binary.

#![deny(unsafe_code)]

use std::process::ExitCode;

/// Training and decoding allocate large buffers all the time; the system's allocator returns
/// them to the kernel and asks for them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[expect(unsafe_code, reason = "the environment is set before any thread starts")]
fn main() -> ExitCode {
    // SAFETY: nothing has been started yet.
    unsafe { asr_kernels::threads::confine_candle() };
    asr::cli::main()
}
