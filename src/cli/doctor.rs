//! `asr doctor`.

use super::failure::AnyError;
use super::output::write_stdout;
use crate::audio::AUDIO_EXTENSIONS;
use crate::config::{embedded_model, embedded_weights};
use asr_kernels::{isa, threads};
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
        "version           {}\ninstruction set   {} (ASR_ISA lowers it)\nthreads           {}\naudio formats     {}\nembedded model    {}, {:.1} M parameters, {:.1} MiB\nits languages     {}\n",
        env!("CARGO_PKG_VERSION"),
        isa::isa().name(),
        threads::available(),
        AUDIO_EXTENSIONS.join(" "),
        model.config.name,
        model.parameters.count() as f64 / 1e6,
        embedded_weights().len() as f64 / f64::from(1 << 20),
        languages.join(" "),
    );
    write_stdout(report.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
