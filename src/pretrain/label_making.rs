//! Labels of a stage: frames are clustered, then every frame gets the number of its cluster.

use super::iterate::{Watch, stopped};
use super::recipe::{ClusteringConfig, LabelSource};
use super::speech::Speech;
use super::{FitReport, FrameMaker, Frames, LabelWriter, PretrainError, fit};
use crate::config::{AnyModel, LoadOptions, ModelInput, load_model};
use crate::data::Random;
use asr_kernels::Precision;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Clips whose frames are computed together.
const CLIPS: usize = 64;
/// Frames that clusters are found from are drawn from this many times as many.
const CHOICE: usize = 4;

/// What is to be labelled, and how.
pub(super) struct Wanted<'a> {
    pub(super) source: &'a LabelSource,
    /// The model whose layer is clustered.
    pub(super) model: Option<PathBuf>,
    pub(super) clustering: &'a ClusteringConfig,
    pub(super) speech: &'a Speech,
    /// Clips of all manifests.
    pub(super) n_listed: usize,
}

/// What stands beside a label file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelNotes {
    /// Middle of what the first label of a clip sees, seconds.
    pub(super) first_s: f64,
    /// How good the clustering is.
    pub(super) fit: FitReport,
}

impl Wanted<'_> {
    fn units(&self) -> usize {
        match self.source {
            LabelSource::Mfcc { units } | LabelSource::Layer { units, .. } => *units,
            LabelSource::Stage { .. } | LabelSource::File { .. } => 0,
        }
    }

    /// What makes the frames, and the middle of the first.
    fn maker(&self) -> Result<(FrameMaker, f64), PretrainError> {
        let (LabelSource::Layer { layer, .. }, Some(path)) = (self.source, &self.model) else {
            // Windows of 25 ms.
            return Ok((FrameMaker::mfcc()?, 0.0125));
        };
        let model = load_model(path, &LoadOptions::default())?;
        let first_s = match &model {
            AnyModel::Speech(model) => model.input().frame_times(model.encoder().config()).first_s,
            AnyModel::Folder(files) => {
                let input = ModelInput::of_folder(&files.config.input())?;
                input.frame_times(&files.config.encoder).first_s
            }
        };
        Ok((FrameMaker::layer(model, *layer, Precision::F32)?, first_s))
    }
}

/// Makes the label file `path`; `None` if it was stopped.
///
/// # Errors
/// [`PretrainError`]; `path` is written whole or not at all.
pub(super) fn make(
    wanted: &Wanted<'_>,
    path: &Path,
    stop: &AtomicBool,
    watch: &mut dyn Watch,
) -> Result<Option<LabelNotes>, PretrainError> {
    if !cfg!(feature = "faiss") {
        return Err(PretrainError::WithoutFaiss);
    }
    let (maker, first_s) = wanted.maker()?;
    let options = wanted.clustering.options(wanted.units());
    let speech = wanted.speech;
    // A fair share of the clips is enough to find clusters from.
    let mut chosen = speech.train.clone();
    Random::new(&[options.seed]).shuffle(&mut chosen);
    let seconds = (CHOICE * options.n_units * options.frames_per_unit) as f64 / maker.rate_hz();
    let mut gathered = 0.0;
    chosen.retain(|&clip| {
        let needed = gathered < seconds;
        gathered += speech.corpus.duration_s(clip);
        needed
    });
    let frames = chosen.chunks(CLIPS).take_while(|_| !stopped(stop)).flat_map(|clips| {
        match frames_of(&maker, speech, clips) {
            Ok(frames) => frames.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    });
    let found = fit(&options, frames);
    if stopped(stop) {
        return Ok(None);
    }
    let (clustering, report) = found?;
    watch.note(&format!(
        "  {} frames, inertia {:.4}, {} of {} clusters empty, {} tiny, perplexity {:.1}",
        report.frames_sampled,
        report.inertia,
        report.empty,
        options.n_units,
        report.tiny,
        report.perplexity
    ));
    clustering.save(&path.with_extension("faiss"))?;
    let mut writer = LabelWriter::create(path, clustering.n_units(), maker.rate_hz())?;
    let clips: Vec<usize> = (0..speech.corpus.clips().len()).collect();
    let mut written = 0;
    for clips in clips.chunks(CLIPS) {
        if stopped(stop) {
            return Ok(None);
        }
        for frames in frames_of(&maker, speech, clips)? {
            // Clips that could not be read have no labels.
            let place = speech.places[frames.clip];
            while written < place {
                writer.push(&[])?;
                written += 1;
            }
            writer.push(&clustering.assign(&frames.data, frames.dim)?)?;
            written += 1;
        }
    }
    while written < wanted.n_listed {
        writer.push(&[])?;
        written += 1;
    }
    writer.finish()?;
    Ok(Some(LabelNotes { first_s, fit: report }))
}

/// Frames of clips of the corpus.
fn frames_of(
    maker: &FrameMaker,
    speech: &Speech,
    clips: &[usize],
) -> Result<Vec<Frames>, PretrainError> {
    let waves: Vec<Vec<f32>> =
        clips.iter().map(|&clip| speech.corpus.waveform(clip)).collect::<Result<_, _>>()?;
    let views: Vec<&[f32]> = waves.iter().map(Vec::as_slice).collect();
    let dim = maker.dim();
    let frames = maker.compute(&views)?.into_iter().zip(clips);
    Ok(frames.map(|(data, &clip)| Frames { clip, n_frames: data.len() / dim, data, dim }).collect())
}
