//! What a model computes on the way, as named tensors for other tools.

use super::transcriber::DecodeError;
use crate::config::{AnyModel, ImportError, ModelFiles, SpeechModel, Wanted, input_batch};
use crate::features::{EncoderInput, InputFeatures};
use crate::model::{Encoded, Pass, Recogniser, Resolution, Sequence};
use asr_kernels::Precision;
use candle_core::Tensor;

/// Which tensors are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extract {
    /// Hidden states, outputs and logits.
    Hidden(Layers),
    /// Logits alone.
    Logits,
}

/// Which hidden states are wanted: 0 is the input of the first layer, `i` the output of layer `i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layers {
    /// Every one.
    All,
    /// These.
    These(Vec<usize>),
}

/// A model whose inside is wanted.
#[derive(Debug)]
pub struct Extractor {
    model: Model,
    precision: Precision,
}

#[derive(Debug)]
enum Model {
    Folder { model: Box<Recogniser>, input: Box<InputFeatures>, config: EncoderInput },
    Speech(Box<SpeechModel>),
}

/// A tensor with its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values in the order of its shape.
    pub values: Vec<f32>,
}

impl Named {
    fn new(name: String, tensor: &Tensor) -> Result<Self, DecodeError> {
        let values = tensor.flatten_all()?.to_vec1()?;
        Ok(Self { name, shape: tensor.dims().to_vec(), values })
    }
}

impl Extractor {
    /// Prepares a model.
    ///
    /// # Errors
    /// [`DecodeError`] if the parts of a folder of ours do not fit each other.
    pub fn new(model: AnyModel, precision: Precision) -> Result<Self, DecodeError> {
        let model = match model {
            AnyModel::Folder(files) => folder(&files)?,
            AnyModel::Speech(model) => Model::Speech(model),
        };
        Ok(Self { model, precision })
    }

    /// Number of layers, so that hidden states are numbered from 0 to this.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        let encoder = match &self.model {
            Model::Folder { model, .. } => model.encoder(),
            Model::Speech(model) => model.encoder(),
        };
        encoder.config().stage_layers.iter().sum()
    }

    /// Whether the model gives logits.
    #[must_use]
    pub fn has_logits(&self) -> bool {
        match &self.model {
            Model::Folder { .. } => true,
            Model::Speech(model) => !matches!(model.head(), crate::config::Head::None),
        }
    }

    /// Tensors of each clip of 16 kHz samples: `hidden_states.<i>` `(frames, dim)`, `final`
    /// (the output, after the final norm), `resolution.<ms>ms` of models with several frame
    /// rates, `logits` `(frames, vocab)` or `(classes,)`.
    ///
    /// `languages` are one for each clip and pick the adapters of a model that has them; `None`
    /// is the model's own. Clips come out as they
    /// would alone; with `parity` they are padded to one batch and padding is seen as the
    /// reference implementation of the model sees it.
    ///
    /// # Errors
    /// [`DecodeError`] if the model has no such adapter or cannot be run.
    ///
    /// # Panics
    /// If there are not as many languages as clips.
    pub fn extract(
        &self,
        clips: &[&[f32]],
        languages: &[Option<&str>],
        wanted: &Extract,
        parity: bool,
    ) -> Result<Vec<Vec<Named>>, DecodeError> {
        let hidden_states = matches!(wanted, Extract::Hidden(_));
        let (encoded, logits, step) = match &self.model {
            Model::Speech(model) => {
                let wanted = Wanted { precision: self.precision, hidden_states, parity };
                let outputs = model.run(clips, languages, wanted)?;
                (outputs.encoded, outputs.logits, 1000.0 * model.input().step_s())
            }
            Model::Folder { model, input, config } => {
                let input = input_batch(input, clips)?;
                let mut pass = Pass::inference(self.precision);
                if parity {
                    pass = pass.with_padded_norms();
                }
                let (encoded, output) = model.trace(&input, &pass)?;
                let logits = output.high;
                let clip = |(i, &n): (usize, &usize)| logits.values.get(i)?.narrow(0, 0, n);
                let logits =
                    logits.lengths.iter().enumerate().map(clip).collect::<Result<_, _>>()?;
                (encoded, Some(logits), config.step_ms().0)
            }
        };
        (0..clips.len())
            .map(|clip| {
                let mut tensors = Vec::new();
                if let Extract::Hidden(layers) = wanted {
                    hidden(&encoded, layers, step, clip, &mut tensors)?;
                }
                if let Some(logits) = &logits {
                    tensors.push(Named::new("logits".to_owned(), &logits[clip])?);
                }
                Ok(tensors)
            })
            .collect()
    }
}

fn folder(files: &ModelFiles) -> Result<Model, DecodeError> {
    Ok(Model::Folder {
        model: Box::new(Recogniser::new(&files.recogniser_config(), &files.parameters)?),
        input: Box::new(InputFeatures::new(&files.config.input())?),
        config: files.config.input(),
    })
}

/// Hidden states and outputs of a clip; `step` is the length of an input step in milliseconds.
fn hidden(
    encoded: &Encoded,
    layers: &Layers,
    step: f64,
    clip: usize,
    tensors: &mut Vec<Named>,
) -> Result<(), DecodeError> {
    let valid = |sequence: &Sequence| -> candle_core::Result<Tensor> {
        sequence.hidden.get(clip)?.narrow(0, 0, sequence.lengths[clip])
    };
    for (i, state) in encoded.hidden_states().iter().enumerate() {
        let is_wanted = match layers {
            Layers::All => true,
            Layers::These(these) => these.contains(&i),
        };
        if is_wanted {
            tensors.push(Named::new(format!("hidden_states.{i}"), &valid(state)?)?);
        }
    }
    tensors.push(Named::new("final".to_owned(), &valid(encoded.output())?)?);
    if encoded.resolutions.len() > 1 {
        let names = resolution_names(&encoded.resolutions, step);
        for (resolution, name) in encoded.resolutions.iter().zip(names) {
            tensors.push(Named::new(name, &valid(&resolution.output)?)?);
        }
    }
    Ok(())
}

/// `resolution.40ms` and so on, lowest rate first. Where two outputs share a rate, as in the
/// control model of one resolution, all but the last get a number.
fn resolution_names(resolutions: &[Resolution], step: f64) -> Vec<String> {
    let name = |resolution: &Resolution| {
        let (steps, frames) = resolution.stride;
        format!("resolution.{}ms", steps as f64 * step / frames as f64)
    };
    let plain: Vec<String> = resolutions.iter().map(name).collect();
    let numbered = |(i, name): (usize, &String)| {
        if plain[i + 1..].contains(name) { format!("{name}.{i}") } else { name.clone() }
    };
    plain.iter().enumerate().map(numbered).collect()
}

impl From<ImportError> for DecodeError {
    fn from(source: ImportError) -> Self {
        Self::Released(Box::new(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn resolutions_are_named_by_their_frame() -> candle_core::Result<()> {
        let at = |stride| -> candle_core::Result<Resolution> {
            let hidden = Tensor::zeros((1, 1, 1), DType::F32, &Device::Cpu)?;
            Ok(Resolution { stride, output: Sequence { hidden, lengths: vec![1] } })
        };
        let several = [at((1600, 1))?, at((640, 1))?, at((320, 1))?];
        assert_eq!(
            resolution_names(&several, 1.0 / 16.0),
            ["resolution.100ms", "resolution.40ms", "resolution.20ms"]
        );
        let control = [at((320, 1))?, at((320, 1))?];
        assert_eq!(
            resolution_names(&control, 1.0 / 16.0),
            ["resolution.20ms.0", "resolution.20ms"]
        );
        Ok(())
    }
}
