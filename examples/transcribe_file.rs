//! Transcribes one file of any length with the embedded model, word by word:
//! `cargo run --release --example transcribe_file -- FILE`

use asr::audio::{AudioStream, DecodeOptions};
use asr::config::embedded_model;
use asr::decode::{FrameModel, Piece, Stream, StreamOptions, Transcriber};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("examples/audio/eng.flac"), PathBuf::from);
    let transcriber = Transcriber::new(&embedded_model()?, asr_kernels::Precision::F32)?;
    let show = |pieces: Vec<Piece>| {
        for piece in pieces {
            let heard = transcriber.read_piece(&piece, None);
            let language = heard.languages.first().map_or("-".to_owned(), |l| l.code.to_string());
            println!("{:7.2} {:7.2} s  [{language}] {}", piece.start_s, piece.end_s, heard.text);
            for word in &heard.words {
                println!(
                    "{:7.2} {:7.2} s    {} {:.2}",
                    word.start_s, word.end_s, word.word, word.score
                );
            }
        }
    };
    let mut audio = AudioStream::open(&file, &DecodeOptions::default())?;
    let mut stream = Stream::new(&transcriber, StreamOptions::default());
    while let Some(block) = audio.next_block()? {
        show(stream.push(&block)?);
    }
    show(stream.finish()?);
    Ok(())
}
