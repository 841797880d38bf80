//! The model inside the binary.

use super::{ModelFiles, ModelFolderError};

/// Name of the embedded model.
pub const DEFAULT_MODEL: &str = "default";

const CONFIG: &[u8] = include_bytes!("../../models/default/config.json");
const VOCABULARY: &[u8] = include_bytes!("../../models/default/vocab.json");
const WEIGHTS: &[u8] = include_bytes!("../../models/default/model.safetensors");

/// Reads the embedded model.
///
/// # Errors
/// [`ModelFolderError`] if it was damaged before it was built in; a test loads it.
pub fn embedded_model() -> Result<ModelFiles, ModelFolderError> {
    ModelFiles::from_bytes(CONFIG, VOCABULARY, WEIGHTS, DEFAULT_MODEL)
}

/// The bytes whose SHA-256 identifies the embedded model.
#[must_use]
pub fn embedded_weights() -> &'static [u8] {
    WEIGHTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Transcriber;
    use asr_kernels::Precision;

    #[test]
    fn the_embedded_model_loads_and_says_nothing_about_silence()
    -> Result<(), Box<dyn std::error::Error>> {
        let transcriber = Transcriber::new(&embedded_model()?, Precision::F32)?;
        let silence = vec![0.0; 48_000];
        let heard = transcriber.transcribe(&[&silence], None)?;
        assert_eq!(heard[0].text, "");
        assert!(heard[0].languages.is_empty());
        assert!(WEIGHTS.len() <= 30 << 20, "the embedded weights exceed 30 MiB");
        Ok(())
    }
}
