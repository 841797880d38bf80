//! Geolocation-aware language identification against ESPnet's modules around a transformers
//! encoder: from the waveform through conditioned blocks to losses and gradients.

use asr::model::checkpoint::open;
use asr::model::{
    Conditioning, ConvLayer, ConvNorm, EcapaConfig, Encoder, EncoderConfig, Family, GeoBranches,
    GeoConfig, GeoPoint, LanguageHead, LanguageHeadConfig, Parameters, Pass, Sampling, Sequence,
    Variant, location_vector, place_of,
};
use asr::objective::{AngularMargin, Blending, GeoWeights, location_loss};
use asr_kernels::Precision;
use candle_core::safetensors::load;
use candle_core::{D, DType, Device, Result, Tensor};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// As the case states them: absolute, and relative to the wanted value.
const TOLERANCE: (f64, f64) = (1e-4, 2e-4);
/// Blocks with a branch; `cond` of params.json.
const BLOCKS: [usize; 2] = [1, 2];
const CLASSES: usize = 7;
/// Where the case's encoder lies in the checkpoint.
const UPSTREAM: &str = "frontend.upstream.upstream.model.";

fn case_file(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/geolocation-lid").join(file)
}

/// Our name of a tensor of the checkpoint; the pre-training mask and counters have none.
fn our_name(theirs: &str) -> Option<String> {
    if theirs.ends_with("num_batches_tracked") || theirs.ends_with("masked_spec_embed") {
        return None;
    }
    let Some(name) = theirs.strip_prefix(UPSTREAM) else {
        return Some(match theirs.strip_prefix("frontend.featurizer.") {
            Some(name) => format!("featurizer.{name}"),
            None => format!("language.{theirs}"),
        });
    };
    let geo = ["pooling.", "projector.", "lang2vec_"];
    if let Some(name) = name.strip_prefix("encoder.")
        && geo.iter().any(|start| name.starts_with(start))
    {
        return Some(format!("geo.{name}"));
    }
    let replacements = [
        (".conv.weight", ".0.weight", "feature_extractor."),
        (".conv.bias", ".0.bias", "feature_extractor."),
        (".layer_norm.", ".2.1.", "feature_extractor."),
        ("feature_projection.layer_norm.", "layer_norm.", ""),
        ("feature_projection.projection.", "post_extract_proj.", ""),
        ("pos_conv_embed.conv.parametrizations.weight.original0", "pos_conv.0.weight_g", ""),
        ("pos_conv_embed.conv.parametrizations.weight.original1", "pos_conv.0.weight_v", ""),
        ("pos_conv_embed.conv.bias", "pos_conv.0.bias", ""),
        (".attention.", ".self_attn.", "encoder.layers."),
        (".layer_norm.", ".self_attn_layer_norm.", "encoder.layers."),
        (".feed_forward.intermediate_dense.", ".fc1.", ""),
        (".feed_forward.output_dense.", ".fc2.", ""),
    ];
    let mut name = name.to_owned();
    for (from, to, start) in replacements {
        if name.starts_with(start) {
            name = name.replace(from, to);
        }
    }
    Some(name)
}

fn parameters() -> Parameters {
    let file = open(&case_file("valid.accuracy.best.pth")).expect("the checkpoint is sound");
    let tensors: HashMap<String, Tensor> = file
        .tensors()
        .iter()
        .filter_map(|tensor| {
            let name = our_name(tensor.name())?;
            Some((name, file.tensor(tensor.name()).expect("finite floats")))
        })
        .collect();
    Parameters::from_tensors(tensors).expect("floats")
}

fn encoder_config() -> EncoderConfig {
    let conv = |(kernel, stride)| ConvLayer { dim: 24, kernel, stride };
    EncoderConfig {
        input_channels: 1,
        conv_layers: [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)].map(conv).to_vec(),
        conv_norm: ConvNorm::EveryLayer,
        embed_dim: 32,
        ffn_dim: 64,
        heads: 4,
        stage_layers: vec![4],
        rate_ratios: Vec::new(),
        sampling: Sampling::ConvAdapter { kernel: 1 },
        layer_norm_first: true,
        position_kernel: 128,
        position_groups: 16,
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
        input_dropout: 0.0,
        layer_drop: 0.0,
        variant: Variant {
            family: Family::Wav2vec2,
            conv_bias: true,
            always_project: true,
            ..Variant::default()
        },
    }
}

/// Each clip with mean 0 and variance 1, zeros behind it: transformers' feature extractor.
fn normalised(waveforms: &Tensor, samples: &[usize]) -> Result<Tensor> {
    let (batch, steps) = waveforms.dims2()?;
    let mut all = Vec::with_capacity(batch * steps);
    for (clip, &n) in waveforms.to_vec2::<f32>()?.iter().zip(samples) {
        let values: Vec<f64> = clip[..n].iter().map(|&v| f64::from(v)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        let scale = (variance + 1e-7).sqrt().recip();
        all.extend(values.iter().map(|v| ((v - mean) * scale) as f32));
        all.resize(all.len() + steps - n, 0.0);
    }
    Tensor::from_vec(all, (batch, steps), &Device::Cpu)
}

/// What the whole model computes of a batch.
struct Outcome {
    values: HashMap<String, Tensor>,
    lengths: Vec<usize>,
    executed: Tensor,
}

struct Case {
    input: HashMap<String, Tensor>,
    expected: HashMap<String, Tensor>,
}

impl Case {
    fn read() -> Self {
        let tensors = |file| load(case_file(file), &Device::Cpu).expect("golden file is valid");
        Self { input: tensors("input.safetensors"), expected: tensors("expected.safetensors") }
    }

    fn integers(&self, name: &str) -> Vec<usize> {
        let values = self.input[name].to_vec1::<i64>().expect("integers");
        values.into_iter().map(|n| n as usize).collect()
    }

    /// Runs batch `name` with maps that are trained or frozen.
    fn run(
        &self,
        name: &str,
        parameters: &Parameters,
        conditioning: Conditioning,
    ) -> Result<Outcome> {
        let given = parameters.all().len();
        let vb = parameters.seeded(0);
        let encoder = Encoder::new(&encoder_config(), &vb)?;
        let geo =
            GeoConfig { blocks: BLOCKS.to_vec(), bottleneck: 128, embedding: 24, conditioning };
        let branches = GeoBranches::new(&geo, 32, &vb.pp("geo"))?;
        let head = LanguageHeadConfig {
            block: None,
            ecapa: Some(EcapaConfig { dim: 64, outputs: 96 }),
            bottleneck: 128,
            embedding: 24,
            sub_centres: 3,
            location: true,
        };
        let head = LanguageHead::new(&head, 32, CLASSES, &vb.pp("language"))?;
        let weights = vb.pp("featurizer").get(5, "weights")?;
        assert_eq!(parameters.all().len(), given, "a parameter that the checkpoint lacks");
        let pass = Pass::inference(Precision::F32).with_padded_norms();

        let samples = self.integers(&format!("{name}.lengths"));
        let waveform = normalised(&self.input[&format!("{name}.waveform")], &samples)?;
        let input = Sequence { hidden: waveform.unsqueeze(2)?, lengths: samples.clone() };
        let mut listener = branches.listen();
        let encoded = encoder.trace_with(&input, &[], &pass, &mut listener)?;
        let mut states: Vec<Tensor> =
            encoded.hidden_states().into_iter().map(|state| state.hidden).collect();
        *states.last_mut().expect("five states") = encoded.output().hidden.clone();
        let mut values = HashMap::new();
        for (i, state) in states.iter().enumerate() {
            values.insert(format!("states.{i}"), state.clone());
        }
        for (block, place) in BLOCKS.iter().zip(&listener.predictions) {
            values.insert(format!("geo_prediction.{block}"), place.clone());
        }

        // s3prl: a weighted sum of all states, the last frame repeated up to ceil(samples / 320).
        let shares = candle_nn::ops::softmax(&weights, 0)?;
        let mut sum = states[0].zeros_like()?;
        for (i, state) in states.iter().enumerate() {
            sum = (sum + state.broadcast_mul(&shares.get(i)?)?)?;
        }
        let frames = sum.dim(1)?;
        let sum = Tensor::cat(&[&sum, &sum.narrow(1, frames - 1, 1)?], 1)?;
        let lengths: Vec<usize> = samples.iter().map(|n| (n - 1) / 320 + 1).collect();
        let spoken = head.forward(&Sequence { hidden: sum, lengths: lengths.clone() }, &pass)?;
        values.insert("embedding".to_owned(), spoken.embedding);
        values.insert("cosine".to_owned(), spoken.cosines.clone());

        let labels: Vec<u32> =
            self.integers(&format!("{name}.labels")).into_iter().map(|l| l as u32).collect();
        let index = Tensor::new(labels.as_slice(), &Device::Cpu)?;
        let wanted = self.input["geo_vectors"].index_select(&index, 0)?;
        let class = AngularMargin { margin: 0.5, scale: 30.0 }.loss(&spoken.cosines, &labels)?;
        let last = location_loss(&spoken.location.expect("a place"), &wanted)?;
        let inner: Vec<Tensor> = listener
            .predictions
            .iter()
            .map(|place| location_loss(place, &wanted))
            .collect::<Result<_>>()?;
        let blend = |blending| {
            let weights = GeoWeights { share: 0.2, intermediate: 0.4, blending };
            weights.blend(&class, Some(&last), &inner)?.mean_all()
        };
        let executed = blend(Blending::Executed)?;
        values.insert("loss.documented".to_owned(), blend(Blending::Documented)?);
        values.insert("loss.executed".to_owned(), executed.clone());
        values.insert("loss.class".to_owned(), class.mean_all()?);
        values.insert("loss.geo_final".to_owned(), last.mean_all()?);
        let layers: Vec<Tensor> = inner.iter().map(Tensor::mean_all).collect::<Result<_>>()?;
        values.insert("loss.geo_layers".to_owned(), Tensor::stack(&layers, 0)?);
        Ok(Outcome { values, lengths, executed })
    }

    /// Compares one tensor and says how far it is.
    fn compare(&self, key: &str, got: &Tensor) {
        let flat = |t: &Tensor| {
            let t = t.flatten_all().and_then(|t| t.to_dtype(DType::F64)).expect("a tensor");
            t.to_vec1::<f64>().expect("f64")
        };
        let want = self.expected.get(key).unwrap_or_else(|| panic!("no `{key}` in the case"));
        let (got, want) = (flat(got), flat(want));
        assert_eq!(got.len(), want.len(), "{key}: number of values");
        let mut largest = (0.0, 0);
        for (index, (g, w)) in got.iter().zip(&want).enumerate() {
            let difference = (g - w).abs();
            let allowed = TOLERANCE.0 + TOLERANCE.1 * w.abs();
            assert!(difference <= allowed, "{key}[{index}]: got {g}, want {w}");
            if difference > largest.0 {
                largest = (difference, index);
            }
        }
        println!("{key}: largest difference {:e} at {}", largest.0, largest.1);
    }
}

#[test]
fn outputs_and_losses_are_those_of_the_reference() -> Result<()> {
    let (case, parameters) = (Case::read(), parameters());
    for name in ["single0", "batch"] {
        let outcome = case.run(name, &parameters, Conditioning::SharedTrainable)?;
        let frames: Vec<i64> = outcome.lengths.iter().map(|&n| n as i64).collect();
        assert_eq!(frames, case.expected[&format!("{name}.frame_lengths")].to_vec1::<i64>()?);
        let mut names: Vec<&String> = outcome.values.keys().collect();
        // In the order of the pipeline, so that the first that differs is where it goes wrong.
        let stages = ["states", "geo_prediction", "embedding", "cosine", "loss"];
        let stage = |name: &str| stages.iter().position(|stage| name.starts_with(stage));
        names.sort_by_key(|name| (stage(name), name.as_str()));
        assert_eq!(names.len(), 5 + 2 + 2 + 5);
        for key in names {
            case.compare(&format!("{name}.{key}"), &outcome.values[key]);
        }
        let best = outcome.values["cosine"].argmax(D::Minus1)?.to_dtype(DType::I64)?;
        let want = case.expected[&format!("{name}.predicted_class")].to_vec1::<i64>()?;
        assert_eq!(best.to_vec1::<i64>()?, want);
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_the_reference_and_stop_where_they_do() -> Result<()> {
    let (case, parameters) = (Case::read(), parameters());
    let vars: HashMap<String, candle_core::Var> = parameters.all().into_iter().collect();
    let mut checked = 0;
    for name in ["single0", "batch"] {
        for (kind, conditioning) in [
            ("grad_trainable", Conditioning::SharedTrainable),
            ("grad_frozen", Conditioning::SharedFrozen),
        ] {
            let gradients = case.run(name, &parameters, conditioning)?.executed.backward()?;
            let start = format!("{name}.{kind}.");
            for key in case.expected.keys().filter(|key| key.starts_with(&start)) {
                let theirs = &key[start.len()..];
                let var = &vars[&our_name(theirs).expect("a parameter")];
                let zero = || var.zeros_like();
                let got = gradients.get(var).cloned().map_or_else(zero, Ok)?;
                case.compare(key, &got);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 56);
    Ok(())
}

/// Languages of the case in order, each where the published vectors put it (URIEL's points).
#[test]
fn vectors_of_places_have_their_closed_form() -> Result<()> {
    let points = [
        ("cmn", 40.02, 116.23),
        ("deu", 48.65, 12.47),
        ("eng", 53.0, -1.0),
        ("hin", 25.0, 77.0),
        ("jpn", 35.0, 135.0),
        ("spa", 40.44, -1.12),
        ("swa", -2.86, 29.83),
    ];
    let order = std::fs::read_to_string(case_file("lang2utt.order.txt")).expect("golden file");
    let vectors = Case::read().input["geo_vectors"].to_vec2::<f32>()?;
    for (((code, latitude, longitude), want), line) in
        points.iter().zip(&vectors).zip(order.lines())
    {
        assert_eq!(*code, line);
        let place = GeoPoint { latitude: *latitude, longitude: *longitude };
        for (k, (got, want)) in location_vector(place).iter().zip(want).enumerate() {
            // Points are known to two decimals, values to four.
            assert!((got - want).abs() < 1.6e-4, "{code}[{k}]: {got} against {want}");
        }
        assert!(place_of(want).expect("a place").degrees_to(place) < 0.02, "{code}");
    }
    Ok(())
}
