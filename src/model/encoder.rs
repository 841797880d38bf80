//! Any of the encoders, with every hidden state on request.

use super::adapter::LanguageAdapter;
use super::after_block::AfterBlock;
use super::config::{EncoderConfig, Family};
use super::front_end::FrontEnd;
use super::hubert::Hubert;
use super::mr_hubert::{MrHubert, Resolution};
use super::pass::Pass;
use super::sequence::Sequence;
use super::transformer::{StageStates, Trace};
use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

/// An encoder of any family.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Single(Box<Hubert>),
    Tree(Box<MrHubert>),
}

/// Everything an encoder computes of a batch.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Outputs, lowest frame rate first; encoders of one frame rate have one.
    pub resolutions: Vec<Resolution>,
    /// Stages in the order they run.
    pub stages: Vec<StageStates>,
}

impl Encoded {
    /// Output at the highest frame rate.
    #[must_use]
    pub fn output(&self) -> &Sequence {
        let last = self.resolutions.last().expect("an encoder has at least one resolution");
        &last.output
    }

    /// Input of the first layer, then the output of every layer in the order they run, each
    /// with its valid frames; before the final norm of encoders that normalise first.
    #[must_use]
    pub fn hidden_states(&self) -> Vec<Sequence> {
        let mut states = Vec::new();
        for (i, stage) in self.stages.iter().enumerate() {
            let skipped = usize::from(i > 0);
            states.extend(
                stage.layers[skipped..].iter().map(|layer| stage.output.with_hidden(layer.clone())),
            );
        }
        states
    }
}

impl Encoded {
    /// As [`Encoded::hidden_states`], all at the highest frame rate and the last one after the
    /// final norm: what a weighted sum of layers adds up (as s3prl, in which such heads are
    /// trained). States of lower rates are repeated.
    ///
    /// # Errors
    /// If candle cannot make the tensors.
    pub(super) fn aligned_states(&self) -> Result<Vec<Sequence>> {
        let output = self.output();
        let frames = output.frames()?;
        let levels = self.resolutions.len() - 1;
        let (steps, per_steps) = self.resolutions[levels].stride;
        let mut states = Vec::new();
        for (i, stage) in self.stages.iter().enumerate() {
            // Stages go down to the lowest rate and up again.
            let (low_steps, low_per_steps) = self.resolutions[levels.abs_diff(i)].stride;
            let at = |t: usize| t * steps * low_per_steps / (per_steps * low_steps);
            let skipped = usize::from(i > 0);
            for layer in &stage.layers[skipped..] {
                let state = stage.output.with_hidden(layer.clone());
                let same_rate = levels.abs_diff(i) == levels;
                let state =
                    if same_rate { state.cut(frames)? } else { state.repeated(frames, at)? };
                states.push(output.with_hidden(state.hidden));
            }
        }
        if let Some(last) = states.last_mut() {
            *last = output.clone();
        }
        Ok(states)
    }
}

impl Encoder {
    /// Builds the encoder on the parameters of `vb`.
    ///
    /// # Errors
    /// If a parameter is missing or has another shape.
    pub fn new(config: &EncoderConfig, vb: &VarBuilder) -> Result<Self> {
        let kind = match config.variant.family {
            Family::MrHubert => Kind::Tree(Box::new(MrHubert::new(config, vb)?)),
            Family::Hubert | Family::Wav2vec2 | Family::Wavlm => {
                Kind::Single(Box::new(Hubert::new(config, vb)?))
            }
        };
        Ok(Self { config: config.clone(), kind })
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    pub(super) fn front_end(&self) -> &FrontEnd {
        match &self.kind {
            Kind::Single(encoder) => &encoder.front_end,
            Kind::Tree(encoder) => &encoder.front_end,
        }
    }

    /// Encodes a batch and keeps every hidden state.
    ///
    /// # Shapes
    /// `input.hidden`: `(batch, steps, input_channels)`, steps past a clip's length zero;
    /// `adapters`: one per clip where the configuration has an `adapter_dim`, else none. Each
    /// clip has at least one frame: one shorter than the receptive field is taken as if zeros
    /// followed it.
    ///
    /// # Errors
    /// If shapes disagree or the adapters are not as many as the clips.
    pub fn trace(
        &self,
        input: &Sequence,
        adapters: &[&LanguageAdapter],
        pass: &Pass,
    ) -> Result<Encoded> {
        self.run(input, pass, Trace { adapters, stages: Some(Vec::new()), ..Trace::default() })
    }

    /// As [`Encoder::trace`]; `after` sees the frames after each Transformer block, numbered
    /// from 0 in the order they run, and may change them. The states kept are the changed ones.
    ///
    /// # Errors
    /// As [`Encoder::trace`], or if `after` fails.
    pub fn trace_with(
        &self,
        input: &Sequence,
        adapters: &[&LanguageAdapter],
        pass: &Pass,
        after: &mut dyn AfterBlock,
    ) -> Result<Encoded> {
        let mut trace = Trace { adapters, stages: Some(Vec::new()), ..Trace::default() };
        trace.after = Some(after);
        self.run(input, pass, trace)
    }

    /// Outputs at every frame rate, lowest first, of an encoder without adapters; `after` as in
    /// [`Encoder::trace_with`].
    ///
    /// # Errors
    /// As [`Encoder::trace_with`].
    pub fn forward_with(
        &self,
        input: &Sequence,
        pass: &Pass,
        after: &mut dyn AfterBlock,
    ) -> Result<Vec<Resolution>> {
        let trace = Trace { after: Some(after), ..Trace::default() };
        Ok(self.run(input, pass, trace)?.resolutions)
    }

    /// Encodes a batch without keeping its hidden states; arguments as [`Encoder::trace`].
    ///
    /// # Errors
    /// As [`Encoder::trace`].
    pub fn outputs(
        &self,
        input: &Sequence,
        adapters: &[&LanguageAdapter],
        pass: &Pass,
    ) -> Result<Encoded> {
        self.run(input, pass, Trace { adapters, ..Trace::default() })
    }

    fn run(&self, input: &Sequence, pass: &Pass, mut trace: Trace<'_>) -> Result<Encoded> {
        let frames = self.front_end().forward(input, pass)?;
        let wanted =
            if self.config.variant.adapter_dim.is_some() { frames.lengths.len() } else { 0 };
        if trace.adapters.len() != wanted {
            bail!("{} adapters for a batch that takes {wanted}", trace.adapters.len());
        }
        let resolutions = self.encode(&frames, pass, &mut trace)?;
        Ok(Encoded { resolutions, stages: trace.stages.unwrap_or_default() })
    }

    /// Outputs at every frame rate, from frames of the front end.
    pub(super) fn encode(
        &self,
        frames: &Sequence,
        pass: &Pass,
        trace: &mut Trace,
    ) -> Result<Vec<Resolution>> {
        match &self.kind {
            Kind::Single(encoder) => Ok(vec![encoder.encode(frames, pass, trace)?]),
            Kind::Tree(encoder) => encoder.encode(frames, pass, trace),
        }
    }
}

/// Pads clips with zeros to a batch of one input channel, `(batch, samples, 1)`.
///
/// # Errors
/// If candle cannot make the tensor.
pub fn waveform_batch(clips: &[&[f32]]) -> Result<Sequence> {
    let steps = clips.iter().map(|clip| clip.len()).max().unwrap_or(0).max(1);
    let mut values = vec![0.0; clips.len() * steps];
    for (row, clip) in values.chunks_exact_mut(steps).zip(clips) {
        row[..clip.len()].copy_from_slice(clip);
    }
    let hidden = Tensor::from_vec(values, (clips.len(), steps, 1), &candle_core::Device::Cpu)?;
    Ok(Sequence { hidden, lengths: clips.iter().map(|clip| clip.len().max(1)).collect() })
}
