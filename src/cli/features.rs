//! `asr features`.

use super::Talk;
use super::failure::{AnyError, CliError, chain};
use super::input::{Input, InputArgs};
use super::model::ModelArgs;
use super::tensor_file::TensorFile;
use crate::audio::AudioError;
use crate::decode::{Extract, Extractor, Layers, Named};
use crate::features::{Features, LogMel, LogMelConfig, Mfcc, MfccConfig};
use clap::{Args, ValueEnum};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write what a model computes on the way as tensors, for other tools
///
/// Examples:
///   asr features clip.wav -m facebook-hubert/ --layers all -o clip.safetensors
///   asr features a.wav b.wav -m mms-1b-all/ -l fra,swh --kind logits -o logits.safetensors
///   asr features clip.wav --kind mfcc -o mfcc.safetensors
///
/// A safetensors file with f32 tensors `hidden_states.0` to `hidden_states.L`, each (frames,
/// dim): 0 is the input of the first layer, i the raw output of layer i; `final` is the
/// encoder's output; `logits` (frames, vocab) or (classes,) where the model has a head;
/// `resolution.40ms` and so on of models with several frame rates. With several inputs each
/// name begins with the file's stem and a slash.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct FeaturesArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Language whose adapter is used, in models that have one for each (such as `fra` or
    /// `kmr-script_latin`); a list has one for each input, in their order
    #[arg(short, long, value_name = "LANG[,...]", value_delimiter = ',')]
    language: Vec<String>,
    /// What is written
    #[arg(long, value_enum, default_value_t = Kind::Hidden)]
    kind: Kind,
    /// Hidden states: `all`, or numbers such as `0,6,12`
    #[arg(long, value_name = "all|N,...", default_value = "all")]
    layers: String,
    /// Pad all inputs to one batch, and let padding be seen as the model's reference
    /// implementation sees it; without this each input is computed as it would be alone
    #[arg(long)]
    parity: bool,
    /// File to write to
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Hidden states, outputs and logits of the model
    Hidden,
    /// Logits of the model
    Logits,
    /// 39 MFCC (with deltas) every 10 ms, without a model
    Mfcc,
    /// 80 log-mel filter banks every 10 ms, without a model
    Fbank,
}

/// Samples of an input with the prefix of its tensors' names.
struct Clip<'a> {
    prefix: String,
    samples: Vec<f32>,
    language: Option<&'a str>,
}

pub(super) fn run(args: &FeaturesArgs, talk: Talk) -> Result<ExitCode, AnyError> {
    let inputs = args.input.list()?;
    let prefixes = prefixes(&inputs)?;
    let languages = languages(&args.language, inputs.len())?;
    let computer = Computer::new(args, talk)?;
    let mut file = TensorFile::create(&args.output)?;
    let mut failed = false;
    let mut together = Vec::new();
    for ((input, prefix), language) in inputs.iter().zip(prefixes).zip(languages) {
        let samples = match samples(&args.input, input, talk) {
            Ok(samples) => samples,
            Err(error) => {
                eprintln!("error: {}", chain(&error));
                failed = true;
                continue;
            }
        };
        let clip = Clip { prefix, samples, language };
        if args.parity {
            together.push(clip);
            continue;
        }
        computer.write(&[clip], args.parity, &mut file)?;
    }
    if !together.is_empty() {
        computer.write(&together, args.parity, &mut file)?;
    }
    file.finish()?;
    Ok(ExitCode::from(u8::from(failed)))
}

/// The language of each input: the same for all, or one after the other.
fn languages(given: &[String], inputs: usize) -> Result<Vec<Option<&str>>, CliError> {
    match given {
        [] => Ok(vec![None; inputs]),
        [one] => Ok(vec![Some(one); inputs]),
        each if each.len() == inputs => Ok(each.iter().map(|l| Some(l.as_str())).collect()),
        other => Err(CliError::LanguagesOfInputs { languages: other.len(), inputs }),
    }
}

/// `stem/` for each of several inputs, nothing for one.
fn prefixes(inputs: &[Input]) -> Result<Vec<String>, CliError> {
    if inputs.len() == 1 {
        return Ok(vec![String::new()]);
    }
    let mut taken = BTreeSet::new();
    inputs
        .iter()
        .map(|input| {
            let name = input.name();
            let stem = Path::new(&name)
                .file_stem()
                .map_or_else(|| name.clone(), |stem| stem.to_string_lossy().into_owned());
            if taken.insert(stem.clone()) {
                Ok(format!("{stem}/"))
            } else {
                Err(CliError::SameStem { stem })
            }
        })
        .collect()
}

fn samples(args: &InputArgs, input: &Input, talk: Talk) -> Result<Vec<f32>, AudioError> {
    let mut stream = args.open(input)?;
    let mut samples = Vec::new();
    while let Some(block) = stream.next_block()? {
        samples.extend_from_slice(&block);
    }
    for damage in stream.damage() {
        talk.warn(format_args!("`{}`: {damage}", input.name()));
    }
    Ok(samples)
}

enum Computer {
    Model { extractor: Box<Extractor>, wanted: Extract },
    Mfcc(Box<Mfcc>),
    Fbank(Box<LogMel>),
}

impl Computer {
    fn new(args: &FeaturesArgs, talk: Talk) -> Result<Self, AnyError> {
        let wanted = match args.kind {
            Kind::Mfcc => return Ok(Self::Mfcc(Box::new(Mfcc::new(MfccConfig::default())?))),
            Kind::Fbank => {
                return Ok(Self::Fbank(Box::new(LogMel::new(LogMelConfig::default())?)));
            }
            Kind::Hidden => Extract::Hidden(layers(&args.layers)?),
            Kind::Logits => Extract::Logits,
        };
        let extractor = args.model.extractor(&args.language, talk)?;
        if let Extract::Hidden(Layers::These(these)) = &wanted
            && let Some(&layer) = these.iter().find(|&&layer| layer > extractor.n_layers())
        {
            let layers = extractor.n_layers();
            return Err(CliError::NoLayer { layer, layers }.into());
        }
        if wanted == Extract::Logits && !extractor.has_logits() {
            return Err(CliError::NoHead.into());
        }
        Ok(Self::Model { extractor: Box::new(extractor), wanted })
    }

    fn write(&self, clips: &[Clip], parity: bool, file: &mut TensorFile) -> Result<(), AnyError> {
        let views: Vec<&[f32]> = clips.iter().map(|clip| clip.samples.as_slice()).collect();
        let tensors: Vec<Vec<Named>> = match self {
            Self::Model { extractor, wanted } => {
                let languages: Vec<_> = clips.iter().map(|clip| clip.language).collect();
                extractor.extract(&views, &languages, wanted, parity)?
            }
            Self::Mfcc(mfcc) => each(&views, "mfcc", |clip| mfcc.compute(clip)),
            Self::Fbank(log_mel) => each(&views, "fbank", |clip| log_mel.compute(clip)),
        };
        for (clip, tensors) in clips.iter().zip(tensors) {
            for Named { name, shape, values } in tensors {
                file.add(&format!("{}{name}", clip.prefix), &shape, &values)?;
            }
        }
        Ok(())
    }
}

fn each(clips: &[&[f32]], name: &str, compute: impl Fn(&[f32]) -> Features) -> Vec<Vec<Named>> {
    let tensor = |clip: &&[f32]| {
        let Features { data, n_frames, n_bins } = compute(clip);
        vec![Named { name: name.to_owned(), shape: vec![n_frames, n_bins], values: data }]
    };
    clips.iter().map(tensor).collect()
}

fn layers(list: &str) -> Result<Layers, CliError> {
    if list == "all" {
        return Ok(Layers::All);
    }
    let number = |part: &str| part.trim().parse().ok();
    let these: Option<Vec<usize>> = list.split(',').map(number).collect();
    these.map(Layers::These).ok_or_else(|| CliError::Layers { given: list.to_owned() })
}
