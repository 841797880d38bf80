//! The arithmetic of attention on the CPU: scores exist for one head and a block of queries at a
//! time; the backward pass computes them again instead of keeping them.

use super::Kept;
use crate::dropout::Dropout;
use crate::matmul::{CPointer, Matrix, Output, Precision, matmul_at, product_into};
use crate::threads;
use crate::vector::{exp, max_of, sum_of, vectorised};
use std::sync::{Mutex, PoisonError};

/// Queries whose scores are held at a time: as many as keep them in the second-level cache.
fn block_rows(keys: usize) -> usize {
    const SCORES: usize = 1 << 17;
    (SCORES / keys.max(1)).clamp(48, 240) / 24 * 24
}

/// What is attended to.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) bias: Option<Bias<'a>>,
    pub(super) frames: usize,
    pub(super) dim: usize,
}

/// Bias by offset, `(heads, 2 frames - 1)`, and its gate by query, `(batch, heads, frames)`.
#[derive(Clone, Copy)]
pub(super) struct Bias<'a> {
    pub(super) strip: &'a [f32],
    pub(super) gate: &'a [f32],
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
pub(super) struct Gradients {
    /// Of `q`, `k` and `v`.
    pub(super) qkv: [Vec<f32>; 3],
    /// Of the strip, `(heads, 2 frames - 1)`, and of the gates.
    pub(super) bias: Option<(Vec<f32>, Vec<f32>)>,
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

    pub(super) fn forward(&self, inputs: Inputs<'_>) -> Vec<f32> {
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

    pub(super) fn backward(&self, inputs: Inputs<'_>, dout: &[f32]) -> Gradients {
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
