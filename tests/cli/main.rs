//! What a user sees: the binary, run as a user runs it.

mod inputs;
mod listen;
mod messages;
mod ml_superb;
mod models;
mod outputs;
mod pretraining;
mod reports;
mod strategies;
mod training;
mod units;

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The binary, in the root of the project.
fn asr() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_asr"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// A file that came with the project.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/audio").join(name)
}

/// Exit code, standard output and standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// The objects of `-f jsonl` output.
fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("a JSON object per line")).collect()
}

/// Samples as a 16-bit mono WAV file in memory.
fn wav(samples: &[f32], rate_hz: u32) -> Vec<u8> {
    let data_bytes = 2 * samples.len() as u32;
    let mut bytes = Vec::new();
    bytes.extend(b"RIFF");
    bytes.extend((36 + data_bytes).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(rate_hz.to_le_bytes());
    bytes.extend((2 * rate_hz).to_le_bytes());
    bytes.extend(2_u16.to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(data_bytes.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|s| ((s * 32_767.0) as i16).to_le_bytes()));
    bytes
}
