//! Every preset loads, is valid and makes the model that was published; faults are named.

use super::*;
use crate::config::ModelInput;
use crate::model::{MaskedEncoder, MaskedEncoderConfig, requirements};
use crate::pretrain::objective::LabelTimes;

const TINY: &str = include_str!("../../../models/mr-hubert-tiny.toml");

fn parse(text: &str, sets: &[&str]) -> Result<PretrainRecipe, PretrainError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("r.toml");
    std::fs::write(&path, text).expect("written");
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    PretrainRecipe::read(&path, &sets)
}

/// Names and sizes of a stage's parameters, without memory for any.
fn parameters(stage: &Stage) -> usize {
    let units = match &stage.labels[0] {
        LabelSource::Mfcc { units } | LabelSource::Layer { units, .. } => *units,
        LabelSource::Stage { .. } | LabelSource::File { .. } => 500,
    };
    let input = ModelInput::new(&stage.input).expect("valid");
    let sets = [LabelTimes { n_units: units, rate_hz: 50.0, first_s: 0.0125 }];
    let times = input.frame_times(&stage.encoder);
    let heads = stage.objective.heads(&stage.encoder, times, &sets);
    let (shapes, head_names) = stage.objective.shapes(&stage.encoder, &heads, &sets);
    let config = MaskedEncoderConfig {
        encoder: stage.encoder.clone(),
        heads: shapes,
        head_names,
        front_end_gradient: stage.objective.front_end_gradient,
    };
    let asked = requirements(|vb| MaskedEncoder::build(&config, vb)).expect("it builds");
    asked.iter().map(|requirement| requirement.shape.iter().product::<usize>()).sum()
}

/// The tests of the presets: sizes of the models of their stages, where they are known.
macro_rules! presets {
    ($($test:ident: $file:literal, $sizes:expr;)*) => {$(
        #[test]
        fn $test() -> Result<(), PretrainError> {
            let recipe = parse(include_str!(concat!("../../../models/", $file, ".toml")), &[])?;
            assert_eq!(recipe.name, $file);
            let sizes: Vec<usize> = recipe.stages.iter().map(parameters).collect();
            assert_eq!(sizes, $sizes);
            // What is written beside a run says the same.
            let resolved = toml::to_string_pretty(&recipe).expect("TOML");
            assert_eq!(parse(&resolved, &[])?, recipe);
            Ok(())
        }
    )*};
}

// mHuBERT-147 has 94,825,600 parameters with 1004 classes of 256 values, MR-HuBERT base
// 97,392,000 and large 321,990,272 with 504 classes at two resolutions, HuBERT large with 500
// classes 316,606,336 as torchaudio counts them.
presets! {
    hubert_base: "hubert-base", [94_825_600 - 900 * 256, 94_825_600 - 500 * 256];
    mhubert_147: "mhubert-147", [94_825_600; 3];
    mr_hubert_base: "mr-hubert-base", [97_392_000 + 500 * 512];
    mr_hubert_large: "mr-hubert-large", [321_990_272 + 500 * 1536];
    mr_hubert_multi: "mr-hubert-multi", [97_392_000 + 500 * 512];
    wavlablm_mk: "wavlablm-mk", [316_606_336];
    wavlablm_ms: "wavlablm-ms", [316_606_336; 2];
}

#[test]
fn the_tiny_presets_lead_to_the_default_recipe() -> Result<(), PretrainError> {
    let table: toml::Table =
        include_str!("../../../models/default.toml").parse().expect("the default recipe is TOML");
    let encoder: EncoderConfig = table["encoder"].clone().try_into().expect("an encoder");
    let recipe = parse(TINY, &[])?;
    let names: Vec<&str> = recipe.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["it1", "it2", "mr-hubert"]);
    let last = &recipe.stages[2];
    assert!(last.encoder.same_shape(&encoder));
    let features = table["features"].clone().try_into().expect("features");
    let norm = table["feature_norm"].clone().try_into().expect("a norm");
    assert_eq!(last.input, InputConfig::LogMel { features, norm });
    let hubert = parse(include_str!("../../../models/hubert-tiny.toml"), &[])?;
    assert_eq!(hubert.stages.len(), 2);
    assert!(hubert.stages.iter().map(parameters).all(|n| n < 10_000_000));
    Ok(())
}

#[test]
fn stages_override_what_they_share() -> Result<(), PretrainError> {
    let recipe = parse(
        TINY,
        &["train.schedule.steps=7", "train.schedule.warmup_steps=2", "stage.it2.train.seed=9"],
    )?;
    let steps: Vec<u64> = recipe.stages.iter().map(|stage| stage.train.schedule.steps).collect();
    assert_eq!(steps, [7, 7, 1200]);
    let seeds: Vec<u64> = recipe.stages.iter().map(|stage| stage.train.seed).collect();
    assert_eq!(seeds, [1, 9, 1]);
    Ok(())
}

#[test]
fn faults_are_named() {
    for (set, want) in [
        ("schema=2", "schema 2"),
        ("colour='red'", "colour"),
        ("stage.it1.colour='red'", "colour"),
        ("stage.it3.labels=[]", "`it3`"),
        ("stages=['it1', 'it1']", "[stage.NAME]"),
        ("stages=[]", "`it1`"),
        ("stages=['it2', 'it1', 'mr-hubert']", "`it1`"),
        ("stage.it2.labels=[]", "1 to 64 label sets"),
        (
            "stage.it2.labels=[{ from = 'layer', of = { stage = 'it1' }, layer = 5, units = 9 }]",
            "labels.layer",
        ),
        ("stage.it2.labels=[{ from = 'stage', stage = 'it1', set = 1 }]", "labels.set"),
        ("stage.it1.labels=[{ from = 'mfcc', units = 0 }]", "labels.units"),
        ("stage.mr-hubert.initial={ stage = 'it2' }", "initial"),
        ("stage.mr-hubert.objective.targets='one_per_resolution'", "one for each resolution"),
        ("objective.mask.probability=1.0", "mask.probability"),
        ("objective.masked_weight=0.0", "masked_weight"),
        ("encoder.heads=3", "heads"),
        ("encoder.input_channels=1", "input_channels"),
        ("input.features.n_mels=40", "input_channels"),
        ("batch.seconds=1.0", "batch.seconds"),
        ("batch.upsampling.language=1.5", "language"),
        ("train.schedule.peak=0.0", "schedule.peak"),
        ("clustering.frames_per_unit=0", "frames_per_unit"),
        ("data.held_out=1.0", "data.held_out"),
        ("data.min_clip_s=0.2", "data.min_clip_s"),
        ("data.max_unreadable=2.0", "data.max_unreadable"),
        (
            "mixing={ probability = 2.0, noise_share = 0.1, noise_snr_db = [0.0, 1.0], voice_snr_db = [0.0, 1.0] }",
            "mixing.probability",
        ),
    ] {
        let mut error: &dyn std::error::Error = &parse(TINY, &[set]).expect_err(set);
        let mut text = error.to_string();
        while let Some(source) = error.source() {
            text += &format!(": {source}");
            error = source;
        }
        assert!(text.contains(want), "{set}: {text}");
    }
}
