//! `config.json` of a folder of ours with an encoder of waveforms: what the files of others say,
//! in one form.

use super::speech_model::WaveformNorm;
use crate::model::{EncoderConfig, Padding};
use serde::{Deserialize, Serialize};

/// Version of the layout.
const SCHEMA: u32 = 1;

/// An encoder of waveforms and what stands on it, whoever made it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveformConfig {
    /// Version of the layout: 1.
    pub schema: u32,
    /// What the folder holds: `asr-waveform`.
    pub model_type: WaveformType,
    /// Name of the model.
    pub name: String,
    /// The encoder.
    pub encoder: EncoderConfig,
    /// How a waveform is prepared.
    pub waveform_norm: WaveformNorm,
    /// What padding does in the implementation that the model comes from.
    pub reference_padding: Padding,
    /// What stands on the encoder.
    pub head: HeadConfig,
    /// Where the model comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Kinds of folder with an encoder of waveforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaveformType {
    /// The only one.
    #[serde(rename = "asr-waveform")]
    AsrWaveform,
}

/// What stands on an encoder, and its sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum HeadConfig {
    /// Nothing.
    None,
    /// An output layer for CTC.
    Ctc {
        /// Its outputs.
        vocab_size: usize,
        /// How its tokens spell text, where `vocab.json` names them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spelling: Option<Spelling>,
    },
    /// An output layer, adapters and tokens for each of many languages.
    Languages {
        /// The language whose adapters are among the weights of the model itself.
        own: String,
        /// How the tokens spell text.
        spelling: Spelling,
    },
    /// A classifier of whole clips.
    Classifier {
        /// Names of the classes, in order.
        labels: Vec<String>,
        /// Width of its projection.
        width: usize,
        /// Hidden states that it adds up, if it does not read the output alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        states: Option<usize>,
    },
}

/// Tokens of a CTC model with a meaning of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spelling {
    /// Between repeats, and where nothing is said.
    pub blank: String,
    /// Between words.
    pub delimiter: String,
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The files that its numbers were read from.
    pub files: Vec<SourceFile>,
    /// Its licence, as its card names it; none where nothing is stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// A file that numbers were read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name, without folders.
    pub file: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl WaveformConfig {
    /// `model_type` of such a folder.
    pub(super) const MODEL_TYPE: &'static str = "asr-waveform";

    /// A model whose files are those of others.
    pub(super) fn new(
        encoder: EncoderConfig,
        waveform_norm: WaveformNorm,
        reference_padding: Padding,
        head: HeadConfig,
    ) -> Self {
        Self {
            schema: SCHEMA,
            model_type: WaveformType::AsrWaveform,
            name: String::new(),
            encoder,
            waveform_norm,
            reference_padding,
            head,
            provenance: None,
        }
    }

    /// Checks what the encoder's own check and the shapes of the weights leave open.
    ///
    /// # Errors
    /// The setting and what is wrong with it.
    pub(super) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        let epsilon = match self.waveform_norm {
            WaveformNorm::None => 0.0,
            WaveformNorm::ZeroMeanUnitVariance { epsilon } => epsilon,
        };
        let classes = match &self.head {
            HeadConfig::Classifier { labels, width, .. } => labels.len().min(*width),
            HeadConfig::Ctc { vocab_size, .. } => *vocab_size,
            HeadConfig::None | HeadConfig::Languages { .. } => 1,
        };
        for (is_sound, field, problem) in [
            (self.schema == SCHEMA, "schema", "is of another version than this program reads"),
            (self.encoder.input_channels == 1, "input_channels", "must be 1: a waveform"),
            ((0.0..1.0).contains(&epsilon), "epsilon", "must be from 0 up to, not including, 1"),
            (classes > 0, "head", "has no outputs"),
        ] {
            if !is_sound {
                return Err((field, problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_the_one_that_folders_are_told_by() {
        let json = serde_json::to_value(WaveformType::AsrWaveform).expect("a text");
        assert_eq!(json, WaveformConfig::MODEL_TYPE);
    }

    #[test]
    fn heads_are_written_by_their_kind() {
        let spelling = Spelling { blank: "<pad>".into(), delimiter: "|".into() };
        for (head, want) in [
            (HeadConfig::None, r#"{"kind":"none"}"#),
            (HeadConfig::Ctc { vocab_size: 3, spelling: None }, r#"{"kind":"ctc","vocab_size":3}"#),
            (
                HeadConfig::Languages { own: "eng".into(), spelling },
                r#"{"kind":"languages","own":"eng","spelling":{"blank":"<pad>","delimiter":"|"}}"#,
            ),
        ] {
            let json = serde_json::to_string(&head).expect("plain data");
            assert_eq!(json, want);
            assert_eq!(serde_json::from_str::<HeadConfig>(&json).expect("own output"), head);
        }
        let unknown = r#"{"kind":"ctc","vocab_size":3,"beam":1}"#;
        assert!(serde_json::from_str::<HeadConfig>(unknown).is_err());
    }
}
