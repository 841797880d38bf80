//! Elementary functions the compiler can vectorise, and the macro that compiles a loop
//! once per instruction set.

/// Defines a function whose body is compiled for each instruction set and chosen at run time.
///
/// The body must be a plain loop: inlined into each copy, it is vectorised there. In it the
/// constant `FMA` says whether the copy has fused multiply-add, for [`mul_add`] and what uses it.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    plain::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    plain::<true>($($arg),*)
                }
                match $crate::isa::isa() {
                    // SAFETY: the CPU was found to have the instructions.
                    $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 | $crate::isa::Isa::Amx => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 | $crate::isa::Isa::AvxVnni => unsafe { avx2($($arg),*) },
                    _ => plain::<false>($($arg),*),
                }
            }
            // Every 64-bit Arm CPU has fused multiply-add.
            #[cfg(not(target_arch = "x86_64"))]
            plain::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// `a b + c`, rounded once where the CPU has the instruction (elsewhere that is a slow call).
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to 2 ulp for `x <= 88`; 0 below -87.3. Cody-Waite reduction and the polynomial of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = x.clamp(-88.0, 88.0);
    let n = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.0e-1] {
        p = mul_add::<FMA>(p, r, c);
    }
    let value = mul_add::<FMA>(p * r, r, r) + 1.0;
    let power = f32::from_bits((((n as i32) + 127) as u32) << 23);
    if x <= -87.3 { 0.0 } else { value * power }
}

/// `(erf(z), e^(-z^2))`, both to 5e-7 absolute (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub(crate) fn erf_and_gaussian<const FMA: bool>(z: f32) -> (f32, f32) {
    let a = z.abs();
    let t = 1.0 / mul_add::<FMA>(0.327_591_1, a, 1.0);
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = mul_add::<FMA>(p, t, c);
    }
    let gaussian = exp::<FMA>(-a * a);
    let erf = mul_add::<FMA>(-p * t, gaussian, 1.0);
    (erf.copysign(z), gaussian)
}

/// GELU, `x Φ(x)`.
#[inline(always)]
pub(crate) fn gelu<const FMA: bool>(x: f32) -> f32 {
    let (erf, _) = erf_and_gaussian::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2);
    let half = 0.5 * x;
    mul_add::<FMA>(half, erf, half)
}

/// The derivative of [`gelu`], `Φ(x) + x φ(x)`.
#[inline(always)]
pub(crate) fn gelu_slope<const FMA: bool>(x: f32) -> f32 {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    let (erf, gaussian) = erf_and_gaussian::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2);
    mul_add::<FMA>(x * INV_SQRT_TAU, gaussian, mul_add::<FMA>(0.5, erf, 0.5))
}

/// Sum with sixteen running sums: vectorisable, and more exact than one.
#[inline(always)]
pub(crate) fn sum_of(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let whole = n / 16 * 16;
    for i in (0..whole).step_by(16) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(i + lane);
        }
    }
    for i in whole..n {
        sums[i - whole] += term(i);
    }
    sums.iter().sum()
}

/// Largest value, -inf of nothing.
#[inline(always)]
pub(crate) fn max_of(values: &[f32]) -> f32 {
    let mut best = [f32::NEG_INFINITY; 16];
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for (b, &v) in best.iter_mut().zip(chunk) {
            *b = if v > *b { v } else { *b };
        }
    }
    let tail = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    best.iter().copied().fold(tail, f32::max)
}

/// Largest absolute value, 0 of nothing.
#[inline(always)]
pub(crate) fn largest_magnitude(values: &[f32]) -> f32 {
    let mut best = [0.0_f32; 16];
    let mut chunks = values.chunks_exact(16);
    for chunk in &mut chunks {
        for (b, v) in best.iter_mut().zip(chunk) {
            *b = if v.abs() > *b { v.abs() } else { *b };
        }
    }
    let tail = chunks.remainder().iter().fold(0.0_f32, |max, v| max.max(v.abs()));
    best.iter().copied().fold(tail, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_the_library() {
        for i in (-87_000..88_000).step_by(if cfg!(miri) { 97 } else { 1 }) {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            for got in [exp::<false>(x), exp::<true>(x)].map(f64::from) {
                assert!((got - want).abs() <= want * 2.4e-7, "exp({x}) = {got}, {want}");
            }
        }
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn erf_is_exact_to_five_in_ten_million() {
        for i in (-6000..6000).step_by(if cfg!(miri) { 13 } else { 1 }) {
            let z = i as f32 * 1e-3;
            for (erf, gaussian) in [erf_and_gaussian::<false>(z), erf_and_gaussian::<true>(z)] {
                assert!((f64::from(erf) - libm::erf(f64::from(z))).abs() < 5e-7, "erf({z})");
                assert!((f64::from(gaussian) - (-f64::from(z).powi(2)).exp()).abs() < 5e-7);
            }
        }
    }
}
