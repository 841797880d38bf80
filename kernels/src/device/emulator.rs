//! The kernels of `kernels/cuda` on the CPU: their sources compiled by the system's C++ compiler.
//!
//! Memory starts as NaN, so that what is read before it is written shows; behind each buffer lies
//! a guard, so that what is written past its end shows.

use super::{Argument, Machine, Place, product::Product};
use candle_core::{Result, bail};
use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::process::Command;
use std::sync::OnceLock;

type Launch =
    unsafe extern "C" fn(*const c_char, u32, u32, u32, u32, *const *const c_void, u32) -> c_int;

/// The library of all kernels.
pub(crate) struct Emulator {
    launch: Launch,
    /// Kept, so that `launch` stays valid.
    _library: libloading::Library,
}

/// Four bytes per value, and a guard.
pub(crate) struct Memory {
    words: Box<[UnsafeCell<u64>]>,
    len: usize,
}

const UNWRITTEN: u64 = 0x7fc0_dead_7fc0_dead;
const GUARD: u64 = 0x7fc0_face_7fc0_face;
const GUARDS: usize = 64;

impl Memory {
    fn new(len: usize) -> Self {
        let used = len.div_ceil(2);
        let word = |i: usize| UnsafeCell::new(if i < used { UNWRITTEN } else { GUARD });
        Self { words: (0..used + GUARDS).map(word).collect(), len }
    }

    fn write(&self, bits: impl Iterator<Item = u32>) {
        for (i, bits) in bits.enumerate().take(self.len) {
            // SAFETY: value i lies inside; nobody else uses the buffer meanwhile.
            unsafe { self.words.as_ptr().cast::<u32>().cast_mut().add(i).write(bits) };
        }
    }

    pub(crate) fn words(&self) -> Vec<u32> {
        // SAFETY: as above.
        (0..self.len).map(|i| unsafe { self.words.as_ptr().cast::<u32>().add(i).read() }).collect()
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        self.words().into_iter().map(f32::from_bits).collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let whole = self.words.iter_mut().skip(self.len.div_ceil(2)).all(|w| *w.get_mut() == GUARD);
        assert!(whole || std::thread::panicking(), "a kernel wrote past {} values", self.len);
    }
}

impl Emulator {
    /// The kernels, compiled once; `None`, said on standard error, where there is no compiler.
    pub(crate) fn get() -> Option<&'static Self> {
        static EMULATOR: OnceLock<Option<Emulator>> = OnceLock::new();
        EMULATOR.get_or_init(Self::compile).as_ref()
    }

    fn compile() -> Option<Self> {
        if cfg!(miri) {
            eprintln!("skipped: miri starts no compiler and runs no C++");
            return None;
        }
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        if Command::new(&compiler).arg("--version").output().is_err() {
            eprintln!("skipped: no C++ compiler (`{compiler}`) to run the CUDA kernels on the CPU");
            return None;
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/host/main.cpp");
        let name = format!("asr-kernels-{}.so", std::process::id());
        let library = std::env::temp_dir().join(name);
        let flags = [
            "-std=c++17",
            "-O2",
            "-ffp-contract=off",
            "-U_FORTIFY_SOURCE",
            "-shared",
            "-fPIC",
            "-Wno-unknown-pragmas",
        ];
        let compiled =
            Command::new(&compiler).args(flags).arg("-o").arg(&library).arg(source).output();
        let compiled = compiled.expect("the compiler was there a moment ago");
        let said = String::from_utf8_lossy(&compiled.stderr);
        assert!(compiled.status.success(), "the kernels do not compile as C++:\n{said}");
        // SAFETY: the library was made above, and its function has this type.
        let (launch, opened) = unsafe {
            let opened = libloading::Library::new(&library).expect("the library was just made");
            let launch = *opened.get::<Launch>(b"asr_launch").expect("the library defines it");
            (launch, opened)
        };
        std::fs::remove_file(&library).expect("a file of ours");
        Some(Self { launch, _library: opened })
    }
}

impl Machine for Emulator {
    type Buffer = Memory;

    fn buffer(&self, n: usize) -> Result<Memory> {
        Ok(Memory::new(n))
    }

    fn words(&self, words: &[u32]) -> Result<Memory> {
        let memory = Memory::new(words.len());
        memory.write(words.iter().copied());
        Ok(memory)
    }

    fn floats(&self, values: &[f32]) -> Result<Memory> {
        let memory = Memory::new(values.len());
        memory.write(values.iter().map(|v| v.to_bits()));
        Ok(memory)
    }

    fn place<'a>(&self, buffer: &'a Memory) -> Place<'a> {
        let address = buffer.words.as_ptr() as u64;
        Place { address, len: buffer.len, bytes: 4, life: PhantomData }
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: usize,
        arguments: &[Argument<'_>],
    ) -> Result<()> {
        // The limits of a card.
        assert!(threads.is_multiple_of(32) && threads <= 1024, "{kernel}: {threads} threads");
        assert!(grid[1] <= 65_535 && grid[2] <= 65_535, "{kernel}: {grid:?} blocks");
        let null = 0_u64;
        let pointers: Vec<*const c_void> = arguments
            .iter()
            .map(|argument| match argument {
                Argument::Place(place) => (&raw const place.address).cast(),
                Argument::Null => (&raw const null).cast(),
                Argument::U32(value) => (&raw const *value).cast(),
                Argument::U64(value) => (&raw const *value).cast(),
                Argument::F32(value) => (&raw const *value).cast(),
                Argument::F64(value) => (&raw const *value).cast(),
            })
            .collect();
        let name = CString::new(kernel).expect("names of kernels are words");
        let [x, y, z] = grid.map(|n| u32::try_from(n).expect("a grid is counted in 32 bits"));
        let n = pointers.len() as u32;
        // SAFETY: passed on; the arguments outlive the call, which runs to its end.
        match unsafe { (self.launch)(name.as_ptr(), x, y, z, threads as u32, pointers.as_ptr(), n) }
        {
            0 => Ok(()),
            1 => bail!("`{kernel}` does not take {n} arguments"),
            _ => bail!("there is no kernel `{kernel}`"),
        }
    }

    unsafe fn multiply(&self, product: &Product<'_>) -> Result<()> {
        let [m, n, k] = product.shape;
        let read = |place: Place<'_>, at: usize| {
            // SAFETY: the caller promises that the place holds what is read.
            unsafe {
                if place.bytes == 2 {
                    let half = *(place.address as *const u16).add(at);
                    f32::from_bits(u32::from(half) << 16)
                } else {
                    *(place.address as *const f32).add(at)
                }
            }
        };
        let (a, b) = (&product.a, &product.b);
        assert_eq!(a.place.bytes, b.place.bytes, "operands of one kind");
        for batch in 0..product.batch {
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..k)
                        .map(|l| {
                            let (ai, al) = if a.transposed { (l, i) } else { (i, l) };
                            let (bl, bj) = if b.transposed { (j, l) } else { (l, j) };
                            let left = read(a.place, batch * a.batch_stride + ai * a.stride + al);
                            let right = read(b.place, batch * b.batch_stride + bl * b.stride + bj);
                            f64::from(left) * f64::from(right)
                        })
                        .sum();
                    let at = batch * product.c_batch_stride + i * product.c_stride + j;
                    // SAFETY: the caller promises that the place holds what is written.
                    unsafe {
                        let c = (product.c.address as *mut f32).add(at);
                        *c = if product.accumulate { *c + sum as f32 } else { sum as f32 };
                    }
                }
            }
        }
        Ok(())
    }
}
