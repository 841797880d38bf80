//! Scaled dot-product attention whose memory grows linearly with time.
//!
//! Scores exist for one head and a block of queries at a time; the backward pass computes
//! them again instead of keeping them.

#[cfg(feature = "cuda")]
use crate::device::{Place, attention as on_device, card::Card};
use crate::dropout::Dropout;
use crate::matmul::{CPointer, Matrix, Output, Precision, matmul_at, product_into};
use crate::storage::{slice, with_slice};
use crate::threads;
use crate::vector::{exp, max_of, sum_of, vectorised};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// Queries whose scores are held at a time: as many as keep them in the second-level cache.
fn block_rows(keys: usize) -> usize {
    const SCORES: usize = 1 << 17;
    (SCORES / keys.max(1)).clamp(48, 240) / 24 * 24
}

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

/// What is attended to.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    bias: Option<Bias<'a>>,
    frames: usize,
    dim: usize,
}

/// Bias by offset, `(heads, 2 frames - 1)`, and its gate by query, `(batch, heads, frames)`.
#[derive(Clone, Copy)]
struct Bias<'a> {
    strip: &'a [f32],
    gate: &'a [f32],
}

impl<'a> Bias<'a> {
    /// Strip and gates of one head.
    fn of(self, head: Head) -> (&'a [f32], &'a [f32]) {
        let offsets = 2 * head.frames - 1;
        let gate = &self.gate[head.task * head.frames..(head.task + 1) * head.frames];
        (&self.strip[head.index * offsets..(head.index + 1) * offsets], gate)
    }

    /// `scores = scores scale + gate bias` for the queries from `from` on of one head.
    fn add(self, head: Head, from: usize, scores: &mut [f32], width: usize, scale: f32) {
        let (strip, gate) = self.of(head);
        for (row, i) in scores.chunks_exact_mut(width).zip(from..) {
            let first = head.frames - 1 - i;
            add_scaled(&strip[first..first + width], gate[i], scale, row);
        }
    }

    /// What the scores of the queries from `from` on add to the gradients of one head's strip and
    /// gates; theirs are `dscores / scale`.
    fn gradients(
        self,
        head: Head,
        from: usize,
        (dscores, width, scale): (&[f32], usize, f32),
        (dstrip, dgate): (&mut [f32], &mut [f32]),
    ) {
        let (strip, gate) = self.of(head);
        for (row, i) in dscores.chunks_exact(width).zip(from..) {
            let first = head.frames - 1 - i;
            let (strip, dstrip) = (&strip[first..first + width], &mut dstrip[first..first + width]);
            dgate[i] = bias_gradient(row, strip, gate[i] / scale, dstrip) / scale;
        }
    }
}

vectorised! {
    /// `dstrip += gate dscores`; returns `strip . dscores`.
    fn bias_gradient(dscores: &[f32], strip: &[f32], gate: f32, dstrip: &mut [f32]) -> f32 {
        for (to, d) in dstrip.iter_mut().zip(dscores) {
            *to += gate * d;
        }
        sum_of(dscores.len(), |j| strip[j] * dscores[j])
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

/// Gradients of everything that goes in; those of the bias where there is one.
struct Gradients {
    /// Of `q`, `k` and `v`.
    qkv: [Vec<f32>; 3],
    /// Of the strip, `(heads, 2 frames - 1)`, and of the gates.
    bias: Option<(Vec<f32>, Vec<f32>)>,
}

impl Kept {
    fn head(&self, task: usize, frames: usize, dim: usize) -> (Head, usize) {
        let (clip, head) = (task / self.heads, task % self.heads);
        let width = dim / self.heads;
        let start = clip * frames * dim + head * width;
        (Head { task, index: head, start, frames, dim, width }, self.lengths[clip])
    }

    fn tasks(&self) -> usize {
        self.lengths.len() * self.heads
    }

    /// Attention weights of queries `from..from + rows` over `valid` keys, before any are dropped.
    fn weights(
        &self,
        inputs: Inputs<'_>,
        head: Head,
        (from, rows, valid): (usize, usize, usize),
        weights: &mut Vec<f32>,
    ) {
        let keys = head.rows(inputs.k, 0, valid).transposed();
        let queries = head.rows(inputs.q, from, rows);
        product_into(queries, keys, Output::Overwrite, self.precision, weights);
        let mut scale = (head.width as f32).sqrt().recip();
        if let Some(bias) = inputs.bias {
            bias.add(head, from, weights, valid, scale);
            scale = 1.0;
        }
        softmax_rows(weights, valid, scale);
    }

    /// Drops among values that belong to pairs of the queries from `from` on with `valid` keys.
    fn drop(&self, head: Head, from: usize, values: &mut [f32], valid: usize) {
        if self.dropout == Dropout::NONE {
            return;
        }
        for (row, i) in values.chunks_exact_mut(valid).zip(from..) {
            let first = (head.task * head.frames + i) as u32;
            self.dropout.apply_to(first.wrapping_mul(head.frames as u32), row);
        }
    }

    fn forward(&self, inputs: Inputs<'_>) -> Vec<f32> {
        let (frames, dim) = (inputs.frames, inputs.dim);
        let mut out = Vec::with_capacity(inputs.q.len());
        let place = CPointer(out.as_mut_ptr());
        threads::for_each(self.tasks(), |task| {
            let (head, valid) = self.head(task, frames, dim);
            let block = block_rows(valid);
            let mut weights = Vec::new();
            for from in (0..frames).step_by(block) {
                let rows = block.min(frames - from);
                self.weights(inputs, head, (from, rows, valid), &mut weights);
                self.drop(head, from, &mut weights, valid);
                let weights = Matrix::row_major(&weights, rows, valid);
                let values = head.rows(inputs.v, 0, valid);
                // SAFETY: the vector has room for the tensor, and this task its head alone.
                unsafe {
                    let how = (Output::Overwrite, self.precision);
                    head.store((weights, values), from, place, how);
                }
            }
        });
        // SAFETY: every row of every head was written.
        unsafe { out.set_len(inputs.q.len()) };
        out
    }

    fn backward(&self, inputs: Inputs<'_>, dout: &[f32]) -> Gradients {
        let (frames, dim, n) = (inputs.frames, inputs.dim, inputs.q.len());
        let mut qkv: [Vec<f32>; 3] = std::array::from_fn(|_| Vec::with_capacity(n));
        let places = qkv.each_mut().map(|gradient| CPointer(gradient.as_mut_ptr()));
        // Of each head of each clip its own strip and gates, so that none waits for another.
        let (offsets, tasks) = (2 * frames - 1, self.tasks());
        let bias: Vec<Mutex<Option<BiasGradients>>> =
            (0..tasks).map(|_| Mutex::new(None)).collect();
        threads::for_each(tasks, |task| {
            let (head, valid) = self.head(task, frames, dim);
            // SAFETY: the vectors have room for the tensors, and this task its head alone.
            let of_bias = unsafe { self.head_gradients(inputs, dout, (head, valid), places) };
            *bias[task].lock().unwrap_or_else(PoisonError::into_inner) = of_bias;
        });
        for gradient in &mut qkv {
            // SAFETY: every row of every head was written.
            unsafe { gradient.set_len(n) };
        }
        let bias = inputs.bias.map(|_| {
            let mut strip = vec![0.0; self.heads * offsets];
            let mut gate = Vec::with_capacity(tasks * frames);
            for (task, of_task) in bias.into_iter().enumerate() {
                let of_task = of_task.into_inner().unwrap_or_else(PoisonError::into_inner);
                let (of_strip, of_gate) = of_task.expect("every head was visited");
                let index = task % self.heads;
                let sums = &mut strip[index * offsets..(index + 1) * offsets];
                sums.iter_mut().zip(of_strip).for_each(|(sum, value)| *sum += value);
                gate.extend(of_gate);
            }
            (strip, gate)
        });
        Gradients { qkv, bias }
    }

    /// Gradients of one head; keys and values past `valid` get zero.
    ///
    /// # Safety
    /// As [`Head::store`], for the gradients of `q`, `k` and `v`.
    unsafe fn head_gradients(
        &self,
        inputs: Inputs<'_>,
        dout: &[f32],
        (head, valid): (Head, usize),
        [dq, dk, dv]: [CPointer; 3],
    ) -> Option<BiasGradients> {
        let frames = head.frames;
        let scale = (head.width as f32).sqrt().recip();
        let block = block_rows(valid);
        let (mut weights, mut dscores) = (Vec::new(), Vec::new());
        let mut of_bias = inputs.bias.map(|_| (vec![0.0; 2 * frames - 1], vec![0.0; frames]));
        for from in (0..frames).step_by(block) {
            let rows = block.min(frames - from);
            let output = if from == 0 { Output::Overwrite } else { Output::Accumulate };
            self.weights(inputs, head, (from, rows, valid), &mut weights);
            let upstream = head.rows(dout, from, rows);
            let values = head.rows(inputs.v, 0, valid).transposed();
            product_into(upstream, values, Output::Overwrite, self.precision, &mut dscores);
            self.drop(head, from, &mut dscores, valid);
            softmax_gradient(&weights, &mut dscores, valid, scale);
            if let (Some(bias), Some((dstrip, dgate))) = (inputs.bias, &mut of_bias) {
                bias.gradients(head, from, (&dscores, valid, scale), (dstrip, dgate));
            }
            self.drop(head, from, &mut weights, valid);
            let by_key = Matrix::row_major(&weights, rows, valid).transposed();
            let dscores = Matrix::row_major(&dscores, rows, valid);
            let (queries, keys) = (head.rows(inputs.q, from, rows), head.rows(inputs.k, 0, valid));
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
        of_bias
    }
}

/// Gradients of one head's strip and of its gates.
type BiasGradients = (Vec<f32>, Vec<f32>);

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
