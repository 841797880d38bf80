//! Which instruction set the kernels use.

use std::sync::OnceLock;

/// Instruction sets the CPU kernels are written for, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler makes of plain Rust.
    Portable,
    /// AVX2 with FMA, 256-bit vectors.
    Avx2,
    /// AVX-512 F, BW and VL, 512-bit vectors.
    Avx512,
    /// AVX-512 with dot products of bf16 and of 8-bit integers.
    Avx512Bf16,
}

impl Isa {
    /// The name that `ASR_ISA` takes and that speed reports print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16]
            .into_iter()
            .find(|isa| isa.name() == name)
    }
}

/// The instruction set in use: the best this CPU has, or a lower one named in the
/// environment variable `ASR_ISA` (`portable`, `avx2`, `avx512`, `avx512bf16`).
///
/// Read once per process; a name that is unknown or above the CPU's own level is ignored.
#[must_use]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let best = detect();
        std::env::var("ASR_ISA")
            .ok()
            .and_then(|name| Isa::from_name(&name))
            .map_or(best, |wanted| wanted.min(best))
    })
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
    {
        if is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni") {
            Isa::Avx512Bf16
        } else {
            Isa::Avx512
        }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Isa::Avx2
    } else {
        Isa::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Portable
}
