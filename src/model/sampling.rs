//! Modules that change the frame rate between stages (MR-HuBERT, `ConvAdapter` and plain sampling).

use super::config::Sampling;
use super::conv_stack::EPS;
use super::pass::Pass;
use super::sequence::Sequence;
use asr_kernels::sum::scaled_sum;
use asr_kernels::{conv, gelu, norm};
use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Weight of each sum of two branches, sqrt(0.4): keeps their variance near one.
const BRANCH_SCALE: f32 = 0.632_455_5;

/// Multiplies the frame rate by `up / down`.
#[derive(Debug)]
pub(super) struct Resample {
    up: usize,
    down: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Adapter { up: Conv, down: Conv },
    PlainUp(Conv),
    PlainDown(Conv),
}

/// A convolution, normalised over all channels and frames, then GELU.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    kernel: usize,
}

impl Conv {
    fn new(dim: usize, kernel: usize, vb: &VarBuilder) -> Result<Self> {
        // PyTorch's default, kaiming_uniform(a = sqrt 5): both directions have dim * kernel inputs.
        let bound = ((dim * kernel) as f64).sqrt().recip();
        let start = Init::Uniform { lo: -bound, up: bound };
        Ok(Self {
            weight: vb.get_with_hints((dim, dim, kernel), "0.weight", start)?,
            norm_weight: vb.get_with_hints(dim, "2.weight", Init::Const(1.0))?,
            norm_bias: vb.get_with_hints(dim, "2.bias", Init::Const(0.0))?,
            kernel,
        })
    }

    fn activate(&self, x: &Tensor, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let lengths = pass.norm_lengths(lengths);
        gelu::gelu(&norm::group_norm(x, &self.norm_weight, &self.norm_bias, 1, EPS, lengths)?)
    }

    /// Transposed convolution; `frames * up + kernel - 1` frames, of which norms over `lengths`
    /// count as many past each end.
    fn upsample(&self, x: &Tensor, up: usize, lengths: &[usize], pass: &Pass) -> Result<Tensor> {
        let y = conv::conv_transpose1d(x, &self.weight, up, up - 1, pass.precision())?;
        let lengths: Vec<usize> = lengths.iter().map(|n| n * up + self.kernel - 1).collect();
        self.activate(&y, &lengths, pass)
    }

    /// Frames on each side of the sound that the convolution down takes as silent.
    fn padding(&self) -> usize {
        (self.kernel - 1) / 2
    }

    /// Frames that the convolution down makes of `n`: a `down`-th, rounded up for an odd kernel;
    /// an even one has a frame less to stand on. One at least, as if silence followed.
    fn downsampled(&self, n: usize, down: usize) -> usize {
        (n + 2 * self.padding()).saturating_sub(self.kernel) / down + 1
    }

    fn downsample(
        &self,
        x: &Tensor,
        down: usize,
        lengths: &[usize],
        pass: &Pass,
    ) -> Result<Tensor> {
        let silence = self.kernel.saturating_sub(x.dim(1)? + 2 * self.padding());
        let x = if silence > 0 { &x.pad_with_zeros(1, 0, silence)? } else { x };
        let y = conv::conv1d(x, &self.weight, down, self.padding(), pass.precision())?;
        let lengths: Vec<usize> = lengths.iter().map(|&n| self.downsampled(n, down)).collect();
        self.activate(&y, &lengths, pass)
    }
}

/// Each frame `times` times.
fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(x.clone());
    }
    let (batch, frames, dim) = x.dims3()?;
    let x = x.unsqueeze(2)?.broadcast_as((batch, frames, times, dim))?;
    x.reshape((batch, frames * times, dim))
}

/// Every `step`-th frame, from the first.
fn every(x: &Tensor, step: usize) -> Result<Tensor> {
    if step == 1 {
        return Ok(x.clone());
    }
    let (batch, frames, dim) = x.dims3()?;
    let whole = frames.div_ceil(step);
    let x = x.pad_with_zeros(1, 0, whole * step - frames)?;
    x.reshape((batch, whole, step, dim))?.narrow(2, 0, 1)?.squeeze(2)?.contiguous()
}

/// `sqrt(0.4) (a + b)` over the frames both have.
fn join(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let frames = a.dim(1)?.min(b.dim(1)?);
    scaled_sum(&a.narrow(1, 0, frames)?, &b.narrow(1, 0, frames)?, BRANCH_SCALE)
}

impl Resample {
    /// On the way down, `ratio` as configured.
    pub(super) fn down(
        sampling: Sampling,
        [up, down]: [usize; 2],
        dim: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let kind = match sampling {
            Sampling::ConvAdapter { kernel } => adapter(dim, kernel, vb)?,
            Sampling::Plain { kernel } => {
                Kind::PlainDown(Conv::new(dim, kernel, &vb.pp("downsample_conv"))?)
            }
        };
        Ok(Self { up, down, kind })
    }

    /// On the way up, the inverse of `ratio`.
    pub(super) fn up(
        sampling: Sampling,
        [up, down]: [usize; 2],
        dim: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let kind = match sampling {
            Sampling::ConvAdapter { kernel } => adapter(dim, kernel, vb)?,
            Sampling::Plain { kernel } => {
                Kind::PlainUp(Conv::new(dim, kernel, &vb.pp("upsample_conv"))?)
            }
        };
        Ok(Self { up: down, down: up, kind })
    }

    pub(super) fn forward(&self, input: &Sequence, pass: &Pass) -> Result<Sequence> {
        let raised: Vec<usize> = input.lengths.iter().map(|n| n * self.up).collect();
        let lengths = match &self.kind {
            Kind::Adapter { down: conv, .. } | Kind::PlainDown(conv) => {
                raised.iter().map(|&n| conv.downsampled(n, self.down)).collect()
            }
            Kind::PlainUp(_) => raised.clone(),
        };
        let input = pass.isolate(input)?;
        let hidden = match &self.kind {
            Kind::Adapter { up, down } => {
                let repeated = repeat(&input.hidden, self.up)?;
                let y = up.upsample(&input.hidden, self.up, &input.lengths, pass)?;
                let y = Sequence { hidden: join(&y, &repeated)?, lengths: raised.clone() };
                let y = pass.isolate(&y)?.hidden;
                let z = down.downsample(&y, self.down, &raised, pass)?;
                let z = join(&z, &every(&y, self.down)?)?;
                join(&z, &every(&repeated, self.down)?)?
            }
            Kind::PlainUp(conv) => {
                let y = conv.upsample(&input.hidden, self.up, &input.lengths, pass)?;
                join(&y, &repeat(&input.hidden, self.up)?)?
            }
            Kind::PlainDown(conv) => {
                let y = conv.downsample(&input.hidden, self.down, &input.lengths, pass)?;
                join(&y, &every(&input.hidden, self.down)?)?
            }
        };
        Ok(Sequence { hidden, lengths })
    }
}

fn adapter(dim: usize, kernel: usize, vb: &VarBuilder) -> Result<Kind> {
    Ok(Kind::Adapter {
        up: Conv::new(dim, kernel, &vb.pp("upsample_conv"))?,
        down: Conv::new(dim, kernel, &vb.pp("downsample_conv"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Parameters;
    use asr_kernels::Precision;
    use candle_core::Device;

    /// One clip through [`Resample`] and through the formulas of the published module, written
    /// out: even kernels are not centred, each sum is cut to the shorter.
    #[test]
    fn any_kernel_does_what_the_published_module_does() -> Result<()> {
        const DIM: usize = 3;
        type Rows = Vec<[f64; DIM]>;
        fn activated(x: Rows) -> Rows {
            let n = (x.len() * DIM) as f64;
            let mean = x.iter().flatten().sum::<f64>() / n;
            let variance = x.iter().flatten().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let gelu = |v: f64| v * 0.5 * (1.0 + erf(v / 2.0_f64.sqrt()));
            let norm = |v: f64| gelu((v - mean) / (variance + EPS).sqrt());
            x.into_iter().map(|row| row.map(norm)).collect()
        }
        // By its series, which converges fast for the few units that occur here.
        fn erf(x: f64) -> f64 {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        }
        fn sum(a: &Rows, b: &Rows) -> Rows {
            let scale = 0.4_f64.sqrt();
            let add =
                |(a, b): (&[f64; DIM], &[f64; DIM])| std::array::from_fn(|c| scale * (a[c] + b[c]));
            a.iter().zip(b).map(add).collect()
        }
        let pass = Pass::inference(Precision::F32);
        for (kernel, [up, down], frames) in [
            (1, [1, 2], 7),
            (2, [1, 2], 7),
            (2, [1, 2], 8),
            (4, [2, 3], 5),
            (3, [2, 5], 6),
            (6, [1, 1], 4),
        ] {
            let parameters = Parameters::default();
            let vb = parameters.seeded(kernel as u64);
            let module = Resample::down(Sampling::ConvAdapter { kernel }, [up, down], DIM, &vb)?;
            let weight = |name: &str| -> Result<Vec<Vec<Vec<f32>>>> {
                vb.get((DIM, DIM, kernel), name)?.to_vec3()
            };
            let (w_up, w_down) =
                (weight("upsample_conv.0.weight")?, weight("downsample_conv.0.weight")?);
            let x: Rows = (0..frames)
                .map(|t| std::array::from_fn(|c| ((t * DIM + c) as f64 * 1.7).sin()))
                .collect();
            let repeated: Rows = (0..frames * up).map(|t| x[t / up]).collect();
            let mut raised: Rows = vec![[0.0; DIM]; frames * up + kernel - 1];
            for (t, row) in x.iter().enumerate() {
                for k in 0..kernel {
                    for o in 0..DIM {
                        raised[t * up + k][o] +=
                            (0..DIM).map(|i| row[i] * f64::from(w_up[i][o][k])).sum::<f64>();
                    }
                }
            }
            let y = sum(&activated(raised), &repeated);
            let padding = (kernel - 1) / 2;
            let out = (y.len() + 2 * padding - kernel) / down + 1;
            let at = |t: usize, i: usize| -> f64 {
                t.checked_sub(padding).and_then(|t| y.get(t)).map_or(0.0, |row| row[i])
            };
            let lowered: Rows = (0..out)
                .map(|t| {
                    std::array::from_fn(|o| {
                        (0..kernel)
                            .flat_map(|k| (0..DIM).map(move |i| (k, i)))
                            .map(|(k, i)| at(t * down + k, i) * f64::from(w_down[o][i][k]))
                            .sum()
                    })
                })
                .collect();
            let skipped = |rows: &Rows| rows.iter().step_by(down).copied().collect::<Rows>();
            let z = sum(&activated(lowered), &skipped(&y));
            let want = sum(&z, &skipped(&repeated));
            let values: Vec<f32> = x.iter().flatten().map(|&v| v as f32).collect();
            let hidden = Tensor::from_vec(values, (1, frames, DIM), &Device::Cpu)?;
            let got = module.forward(&Sequence { hidden, lengths: vec![frames] }, &pass)?;
            assert_eq!((got.frames()?, got.lengths[0]), (want.len(), want.len()), "{kernel}");
            for (got, want) in got.hidden.squeeze(0)?.to_vec2::<f32>()?.iter().zip(&want) {
                for (got, want) in got.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "{kernel}: {got}, {want}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn lengths_follow_the_ratio() -> Result<()> {
        let pass = Pass::inference(Precision::F32);
        for (ratio, frames, want) in
            [([1, 2], 7, 4), ([1, 2], 8, 4), ([2, 5], 26, 11), ([1, 1], 5, 5)]
        {
            for kernel in [1, 3, 7] {
                let vb = Parameters::default().seeded(1);
                let down = Resample::down(Sampling::ConvAdapter { kernel }, ratio, 8, &vb.pp("d"))?;
                let up = Resample::up(Sampling::ConvAdapter { kernel }, ratio, 8, &vb.pp("u"))?;
                let x = Tensor::zeros((1, frames, 8), candle_core::DType::F32, &Device::Cpu)?;
                let low = down.forward(&Sequence { hidden: x, lengths: vec![frames] }, &pass)?;
                assert_eq!((low.frames()?, low.lengths[0]), (want, want));
                let high = up.forward(&low, &pass)?;
                let back = (want * ratio[1]).div_ceil(ratio[0]);
                assert_eq!((high.frames()?, high.lengths[0]), (back, back));
                assert!(back >= frames);
            }
        }
        Ok(())
    }
}
