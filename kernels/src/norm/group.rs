//! Group norm over time and channels, with statistics that can leave padding out.

#[cfg(feature = "cuda")]
use crate::device::{card::Card, norm as on_device};
use crate::gradients::deliver_sum;
use crate::storage::{slice, with_slice};
use crate::threads;
use crate::vector::vectorised;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// Normalises each group of channels over all its frames (Wu and He 2018).
///
/// One group per channel is the norm of HuBERT base's first convolution; one group in all
/// is that of MR-HuBERT's sampling modules.
///
/// # Shapes
/// - `x`: `(batch, frames, channels)`; `weight`, `bias`: `(channels,)`
/// - `lengths`: valid frames per clip. Statistics then cover those alone and frames past
///   them come out zero, so that a clip does not depend on the batch it is in. `None`
///   counts every frame, as the published models do.
///
/// # Errors
/// If shapes disagree, `groups` does not divide the channels, or a tensor is not f32 on the CPU.
pub fn group_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    lengths: Option<&[usize]>,
) -> Result<Tensor> {
    let (batch, frames, channels) = x.dims3()?;
    if groups == 0 || channels % groups != 0 {
        bail!("{channels} channels do not divide into {groups} groups");
    }
    let lengths = match lengths {
        Some(lengths) if lengths.len() != batch => {
            bail!("{} lengths for a batch of {batch}", lengths.len())
        }
        Some(lengths) => lengths.iter().map(|&n| n.min(frames)).collect(),
        None => vec![frames; batch],
    };
    x.contiguous()?.apply_op3(weight, bias, GroupNorm { groups, eps, lengths })
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    lengths: Vec<usize>,
}

vectorised! {
    /// Adds rows of values to `sums`.
    fn add_values(x: &[f32], sums: &mut [f64]) {
        for row in x.chunks_exact(sums.len()) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += f64::from(x);
            }
        }
    }
}

vectorised! {
    /// Adds the squares of their distances from `mean` to `sums`.
    fn add_squares(x: &[f32], mean: &[f64], sums: &mut [f64]) {
        for row in x.chunks_exact(sums.len()) {
            for ((sum, &x), mean) in sums.iter_mut().zip(row).zip(mean) {
                let distance = f64::from(x) - mean;
                *sum += distance * distance;
            }
        }
    }
}

vectorised! {
    fn normalise(x: &[f32], statistics: &Statistics, weight: &[f32], bias: &[f32], y: &mut [f32]) {
        let channels = weight.len();
        let Statistics { mean, scale } = statistics;
        let (mean, scale, bias) = (&mean[..channels], &scale[..channels], &bias[..channels]);
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            for c in 0..channels {
                y[c] = (x[c] - mean[c]) * scale[c] * weight[c] + bias[c];
            }
        }
    }
}

vectorised! {
    /// Adds `dy` to `a`, and `dy` times the normalised value to `b`.
    fn add_gradients(x: &[f32], dy: &[f32], statistics: &Statistics, a: &mut [f64], b: &mut [f64]) {
        let channels = a.len();
        let Statistics { mean, scale } = statistics;
        let (mean, scale, b) = (&mean[..channels], &scale[..channels], &mut b[..channels]);
        for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
            for c in 0..channels {
                a[c] += f64::from(dy[c]);
                b[c] += f64::from(dy[c] * (x[c] - mean[c]) * scale[c]);
            }
        }
    }
}

vectorised! {
    /// `a` and `b` are the means over each group of what [`add_gradients`] found, weighted.
    fn input_gradient(x: &[f32], dy: &[f32], statistics: &Statistics, weight: &[f32], a: &[f32], b: &[f32], dx: &mut [f32]) {
        let channels = weight.len();
        let Statistics { mean, scale } = statistics;
        let (mean, scale) = (&mean[..channels], &scale[..channels]);
        let (a, b) = (&a[..channels], &b[..channels]);
        let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
        for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(channels)) {
            for c in 0..channels {
                let unit = (x[c] - mean[c]) * scale[c];
                dx[c] = scale[c] * (dy[c] * weight[c] - a[c] - unit * b[c]);
            }
        }
    }
}

/// Per-channel mean and reciprocal deviation of one clip.
struct Statistics {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl GroupNorm {
    #[cfg(feature = "cuda")]
    fn on_device(&self, frames: usize, channels: usize) -> on_device::Groups<'_> {
        let (groups, eps, lengths) = (self.groups, self.eps as f32, &self.lengths);
        on_device::Groups { frames, channels, groups, eps, lengths }
    }

    /// Averages per-channel sums over each group and hands every channel its group's value.
    fn over_groups(&self, sums: &[f64], frames: usize) -> Vec<f64> {
        let per_group = sums.len() / self.groups;
        let count = (per_group * frames) as f64;
        sums.chunks(per_group)
            .flat_map(|group| std::iter::repeat_n(group.iter().sum::<f64>() / count, per_group))
            .collect()
    }

    fn statistics(&self, x: &[f32], channels: usize) -> Statistics {
        let frames = x.len() / channels;
        let mut sums = vec![0.0_f64; channels];
        add_values(x, &mut sums);
        let mean = self.over_groups(&sums, frames);
        sums.fill(0.0);
        add_squares(x, &mean, &mut sums);
        let variance = self.over_groups(&sums, frames);
        Statistics {
            mean: mean.iter().map(|&m| m as f32).collect(),
            scale: variance.iter().map(|v| (v + self.eps).sqrt().recip() as f32).collect(),
        }
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, frames, channels) = x_layout.shape().dims3()?;
        let (x, weight, bias) =
            (slice(x, x_layout)?, slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        if weight.len() != channels || bias.len() != channels {
            bail!("group norm of width {} over {channels} channels", weight.len());
        }
        let mut y = vec![0.0; x.len()];
        for (clip, &length) in self.lengths.iter().enumerate() {
            let start = clip * frames * channels;
            let valid = start..start + length * channels;
            let x = &x[valid.clone()];
            let statistics = self.statistics(x, channels);
            threads::for_row_blocks(&mut y[valid], channels, |from, y| {
                let x = &x[from * channels..from * channels + y.len()];
                normalise(x, &statistics, weight, bias, y);
            });
        }
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(x);
        let places = (
            card.input(x, x_layout)?,
            card.input(weight, weight_layout)?,
            card.input(bias, bias_layout)?,
        );
        let (_, frames, channels) = x_layout.shape().dims3()?;
        let y = on_device::group_norm(&card, places, self.on_device(frames, channels))?;
        Ok((card.storage(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, frames, channels) = x.dims3()?;
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(x) {
            let dy = dy.contiguous()?;
            let places = (card.read(x)?, card.read(weight)?, card.read(&dy)?);
            let over = self.on_device(frames, channels);
            let (dx, parameters) = on_device::group_norm_gradient(&card, places, over)?;
            let parameters = card.tensor(parameters, 2 * channels);
            return Ok((
                Some(card.tensor(dx, x.shape())),
                Some(parameters.narrow(0, 0, channels)?),
                Some(parameters.narrow(0, channels, channels)?),
            ));
        }
        let mut dx = vec![0.0_f32; x.elem_count()];
        let (mut dw, mut db) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
        with_slice(x, |x| {
            with_slice(weight, |weight| {
                with_slice(dy, |dy| {
                    for (clip, &length) in self.lengths.iter().enumerate() {
                        let start = clip * frames * channels;
                        let valid = start..start + length * channels;
                        let (x, dy) = (&x[valid.clone()], &dy[valid.clone()]);
                        let statistics = self.statistics(x, channels);
                        // Sums over time of dy and of dy times the normalised value.
                        let (mut a, mut b) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
                        add_gradients(x, dy, &statistics, &mut a, &mut b);
                        for c in 0..channels {
                            db[c] += a[c];
                            dw[c] += b[c];
                            a[c] *= f64::from(weight[c]);
                            b[c] *= f64::from(weight[c]);
                        }
                        let a: Vec<f32> =
                            self.over_groups(&a, length).iter().map(|&v| v as f32).collect();
                        let b: Vec<f32> =
                            self.over_groups(&b, length).iter().map(|&v| v as f32).collect();
                        input_gradient(x, dy, &statistics, weight, &a, &b, &mut dx[valid]);
                    }
                })
            })
        })???;
        let add = |sum: &mut [f32], values: &[f64]| {
            for (s, &v) in sum.iter_mut().zip(values) {
                *s += v as f32;
            }
        };
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            deliver_sum(weight, |sum| add(sum, &dw))?,
            deliver_sum(bias, |sum| add(sum, &db))?,
        ))
    }
}
