//! Trains the ML-SUPERB head on a frozen encoder whose hidden states are kept on disk.
//!
//!   cargo run --release --example frozen_head -- ENCODER MANIFEST.tsv OUTPUT
//!
//! ENCODER is a folder or checkpoint of ours or of others; OUTPUT/model is then a model for
//! `asr transcribe -m`.

use asr::config::{FineTuning, FineTuningPlan, Recipe, Strategy, Upstream};
use asr::data::{Augmentation, Batches, Clip, ClipInput, Corpus, Transcript, read_manifest};
use asr::features::InputFeatures;
use asr::model::checkpoint::StoredAs;
use asr::text::{Vocabulary, normalise};
use asr::train::{Observe, Recognition, StatesPlan, StepReport, Trainer, Transcribed};
use asr_kernels::Precision;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

struct Losses;

impl Observe for Losses {
    fn step(&mut self, report: &StepReport) {
        println!("step {} loss {:.3}", report.step, report.loss);
    }

    fn validate(&mut self, _: u64) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> {
        Ok(serde_json::Value::Null)
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [encoder, manifest, output] = paths.as_slice() else {
        return Err("needs an encoder, a manifest and a folder for the results".into());
    };
    std::fs::create_dir_all(output)?;
    // Sizes and rates are those of the recipe; any of them can be set by hand.
    let Recipe { name, joint, downstream, train, data, .. } =
        Recipe::read(Path::new("models/upstream.toml"), &[])?;
    let (corpus, _) = Corpus::load(read_manifest(manifest)?)?;
    let languages: Vec<_> = corpus.clips().iter().filter_map(|clip| clip.language).collect();
    let vocabulary = Vocabulary::build(languages, corpus.clips().iter().filter_map(said), 1)?;
    let Upstream { name: upstream, encoder, input, parameters, .. } = Upstream::load(encoder)?;
    let features = InputFeatures::new(&input)?;
    let plan = FineTuningPlan {
        name: &name,
        input,
        encoder: &encoder,
        strategy: Some(&Strategy::Frozen { cache: Some(output.clone()) }),
        joint: &joint,
        downstream: &downstream,
        train: &train,
    };
    let tuning = FineTuning::new(&plan, vocabulary, parameters)?;
    let model = tuning.states_model()?;
    // What the file of states is named after must tell encoders apart.
    let identity = (upstream.as_str(), Precision::F32);
    let states =
        StatesPlan::new(&model, ClipInput::Computed(&features), &corpus, identity, output)?;
    println!("{} bytes of hidden states in {}", states.bytes(), states.path().display());
    let states = states.run(|_| {})?;
    let batches = Batches {
        corpus: &corpus,
        vocabulary: &tuning.files.vocabulary,
        labels: None,
        input: ClipInput::Stored(&states),
        augmentation: &Augmentation::default(),
        seed: train.seed,
    };
    let trainer = Trainer {
        parameters: &tuning.files.parameters,
        upstream: None,
        source: &Transcribed { batches: &batches, config: &data.batch },
        config: &train.run(),
        folder: output,
        stop: &AtomicBool::new(false),
    };
    let places = vec![None; tuning.files.vocabulary.languages().len()];
    trainer.run(&mut Recognition::new(&tuning.model, &places, &train), &mut Losses)?;
    tuning.finished()?.write(&output.join("model"), StoredAs::F16)?;
    Ok(())
}

/// The text of a clip in normal form.
fn said(clip: &Clip) -> Option<String> {
    match (&clip.transcript, clip.language) {
        (Transcript::Text(text), Some(language)) => Some(normalise(text, language)),
        _ => None,
    }
}
