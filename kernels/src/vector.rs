//! Elementary functions the compiler can vectorise, and the macro that compiles a loop
//! once per instruction set.

/// Defines a function whose body is compiled for each instruction set and chosen at run time.
///
/// The body must be a plain loop: inlined into each copy, it is vectorised there.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn plain($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    plain($($arg),*)
                }
                match $crate::isa::isa() {
                    // SAFETY: the CPU was found to have the instructions.
                    $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Bf16 => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                    $crate::isa::Isa::Portable => plain($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            plain($($arg),*)
        }
    };
}
pub(crate) use vectorised;

/// `e^x` to 2 ulp for `x <= 88`; 0 below -87.3. Cody-Waite reduction and the polynomial of Cephes `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = x.clamp(-88.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.0e-1;
    let value = p * r * r + r + 1.0;
    let power = f32::from_bits((((n as i32) + 127) as u32) << 23);
    if x <= -87.3 { 0.0 } else { value * power }
}

/// `(erf(z), e^(-z^2))`, both to 5e-7 absolute (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub(crate) fn erf_and_gaussian(z: f32) -> (f32, f32) {
    let a = z.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_7;
    p = p * t - 0.284_496_74;
    p = p * t + 0.254_829_6;
    let gaussian = exp(-a * a);
    let erf = 1.0 - p * t * gaussian;
    (if z < 0.0 { -erf } else { erf }, gaussian)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_the_library() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!((got - want).abs() <= want * 2.4e-7, "exp({x}) = {got}, {want}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn erf_is_exact_to_five_in_ten_million() {
        for i in -6000..6000 {
            let z = i as f32 * 1e-3;
            let (erf, gaussian) = erf_and_gaussian(z);
            assert!((f64::from(erf) - libm::erf(f64::from(z))).abs() < 5e-7, "erf({z})");
            assert!((f64::from(gaussian) - (-f64::from(z).powi(2)).exp()).abs() < 5e-7);
        }
    }
}
