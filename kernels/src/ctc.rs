//! Connectionist temporal classification (Graves et al. 2006), straight from logits.
//!
//! Forward and backward variables are kept as natural logarithms in f64. Nothing the size
//! of `(frames, vocab)` is stored besides the gradient itself.

#[cfg(feature = "cuda")]
use crate::device::{Machine, card::Card, ctc as on_device, pointwise};
use crate::storage::{with_slice, written};
use crate::threads;
use crate::vector::{exp, max_of, sum_of, vectorised};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda::cudarc::driver::CudaSlice;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

/// What one clip should spell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Token ids, never the blank.
    pub tokens: Vec<u32>,
    /// If set, the output must only *begin* with `tokens`; what follows is not known. A clip
    /// with a language but no transcript is the tag alone, open-ended. The loss is then the
    /// negative log-probability of that beginning, over all continuations.
    pub open_ended: bool,
}

/// Targets of a batch and what each of them counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// One target per clip.
    pub targets: Vec<Target>,
    /// Factor of each clip's loss; a clip of weight 0 takes no part, whatever its loss.
    pub weights: Vec<f32>,
}

/// Negative log-likelihood of each target under CTC.
///
/// Differentiable in `logits`. A target that cannot fit its frames costs infinity and has
/// gradient zero.
///
/// # Shapes
/// - `logits`: `(batch, frames, vocab)`, unnormalised; `lengths`: valid frames per clip
/// - returns `(batch,)`, nats per clip, not averaged
///
/// # Errors
/// If counts disagree, a token is the blank or outside the vocabulary, or `logits` is not
/// f32 on the CPU.
pub fn ctc_loss(
    logits: &Tensor,
    targets: &[Target],
    lengths: &[usize],
    blank: u32,
) -> Result<Tensor> {
    let term = Term { targets: targets.to_vec(), weights: vec![1.0; targets.len()] };
    Ok(ctc_losses(logits, &[term], lengths, blank)?.0)
}

/// Several losses on the same logits, summed: `sum over terms of weight * loss`.
///
/// The logits are normalised once for all terms, and once for forward and backward.
///
/// # Shapes
/// As [`ctc_loss`]; returns the sum `(batch,)`, differentiable in `logits`, and the losses of
/// each term without their weights, `(batch,)` each, not differentiable.
///
/// # Errors
/// As [`ctc_loss`].
pub fn ctc_losses(
    logits: &Tensor,
    terms: &[Term],
    lengths: &[usize],
    blank: u32,
) -> Result<(Tensor, Vec<Tensor>)> {
    let (batch, frames, vocab) = logits.dims3()?;
    for Term { targets, weights } in terms {
        if targets.len() != batch || weights.len() != batch || lengths.len() != batch {
            bail!("ctc: {} targets and {} lengths for {batch} clips", targets.len(), lengths.len());
        }
        for token in targets.iter().flat_map(|t| &t.tokens) {
            if *token == blank || *token as usize >= vocab {
                bail!("ctc: token {token} is the blank or outside the vocabulary of {vocab}");
            }
        }
    }
    if blank as usize >= vocab || lengths.iter().any(|&n| n > frames) {
        bail!("ctc: blank {blank} of {vocab} tokens, lengths {lengths:?} of {frames} frames");
    }
    let logits = logits.contiguous()?;
    #[cfg(feature = "cuda")]
    if let Some(card) = Card::holding(&logits) {
        return losses_on_device(&card, &logits, terms, lengths, blank);
    }
    let clips: Vec<Mutex<Option<Clip>>> = (0..batch).map(|_| Mutex::new(None)).collect();
    with_slice(&logits, |logits| {
        threads::for_each(batch, |i| {
            let start = i * frames * vocab;
            let logits = &logits[start..start + lengths[i] * vocab];
            let mut log_sums_of = Vec::with_capacity(lengths[i]);
            log_sums(logits, vocab, &mut log_sums_of);
            let trellises = terms
                .iter()
                .map(|term| {
                    let trellis = Trellis::new(logits, &log_sums_of, &term.targets[i], blank);
                    (trellis, term.weights[i])
                })
                .collect();
            let clip = Clip { log_sums: log_sums_of, trellises };
            *clips[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(clip);
        });
    })?;
    let clips: Vec<Clip> = clips
        .into_iter()
        .map(|clip| clip.into_inner().unwrap_or_else(PoisonError::into_inner))
        .map(|clip| clip.expect("every clip was visited"))
        .collect();
    let losses = (0..terms.len())
        .map(|k| {
            let loss = |c: &Clip| -c.trellises[k].0.log_likelihood() as f32;
            Tensor::from_vec(clips.iter().map(loss).collect(), batch, logits.device())
        })
        .collect::<Result<_>>()?;
    Ok((logits.apply_op1(Ctc { clips })?, losses))
}

/// [`ctc_losses`] where the logits lie.
#[cfg(feature = "cuda")]
fn losses_on_device(
    card: &Card,
    logits: &Tensor,
    terms: &[Term],
    lengths: &[usize],
    blank: u32,
) -> Result<(Tensor, Vec<Tensor>)> {
    let (clips, frames, vocab) = logits.dims3()?;
    let shape = on_device::Shape { clips, frames, vocab };
    let (losses, sums) =
        on_device::Losses::new(card, card.read(logits)?, shape, (terms, lengths, blank))?;
    let of_term = |i| {
        let own = pointwise::scaled(card, card.place(losses.of_term(i)), 1.0)?;
        Ok(card.tensor(own, clips))
    };
    let each = (0..terms.len()).map(of_term).collect::<Result<_>>()?;
    let sums = Mutex::new(Some(card.storage(sums)));
    Ok((logits.apply_op1(OnDevice { losses, sums, clips })?, each))
}

#[cfg(feature = "cuda")]
struct OnDevice {
    losses: on_device::Losses<CudaSlice<f32>>,
    /// What the forward pass gives, once.
    sums: Mutex<Option<CudaStorage>>,
    clips: usize,
}

#[cfg(feature = "cuda")]
impl CustomOp1 for OnDevice {
    fn name(&self) -> &'static str {
        "ctc-loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("these losses lie on a CUDA device")
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.sums.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(sums) => Ok((sums, self.clips.into())),
            None => bail!("these losses were given already"),
        }
    }

    fn bwd(&self, logits: &Tensor, _losses: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let Some(card) = Card::holding(logits) else { bail!("these losses lie on a CUDA device") };
        let upstream = upstream.contiguous()?;
        let (x, slopes) = (card.read(logits)?, card.read(&upstream)?);
        let gradient = self.losses.gradient(&card, x, slopes)?;
        Ok(Some(card.tensor(gradient, logits.shape())))
    }
}

/// Fewest frames that can spell `tokens`: one each, and a blank between equal neighbours.
#[must_use]
pub fn minimum_frames(tokens: &[u32]) -> usize {
    tokens.len() + tokens.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

struct Ctc {
    clips: Vec<Clip>,
}

/// What the forward pass found of one clip.
struct Clip {
    /// `(frames,)`: log of the normaliser of each frame.
    log_sums: Vec<f64>,
    /// One per term, with its weight.
    trellises: Vec<(Trellis, f32)>,
}

vectorised! {
    /// Natural logarithm of the sum of exponentials of each row.
    fn log_sums(logits: &[f32], vocab: usize, out: &mut Vec<f64>) {
        for row in logits.chunks_exact(vocab) {
            let max = max_of(row);
            let sum = sum_of(vocab, |i| exp::<FMA>(row[i] - max));
            out.push(f64::from(max) + f64::from(sum).ln());
        }
    }
}

vectorised! {
    /// `gradient = softmax(logits) * weight`.
    fn weighted_softmax(logits: &[f32], log_sum: f32, weight: f32, gradient: &mut [MaybeUninit<f32>]) {
        for (g, &x) in gradient.iter_mut().zip(logits) {
            g.write(weight * exp::<FMA>(x - log_sum));
        }
    }
}

const NEVER: f64 = f64::NEG_INFINITY;

fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == NEVER { high } else { high + (low - high).exp().ln_1p() }
}

/// The forward variables of one clip.
struct Trellis {
    /// The labels of the states: blank, token, blank, ... An open end stops at the last token.
    labels: Vec<u32>,
    /// Whether the last state, once entered, accepts anything.
    open_ended: bool,
    frames: usize,
    /// `(frames, states)`: log-probability of the states' label at each frame.
    emissions: Vec<f64>,
    /// `(frames, states)`: log-probability of all beginnings that are in a state.
    forward: Vec<f64>,
}

impl Trellis {
    /// `logits` are the frames of the clip, `log_sums` their normalisers.
    fn new(logits: &[f32], log_sums: &[f64], target: &Target, blank: u32) -> Self {
        let mut labels = vec![blank];
        for &token in &target.tokens {
            labels.extend([token, blank]);
        }
        let open_ended = target.open_ended && !target.tokens.is_empty();
        if open_ended {
            labels.pop();
        }
        let states = labels.len();
        let frames = log_sums.len();
        let vocab = logits.len().checked_div(frames).unwrap_or(1).max(1);
        let mut emissions = Vec::with_capacity(frames * states);
        for (row, log_sum) in logits.chunks_exact(vocab).zip(log_sums) {
            emissions.extend(labels.iter().map(|&l| f64::from(row[l as usize]) - log_sum));
        }
        let mut trellis =
            Self { labels, open_ended, frames, emissions, forward: vec![NEVER; frames * states] };
        trellis.fill_forward();
        trellis
    }

    fn states(&self) -> usize {
        self.labels.len()
    }

    /// Whether a path may go to state `s` straight from `s - 2`.
    fn skips(&self, s: usize) -> bool {
        s >= 2 && s % 2 == 1 && self.labels[s] != self.labels[s - 2]
    }

    /// Log-probability of arriving in `s` at frame `t` from another state.
    fn entering(&self, t: usize, s: usize) -> f64 {
        let emission = self.emissions[t * self.states() + s];
        if t == 0 {
            return if s < 2 { emission } else { NEVER };
        }
        let before = &self.forward[(t - 1) * self.states()..t * self.states()];
        let mut sum = if s >= 1 { before[s - 1] } else { NEVER };
        if self.skips(s) {
            sum = log_add(sum, before[s - 2]);
        }
        sum + emission
    }

    fn fill_forward(&mut self) {
        let states = self.states();
        for t in 0..self.frames {
            for s in 0..states {
                let mut value = self.entering(t, s);
                if t > 0 {
                    let stay = self.forward[(t - 1) * states + s];
                    let free = self.open_ended && s == states - 1;
                    let emission = if free { 0.0 } else { self.emissions[t * states + s] };
                    value = log_add(value, stay + emission);
                }
                self.forward[t * states + s] = value;
            }
        }
    }

    /// Log-probability of the target.
    fn log_likelihood(&self) -> f64 {
        let states = self.states();
        let Some(last) = self.frames.checked_sub(1) else {
            return if states == 1 { 0.0 } else { NEVER };
        };
        let end = &self.forward[last * states..];
        if states == 1 || self.open_ended {
            end[states - 1]
        } else {
            log_add(end[states - 1], end[states - 2])
        }
    }

    /// Calls `visit(frame, shares)` for every frame: the probability that the target, given
    /// that it is spelt, is in each state there. Nothing is visited if it cannot be spelt.
    fn occupancies(&self, mut visit: impl FnMut(usize, &[f32])) {
        let total = self.log_likelihood();
        if total == NEVER || self.frames == 0 {
            return;
        }
        let states = self.states();
        let mut backward = vec![NEVER; states];
        let mut next = vec![NEVER; states];
        let mut shares = Vec::with_capacity(states);
        for t in (0..self.frames).rev() {
            // backward[s]: log-probability of finishing from state s after frame t.
            if t + 1 == self.frames {
                backward[states - 1] = 0.0;
                if states > 1 && !self.open_ended {
                    backward[states - 2] = 0.0;
                }
            } else {
                std::mem::swap(&mut backward, &mut next);
                let emissions = &self.emissions[(t + 1) * states..(t + 2) * states];
                for (s, backward) in backward.iter_mut().enumerate() {
                    let free = self.open_ended && s == states - 1;
                    let mut sum = next[s] + if free { 0.0 } else { emissions[s] };
                    if s + 1 < states {
                        sum = log_add(sum, next[s + 1] + emissions[s + 1]);
                    }
                    if s + 2 < states && self.skips(s + 2) {
                        sum = log_add(sum, next[s + 2] + emissions[s + 2]);
                    }
                    *backward = sum;
                }
            }
            shares.clear();
            for (s, backward) in backward.iter().enumerate() {
                // Frames that an open end accepts have no say in the loss.
                let free = self.open_ended && s == states - 1;
                let inside = if free { self.entering(t, s) } else { self.forward[t * states + s] };
                shares.push((inside + backward - total).exp() as f32);
            }
            visit(t, &shares);
        }
    }
}

impl Clip {
    /// Gradient of `scale` times the clip's weighted losses in its logits.
    fn gradient(&self, logits: &[f32], scale: f32, gradient: &mut [MaybeUninit<f32>]) {
        let frames = self.log_sums.len();
        let vocab = logits.len().checked_div(frames).unwrap_or(1).max(1);
        // How much of the softmax each frame takes, and what its states give back.
        let mut occupied = vec![0.0_f32; frames];
        let mut returned: Vec<(usize, u32, f32)> = Vec::new();
        for (trellis, weight) in &self.trellises {
            if *weight == 0.0 {
                continue;
            }
            trellis.occupancies(|t, shares| {
                occupied[t] += weight * shares.iter().sum::<f32>();
                let states = trellis.labels.iter().zip(shares);
                returned.extend(states.map(|(&label, share)| (t, label, weight * share)));
            });
        }
        let rows = logits.chunks_exact(vocab).zip(gradient.chunks_exact_mut(vocab));
        for ((logits, gradient), (log_sum, occupied)) in
            rows.zip(self.log_sums.iter().zip(occupied))
        {
            weighted_softmax(logits, *log_sum as f32, scale * occupied, gradient);
        }
        for (t, label, share) in returned {
            // SAFETY: the rows of all frames were written above.
            unsafe { *gradient[t * vocab + label as usize].assume_init_mut() -= scale * share };
        }
    }
}

impl CustomOp1 for Ctc {
    fn name(&self) -> &'static str {
        "ctc-loss"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let sum = |clip: &Clip| {
            let terms = clip.trellises.iter().filter(|(_, weight)| *weight != 0.0);
            terms.map(|(t, weight)| f64::from(*weight) * -t.log_likelihood()).sum::<f64>() as f32
        };
        let sums: Vec<f32> = self.clips.iter().map(sum).collect();
        let batch = sums.len();
        Ok((CpuStorage::F32(sums), batch.into()))
    }

    fn bwd(&self, logits: &Tensor, _losses: &Tensor, upstream: &Tensor) -> Result<Option<Tensor>> {
        let (_, frames, vocab) = logits.dims3()?;
        let upstream = upstream.to_vec1::<f32>()?;
        let gradient = with_slice(logits, |logits| {
            let write = |gradient: &mut [MaybeUninit<f32>]| {
                let clips: Vec<Mutex<&mut [MaybeUninit<f32>]>> =
                    gradient.chunks_mut((frames * vocab).max(1)).map(Mutex::new).collect();
                threads::for_each(clips.len(), |i| {
                    let valid = self.clips[i].log_sums.len() * vocab;
                    let start = i * frames * vocab;
                    let mut gradient = clips[i].lock().unwrap_or_else(PoisonError::into_inner);
                    let (inside, past) = gradient.split_at_mut(valid);
                    past.fill(MaybeUninit::new(0.0));
                    self.clips[i].gradient(&logits[start..start + valid], upstream[i], inside);
                });
            };
            // SAFETY: of every clip, rows inside are written by its gradient, the others zeroed.
            unsafe { written(logits.len(), write) }
        })?;
        Ok(Some(Tensor::from_vec(gradient, logits.shape(), logits.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference;
    use candle_core::{Device, Var};

    fn softmax(logits: &[f32], vocab: usize) -> Vec<f32> {
        logits
            .chunks(vocab)
            .flat_map(|row| {
                let sum: f32 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(move |x| x.exp() / sum).collect::<Vec<_>>()
            })
            .collect()
    }

    fn loss_of(
        logits: &[f32],
        vocab: usize,
        target: &Target,
        blank: u32,
    ) -> Result<(f32, Vec<f32>)> {
        let frames = logits.len() / vocab;
        let shape = (1, frames, vocab);
        let logits = Var::from_tensor(&Tensor::from_vec(logits.to_vec(), shape, &Device::Cpu)?)?;
        let loss = ctc_loss(&logits, std::slice::from_ref(target), &[frames], blank)?;
        let grads = loss.backward()?;
        let gradient = grads.get(&logits).expect("gradient").flatten_all()?.to_vec1()?;
        Ok((loss.to_vec1::<f32>()?[0], gradient))
    }

    fn closed(tokens: &[u32]) -> Target {
        Target { tokens: tokens.to_vec(), open_ended: false }
    }

    #[test]
    fn loss_is_the_sum_over_all_paths() -> Result<()> {
        let vocab = 4;
        for blank in [0, 2, 3] {
            let [a, b] = [(blank + 1) % 4, (blank + 2) % 4];
            for tokens in [vec![], vec![a], vec![a, a], vec![a, b], vec![b, a, b], vec![a, a, b]] {
                for frames in 1..=5 {
                    let logits = reference::uniform(frames * vocab, 7 + frames as u64);
                    let (loss, _) = loss_of(&logits, vocab, &closed(&tokens), blank)?;
                    let p =
                        reference::ctc_probability(&softmax(&logits, vocab), vocab, &tokens, blank);
                    assert!(
                        (f64::from(loss) + p.ln()).abs() < 1e-5 || (p == 0.0 && loss.is_infinite()),
                        "{tokens:?} in {frames} frames: {loss} against {}",
                        -p.ln()
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn an_open_end_is_the_sum_over_all_continuations() -> Result<()> {
        let (vocab, frames) = (3, 4);
        let logits = reference::uniform(frames * vocab, 3);
        let probs = softmax(&logits, vocab);
        let mut want = 0.0;
        let mut all: Vec<Vec<u32>> = vec![vec![]];
        for _ in 0..frames {
            let longer: Vec<Vec<u32>> =
                all.iter().flat_map(|s| [1, 2].map(|t| [s.clone(), vec![t]].concat())).collect();
            all.extend(longer);
            all.sort();
            all.dedup();
        }
        for sequence in all.iter().filter(|s| s.starts_with(&[1, 2])) {
            want += reference::ctc_probability(&probs, vocab, sequence, 0);
        }
        let target = Target { tokens: vec![1, 2], open_ended: true };
        let (loss, _) = loss_of(&logits, vocab, &target, 0)?;
        assert!((f64::from(loss) + want.ln()).abs() < 1e-5, "{loss} against {}", -want.ln());
        Ok(())
    }

    #[test]
    fn gradient_is_the_finite_difference() -> Result<()> {
        let (vocab, frames) = (5, 7);
        let logits = reference::uniform(frames * vocab, 11);
        for target in [
            closed(&[]),
            closed(&[1, 1, 2]),
            closed(&[3, 4, 3]),
            Target { tokens: vec![2], open_ended: true },
            Target { tokens: vec![2, 2, 1], open_ended: true },
        ] {
            let (_, gradient) = loss_of(&logits, vocab, &target, 0)?;
            for i in 0..logits.len() {
                let h = 1e-2;
                let mut moved = logits.clone();
                moved[i] += h;
                let (up, _) = loss_of(&moved, vocab, &target, 0)?;
                moved[i] -= 2.0 * h;
                let (down, _) = loss_of(&moved, vocab, &target, 0)?;
                let numeric = (up - down) / (2.0 * h);
                assert!(
                    (gradient[i] - numeric).abs() < 2e-4,
                    "{target:?} at {i}: {} {numeric}",
                    gradient[i]
                );
            }
        }
        Ok(())
    }

    #[test]
    fn a_target_too_long_costs_infinity_and_moves_nothing() -> Result<()> {
        let logits = reference::uniform(3 * 4, 5);
        let (loss, gradient) = loss_of(&logits, 4, &closed(&[1, 1, 1]), 0)?;
        assert_eq!(loss, f32::INFINITY);
        assert!(gradient.iter().all(|&g| g == 0.0));
        assert_eq!(minimum_frames(&[1, 1, 1]), 5);
        Ok(())
    }

    #[test]
    fn two_uniform_frames_spell_a_in_three_ways_of_four() -> Result<()> {
        let (loss, _) = loss_of(&[0.0; 4], 2, &closed(&[1]), 0)?;
        assert!((loss - 0.287_682_07).abs() < 1e-6);
        Ok(())
    }
}
