//! Names the language of a file: `cargo run --release --example identify -- FILE`

use asr::audio::{DecodeOptions, decode_path};
use asr::config::embedded_model;
use asr::decode::Transcriber;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("examples/audio/ces.opus"), PathBuf::from);
    let audio = decode_path(&file, &DecodeOptions::default())?;
    let transcriber = Transcriber::new(&embedded_model()?, asr_kernels::Precision::F32)?;
    for heard in transcriber.transcribe(&[&audio.samples], None)? {
        for language in heard.languages.iter().take(3) {
            println!(
                "{} {} {:.3}",
                language.code,
                language.code.name().unwrap_or("?"),
                language.score
            );
        }
    }
    Ok(())
}
