//! When each character of a short clip's text is said.

use super::reader::FrameModel;
use super::script::{AlignedCharacter, Script};
use super::transcriber::{DecodeError, Transcriber};
use crate::text::Language;

impl Transcriber {
    /// The characters of `text` where they are said in `clip`, in order; nothing of what is
    /// not spoken, and nothing at all if the text does not fit the clip.
    ///
    /// `clip` are samples at 16 kHz, heard in one piece: some ten seconds, not hours
    /// (`asr align` is for those).
    ///
    /// # Errors
    /// [`DecodeError`] if the model cannot be run.
    pub fn align_characters(
        &self,
        clip: &[f32],
        text: &str,
        language: Language,
    ) -> Result<Vec<AlignedCharacter>, DecodeError> {
        let reader = self.reader();
        let tokens = reader.tokens();
        let script = Script::new(text, language, tokens);
        let Ok(mut aligner) = script.aligner(tokens.len()) else { return Ok(Vec::new()) };
        for heard in self.hear(&[clip])? {
            let mut rows = heard.log_probs;
            for row in rows.chunks_exact_mut(tokens.len()) {
                tokens.tags_to_blank(row);
                aligner.push(row);
            }
        }
        let Ok(spans) = aligner.finish() else { return Ok(Vec::new()) };
        let words = script.words(&spans, reader.frame_times(), clip.len() as f64 / 16_000.0);
        Ok(words.into_iter().flat_map(|word| word.characters).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{DecodeOptions, decode_path};
    use crate::config::embedded_model;
    use asr_kernels::Precision;

    #[test]
    fn characters_are_in_order_and_a_text_that_does_not_fit_gives_none() {
        let model = embedded_model().expect("embedded");
        let transcriber = Transcriber::new(&model, Precision::F32).expect("sound");
        let audio = decode_path("examples/audio/eng.flac".as_ref(), &DecodeOptions::default());
        let clip = audio.expect("an example").samples;
        let language: Language = "eng".parse().expect("English");
        let align = |text: &str| transcriber.align_characters(&clip, text, language);
        let found = align("sun and wind").expect("heard");
        let text: String = found.iter().map(|c| c.character.as_str()).collect();
        assert_eq!(text, "sunandwind");
        assert!(found.windows(2).all(|pair| pair[0].end_s <= pair[1].start_s));
        assert!(align(&"long ".repeat(2000)).expect("heard").is_empty());
        assert!(align("").expect("heard").is_empty());
    }
}
