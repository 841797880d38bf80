//! Scaled dot-product attention whose memory grows linearly with time.
//!
//! Scores exist for one head and a block of queries at a time; the backward pass computes
//! them again instead of keeping them.

#[cfg(feature = "cuda")]
use crate::device::{Place, attention as on_device, card::Card};
use crate::matmul::{CPointer, Matrix, Output, Precision, matmul_at, product_into};
use crate::storage::{slice, with_slice};
use crate::threads;
use crate::vector::{exp, max_of, sum_of, vectorised};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

/// Queries whose scores are held at a time: as many as keep them in the second-level cache.
fn block_rows(keys: usize) -> usize {
    const SCORES: usize = 1 << 17;
    (SCORES / keys.max(1)).clamp(48, 240) / 24 * 24
}

/// Softmax attention of `heads` heads, each over its own slice of the last dimension.
///
/// Keys from a clip's length on are masked; every query row is computed. The scale is
/// `(dim / heads)^-1/2`. Differentiable in `q`, `k` and `v`.
///
/// # Shapes
/// `q`, `k`, `v`: `(batch, frames, dim)`; `lengths`: valid frames per clip, at least 1;
/// returns `(batch, frames, dim)`.
///
/// # Errors
/// If shapes disagree, `heads` does not divide `dim`, or a tensor is not f32 on the CPU.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    lengths: &[usize],
    precision: Precision,
) -> Result<Tensor> {
    check(q, k, v, heads, lengths)?;
    let op = Attention {
        heads,
        lengths: lengths.to_vec(),
        precision: precision.without_int8(),
        bias: None,
        #[cfg(feature = "cuda")]
        log_sums: Mutex::new(None),
    };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, lengths: &[usize]) -> Result<()> {
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

/// [`attention`] with a gated relative position bias (WavLM, Chen et al. 2022, section 3.2).
///
/// The score of query `i` and key `j` is `q_i . k_j (dim / heads)^-1/2 + gate[i] bias[j - i]`.
/// The bias depends on `j - i` alone, so it is a strip of `2 frames - 1` values per head and
/// no matrix over pairs of frames is ever held. Differentiable in everything: where a gradient
/// may be asked for on the CPU, it is composed of operations of candle, in f32, and does hold such
/// matrices; on a CUDA device it holds none.
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
    lengths: &[usize],
    precision: Precision,
) -> Result<Tensor> {
    let (batch, frames, _) = q.dims3()?;
    let (heads, offsets) = strip.dims2()?;
    check(q, k, v, heads, lengths)?;
    if offsets + 1 != 2 * frames || gate.dims() != [batch, heads, frames] {
        bail!(
            "gated attention: strip {:?}, gate {:?} of {frames} frames",
            strip.dims(),
            gate.dims()
        );
    }
    #[cfg(feature = "cuda")]
    if q.device().is_cuda() {
        let op = GatedOnDevice { heads, lengths: lengths.to_vec(), kept: Mutex::new(None) };
        let qkv = Tensor::cat(&[q, k, v], 0)?;
        return qkv.apply_op3(&strip.contiguous()?, &gate.contiguous()?, op);
    }
    if [q, k, v, strip, gate].iter().any(|tensor| tensor.track_op()) {
        return composed((q, k, v), (strip, gate), lengths);
    }
    let bias =
        Bias { strip: strip.flatten_all()?.to_vec1()?, gate: gate.flatten_all()?.to_vec1()? };
    let (lengths, precision) = (lengths.to_vec(), precision.without_int8());
    let op = Attention {
        heads,
        lengths,
        precision,
        bias: Some(bias),
        #[cfg(feature = "cuda")]
        log_sums: Mutex::new(None),
    };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

/// [`gated_attention`] of operations that have gradients.
fn composed(
    (q, k, v): (&Tensor, &Tensor, &Tensor),
    (strip, gate): (&Tensor, &Tensor),
    lengths: &[usize],
) -> Result<Tensor> {
    let (batch, frames, dim) = q.dims3()?;
    let heads = strip.dim(0)?;
    let width = dim / heads;
    let by_head =
        |x: &Tensor| x.reshape((batch, frames, heads, width))?.transpose(1, 2)?.contiguous();
    let keys = by_head(k)?.transpose(2, 3)?.contiguous()?;
    let scores = (by_head(q)?.matmul(&keys)? * (width as f64).sqrt().recip())?;
    let offset = |(i, j): (usize, usize)| (frames - 1 + j - i) as u32;
    let pairs = (0..frames).flat_map(|i| (0..frames).map(move |j| (i, j)));
    let offsets = Tensor::from_vec(pairs.map(offset).collect(), frames * frames, q.device())?;
    let bias = strip.index_select(&offsets, 1)?.reshape((1, heads, frames, frames))?;
    let scores = (scores + gate.unsqueeze(3)?.broadcast_mul(&bias)?)?;
    let masked = |&n: &usize| (0..frames).map(move |j| if j < n { 0.0 } else { f32::NEG_INFINITY });
    let mask: Vec<f32> = lengths.iter().flat_map(masked).collect();
    let mask = Tensor::from_vec(mask, (batch, 1, 1, frames), q.device())?;
    let scores = scores.broadcast_add(&mask)?;
    let largest = scores.max_keepdim(3)?.detach();
    let weights = scores.broadcast_sub(&largest)?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(3)?)?;
    weights.matmul(&by_head(v)?)?.transpose(1, 2)?.reshape((batch, frames, dim))
}

struct Attention {
    heads: usize,
    lengths: Vec<usize>,
    precision: Precision,
    bias: Option<Bias>,
    /// Of each query, for the backward pass on a device.
    #[cfg(feature = "cuda")]
    log_sums: Mutex<Option<Tensor>>,
}

/// Bias by offset, `(heads, 2 frames - 1)`, and its gate by query, `(batch, heads, frames)`.
struct Bias {
    strip: Vec<f32>,
    gate: Vec<f32>,
}

impl Bias {
    /// `scores = scores scale + gate bias` for the queries from `from` on of one head.
    fn add(&self, head: Head, from: usize, scores: &mut [f32], width: usize, scale: f32) {
        let offsets = 2 * head.frames - 1;
        let gate = &self.gate[head.task * head.frames..(head.task + 1) * head.frames];
        let strip = &self.strip[head.index * offsets..(head.index + 1) * offsets];
        for (row, i) in scores.chunks_exact_mut(width).zip(from..) {
            let first = head.frames - 1 - i;
            add_scaled(&strip[first..first + width], gate[i], scale, row);
        }
    }
}

vectorised! {
    /// `scores = scores scale + gate bias`.
    fn add_scaled(bias: &[f32], gate: f32, scale: f32, scores: &mut [f32]) {
        for (s, b) in scores.iter_mut().zip(bias) {
            *s = *s * scale + gate * b;
        }
    }
}

vectorised! {
    /// Softmax of each row of `scores` after scaling.
    fn softmax_rows(scores: &mut [f32], width: usize, scale: f32) {
        for row in scores.chunks_exact_mut(width) {
            let max = max_of(row) * scale;
            for s in row.iter_mut() {
                *s = exp::<FMA>(*s * scale - max);
            }
            let inverse = sum_of(width, |i| row[i]).recip();
            for s in row.iter_mut() {
                *s *= inverse;
            }
        }
    }
}

vectorised! {
    /// `ds = p (dp - sum(p dp)) scale`, in place of `dp`.
    fn softmax_gradient(p: &[f32], dp: &mut [f32], width: usize, scale: f32) {
        for (p, dp) in p.chunks_exact(width).zip(dp.chunks_exact_mut(width)) {
            let mean = sum_of(width, |i| p[i] * dp[i]);
            for (d, &p) in dp.iter_mut().zip(p) {
                *d = p * (*d - mean) * scale;
            }
        }
    }
}

/// Where one head of one clip lies in a `(batch, frames, dim)` tensor.
#[derive(Clone, Copy)]
struct Head {
    /// Clip and head counted together, then the head alone.
    task: usize,
    index: usize,
    start: usize,
    frames: usize,
    dim: usize,
    width: usize,
}

impl Head {
    /// Rows `from..from + rows` of this head.
    fn rows(self, data: &[f32], from: usize, rows: usize) -> Matrix<'_> {
        let data = &data[self.start + from * self.dim..];
        Matrix::strided(data, rows, self.width, self.dim, 1)
    }

    /// Puts the product `a · b` into this head's rows from `from` on.
    ///
    /// # Safety
    /// `data` must be the whole tensor's; no other thread may touch this head of it.
    unsafe fn store(
        self,
        (a, b): (Matrix<'_>, Matrix<'_>),
        from: usize,
        data: CPointer,
        (output, precision): (Output<'_>, Precision),
    ) {
        // SAFETY: the rows lie inside the tensor.
        unsafe {
            let c = data.get().add(self.start + from * self.dim);
            matmul_at(a, b, c, self.dim, output, precision);
        }
    }

    /// Zeroes rows from `from` on.
    ///
    /// # Safety
    /// As [`Head::store`].
    unsafe fn zero(self, from: usize, data: CPointer) {
        for t in from..self.frames {
            // SAFETY: the row lies inside the tensor.
            unsafe {
                let row = data.get().add(self.start + t * self.dim);
                std::ptr::write_bytes(row, 0, self.width);
            }
        }
    }
}

impl Attention {
    fn head(&self, task: usize, frames: usize, dim: usize) -> (Head, usize) {
        let (clip, head) = (task / self.heads, task % self.heads);
        let width = dim / self.heads;
        let start = clip * frames * dim + head * width;
        (Head { task, index: head, start, frames, dim, width }, self.lengths[clip])
    }

    /// Attention weights of queries `from..from + rows` over `valid` keys.
    fn weights(
        &self,
        (q, k): (&[f32], &[f32]),
        head: Head,
        (from, rows, valid): (usize, usize, usize),
        weights: &mut Vec<f32>,
    ) {
        let keys = head.rows(k, 0, valid).transposed();
        let queries = head.rows(q, from, rows);
        product_into(queries, keys, Output::Overwrite, self.precision, weights);
        let mut scale = (head.width as f32).sqrt().recip();
        if let Some(bias) = &self.bias {
            bias.add(head, from, weights, valid, scale);
            scale = 1.0;
        }
        softmax_rows(weights, valid, scale);
    }
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
        let (batch, frames, dim) = q_layout.shape().dims3()?;
        let (q, k, v) = (slice(q, q_layout)?, slice(k, k_layout)?, slice(v, v_layout)?);
        let mut out = Vec::with_capacity(q.len());
        let place = CPointer(out.as_mut_ptr());
        threads::for_each(batch * self.heads, |task| {
            let (head, valid) = self.head(task, frames, dim);
            let block = block_rows(valid);
            let mut weights = Vec::new();
            for from in (0..frames).step_by(block) {
                let rows = block.min(frames - from);
                self.weights((q, k), head, (from, rows, valid), &mut weights);
                let weights = Matrix::row_major(&weights, rows, valid);
                let values = head.rows(v, 0, valid);
                // SAFETY: the vector has room for the tensor, and this task its head alone.
                unsafe {
                    let how = (Output::Overwrite, self.precision);
                    head.store((weights, values), from, place, how);
                }
            }
        });
        // SAFETY: every row of every head was written.
        unsafe { out.set_len(q.len()) };
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
        let (batch, frames, dim) = q_layout.shape().dims3()?;
        let card = Card::of(q);
        let (q, k) = (card.input(q, q_layout)?, card.input(k, k_layout)?);
        let inputs = on_device::Inputs { q, k, v: card.input(v, v_layout)?, bias: None };
        let (heads, lengths) = (self.heads, self.lengths.as_slice());
        let shape = on_device::Shape { frames, dim, heads, lengths };
        let (out, log_sums) = on_device::forward(&card, inputs, shape)?;
        let log_sums = card.tensor(log_sums, (batch, heads, frames));
        *self.log_sums.lock().unwrap_or_else(PoisonError::into_inner) = Some(log_sums);
        Ok((card.storage(out), q_layout.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if let Some(card) = Card::holding(q) {
            let (batch, frames, dim) = q.dims3()?;
            let log_sums = self.log_sums.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(log_sums) = log_sums.as_ref() else {
                bail!("attention backwards before forwards");
            };
            let dout = dout.contiguous()?;
            let (q, k, v) = (card.read(q)?, card.read(k)?, card.read(v)?);
            let inputs = on_device::Inputs { q, k, v, bias: None };
            let (heads, lengths) = (self.heads, self.lengths.as_slice());
            let shape = on_device::Shape { frames, dim, heads, lengths };
            let kept = (card.read(out)?, card.read(log_sums)?, card.read(&dout)?);
            let got = on_device::backward(&card, inputs, kept, shape)?;
            let qkv = card.tensor(got.qkv, (3 * batch, frames, dim));
            let part = |i: usize| qkv.narrow(0, i * batch, batch).map(Some);
            return Ok((part(0)?, part(1)?, part(2)?));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = out;
        if self.bias.is_some() {
            bail!("a gated bias without gradients was given to a training pass");
        }
        let (batch, frames, dim) = q.dims3()?;
        let n = q.elem_count();
        let mut gradients: [Vec<f32>; 3] = std::array::from_fn(|_| Vec::with_capacity(n));
        let places = gradients.each_mut().map(|gradient| CPointer(gradient.as_mut_ptr()));
        with_slice(q, |q| {
            with_slice(k, |k| {
                with_slice(v, |v| {
                    with_slice(dout, |dout| {
                        threads::for_each(batch * self.heads, |task| {
                            let (head, valid) = self.head(task, frames, dim);
                            // SAFETY: the vectors have room for the tensors, and this task
                            // its head alone.
                            unsafe { self.head_gradients((q, k, v, dout), head, valid, places) };
                        });
                    })
                })
            })
        })????;
        for gradient in &mut gradients {
            // SAFETY: every row of every head was written.
            unsafe { gradient.set_len(n) };
        }
        let [dq, dk, dv] =
            gradients.map(|values| Tensor::from_vec(values, q.shape(), q.device()).map(Some));
        Ok((dq?, dk?, dv?))
    }
}

impl Attention {
    /// Gradients of one head; keys and values past `valid` get zero.
    ///
    /// # Safety
    /// As [`Head::store`], for the gradients of `q`, `k` and `v`.
    unsafe fn head_gradients(
        &self,
        (q, k, v, dout): (&[f32], &[f32], &[f32], &[f32]),
        head: Head,
        valid: usize,
        [dq, dk, dv]: [CPointer; 3],
    ) {
        let frames = head.frames;
        let scale = (head.width as f32).sqrt().recip();
        let block = block_rows(valid);
        let (mut weights, mut dscores) = (Vec::new(), Vec::new());
        for from in (0..frames).step_by(block) {
            let rows = block.min(frames - from);
            let output = if from == 0 { Output::Overwrite } else { Output::Accumulate };
            self.weights((q, k), head, (from, rows, valid), &mut weights);
            let upstream = head.rows(dout, from, rows);
            let values = head.rows(v, 0, valid).transposed();
            product_into(upstream, values, Output::Overwrite, self.precision, &mut dscores);
            softmax_gradient(&weights, &mut dscores, valid, scale);
            let by_key = Matrix::row_major(&weights, rows, valid).transposed();
            let dscores = Matrix::row_major(&dscores, rows, valid);
            let (queries, keys) = (head.rows(q, from, rows), head.rows(k, 0, valid));
            // SAFETY: passed on.
            unsafe {
                head.store((by_key, upstream), 0, dv, (output, self.precision));
                head.store((dscores, keys), from, dq, (Output::Overwrite, self.precision));
                head.store((dscores.transposed(), queries), 0, dk, (output, self.precision));
            }
        }
        // SAFETY: passed on.
        unsafe {
            head.zero(valid, dk);
            head.zero(valid, dv);
        }
    }
}

/// Attention with a gated bias on a CUDA device. Queries, keys and values come one after the
/// other, `(3 batch, frames, dim)`: an operation has three inputs.
#[cfg(feature = "cuda")]
struct GatedOnDevice {
    heads: usize,
    lengths: Vec<usize>,
    /// Of the forward pass: the logarithm of each query's normaliser.
    kept: Mutex<Option<Tensor>>,
}

#[cfg(feature = "cuda")]
impl GatedOnDevice {
    fn inputs<'a>(qkv: Place<'a>, bias: (Place<'a>, Place<'a>)) -> Result<on_device::Inputs<'a>> {
        let n = qkv.len / 3;
        let (k, v) = (qkv.from(n)?, qkv.from(2 * n)?);
        Ok(on_device::Inputs { q: qkv, k, v, bias: Some(bias) })
    }

    fn shape(&self, frames: usize, dim: usize) -> on_device::Shape<'_> {
        on_device::Shape { frames, dim, heads: self.heads, lengths: &self.lengths }
    }
}

#[cfg(feature = "cuda")]
impl CustomOp3 for GatedOnDevice {
    fn name(&self) -> &'static str {
        "gated-attention"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("this form of attention is for CUDA devices")
    }

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
        let inputs = Self::inputs(card.input(qkv, qkv_layout)?, bias)?;
        let (out, log_sums) = on_device::forward(&card, inputs, self.shape(frames, dim))?;
        let log_sums = card.tensor(log_sums, gate_layout.shape());
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(log_sums);
        Ok((card.storage(out), (self.lengths.len(), frames, dim).into()))
    }

    fn bwd(
        &self,
        qkv: &Tensor,
        strip: &Tensor,
        gate: &Tensor,
        out: &Tensor,
        dout: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (Some(card), (_, frames, dim)) = (Card::holding(qkv), qkv.dims3()?) else {
            bail!("this form of attention is for CUDA devices");
        };
        let log_sums = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(log_sums) = log_sums.as_ref() else {
            bail!("attention backwards before forwards");
        };
        let dout = dout.contiguous()?;
        let inputs = Self::inputs(card.read(qkv)?, (card.read(strip)?, card.read(gate)?))?;
        let kept = (card.read(out)?, card.read(log_sums)?, card.read(&dout)?);
        let got = on_device::backward(&card, inputs, kept, self.shape(frames, dim))?;
        let (dstrip, dgate) =
            got.bias.map_or((None, None), |(strip, gate)| (Some(strip), Some(gate)));
        Ok((
            Some(card.tensor(got.qkv, qkv.shape())),
            dstrip.map(|dstrip| card.tensor(dstrip, strip.shape())),
            dgate.map(|dgate| card.tensor(dgate, gate.shape())),
        ))
    }
}

#[cfg(test)]
mod tests;
