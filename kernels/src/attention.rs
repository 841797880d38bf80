//! Scaled dot-product attention whose memory grows linearly with time.
//!
//! Scores exist for one head and a block of queries at a time; the backward pass computes
//! them again instead of keeping them.

mod cpu;

#[cfg(feature = "cuda")]
use crate::device::{Place, attention as on_device, card::Card};
use crate::dropout::Dropout;
use crate::matmul::Precision;
use crate::storage::{slice, with_slice};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use cpu::{Bias, Inputs};
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

/// How attention is computed.
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a> {
    /// Heads, each over its own slice of the last dimension.
    pub heads: usize,
    /// Valid frames per clip, at least 1.
    pub lengths: &'a [usize],
    /// Of the products.
    pub precision: Precision,
    /// Of the normalised weights, in training.
    pub dropout: Dropout,
}

impl<'a> Attend<'a> {
    /// Without dropout.
    #[must_use]
    pub fn new(heads: usize, lengths: &'a [usize], precision: Precision) -> Self {
        Self { heads, lengths, precision, dropout: Dropout::NONE }
    }

    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<()> {
        let (heads, lengths) = (self.heads, self.lengths);
        let (batch, frames, dim) = q.dims3()?;
        if k.dims() != q.dims() || v.dims() != q.dims() {
            bail!("attention: q {:?}, k {:?}, v {:?} differ", q.dims(), k.dims(), v.dims());
        }
        if heads == 0 || dim % heads != 0 {
            bail!("{dim} dimensions do not divide into {heads} heads");
        }
        if lengths.len() != batch || lengths.iter().any(|&n| n == 0 || n > frames) {
            bail!("attention: lengths {lengths:?} do not fit {batch} clips of {frames} frames");
        }
        Ok(())
    }

    fn kept(&self) -> Kept {
        Kept {
            heads: self.heads,
            lengths: self.lengths.to_vec(),
            precision: self.precision.without_int8(),
            dropout: self.dropout,
            #[cfg(feature = "cuda")]
            log_sums: Mutex::new(None),
        }
    }
}

/// Softmax attention.
///
/// Keys from a clip's length on are masked; every query row is computed. The scale is
/// `(dim / heads)^-1/2`. Differentiable in `q`, `k` and `v`.
///
/// # Shapes
/// `q`, `k`, `v`: `(batch, frames, dim)`; returns `(batch, frames, dim)`.
///
/// # Errors
/// If shapes disagree, `heads` does not divide `dim`, or a tensor is not f32 on the CPU.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, how: &Attend<'_>) -> Result<Tensor> {
    how.check(q, k, v)?;
    let op = Attention { kept: how.kept(), bias: None };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// [`attention`] with a gated relative position bias (WavLM, Chen et al. 2022, section 3.2).
///
/// The score of query `i` and key `j` is `q_i . k_j (dim / heads)^-1/2 + gate[i] bias[j - i]`.
/// The bias depends on `j - i` alone, so it is a strip of `2 frames - 1` values per head and
/// no matrix over pairs of frames is ever held. Differentiable in everything.
///
/// # Shapes
/// `q`, `k`, `v`: `(batch, frames, dim)`; `strip`: `(heads, 2 frames - 1)`, entry
/// `frames - 1 + j - i`; `gate`: `(batch, heads, frames)`; returns `(batch, frames, dim)`.
///
/// # Errors
/// If shapes disagree, `heads` does not divide `dim`, or a tensor is not f32 on the CPU.
pub fn gated_attention(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    (strip, gate): (&Tensor, &Tensor),
    how: &Attend<'_>,
) -> Result<Tensor> {
    how.check(q, k, v)?;
    let (batch, frames, _) = q.dims3()?;
    if strip.dims() != [how.heads, 2 * frames - 1] || gate.dims() != [batch, how.heads, frames] {
        bail!(
            "gated attention: strip {:?}, gate {:?} of {frames} frames",
            strip.dims(),
            gate.dims()
        );
    }
    let is_learning = [q, k, v, strip, gate].iter().any(|tensor| tensor.track_op());
    if is_learning || q.device().is_cuda() {
        let op = GatedAttention { kept: how.kept() };
        let qkv = Tensor::cat(&[q, k, v], 0)?;
        return qkv.apply_op3(&strip.contiguous()?, &gate.contiguous()?, op);
    }
    // Without gradients the queries, keys and values need not be brought together.
    let bias = (strip.flatten_all()?.to_vec1()?, gate.flatten_all()?.to_vec1()?);
    let op = Attention { kept: how.kept(), bias: Some(bias) };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// What an operation keeps from forwards to backwards.
struct Kept {
    heads: usize,
    lengths: Vec<usize>,
    precision: Precision,
    dropout: Dropout,
    /// Of each query, on a device.
    #[cfg(feature = "cuda")]
    log_sums: Mutex<Option<Tensor>>,
}

/// Attention over three tensors; the strip and gates, where there are any, have no gradient.
struct Attention {
    kept: Kept,
    bias: Option<(Vec<f32>, Vec<f32>)>,
}

/// Attention with a gated bias. Queries, keys and values come one after the other,
/// `(3 batch, frames, dim)`: an operation has three inputs.
struct GatedAttention {
    kept: Kept,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, frames, dim) = q_layout.shape().dims3()?;
        let (q, k, v) = (slice(q, q_layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        let bias = self.bias.as_ref().map(|(strip, gate)| Bias { strip, gate });
        let out = self.kept.forward(Inputs { q, k, v, bias, frames, dim });
        Ok((CpuStorage::F32(out), q_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &CudaStorage,
        q_layout: &Layout,
        k: &CudaStorage,
        k_layout: &Layout,
        v: &CudaStorage,
        v_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let card = Card::of(q);
        let (q, k) = (card.input(q, q_layout)?, card.input(k, k_layout)?);
        let inputs = on_device::Inputs { q, k, v: card.input(v, v_layout)?, bias: None };
        let out = self.kept.forward_on(&card, inputs, q_layout.shape())?;
        Ok((out, q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, frames, dim) = q.dims3()?;
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(q) {
            let (q, k, v) = (card.read(q)?, card.read(k)?, card.read(v)?);
            let inputs = on_device::Inputs { q, k, v, bias: None };
            let got = self.kept.backward_on(&card, inputs, (out, dout))?;
            let qkv = card.tensor(got.qkv, (3 * batch, frames, dim));
            let part = |i: usize| qkv.narrow(0, i * batch, batch).map(Some);
            return Ok((part(0)?, part(1)?, part(2)?));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = (out, batch);
        if self.bias.is_some() {
            bail!("a gated bias without gradients was given to a training pass");
        }
        let gradients = with_slice(q, |q| {
            with_slice(k, |k| {
                with_slice(v, |v| {
                    with_slice(dout, |dout| {
                        self.kept.backward(Inputs { q, k, v, bias: None, frames, dim }, dout)
                    })
                })
            })
        })????;
        let [dq, dk, dv] =
            gradients.qkv.map(|values| Tensor::from_vec(values, q.shape(), q.device()).map(Some));
        Ok((dq?, dk?, dv?))
    }
}

impl CustomOp3 for GatedAttention {
    fn name(&self) -> &'static str {
        "gated-attention"
    }

    fn cpu_fwd(
        &self,
        qkv: &CpuStorage,
        qkv_layout: &Layout,
        strip: &CpuStorage,
        strip_layout: &Layout,
        gate: &CpuStorage,
        gate_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, frames, dim) = qkv_layout.shape().dims3()?;
        let bias = Bias { strip: slice(strip, strip_layout)?, gate: slice(gate, gate_layout)? };
        let out = self.kept.forward(inputs(slice(qkv, qkv_layout)?, bias, (frames, dim)));
        Ok((CpuStorage::F32(out), (self.kept.lengths.len(), frames, dim).into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        qkv: &CudaStorage,
        qkv_layout: &Layout,
        strip: &CudaStorage,
        strip_layout: &Layout,
        gate: &CudaStorage,
        gate_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (_, frames, dim) = qkv_layout.shape().dims3()?;
        let card = Card::of(qkv);
        let bias = (card.input(strip, strip_layout)?, card.input(gate, gate_layout)?);
        let inputs = inputs_on(card.input(qkv, qkv_layout)?, bias)?;
        let shape = (self.kept.lengths.len(), frames, dim).into();
        Ok((self.kept.forward_on(&card, inputs, &shape)?, shape))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        strip: &Tensor,
        gate: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(qkv) {
            let inputs = inputs_on(card.read(qkv)?, (card.read(strip)?, card.read(gate)?))?;
            let got = self.kept.backward_on(&card, inputs, (out, dout))?;
            let (dstrip, dgate) =
                got.bias.map_or((None, None), |(strip, gate)| (Some(strip), Some(gate)));
            return Ok((
                Some(card.tensor(got.qkv, qkv.shape())),
                dstrip.map(|dstrip| card.tensor(dstrip, strip.shape())),
                dgate.map(|dgate| card.tensor(dgate, gate.shape())),
            ));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = out;
        let (_, frames, dim) = qkv.dims3()?;
        let gradients = with_slice(qkv, |qkv| {
            with_slice(strip, |strip| {
                with_slice(gate, |gate| {
                    with_slice(dout, |dout| {
                        let inputs = inputs(qkv, Bias { strip, gate }, (frames, dim));
                        self.kept.backward(inputs, dout)
                    })
                })
            })
        })????;
        let to = |values: Vec<f32>, like: &Tensor| {
            Tensor::from_vec(values, like.shape(), like.device()).map(Some)
        };
        let (dstrip, dgate) = gradients.bias.unzip();
        Ok((
            to(gradients.qkv.concat(), qkv)?,
            dstrip.map_or(Ok(None), |dstrip| to(dstrip, strip))?,
            dgate.map_or(Ok(None), |dgate| to(dgate, gate))?,
        ))
    }
}

/// Of queries, keys and values one after the other.
fn inputs<'a>(qkv: &'a [f32], bias: Bias<'a>, (frames, dim): (usize, usize)) -> Inputs<'a> {
    let n = qkv.len() / 3;
    let (q, k, v) = (&qkv[..n], &qkv[n..2 * n], &qkv[2 * n..]);
    Inputs { q, k, v, bias: Some(bias), frames, dim }
}

/// The same on a device.
#[cfg(feature = "cuda")]
fn inputs_on<'a>(qkv: Place<'a>, bias: (Place<'a>, Place<'a>)) -> Result<on_device::Inputs<'a>> {
    let n = qkv.len / 3;
    let (k, v) = (qkv.from(n)?, qkv.from(2 * n)?);
    Ok(on_device::Inputs { q: qkv, k, v, bias: Some(bias) })
}

#[cfg(feature = "cuda")]
impl Kept {
    fn shape(&self, frames: usize, dim: usize) -> on_device::Shape<'_> {
        let (heads, lengths) = (self.heads, self.lengths.as_slice());
        on_device::Shape { frames, dim, heads, lengths, dropout: self.dropout }
    }

    /// `shape` is that of the output.
    fn forward_on(
        &self,
        card: &Card,
        inputs: on_device::Inputs<'_>,
        shape: &Shape,
    ) -> Result<CudaStorage> {
        let (batch, frames, dim) = shape.dims3()?;
        let (out, log_sums) = on_device::forward(card, inputs, self.shape(frames, dim))?;
        let log_sums = card.tensor(log_sums, (batch, self.heads, frames));
        *self.log_sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(log_sums);
        Ok(card.storage(out))
    }

    fn backward_on(
        &self,
        card: &Card,
        inputs: on_device::Inputs<'_>,
        (out, dout): (&Tensor, &Tensor),
    ) -> Result<on_device::Gradients<<Card as crate::device::Machine>::Buffer>> {
        let (_, frames, dim) = out.dims3()?;
        let log_sums = self.log_sums.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log_sums) = log_sums.as_ref() else {
            bail!("attention backwards before forwards");
        };
        let dout = dout.contiguous()?;
        let kept = (card.read(out)?, card.read(log_sums)?, card.read(&dout)?);
        on_device::backward(card, inputs, kept, self.shape(frames, dim))
    }
}

#[cfg(test)]
mod tests;
