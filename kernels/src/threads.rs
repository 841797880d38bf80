//! One place that decides how many threads an operation uses.
//!
//! Operations split their work over rayon's global pool. A caller that already runs
//! one piece of work per core (training on several micro-batches at once) wraps each
//! in [`serial`], so that operations inside stay on the calling thread.

use std::cell::Cell;

thread_local! {
    static SERIAL: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with every kernel it calls confined to this thread.
pub fn serial<R>(work: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            SERIAL.with(|flag| flag.set(self.0));
        }
    }
    let _restore = Restore(SERIAL.with(|flag| flag.replace(true)));
    work()
}

/// Threads that an operation called from here may use.
#[must_use]
pub fn available() -> usize {
    if SERIAL.with(Cell::get) { 1 } else { rayon::current_num_threads() }
}

/// Runs `task(i)` for `i` in `0..count`, in parallel unless inside [`serial`].
pub(crate) fn for_each(count: usize, task: impl Fn(usize) + Sync + Send) {
    if count <= 1 || available() == 1 {
        (0..count).for_each(task);
    } else {
        use rayon::prelude::*;
        (0..count).into_par_iter().for_each(task);
    }
}

/// Runs `task(start, rows)` over consecutive pieces of `data`, `row_len` values a row,
/// about one piece per thread.
pub(crate) fn for_row_blocks<T: Send>(
    data: &mut [T],
    row_len: usize,
    task: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let rows = data.len().checked_div(row_len).unwrap_or(0);
    let threads = available();
    // Below some 16k values the hand-over costs more than it saves.
    if threads == 1 || data.len() < 16_384 {
        task(0, data);
        return;
    }
    use rayon::prelude::*;
    let block = rows.div_ceil(threads);
    data.par_chunks_mut(block * row_len).enumerate().for_each(|(i, piece)| task(i * block, piece));
}

/// Keeps candle's own operations on the thread that calls them.
///
/// candle spreads element-wise operations over a pool that waits by spinning, which starves
/// the kernels of cores. Unless `CANDLE_NUM_THREADS` is set already, it is set to 1.
///
/// # Safety
/// Changes the environment: call it at the start of `main`, before any thread is started.
pub unsafe fn confine_candle() {
    const NAME: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: no other thread runs, by the caller's promise.
        unsafe { std::env::set_var(NAME, "1") };
    }
}
