//! The option that says where to compute.

use super::Talk;
use super::failure::CliError;
use crate::model::compute_on;
use asr_kernels::accelerator::{self, Unavailable};
use candle_core::Device;
use clap::Args;
use std::str::FromStr;

#[derive(Debug, Clone, Args)]
pub(super) struct DeviceArgs {
    /// Where to compute: `cpu`, `cuda` or `cuda:N` (builds with `--features cuda`); `auto` is the
    /// first CUDA device there is, else the CPU
    #[arg(long, value_name = "auto|cpu|cuda[:N]", default_value = "auto")]
    device: Choice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Auto,
    Cpu,
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map(Self::Cuda);
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| number(n).ok())
                .ok_or_else(|| "expected `auto`, `cpu`, `cuda` or `cuda:N`".to_owned()),
        }
    }
}

impl DeviceArgs {
    /// Puts models from now on onto the device.
    pub(super) fn apply(&self, talk: Talk) -> Result<(), CliError> {
        let device = match self.device {
            Choice::Cpu => Device::Cpu,
            Choice::Cuda(ordinal) => accelerator::cuda(ordinal)?,
            Choice::Auto => match accelerator::cuda(0) {
                Ok(device) => device,
                Err(Unavailable::NotBuilt) => Device::Cpu,
                Err(reason) => {
                    talk.progress(format_args!("computing on the CPU: {reason}"));
                    Device::Cpu
                }
            },
        };
        compute_on(device);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_numbers() {
        for (text, want) in [
            ("auto", Some(Choice::Auto)),
            ("cpu", Some(Choice::Cpu)),
            ("cuda", Some(Choice::Cuda(0))),
            ("cuda:3", Some(Choice::Cuda(3))),
            ("cuda:", None),
            ("cuda:-1", None),
            ("gpu", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
