//! `asr doctor`.

use super::failure::AnyError;
use super::output::write_stdout;
use crate::audio::AUDIO_EXTENSIONS;
use crate::config::{embedded_model, embedded_weights};
use asr_kernels::{accelerator, isa, threads};
use clap::Args;
use std::process::ExitCode;

/// Say what this build and this machine can do
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {}

pub(super) fn run(_args: &DoctorArgs) -> Result<ExitCode, AnyError> {
    let model = embedded_model()?;
    let languages: Vec<String> =
        model.vocabulary.languages().iter().map(ToString::to_string).collect();
    let report = format!(
        "version           {}\nbuilt with        {}\ninstruction set   {} (ASR_ISA lowers it)\nthreads           {}\nGPU               {}\naudio formats     {}\nembedded model    {}, {:.1} M parameters, {:.1} MiB\nits languages     {}\n",
        env!("CARGO_PKG_VERSION"),
        features(),
        isa::isa().name(),
        threads::available(),
        gpu(),
        AUDIO_EXTENSIONS.join(" "),
        model.config.name,
        model.parameters.count() as f64 / 1e6,
        embedded_weights().len() as f64 / f64::from(1 << 20),
        languages.join(" "),
    );
    write_stdout(report.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn features() -> String {
    let all = [
        ("microphone", cfg!(feature = "microphone")),
        ("faiss", cfg!(feature = "faiss")),
        ("cuda", cfg!(feature = "cuda")),
    ];
    let built: Vec<&str> = all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    if built.is_empty() { "no features".to_owned() } else { built.join(" ") }
}

fn gpu() -> &'static str {
    match (cfg!(feature = "cuda"), accelerator::cuda(0)) {
        (_, Ok(_)) => "cuda:0",
        (true, Err(_)) => "none found",
        (false, Err(_)) => "not in this build (`--features cuda`)",
    }
}
