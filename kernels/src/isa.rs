//! Which instruction set the kernels use.

use std::sync::OnceLock;

/// Instruction sets the CPU kernels are written for; of one architecture, slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler makes of plain Rust.
    Portable,
    /// NEON, which every 64-bit Arm CPU has.
    Neon,
    /// NEON with the dot products of 8-bit integers of Armv8.2.
    NeonDot,
    /// AVX2 with FMA, 256-bit vectors.
    Avx2,
    /// AVX2 with dot products of 8-bit integers (AVX-VNNI).
    AvxVnni,
    /// AVX-512 F, BW and VL, 512-bit vectors.
    Avx512,
    /// AVX-512 with dot products of bf16 and of 8-bit integers.
    Avx512Bf16,
    /// The same with the matrix tiles of AMX for bf16 and 8-bit integers.
    Amx,
}

impl Isa {
    /// Every instruction set, in the order of the type.
    pub const ALL: [Self; 8] = [
        Self::Portable,
        Self::Neon,
        Self::NeonDot,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Bf16,
        Self::Amx,
    ];

    /// The name that `ASR_ISA` takes and that speed reports print.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::NeonDot => "neondot",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// Whether this CPU has it.
    #[cfg(target_arch = "x86_64")]
    fn is_here(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Self::Portable => true,
            Self::Neon | Self::NeonDot => false,
            Self::Avx2 => avx2(),
            Self::AvxVnni => avx2() && is_x86_feature_detected!("avxvnni"),
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
            }
            Self::Avx512Bf16 => {
                Self::Avx512.is_here()
                    && is_x86_feature_detected!("avx512bf16")
                    && is_x86_feature_detected!("avx512vnni")
            }
            Self::Amx => Self::Avx512Bf16.is_here() && crate::matmul::has_amx(),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_here(self) -> bool {
        match self {
            Self::Portable | Self::Neon => true,
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            _ => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_here(self) -> bool {
        self == Self::Portable
    }
}

/// The instruction set in use: the best this CPU has, or a lower one named in the
/// environment variable `ASR_ISA` (`portable`, `neon`, `neondot`, `avx2`, `avxvnni`, `avx512`,
/// `avx512bf16`, `amx`).
///
/// Read once per process. An unknown name is ignored; for one that this CPU lacks, the best one
/// below it is taken.
#[must_use]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let wanted = std::env::var("ASR_ISA").ok().and_then(|name| Isa::from_name(&name));
        best_up_to(wanted.unwrap_or(Isa::Amx), Isa::is_here)
    })
}

/// What the CPU says of itself.
#[cfg(target_arch = "x86_64")]
pub(crate) fn cpuid(leaf: u32, sub_leaf: u32) -> std::arch::x86_64::CpuidResult {
    // SAFETY: every 64-bit CPU has the instruction.
    #[allow(unused_unsafe, reason = "later compilers know that it is safe")]
    unsafe {
        std::arch::x86_64::__cpuid_count(leaf, sub_leaf)
    }
}

/// Whether dot products of bf16 in vectors are faster than as many products of f32. They are on
/// AMD's cores; on Intel's, which have AMX for it, they take half as long again.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_fast_bf16_vectors() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        let leaf = cpuid(0, 0);
        let vendor = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat();
        vendor == b"AuthenticAMD"
    })
}

/// The best instruction set up to `highest` that is there.
fn best_up_to(highest: Isa, is_here: impl Fn(Isa) -> bool) -> Isa {
    let here = Isa::ALL.into_iter().rev().find(|&isa| isa <= highest && is_here(isa));
    here.unwrap_or(Isa::Portable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_order_are_those_of_the_list() {
        assert!(Isa::ALL.is_sorted());
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()), Some(isa));
        }
        assert_eq!(Isa::from_name("sse2"), None);
    }

    #[test]
    fn what_is_not_there_gives_way_to_the_best_below_it() {
        // A CPU with AVX-512 that skipped AVX-VNNI.
        let zen4 = |isa| matches!(isa, Isa::Portable | Isa::Avx2 | Isa::Avx512 | Isa::Avx512Bf16);
        for (wanted, got) in [
            (Isa::Amx, Isa::Avx512Bf16),
            (Isa::Avx512, Isa::Avx512),
            (Isa::AvxVnni, Isa::Avx2),
            (Isa::Neon, Isa::Portable),
        ] {
            assert_eq!(best_up_to(wanted, zen4), got);
        }
        assert!(isa().is_here());
    }
}
