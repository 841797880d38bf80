//! Finds when each word of a text is said:
//! `cargo run --release --example align -- AUDIO TEXTFILE LANGUAGE`

use asr::audio::{AudioStream, DecodeOptions};
use asr::config::embedded_model;
use asr::decode::{FrameModel, Piece, Script, Stream, StreamOptions, Transcriber};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [audio, text, language] = match given.as_slice() {
        [] => ["examples/audio/swa.m4a", "examples/audio/swa.txt", "swa"],
        [audio, text, language] => [audio.as_str(), text, language],
        _ => return Err("needs AUDIO TEXTFILE LANGUAGE".into()),
    };
    let text = std::fs::read_to_string(text)?;
    let transcriber = Transcriber::new(&embedded_model()?, asr_kernels::Precision::F32)?;
    let vocab = transcriber.vocabulary().len();
    let script = Script::new(&text, language.parse()?, transcriber.reader().tokens());
    let mut aligner = script.aligner(vocab)?;
    let mut listen = |pieces: Vec<Piece>| {
        for piece in pieces {
            let rows = transcriber.reader().text_log_probs(&piece);
            rows.chunks_exact(vocab).for_each(|row| aligner.push(row));
        }
    };
    let mut audio = AudioStream::open(audio.as_ref(), &DecodeOptions::default())?;
    let options = StreamOptions { detect_voice: false, at_a_time: 1 };
    let mut stream = Stream::new(&transcriber, options);
    let mut n_samples = 0;
    while let Some(block) = audio.next_block()? {
        n_samples += block.len();
        listen(stream.push(&block)?);
    }
    listen(stream.finish()?);
    let duration_s = n_samples as f64 / 16_000.0;
    for word in script.words(&aligner.finish()?, transcriber.reader().frame_times(), duration_s) {
        println!("{:7.2} {:7.2} s  {:.2}  {}", word.start_s, word.end_s, word.score, word.word);
    }
    Ok(())
}
