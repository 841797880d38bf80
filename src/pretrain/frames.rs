//! Frames of clips: what is clustered, and what is given units.

use super::PretrainError;
use crate::audio::{AudioError, DecodeOptions, Limits, decode_path};
use crate::config::{AnyModel, ModelFiles, SpeechModel, Wanted, input_batch};
use crate::data::Clip;
use crate::features::{InputFeatures, LogMel, LogMelConfig, Mfcc, MfccConfig};
use crate::model::{Encoded, Pass, Recogniser};
use asr_kernels::Precision;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::path::PathBuf;

/// Samples per second of the audio that frames are made of.
const SAMPLE_RATE_HZ: usize = 16_000;
/// Longest stretch that a model hears at once; a longer clip is cut into such stretches, each
/// encoded alone (fairseq `dump_hubert_feature.py`, `max_chunk`).
const STRETCH: usize = 1_600_000;
/// Shortest stretch that has a frame: 25 ms, the reach of HuBERT's front end and of our features.
const SHORTEST: usize = 400;
/// Audio that a model hears in one batch, padding included, seconds.
const BATCH_S: f64 = 60.0;
/// Audio that is decoded ahead, seconds, and the most clips of it.
const AHEAD_S: f64 = 300.0;
const AHEAD_CLIPS: usize = 256;
/// Longest clip, seconds: more is no clip of a training set.
const MAX_CLIP_S: f64 = 3600.0;

/// Frames of one clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Frames {
    /// The clip's number in its manifest.
    pub clip: usize,
    /// `(frames, dim)`, row-major.
    pub data: Vec<f32>,
    /// Number of frames; 0 of a clip that could not be read.
    pub n_frames: usize,
    /// Values per frame.
    pub dim: usize,
}

/// Makes frames of samples.
#[derive(Debug)]
pub struct FrameMaker {
    kind: Kind,
    dim: usize,
    rate_hz: f64,
}

#[derive(Debug)]
enum Kind {
    Mfcc(Box<Mfcc>),
    LogMel(Box<LogMel>),
    Layer { model: Model, layer: usize, precision: Precision },
}

#[derive(Debug)]
enum Model {
    Folder { model: Box<Recogniser>, input: Box<InputFeatures>, step_ms: f64 },
    Speech(Box<SpeechModel>),
}

impl Model {
    fn folder(files: &ModelFiles) -> Result<Self, PretrainError> {
        let model = Recogniser::new(&files.recogniser_config(), &files.parameters)?;
        let config = files.config.input();
        let input = Box::new(InputFeatures::new(&config)?);
        Ok(Self::Folder { model: Box::new(model), input, step_ms: config.step_ms().0 })
    }

    fn n_layers(&self) -> usize {
        let encoder = match self {
            Self::Folder { model, .. } => model.encoder(),
            Self::Speech(model) => model.encoder(),
        };
        encoder.config().stage_layers.iter().sum()
    }

    /// Runs the model on clips, and tells how many milliseconds an input step has.
    fn run(&self, clips: &[&[f32]], precision: Precision) -> Result<(Encoded, f64), PretrainError> {
        match self {
            Self::Folder { model, input, step_ms } => {
                let input = input_batch(input, clips)?;
                let (encoded, _) = model.trace(&input, &Pass::inference(precision))?;
                Ok((encoded, *step_ms))
            }
            Self::Speech(model) => {
                let wanted = Wanted { precision, hidden_states: true, parity: false };
                let outputs = model
                    .run(clips, &vec![None; clips.len()], wanted)
                    .map_err(|source| PretrainError::Model { source: Box::new(source) })?;
                Ok((outputs.encoded, 1000.0 * model.input().step_s()))
            }
        }
    }
}

impl FrameMaker {
    /// MFCC with deltas, 39 values every 10 ms: what the first iteration clusters.
    ///
    /// # Errors
    /// None in practice: its settings are fixed.
    pub fn mfcc() -> Result<Self, PretrainError> {
        let mfcc = Mfcc::new(MfccConfig::default())?;
        let (dim, rate_hz) = (mfcc.config().n_bins(), 1000.0 / mfcc.config().mel.shift_ms);
        Ok(Self { kind: Kind::Mfcc(Box::new(mfcc)), dim, rate_hz })
    }

    /// Log-mel filter banks, 80 values every 10 ms.
    ///
    /// # Errors
    /// None in practice: its settings are fixed.
    pub fn log_mel() -> Result<Self, PretrainError> {
        let log_mel = LogMel::new(LogMelConfig::default())?;
        let (dim, rate_hz) = (log_mel.config().n_bins(), 1000.0 / log_mel.config().shift_ms);
        Ok(Self { kind: Kind::LogMel(Box::new(log_mel)), dim, rate_hz })
    }

    /// The output of a layer of a model, counted from 1; 0 is the input of the first. Before
    /// the final norm of models that normalise first. Clips come out as they would alone.
    ///
    /// # Errors
    /// [`PretrainError`] if the model has no such layer or cannot be run.
    pub fn layer(
        model: AnyModel,
        layer: usize,
        precision: Precision,
    ) -> Result<Self, PretrainError> {
        let model = match model {
            AnyModel::Folder(files) => Model::folder(&files)?,
            AnyModel::Speech(model) => Model::Speech(model),
        };
        let layers = model.n_layers();
        if layer > layers {
            return Err(PretrainError::NoLayer { layer, layers });
        }
        // Layers of models with several frame rates differ in theirs: it is measured.
        let seconds = 4;
        let silence = vec![0.0; seconds * SAMPLE_RATE_HZ];
        let (encoded, step_ms) = model.run(&[&silence], precision)?;
        let states = encoded.hidden_states();
        let state = states.get(layer).ok_or(PretrainError::NoLayer { layer, layers })?;
        let dim = state.hidden.dim(2)?;
        let measured = state.lengths[0] as f64 / seconds as f64;
        let rates = encoded.resolutions.iter().map(|resolution| {
            let (steps, frames) = resolution.stride;
            1000.0 * frames as f64 / (steps as f64 * step_ms)
        });
        let rate_hz = rates
            .min_by(|a, b| (a - measured).abs().total_cmp(&(b - measured).abs()))
            .unwrap_or(measured);
        Ok(Self { kind: Kind::Layer { model, layer, precision }, dim, rate_hz })
    }

    /// Values per frame.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Frames per second.
    #[must_use]
    pub fn rate_hz(&self) -> f64 {
        self.rate_hz
    }

    /// Frames of clips of 16 kHz samples, `(frames, dim)` each; none of a clip
    /// shorter than 25 ms.
    ///
    /// # Errors
    /// [`PretrainError`] if a model cannot be run.
    pub fn compute(&self, clips: &[&[f32]]) -> Result<Vec<Vec<f32>>, PretrainError> {
        match &self.kind {
            Kind::Mfcc(mfcc) => Ok(clips.par_iter().map(|clip| mfcc.compute(clip).data).collect()),
            Kind::LogMel(log_mel) => {
                Ok(clips.par_iter().map(|clip| log_mel.compute(clip).data).collect())
            }
            Kind::Layer { model, layer, precision } => {
                let mut frames = vec![Vec::new(); clips.len()];
                for batch in batches(clips) {
                    let stretches: Vec<&[f32]> =
                        batch.iter().map(|&(clip, start, end)| &clips[clip][start..end]).collect();
                    let (encoded, _) = model.run(&stretches, *precision)?;
                    let state = encoded.hidden_states().swap_remove(*layer);
                    for (i, &(clip, start, _)) in batch.iter().enumerate() {
                        let valid = state.hidden.get(i)?.narrow(0, 0, state.lengths[i])?;
                        let values = valid.flatten_all()?.to_vec1::<f32>()?;
                        // Stretches of a clip are of one length, so they come in order.
                        debug_assert!(start == 0 || !frames[clip].is_empty());
                        frames[clip].extend(values);
                    }
                }
                Ok(frames)
            }
        }
    }

    /// Frames of the clips of a manifest, in its order. `max_unreadable` is the share of the
    /// clips that may be unreadable; those come out without frames.
    #[must_use]
    pub fn clips<'a>(&'a self, clips: &'a [Clip], max_unreadable: f64) -> ClipFrames<'a> {
        ClipFrames {
            maker: self,
            clips,
            next: 0,
            ready: VecDeque::new(),
            unreadable: Vec::new(),
            max_unreadable,
            failed: false,
        }
    }
}

/// Which stretches of which clips go through a model together: `(clip, start, end)`, those of
/// like length in one batch, those of a clip in order.
fn batches(clips: &[&[f32]]) -> Vec<Vec<(usize, usize, usize)>> {
    let mut stretches = Vec::new();
    for (clip, samples) in clips.iter().enumerate() {
        let starts = (0..samples.len()).step_by(STRETCH);
        stretches.extend(starts.map(|start| (clip, start, samples.len().min(start + STRETCH))));
    }
    stretches.retain(|&(_, start, end)| end - start >= SHORTEST);
    // Whole stretches before the rest of the same clip: longest first, and stable.
    stretches.sort_by_key(|&(_, start, end)| std::cmp::Reverse(end - start));
    let most = (BATCH_S * SAMPLE_RATE_HZ as f64) as usize;
    let mut batches: Vec<Vec<(usize, usize, usize)>> = Vec::new();
    for stretch in stretches {
        match batches.last_mut() {
            Some(batch) if (batch[0].2 - batch[0].1) * (batch.len() + 1) <= most => {
                batch.push(stretch);
            }
            _ => batches.push(vec![stretch]),
        }
    }
    batches
}

/// Frames of the clips of a manifest, in its order; made by [`FrameMaker::clips`].
///
/// Some minutes of audio are decoded ahead on all cores, so memory does not grow with the
/// manifest.
#[derive(Debug)]
pub struct ClipFrames<'a> {
    maker: &'a FrameMaker,
    clips: &'a [Clip],
    next: usize,
    ready: VecDeque<Frames>,
    unreadable: Vec<(PathBuf, AudioError)>,
    max_unreadable: f64,
    failed: bool,
}

impl ClipFrames<'_> {
    /// Clips that could not be read so far, with the reason.
    #[must_use]
    pub fn unreadable(&self) -> &[(PathBuf, AudioError)] {
        &self.unreadable
    }

    /// Number of clips whose frames have been made.
    #[must_use]
    pub fn done(&self) -> usize {
        self.next - self.ready.len()
    }

    fn advance(&mut self) -> Result<(), PretrainError> {
        let mut seconds = 0.0;
        let rest = &self.clips[self.next..];
        let within = rest.iter().take(AHEAD_CLIPS).take_while(|clip| {
            let fits = seconds < AHEAD_S;
            seconds += clip.duration_s;
            fits
        });
        let block = &rest[..within.count()];
        let limits = Limits { max_duration_s: MAX_CLIP_S, ..Limits::default() };
        let options = DecodeOptions { limits, ..DecodeOptions::default() };
        let decoded: Vec<_> =
            block.par_iter().map(|clip| decode_path(&clip.path, &options)).collect();
        let mut samples = Vec::with_capacity(block.len());
        for (clip, audio) in block.iter().zip(decoded) {
            samples.push(match audio {
                Ok(audio) => audio.samples,
                Err(error) => {
                    self.unreadable.push((clip.path.clone(), error));
                    Vec::new()
                }
            });
        }
        if self.unreadable.len() as f64 > self.max_unreadable * self.clips.len() as f64 {
            let (failed, total) = (self.unreadable.len(), self.clips.len());
            let (first, source) = self.unreadable.swap_remove(0);
            return Err(PretrainError::TooManyUnreadable { failed, total, first, source });
        }
        let views: Vec<&[f32]> = samples.iter().map(Vec::as_slice).collect();
        let dim = self.maker.dim;
        for (i, data) in self.maker.compute(&views)?.into_iter().enumerate() {
            let n_frames = data.len() / dim;
            self.ready.push_back(Frames { clip: self.next + i, data, n_frames, dim });
        }
        self.next += block.len();
        Ok(())
    }
}

impl Iterator for ClipFrames<'_> {
    type Item = Result<Frames, PretrainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty()
            && self.next < self.clips.len()
            && !self.failed
            && let Err(error) = self.advance()
        {
            self.failed = true;
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::embedded_model;
    use crate::data::read_manifest;

    fn sound(n: usize, pitch: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * pitch).sin() * 0.3).collect()
    }

    #[test]
    fn clips_of_a_batch_have_the_frames_they_have_alone() {
        let model = || AnyModel::Folder(Box::new(embedded_model().expect("embedded")));
        let maker = FrameMaker::layer(model(), 2, Precision::F32).expect("it has two layers");
        let clips = [sound(24_000, 0.05), sound(7000, 0.2), Vec::new(), sound(40_000, 0.01)];
        let views: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
        let together = maker.compute(&views).expect("computed");
        assert!(together[2].is_empty());
        for (clip, frames) in views.iter().zip(&together) {
            let alone = &maker.compute(&[clip]).expect("computed")[0];
            assert_eq!(alone.len(), frames.len());
            assert!(alone.iter().zip(frames).all(|(a, b)| (a - b).abs() < 1e-4));
            let seconds = clip.len() as f64 / 16_000.0;
            let n_frames = (frames.len() / maker.dim()) as f64;
            // The convolutions reach beyond the ends of the clip, so there are fewer frames.
            let missing = seconds * maker.rate_hz() - n_frames;
            assert!((0.0..8.0).contains(&missing), "{n_frames} at {}", maker.rate_hz());
        }
        let error = FrameMaker::layer(model(), 99, Precision::F32).expect_err("no such layer");
        assert!(matches!(error, PretrainError::NoLayer { layer: 99, .. }));
    }

    #[test]
    fn stretches_of_long_clips_stay_in_order() {
        let (long, whole) = (vec![0.0; 2 * STRETCH + 500], vec![0.0; 3 * STRETCH + 399]);
        let order: Vec<_> = batches(&[&long, &whole, &[0.0; 600], &[0.0; 399]]).concat();
        let of = |wanted| order.iter().filter(move |s| s.0 == wanted).map(|s| (s.1, s.2));
        let end = 2 * STRETCH;
        assert!(of(0).eq([(0, STRETCH), (STRETCH, end), (end, end + 500)]));
        assert!(of(1).eq([(0, STRETCH), (STRETCH, end), (end, 3 * STRETCH)]));
        assert!(of(2).eq([(0, 600)]));
        assert_eq!(of(3).count(), 0, "too short for a frame");
    }

    #[test]
    fn clips_come_in_order_and_unreadable_ones_without_frames() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let example = std::fs::read("examples/audio/eng.flac").expect("an example");
        let mut rows = String::from("path\tlanguage\tduration_s\n");
        for i in 0..4 {
            let name = format!("{i}.flac");
            let bytes = if i == 2 { b"no audio" } else { example.as_slice() };
            std::fs::write(at(&name), bytes).expect("written");
            rows.push_str(&format!("{name}\teng\t5\n"));
        }
        std::fs::write(at("m.tsv"), rows).expect("written");
        let clips = read_manifest(&at("m.tsv")).expect("sound");
        let maker = FrameMaker::mfcc().expect("fixed settings");
        assert_eq!((maker.dim(), maker.rate_hz()), (39, 100.0));
        let mut frames = maker.clips(&clips, 0.25);
        let found: Vec<Frames> = frames.by_ref().map(|f| f.expect("frames")).collect();
        assert_eq!(found.iter().map(|f| f.clip).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(found[2].n_frames == 0 && found[3].n_frames > 100);
        assert_eq!(found[0].data, found[3].data);
        assert_eq!((frames.unreadable().len(), frames.done()), (1, 4));
        let mut strict = maker.clips(&clips, 0.2);
        let error = strict.next().expect("an item").expect_err("one of four is too many");
        assert!(error.to_string().starts_with("1 of 4 clips cannot be read"), "{error}");
        assert!(strict.next().is_none());
    }
}
