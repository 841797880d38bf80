//! Writes down what is said while it is said, from the default microphone or, in real time, from
//! a file: `cargo run --release --features microphone --example transcribe_microphone -- [FILE]`

use asr::audio::{AudioStream, DecodeOptions, LiveInput, LiveState, Replay, Resampler};
use asr::config::embedded_model;
use asr::decode::{Live, LiveSegment, Transcriber};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input: Box<dyn LiveInput> = match std::env::args_os().nth(1) {
        Some(file) => {
            let stream = AudioStream::open(file.as_ref(), &DecodeOptions::default())?;
            Box::new(Replay::new(stream, "file", 16_000))
        }
        None => microphone()?,
    };
    let transcriber = Transcriber::new(&embedded_model()?, asr_kernels::Precision::F32)?;
    let mut live = Live::new(&transcriber, None);
    let mut resampler = Resampler::new(input.sample_rate_hz(), 16_000)?;
    let mut samples = Vec::new();
    loop {
        samples.clear();
        let state = input.read(&mut samples)?;
        live.push(&resampler.push(&samples))?.iter().for_each(show);
        match state {
            LiveState::Running => std::thread::sleep(Duration::from_millis(20)),
            LiveState::Returned => resampler = Resampler::new(input.sample_rate_hz(), 16_000)?,
            LiveState::Lost { reason } => println!("the device is gone: {reason}"),
            LiveState::Ended => break,
        }
    }
    live.finish()?.iter().for_each(show);
    Ok(())
}

fn show(segment: &LiveSegment) {
    let heard = &segment.understood;
    let language = heard.languages.first().map_or("-".to_owned(), |l| l.code.to_string());
    let mark = if segment.is_final { "" } else { " ..." };
    println!("{:7.2} {:7.2} s  [{language}] {}{mark}", segment.start_s, segment.end_s, heard.text);
}

#[cfg(feature = "microphone")]
fn microphone() -> Result<Box<dyn LiveInput>, Box<dyn std::error::Error>> {
    Ok(Box::new(asr::audio::Microphone::open(None)?))
}

#[cfg(not(feature = "microphone"))]
fn microphone() -> Result<Box<dyn LiveInput>, Box<dyn std::error::Error>> {
    Err("give a file, or build with `--features microphone`".into())
}
