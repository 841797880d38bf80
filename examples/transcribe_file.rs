//! Transcribes one file with the embedded model: `cargo run --release --example transcribe_file -- FILE`

use asr::audio::{AudioStream, DecodeOptions};
use asr::config::embedded_model;
use asr::decode::{Segmenter, Transcriber};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("examples/audio/eng.flac"), PathBuf::from);
    let transcriber = Transcriber::new(&embedded_model()?, asr_kernels::Precision::F32)?;
    let mut stream = AudioStream::open(&file, &DecodeOptions::default())?;
    let mut segmenter = Segmenter::default();
    let mut segments = Vec::new();
    while let Some(block) = stream.next_block()? {
        segments.extend(segmenter.push(&block));
    }
    segments.extend(segmenter.finish());
    for segment in segments {
        for heard in transcriber.transcribe(&[&segment.samples], None)? {
            let language = heard.languages.first().map_or("-".to_owned(), |l| l.code.to_string());
            println!("{:7.2} s  [{language}] {}", segment.start_s, heard.text);
        }
    }
    Ok(())
}
