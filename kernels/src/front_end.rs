//! A stack of unpadded convolutions with their norms and GELU, for inference.
//!
//! The first layers of a waveform encoder have far more frames than the last: held whole,
//! they take more memory, and memory traffic, than everything else. Here a stretch of the
//! output is computed through all layers before the next, so that what lies between stays in
//! the caches. The statistics of a group norm over time, which would need the whole first
//! layer, follow from the mean and covariance of its input windows: with `y = w x + b`,
//! `mean y = w mean x + b` and `var y = wᵀ cov x w`.

use crate::conv::Map;
use crate::matmul::{
    CPointer, Matrix, Output, Packed, Precision, PreparedWeight, matmul_packed_into,
};
use crate::norm::layer_norm_in_place;
use crate::storage::with_slice;
use crate::three_taps::ThreeTaps;
use crate::vector::vectorised;
use crate::{gelu, threads};
use candle_core::{Result, Tensor, bail};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// Longest window, in values, whose covariance is taken.
const MAX_COVARIANCE: usize = 64;
/// Input channels from which on a convolution of three taps gains from [`ThreeTaps`].
const MIN_THREE_TAPS: usize = 32;
/// Output frames computed at a time.
const STRETCH: usize = 48;

/// One convolution, its norm and GELU.
#[derive(Debug)]
pub struct FrontEndLayer<'a> {
    /// `(outputs, inputs, kernel)`
    pub weight: &'a Tensor,
    /// `(outputs,)`
    pub bias: Option<&'a Tensor>,
    /// Input frames per output frame.
    pub stride: usize,
    /// What comes between convolution and GELU.
    pub norm: FrontEndNorm<'a>,
    /// The weight, prepared.
    pub prepared: &'a PreparedWeight,
}

/// Norms between a convolution and its GELU.
#[derive(Debug)]
pub enum FrontEndNorm<'a> {
    /// None.
    None,
    /// One group per channel over a clip's time, first layer only: weight and bias.
    Group(&'a Tensor, &'a Tensor),
    /// Over the channels of each frame: weight, bias and epsilon.
    Layer(&'a Tensor, &'a Tensor, f64),
}

/// Whether [`front_end`] computes such a stack: it lies on the CPU, nothing in it is trained, and
/// a group norm comes first, over windows short enough.
#[must_use]
pub fn applies(x: &Tensor, layers: &[FrontEndLayer<'_>]) -> bool {
    let grouped = |norm: &FrontEndNorm<'_>| matches!(norm, FrontEndNorm::Group(..));
    let trained = |layer: &FrontEndLayer<'_>| {
        let norm = match layer.norm {
            FrontEndNorm::None => false,
            FrontEndNorm::Group(weight, bias) | FrontEndNorm::Layer(weight, bias, _) => {
                weight.track_op() || bias.track_op()
            }
        };
        norm || layer.weight.track_op() || layer.bias.is_some_and(Tensor::track_op)
    };
    x.device().is_cpu()
        && !x.track_op()
        && !layers.is_empty()
        && !layers.iter().any(trained)
        && layers.iter().skip(1).all(|layer| !grouped(&layer.norm))
        && (!grouped(&layers[0].norm)
            || layers[0].weight.elem_count()
                <= MAX_COVARIANCE * layers[0].weight.dim(0).unwrap_or(0))
}

/// Runs the stack.
///
/// # Shapes
/// `x`: `(batch, steps, inputs)`; `lengths`: valid steps per clip, for the statistics of a
/// group norm, whose output past them is zero; `None` counts every step. Returns
/// `(batch, frames, outputs)`. `eps` is the group norm's.
///
/// # Errors
/// If shapes disagree, a clip is too short for one frame, [`applies`] is false, or a tensor is
/// not f32 on the CPU.
pub fn front_end(
    x: &Tensor,
    lengths: Option<&[usize]>,
    layers: &[FrontEndLayer<'_>],
    eps: f64,
    precision: Precision,
) -> Result<Tensor> {
    let (batch, steps, inputs) = x.dims3()?;
    let precision = precision.without_int8();
    if !applies(x, layers) {
        bail!("this stack of convolutions is not for inference as one");
    }
    if lengths.is_some_and(|lengths| lengths.len() != batch) {
        bail!("front end: lengths for another batch than {batch}");
    }
    let mut prepared = Vec::with_capacity(layers.len());
    let (mut channels, mut frames) = (inputs, steps);
    for layer in layers {
        let layer = Layer::new(layer, channels, precision)?;
        if frames < layer.map.kernel {
            bail!("front end: {frames} frames are fewer than the kernel of {}", layer.map.kernel);
        }
        frames = (frames - layer.map.kernel) / layer.map.stride + 1;
        channels = layer.map.short_channels;
        prepared.push(layer);
    }
    let out = with_slice(x, |x| {
        let clips: Vec<Clip<'_>> = x
            .chunks_exact((steps * inputs).max(1))
            .enumerate()
            .map(|(i, x)| {
                let valid = lengths.map_or(steps, |lengths| lengths[i].min(steps));
                Clip::new(x, valid, &prepared[0], eps)
            })
            .collect();
        // As many stretches as whole rounds of all threads.
        let rounds = frames.div_ceil(STRETCH * threads::available()).max(1);
        let stretch = frames.div_ceil(rounds * threads::available()).max(1);
        let per_clip = frames.div_ceil(stretch);
        let mut out = Vec::with_capacity(batch * frames * channels);
        let place = CPointer(out.as_mut_ptr());
        threads::for_each(clips.len() * per_clip, |task| {
            let (clip, start) = (task / per_clip, task % per_clip * stretch);
            let range = start..frames.min(start + stretch);
            BUFFERS.with_borrow_mut(|buffers| {
                threads::serial(|| clips[clip].run(&prepared, range.clone(), buffers));
                let from = (clip * frames + start) * channels;
                // SAFETY: stretches are disjoint parts of the output, inside the vector.
                unsafe {
                    let values = &buffers[0];
                    assert_eq!(values.len(), range.len() * channels, "a stretch is whole");
                    let to: *mut f32 = place.get().add(from);
                    std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
                }
            });
        });
        // SAFETY: the stretches of all clips cover the output.
        unsafe { out.set_len(batch * frames * channels) };
        out
    })?;
    Tensor::from_vec(out, (batch, frames, channels), x.device())
}

thread_local! {
    /// Output and input of the layer at work and what it needs beside, kept between calls.
    static BUFFERS: RefCell<[Vec<f32>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// A layer with its weights as slices.
struct Layer {
    map: Map,
    bias: Option<Vec<f32>>,
    norm: Norm,
}

/// How a layer without a group norm is computed.
enum Convolution {
    Windows(Arc<Packed>),
    ThreeTaps(Arc<ThreeTaps>),
}

impl Convolution {
    /// Output frames `(frames, outputs)` of the input frames at the start of `source`.
    fn run(
        &self,
        (map, source, frames): (&Map, &[f32], usize),
        output: Output<'_>,
        (out, rows): (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        match self {
            Self::Windows(packed) => {
                matmul_packed_into(map.windows(source, frames), packed, output, out);
            }
            Self::ThreeTaps(taps) => taps.run(source, frames, output, (out, rows)),
        }
    }
}

enum Norm {
    None(Convolution),
    /// Weights `(outputs, window)`, scale and shift.
    Group {
        weight: Vec<f32>,
        scale: Vec<f32>,
        shift: Vec<f32>,
    },
    Layer {
        convolution: Convolution,
        weight: Vec<f32>,
        bias: Vec<f32>,
        eps: f32,
    },
}

impl Layer {
    fn new(layer: &FrontEndLayer<'_>, inputs: usize, precision: Precision) -> Result<Self> {
        let map = Map::of(layer.weight, layer.stride, precision)?;
        if map.long_channels != inputs || map.stride == 0 || map.kernel == 0 {
            bail!("front end: weight {:?} on {inputs} channels", layer.weight.dims());
        }
        let outputs = map.short_channels;
        let vector = |tensor: &Tensor| -> Result<Vec<f32>> {
            if tensor.dims() != [outputs] {
                bail!("front end: {:?} for {outputs} channels", tensor.dims());
            }
            tensor.to_vec1()
        };
        let convolution = || {
            if (map.kernel, map.stride) == (3, 2)
                && precision == Precision::F32
                && inputs >= MIN_THREE_TAPS
            {
                let pack = |weight: &[f32]| ThreeTaps::new(&map.pack(weight), outputs);
                let taps = layer.prepared.three_taps(layer.weight, pack)?;
                return Ok(Convolution::ThreeTaps(taps));
            }
            let pack = |weight: &[f32]| {
                let weight = map.pack(weight);
                let weight = Matrix::row_major(&weight, outputs, map.kernel * inputs);
                Packed::new(weight.transposed(), precision)
            };
            let packed = layer.prepared.get(layer.weight, precision, pack)?;
            Ok::<_, candle_core::Error>(Convolution::Windows(packed.expect("nothing is trained")))
        };
        Ok(Self {
            map,
            bias: layer.bias.map(vector).transpose()?,
            norm: match layer.norm {
                FrontEndNorm::None => Norm::None(convolution()?),
                FrontEndNorm::Group(weight, bias) => Norm::Group {
                    weight: with_slice(layer.weight, |w| map.pack(w).into_owned())?,
                    scale: vector(weight)?,
                    shift: vector(bias)?,
                },
                FrontEndNorm::Layer(weight, bias, eps) => Norm::Layer {
                    convolution: convolution()?,
                    weight: vector(weight)?,
                    bias: vector(bias)?,
                    eps: eps as f32,
                },
            },
        })
    }
}

/// A clip and what its first layer becomes under a group norm.
struct Clip<'a> {
    x: &'a [f32],
    /// Frames of the first layer that the group norm covers, and its weights and bias.
    normalised: Option<(usize, Packed, Vec<f32>)>,
}

vectorised! {
    /// Adds windows and their outer products, `frames` of them.
    fn add_windows(x: &[f32], hop: usize, frames: usize, sums: &mut [f64], products: &mut [f64]) {
        let width = sums.len();
        let mut window = [0.0_f64; MAX_COVARIANCE];
        for t in 0..frames {
            let values = &x[t * hop..t * hop + width];
            for (w, &v) in window.iter_mut().zip(values) {
                *w = f64::from(v);
            }
            for ((sum, products), &a) in sums.iter_mut().zip(products.chunks_exact_mut(width)).zip(&window) {
                *sum += a;
                for (product, &b) in products.iter_mut().zip(&window) {
                    *product += a * b;
                }
            }
        }
    }
}

impl<'a> Clip<'a> {
    fn new(x: &'a [f32], valid: usize, first: &Layer, eps: f64) -> Self {
        let Norm::Group { weight, scale, shift } = &first.norm else {
            return Self { x, normalised: None };
        };
        let map = &first.map;
        let width = map.kernel * map.long_channels;
        let frames = if valid < map.kernel { 0 } else { (valid - map.kernel) / map.stride + 1 };
        let (mut mean, mut products) = (vec![0.0; width], vec![0.0; width * width]);
        add_windows(x, map.stride * map.long_channels, frames, &mut mean, &mut products);
        let count = frames.max(1) as f64;
        mean.iter_mut().for_each(|m| *m /= count);
        let mut weights = Vec::with_capacity(weight.len());
        let mut bias = Vec::with_capacity(scale.len());
        // The convolution's own bias moves the mean alone, and so is lost.
        for ((row, &scale), &shift) in weight.chunks_exact(width).zip(scale).zip(shift) {
            let dot = |values: &[f64]| -> f64 {
                row.iter().zip(values).map(|(&w, v)| f64::from(w) * v).sum()
            };
            let middle = dot(&mean);
            let square: f64 = row
                .iter()
                .zip(products.chunks_exact(width))
                .map(|(&w, products)| f64::from(w) * dot(products))
                .sum();
            let variance = (square / count - middle * middle).max(0.0);
            let factor = f64::from(scale) / (variance + eps).sqrt();
            weights.extend(row.iter().map(|&w| (f64::from(w) * factor) as f32));
            bias.push((f64::from(shift) - middle * factor) as f32);
        }
        let weights = Matrix::row_major(&weights, bias.len(), width).transposed();
        // Short windows gain nothing from less precision.
        let packed = Packed::new(weights, Precision::F32);
        Self { x, normalised: Some((frames, packed, bias)) }
    }

    /// Leaves the frames `range` of the last layer in the first buffer.
    fn run(&self, layers: &[Layer], range: Range<usize>, buffers: &mut [Vec<f32>; 3]) {
        let [out, input, rows] = buffers;
        // What each layer has to compute, last to first.
        let mut ranges = vec![range];
        for layer in layers.iter().skip(1).rev() {
            let needed = &ranges[ranges.len() - 1];
            let (stride, kernel) = (layer.map.stride, layer.map.kernel);
            ranges.push(needed.start * stride..(needed.end - 1) * stride + kernel);
        }
        let mut start = 0;
        for (i, (layer, range)) in layers.iter().zip(ranges.iter().rev()).enumerate() {
            let map = &layer.map;
            std::mem::swap(out, input);
            let source = if i == 0 { self.x } else { input.as_slice() };
            let from = (range.start * map.stride - start) * map.long_channels;
            let input = (map, &source[from..], range.len());
            let bias = layer.bias.as_deref().map_or(Output::Overwrite, Output::Bias);
            match (&layer.norm, &self.normalised) {
                (Norm::Group { .. }, Some((valid, packed, bias))) => {
                    let windows = map.windows(&source[from..], range.len());
                    matmul_packed_into(windows, packed, Output::Bias(bias), out);
                    let kept = valid.saturating_sub(range.start) * map.short_channels;
                    if kept < out.len() {
                        out[kept..].fill(0.0);
                    }
                }
                (Norm::Group { .. }, None) => unreachable!("made together with its layer"),
                (Norm::None(convolution), _) => convolution.run(input, bias, (out, rows)),
                (Norm::Layer { convolution, weight, bias: shift, eps }, _) => {
                    convolution.run(input, bias, (out, rows));
                    layer_norm_in_place(out, weight, shift, *eps);
                }
            }
            gelu::in_place(out);
            start = range.start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conv::conv1d;
    use crate::norm::{group_norm, layer_norm};
    use crate::reference;
    use candle_core::Device;

    fn tensor(shape: &[usize], seed: u64) -> Result<Tensor> {
        let n = shape.iter().product();
        Tensor::from_vec(reference::uniform(n, seed), shape, &Device::Cpu)
    }

    /// The same, layer by layer, from the operations that training uses.
    fn plain(
        x: &Tensor,
        lengths: Option<&[usize]>,
        layers: &[FrontEndLayer<'_>],
    ) -> Result<Tensor> {
        let mut x = x.clone();
        for layer in layers {
            x = conv1d(&x, layer.weight, layer.stride, 0, Precision::F32)?;
            if let Some(bias) = layer.bias {
                x = x.broadcast_add(bias)?;
            }
            x = match layer.norm {
                FrontEndNorm::None => x,
                FrontEndNorm::Layer(weight, bias, eps) => layer_norm(&x, weight, bias, eps)?,
                FrontEndNorm::Group(weight, bias) => {
                    let kernel = layer.weight.dim(2)?;
                    let frames: Option<Vec<usize>> = lengths.map(|lengths| {
                        lengths.iter().map(|n| (n - kernel) / layer.stride + 1).collect()
                    });
                    let groups = layer.weight.dim(0)?;
                    group_norm(&x, weight, bias, groups, 1e-5, frames.as_deref())?
                }
            };
            x = gelu::gelu(&x)?;
        }
        Ok(x)
    }

    #[test]
    fn stretches_make_the_same_frames_as_whole_layers() -> Result<()> {
        let weights = [tensor(&[37, 1, 10], 1)?, tensor(&[20, 37, 3], 2)?, tensor(&[9, 20, 2], 3)?];
        let vectors: Vec<(Tensor, Tensor)> = [37, 20, 9]
            .iter()
            .zip(10..)
            .map(|(&n, seed)| Ok((tensor(&[n], seed)?, tensor(&[n], seed + 50)?)))
            .collect::<Result<_>>()?;
        let prepared: [PreparedWeight; 3] = std::array::from_fn(|_| PreparedWeight::default());
        for grouped in [true, false] {
            let layers: Vec<FrontEndLayer<'_>> = (0..3)
                .map(|i| {
                    let (weight, bias) = &vectors[i];
                    FrontEndLayer {
                        weight: &weights[i],
                        bias: (!grouped).then_some(bias),
                        stride: [5, 2, 2][i],
                        norm: match (grouped, i) {
                            (true, 0) => FrontEndNorm::Group(weight, bias),
                            (true, _) => FrontEndNorm::None,
                            (false, _) => FrontEndNorm::Layer(weight, bias, 1e-5),
                        },
                        prepared: &prepared[i],
                    }
                })
                .collect();
            // The first length makes a single frame.
            for steps in reference::cases([30, 31, 999, 4001], 2) {
                let x = tensor(&[2, steps, 1], steps as u64)?;
                let shorter = [steps, (steps - 7).max(30)];
                for lengths in [None, Some(shorter.as_slice())] {
                    let got = front_end(&x, lengths, &layers, 1e-5, Precision::F32)?;
                    let want = plain(&x, lengths, &layers)?;
                    assert_eq!(got.dims(), want.dims());
                    let worst = (got - want)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
                    assert!(worst < 2e-5, "{steps} steps differ by {worst}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_trained_is_left_to_the_layers() -> Result<()> {
        let weight = candle_core::Var::from_tensor(&tensor(&[4, 1, 3], 1)?)?;
        let layer = FrontEndLayer {
            weight: &weight,
            bias: None,
            stride: 1,
            norm: FrontEndNorm::None,
            prepared: &PreparedWeight::default(),
        };
        let x = tensor(&[1, 9, 1], 2)?;
        assert!(front_end(&x, None, &[layer], 1e-5, Precision::F32).is_err());
        Ok(())
    }
}
