//! Hidden states, outputs, logits and texts of released architectures, from files in the
//! formats they are released in, against the code that they were released with.
//!
//! Every case says in `provenance.toml` what made it and how close is close enough. The cases
//! that are too large to keep here run with
//! `ASR_GOLDEN=FOLDER cargo references`, in `tests/run.sh` where that is set.

use asr::config::{
    AnyModel, Head, LoadOptions, Outputs, SpeechModel, Wanted, load_model, load_speech_model,
};
use asr::model::checkpoint::open;
use asr::model::{LayerSum, Sequence};
use asr_kernels::Precision;
use asr_kernels::ctc::{Target, ctc_loss};
use candle_core::Tensor;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tensors of a file by name: shape and values.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

#[derive(Deserialize)]
struct Provenance {
    tolerance_abs: f32,
    tolerance_rel: f32,
}

struct Case {
    folder: PathBuf,
    provenance: Provenance,
    input: Tensors,
    expected: Tensors,
    largest: f32,
    compared: usize,
}

/// Clips of a run.
struct Run {
    name: String,
    clips: Vec<Vec<f32>>,
}

fn kept(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

fn shared(case: &str) -> PathBuf {
    let folder = std::env::var_os("ASR_GOLDEN").expect("ASR_GOLDEN names the golden folder");
    Path::new(&folder).join(case)
}

/// Numbers of a safetensors file; integers, too, become f32.
fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).expect("golden file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("golden file is valid");
    let values = |view: &safetensors::tensor::TensorView| -> Vec<f32> {
        let data = view.data();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                let four = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
                data.chunks_exact(4).map(four).collect()
            }
            safetensors::Dtype::I64 => {
                let eight = |b: &[u8]| i64::from_le_bytes(b.try_into().expect("eight bytes"));
                data.chunks_exact(8).map(|b| eight(b) as f32).collect()
            }
            safetensors::Dtype::U8 => data.iter().map(|&b| f32::from(b)).collect(),
            other => panic!("{other:?} in a golden file"),
        }
    };
    let of = |(name, view): (String, safetensors::tensor::TensorView)| {
        (name, (view.shape().to_vec(), values(&view)))
    };
    file.tensors().into_iter().map(of).collect()
}

impl Case {
    fn open(folder: PathBuf) -> Self {
        let text = std::fs::read_to_string(folder.join("provenance.toml")).expect("provenance");
        Self {
            provenance: toml::from_str(&text).expect("provenance"),
            input: tensors(&folder.join("input.safetensors")),
            expected: tensors(&folder.join("expected.safetensors")),
            folder,
            largest: 0.0,
            compared: 0,
        }
    }

    fn runs(&self) -> Vec<Run> {
        let run = |(key, (shape, values)): (&String, &(Vec<usize>, Vec<f32>))| {
            let name = key.strip_suffix(".waveform")?.to_owned();
            let lengths = &self.input[&format!("{name}.lengths")].1;
            let rows = values.chunks_exact(shape[1]).zip(lengths);
            let clips = rows.map(|(row, &n)| row[..n as usize].to_vec()).collect();
            Some(Run { name, clips })
        };
        self.input.iter().filter_map(run).collect()
    }

    /// Compares `frames` frames of a clip, or all of it, with the case's tensor, if it has one.
    fn compare(&mut self, key: &str, clip: usize, got: &Tensor, frames: Option<usize>) -> bool {
        let Some((shape, values)) = self.expected.get(key) else { return false };
        let row: usize = shape[1..].iter().product();
        let mut want = &values[clip * row..(clip + 1) * row];
        let mut got = got.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32 values");
        if let Some(frames) = frames {
            let width = shape[2];
            assert!(got.len() >= frames * width, "{key}: too few frames");
            want = &want[..frames * width];
            got.truncate(frames * width);
        }
        assert_eq!(got.len(), want.len(), "{key}: number of values");
        for (index, (g, w)) in got.iter().zip(want).enumerate() {
            let difference = (g - w).abs();
            let allowed = self.provenance.tolerance_abs + self.provenance.tolerance_rel * w.abs();
            assert!(difference <= allowed, "{key}[{clip}][{index}]: got {g}, want {w}");
            self.largest = self.largest.max(difference);
        }
        self.compared += 1;
        true
    }

    fn sequence(&mut self, key: &str, got: &Sequence, whole: bool) -> bool {
        (0..got.lengths.len()).all(|clip| {
            let hidden = got.hidden.get(clip).expect("a clip");
            self.compare(key, clip, &hidden, (!whole).then_some(got.lengths[clip]))
        })
    }

    /// Compares everything that a model computes and the case knows.
    fn outputs(&mut self, run: &str, outputs: &Outputs, whole: bool) {
        let encoded = &outputs.encoded;
        self.sequence(&format!("{run}.final"), encoded.output(), whole);
        self.sequence(&format!("{run}.forward_output"), encoded.output(), whole);
        self.sequence(&format!("{run}.unilm_last"), encoded.output(), whole);
        for (i, state) in encoded.hidden_states().iter().enumerate() {
            for kind in ["hidden_states", "layer_outputs", "unilm_layer_results"] {
                self.sequence(&format!("{run}.{kind}.{i}"), state, whole);
            }
        }
        for stage in &encoded.stages {
            for (i, input) in stage.layers.iter().enumerate() {
                let input = Sequence { hidden: input.clone(), ..stage.output.clone() };
                self.sequence(&format!("{run}.{}.layers.{i}.input", stage.stage), &input, whole);
            }
            self.sequence(&format!("{run}.{}.output", stage.stage), &stage.output, whole);
        }
        for (i, resolution) in encoded.resolutions.iter().enumerate() {
            self.sequence(&format!("{run}.resolution.{i}"), &resolution.output, whole);
        }
        for (clip, logits) in outputs.logits.iter().flatten().enumerate() {
            let frames = (logits.rank() == 2).then(|| logits.dim(0).expect("frames"));
            self.compare(&format!("{run}.logits"), clip, logits, frames);
        }
        if let Some((_, mask)) = self.expected.get(&format!("{run}.padding_mask")) {
            let frames = mask.len() / encoded.output().lengths.len();
            let valid = mask.chunks(frames).map(|row| row.iter().filter(|m| **m == 0.0).count());
            let got = &encoded.output().lengths;
            assert!(valid.eq(got.iter().copied()), "{run}: valid frames {got:?}");
        }
    }

    /// Runs the model on every run: single clips with statistics that leave padding out,
    /// batches with what the reference does.
    fn run(&mut self, model: &SpeechModel, language: Option<&str>) {
        // Where the same weights are kept in two layouts, the batch was computed by transformers,
        // which pads in another way than fairseq and unilm.
        let in_folder = self.folder.join("config.json").exists();
        let singles_only = in_folder && model.weights().extension().is_some_and(|e| e == "pt");
        for run in self.runs() {
            let clips: Vec<&[f32]> = run.clips.iter().map(Vec::as_slice).collect();
            if singles_only && clips.len() > 1 {
                continue;
            }
            let wanted = wanted(clips.len() > 1);
            let languages = vec![language; clips.len()];
            let outputs = model.run(&clips, &languages, wanted).expect("the model runs");
            let prefix = language.map(|l| format!("{l}.")).unwrap_or_default();
            // The reference's padded frames count only where its norms see them.
            let tree = outputs.encoded.resolutions.len() > 1;
            self.outputs(&format!("{prefix}{}", run.name), &outputs, tree);
            if let (Some(language), Head::Languages(_)) = (language, model.head()) {
                let last = outputs.encoded.hidden_states().pop().expect("states");
                self.sequence(&format!("{language}.{}.hidden_states.last", run.name), &last, true);
            }
        }
    }

    fn done(self, what: &str, at_least: usize) {
        println!("{what}: {} tensors, largest difference {:e}", self.compared, self.largest);
        assert!(self.compared >= at_least, "{what}: only {} tensors compared", self.compared);
    }
}

fn wanted(parity: bool) -> Wanted {
    Wanted { precision: Precision::F32, hidden_states: true, parity }
}

fn speech_model(path: &Path) -> SpeechModel {
    match load_model(path, &LoadOptions::default()).expect("the model loads") {
        AnyModel::Speech(model) => *model,
        AnyModel::Folder(_) => panic!("`{}` is no released checkpoint", path.display()),
    }
}

/// Runs one file, or the folder, of a case.
fn check(folder: PathBuf, file: &str, at_least: usize) {
    let model = speech_model(&folder.join(file));
    assert_eq!(model.unused(), [""; 0], "tensors that nothing uses");
    let mut case = Case::open(folder);
    case.run(&model, None);
    case.texts(&model, None);
    let what = format!("{}/{file}", case.folder.file_name().unwrap_or_default().display());
    case.done(&what, at_least);
}

impl Case {
    /// Texts of the likeliest tokens, labels.
    fn texts(&mut self, model: &SpeechModel, language: Option<&str>) {
        let path = self.folder.join("expected_text.json");
        let Ok(json) = std::fs::read(path) else { return };
        let json: serde_json::Value = serde_json::from_slice(&json).expect("golden file");
        let json = language.map_or(&json, |language| &json[language]);
        for run in self.runs() {
            let clips: Vec<&[f32]> = run.clips.iter().map(Vec::as_slice).collect();
            let languages = vec![language; clips.len()];
            let outputs = model.run(&clips, &languages, wanted(clips.len() > 1)).expect("runs");
            let frames = self.expected.get(&format!("{}.frame_lengths", run.name)).cloned();
            for (i, logits) in outputs.logits.iter().flatten().enumerate() {
                let want = json[&run.name][i].as_str().expect("a text");
                let best = |t: &Tensor| t.argmax(candle_core::D::Minus1).expect("argmax");
                let got = match model.head() {
                    Head::Classifier { labels, .. } => {
                        labels[best(logits).to_scalar::<u32>().expect("id") as usize].clone()
                    }
                    Head::Ctc { tokens: Some(tokens), .. } => {
                        let n = frames.as_ref().map_or(usize::MAX, |(_, n)| n[i] as usize);
                        let ids = best(logits).to_vec1::<u32>().expect("ids");
                        tokens.decode(&ids[..n.min(ids.len())])
                    }
                    Head::Languages(units) => {
                        let unit = language.map_or(Ok(units.own().clone()), |l| units.get(l));
                        let ids = best(logits).to_vec1::<u32>().expect("ids");
                        unit.expect("a language").tokens.decode(&ids)
                    }
                    _ => panic!("a case with texts has a head with names"),
                };
                assert_eq!(got, want, "{} clip {i}", run.name);
            }
        }
    }
}

macro_rules! cases {
    ($($(#[$meta:meta])* $name:ident: $from:ident $case:literal $file:literal, $at_least:literal;)*) => {
        $($(#[$meta])*
        #[test]
        fn $name() {
            check($from($case), $file, $at_least);
        })*
    };
}

cases! {
    hubert_base_of_transformers: kept "hubert-base" "", 10;
    hubert_base_of_fairseq: kept "hubert-base" "hubert_fairseq.pt", 5;
    wavlm_base_of_transformers: kept "wavlm-base" "", 10;
    wavlm_base_of_unilm: kept "wavlm-base" "wavlm_unilm.pt", 5;
    wavlm_of_torchaudio: kept "wavlm-torchaudio" "wavlm_torchaudio.pth", 4;
    wavlablm_of_espnet: kept "wavlablm-espnet" "5epoch.pth", 8;
    xls_r_before_fine_tuning: kept "xls-r-pretraining" "", 4;
    wav2vec2_large_with_ctc: kept "wav2vec2-ctc-masked" "", 8;
    classifier_of_mms: kept "mms-lid" "", 4;
    mr_hubert_of_one_resolution: kept "mr-hubert-mono-resolution" "checkpoint.pt", 4;
    mr_hubert_large_in_half_precision: kept "mr-hubert-2res-large" "checkpoint.pt", 4;
    mr_hubert_of_three_resolutions: kept "mr-hubert-3res-20-40-80" "checkpoint.pt", 4;
    mr_hubert_converted_by_s3prl: kept "mr-hubert-s3prl-converted" "mrhubert_mono_base.pt", 4;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_hubert_base: shared "hubert-base" "", 18;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_hubert_base_in_fairseq: shared "hubert-base" "hubert_fairseq.pt", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    hubert_large: shared "hubert-large" "", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    mhubert_147: shared "mhubert-147" "", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    wav2vec2_base_with_ctc: shared "wav2vec2-ctc" "", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_wavlm_base: shared "wavlm-base" "", 14;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    wavlm_large: shared "wavlm-large" "", 14;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    wavlm_large_of_unilm: shared "wavlm-large" "wavlm_unilm.pt", 8;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_wavlablm: shared "wavlablm-espnet" "5epoch.pth", 12;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    mr_hubert_base: shared "mr-hubert-2res-base" "checkpoint.pt", 20;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_mr_hubert_large: shared "mr-hubert-2res-large" "checkpoint.pt", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    mr_hubert_of_20_40_and_100_ms: shared "mr-hubert-3res-20-40-100" "checkpoint.pt", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_three_resolutions: shared "mr-hubert-3res-20-40-80" "checkpoint.pt", 20;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    mr_hubert_with_plain_sampling: shared "mr-hubert-simple-sampling" "checkpoint.pt", 10;
    #[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
    all_of_s3prl: shared "mr-hubert-s3prl-converted" "mrhubert_mono_base.pt", 8;
}

/// The sum of layers of both versions of transformers, from the same file.
#[test]
fn a_weighted_sum_of_layers_follows_either_version() {
    for (layer_sum, suffix) in [(LayerSum::LastRaw, ""), (LayerSum::LastNormed, "_transformers4")] {
        let folder = kept("lid-weighted-sum");
        let options = LoadOptions { layer_sum, ..LoadOptions::default() };
        let model = load_speech_model(&folder, &options).expect("the model loads");
        let mut case = Case::open(folder);
        for run in case.runs() {
            let clips: Vec<&[f32]> = run.clips.iter().map(Vec::as_slice).collect();
            let outputs = model
                .run(&clips, &vec![None; clips.len()], wanted(clips.len() > 1))
                .expect("the model runs");
            for (clip, logits) in outputs.logits.iter().flatten().enumerate() {
                let key = format!("{}.logits{suffix}", run.name);
                assert!(case.compare(&key, clip, logits, None), "{key}");
            }
        }
        if layer_sum == LayerSum::LastRaw {
            case.texts(&model, None);
        }
        case.done(&format!("weighted sum{suffix}"), 3);
    }
}

/// Each language has its adapters, output layer and tokens; several go in one batch.
#[test]
fn adapters_of_every_language_alone_and_in_one_batch() {
    let folder = kept("mms-adapters");
    let model = speech_model(&folder);
    let languages = ["eng", "fra", "kmr-script_latin"];
    let mut case = Case::open(folder);
    for language in languages {
        case.run(&model, Some(language));
        case.texts(&model, Some(language));
    }
    let clips: Vec<Vec<f32>> =
        case.runs().into_iter().flat_map(|run| run.clips.into_iter()).collect();
    let mut batch: Vec<&[f32]> = Vec::new();
    let mut asked = Vec::new();
    for language in languages {
        for clip in &clips {
            batch.push(clip);
            asked.push(Some(language));
        }
    }
    let outputs = model.run(&batch, &asked, wanted(false)).expect("the model runs");
    let logits = outputs.logits.expect("a head");
    for (i, language) in languages.iter().enumerate() {
        for j in 0..clips.len() {
            let logits = &logits[i * clips.len() + j];
            let key = format!("{language}.single{j}.logits");
            assert!(case.compare(&key, 0, logits, None), "{key}");
        }
    }
    // Without a language, the model's own.
    let outputs = model.run(&batch[..2], &[None, None], wanted(false)).expect("the model runs");
    for (j, logits) in outputs.logits.expect("a head").iter().enumerate() {
        assert!(case.compare(&format!("unselected.single{j}.logits"), 0, logits, None));
    }
    case.done("mms-adapters", 20);

    let error = model.run(&batch[..1], &[Some("kmr")], wanted(false)).expect_err("no such adapter");
    let said = error.to_string();
    assert!(said.contains("`kmr`") && said.contains("`kmr-script_latin`"), "{said}");
}

/// The features that SUPERB takes of MR-HuBERT: inputs of all layers and outputs of all
/// stages, repeated to the highest rate and cut to the shortest.
#[test]
fn superb_features_of_mr_hubert() {
    let folder = kept("mr-hubert-s3prl-converted");
    let model = speech_model(&folder.join("mrhubert_mono_base.pt"));
    let mut case = Case::open(folder);
    let run = case.runs().into_iter().find(|run| run.name == "batch").expect("a batch");
    let clips: Vec<&[f32]> = run.clips.iter().map(Vec::as_slice).collect();
    let outputs = model.run(&clips, &[None; 3], wanted(true)).expect("the model runs");
    let mut features = Vec::new();
    for (i, stage) in outputs.encoded.stages.iter().enumerate() {
        let times = if i == 1 { 2 } else { 1 };
        let inputs = &stage.layers[..stage.layers.len() - 1];
        for state in inputs.iter().chain([&stage.output.hidden]) {
            let (batch, frames, dim) = state.dims3().expect("frames");
            let repeated = state
                .unsqueeze(2)
                .and_then(|t| t.broadcast_as((batch, frames, times, dim)))
                .and_then(|t| t.reshape((batch, frames * times, dim)))
                .expect("repeated");
            features.push(repeated);
        }
    }
    let shortest = features.iter().map(|t| t.dim(1).expect("frames")).min().expect("features");
    for (i, feature) in features.iter().enumerate() {
        let cut = feature.narrow(1, 0, shortest).expect("cut");
        let lengths = vec![shortest; 3];
        let cut = Sequence { hidden: cut, lengths };
        assert!(case.sequence(&format!("batch.superb.{i}"), &cut, true), "superb.{i}");
    }
    case.done("superb", 27);
}

/// The loss of transformers: labels of -100 are none, frames are all of a padded batch where the
/// model takes no attention mask, and a target that does not fit costs nothing.
fn check_ctc_loss(folder: PathBuf) {
    #[derive(Deserialize)]
    struct Config {
        ctc_loss_reduction: String,
    }
    let json = std::fs::read(folder.join("config.json")).expect("golden file");
    let config: Config = serde_json::from_slice(&json).expect("golden file");
    let model = speech_model(&folder);
    let mut case = Case::open(folder);
    let run = case.runs().into_iter().find(|run| run.name == "batch").expect("a batch");
    let clips: Vec<&[f32]> = run.clips.iter().map(Vec::as_slice).collect();
    let outputs =
        model.run(&clips, &vec![None; clips.len()], wanted(true)).expect("the model runs");
    let logits = outputs.logits.expect("a head");
    let frames: Vec<usize> = logits.iter().map(|clip| clip.dim(0).expect("frames")).collect();
    let longest = frames.iter().copied().max().expect("clips");
    let padded: Vec<Tensor> = logits
        .iter()
        .map(|clip| clip.pad_with_zeros(0, 0, longest - clip.dim(0).expect("frames")))
        .collect::<Result<_, _>>()
        .expect("as long as each other");
    let (shape, labels) = &case.input["batch.labels"];
    let targets: Vec<Target> = labels
        .chunks(shape[1])
        .map(|row| Target {
            tokens: row.iter().filter(|&&id| id >= 0.0).map(|&id| id as u32).collect(),
            open_ended: false,
        })
        .collect();
    let losses = ctc_loss(&Tensor::stack(&padded, 0).expect("a batch"), &targets, &frames, 0);
    let losses = losses.and_then(|losses| losses.to_vec1::<f32>()).expect("losses");
    let counted = losses.iter().zip(&targets).filter(|(loss, _)| loss.is_finite());
    let loss = match config.ctc_loss_reduction.as_str() {
        "sum" => counted.map(|(loss, _)| *loss).sum::<f32>(),
        "mean" => {
            counted.map(|(loss, target)| loss / target.tokens.len().max(1) as f32).sum::<f32>()
                / losses.len() as f32
        }
        other => panic!("reduction {other}"),
    };
    let loss = Tensor::new(&[loss], &candle_core::Device::Cpu).expect("a number");
    assert!(case.compare("batch.loss", 0, &loss, None));
    case.done("CTC loss", 1);
}

#[test]
fn ctc_loss_of_transformers() {
    check_ctc_loss(kept("wav2vec2-ctc-masked"));
}

#[test]
#[ignore = "needs the golden folder: ASR_GOLDEN=FOLDER cargo references"]
fn mean_ctc_loss_of_transformers() {
    check_ctc_loss(shared("wav2vec2-ctc"));
}

/// Pre-training heads are kept, highest resolution first.
#[test]
fn heads_of_masked_prediction_are_kept() {
    let model = speech_model(&kept("mr-hubert-s3prl-converted").join("mrhubert_mono_base.pt"));
    let shapes = model.pretraining().expect("heads").shapes().expect("shapes");
    assert_eq!(shapes.iter().map(|s| (s.classes, s.width)).collect::<Vec<_>>(), [(24, 32); 2]);
    let espnet = speech_model(&kept("wavlablm-espnet").join("5epoch.pth"));
    let shapes = espnet.pretraining().expect("a head").shapes().expect("shapes");
    assert_eq!((shapes[0].classes, shapes[0].width), (20, 24));
    assert!(espnet.mask_embedding().is_some());
    let file = open(&kept("wavlablm-espnet").join("5epoch.pth")).expect("a checkpoint");
    assert!(file.tensors().len() > 50);
}
