//! The joint loss differentiated by finite differences, and where its gradient must not go.

use super::*;
use crate::model::{
    Conditioning, ConvLayer, ConvNorm, DownstreamConfig, EcapaConfig, EncoderConfig, GeoConfig,
    GeoPoint, IntermediateCtcConfig, JointConfig, LanguageHeadConfig, Parameters, Pass, Projection,
    Recogniser, RecogniserConfig, Sampling, Sequence, Tap, Variant, location_vector,
};
use crate::objective::Blending;
use crate::train::{AdamWConfig, Schedule};
use asr_kernels::Precision;
use asr_kernels::reference::uniform;
use candle_core::backprop::GradStore;

const LANGUAGES: usize = 3;

fn encoder() -> EncoderConfig {
    EncoderConfig {
        input_channels: 3,
        conv_layers: vec![ConvLayer { dim: 8, kernel: 3, stride: 2 }],
        conv_norm: ConvNorm::EveryLayer,
        embed_dim: 8,
        ffn_dim: 12,
        heads: 2,
        stage_layers: vec![1, 2, 1],
        rate_ratios: vec![[1, 2]],
        sampling: Sampling::ConvAdapter { kernel: 1 },
        layer_norm_first: true,
        position_kernel: 3,
        position_groups: 2,
        dropout: 0.1,
        attention_dropout: 0.0,
        activation_dropout: 0.1,
        input_dropout: 0.1,
        layer_drop: 0.0,
        variant: Variant::default(),
    }
}

pub(super) fn config(
    projection: Projection,
    conditioning: Conditioning,
    ecapa: bool,
) -> RecogniserConfig {
    let tap = |block, predicts| Tap { block, predicts };
    let taps = match projection {
        Projection::Own => vec![tap(0, Predicts::Language), tap(2, Predicts::LanguagePerWord)],
        Projection::Shared => vec![tap(1, Predicts::Language), tap(3, Predicts::Text)],
    };
    RecogniserConfig {
        encoder: encoder(),
        vocab_size: 6,
        n_languages: LANGUAGES,
        joint: JointConfig {
            intermediate_ctc: Some(IntermediateCtcConfig {
                taps,
                projection,
                conditioning: projection == Projection::Shared,
            }),
            geo: Some(GeoConfig { blocks: vec![0, 2], bottleneck: 4, embedding: 5, conditioning }),
            language: Some(LanguageHeadConfig {
                block: ecapa.then_some(2),
                ecapa: ecapa.then_some(EcapaConfig { dim: 16, outputs: 10 }),
                bottleneck: 4,
                embedding: 6,
                sub_centres: 2,
                location: true,
            }),
        },
        downstream: DownstreamConfig::default(),
    }
}

fn train_config() -> TrainConfig {
    TrainConfig {
        seed: 1,
        schedule: Schedule {
            peak: 1e-3,
            initial_share: 0.0,
            warmup_steps: 1,
            hold_steps: 0,
            steps: 2,
            final_share: 0.1,
            decay: crate::train::Decay::default(),
        },
        optimiser: AdamWConfig { betas: [0.9, 0.98], eps: 1e-8, weight_decay: 0.0, clip_norm: 1.0 },
        micro_batches: 1,
        low_weight: 0.3,
        language_weight: 0.5,
        intermediate_weight: 0.4,
        language_loss: Some(LanguageLoss {
            weight: 0.7,
            margin: AngularMargin { margin: 0.2, scale: 8.0 },
            places: GeoWeights { share: 0.4, intermediate: 0.5, blending: Blending::Documented },
        }),
        ctc_dro: None,
        encoder_rate: 1.0,
        frozen: Vec::new(),
        max_trainable: None,
        unfreeze_after: 0,
        bf16: false,
        recompute: false,
        log_every: 1,
        validate_every: 1,
        save_every: 1,
    }
}

/// Nothing is left at 0 or 1, so that no bias or scale can be forgotten unnoticed.
pub(super) fn random_parameters(config: &RecogniserConfig) -> Parameters {
    let parameters = Parameters::default();
    Recogniser::for_training(config, &parameters, 1).expect("valid");
    for (i, (name, var)) in parameters.all().into_iter().enumerate() {
        let shape = var.dims();
        let fan = (var.elem_count() / shape[0]) as f32;
        let (mean, width) = match shape.len() {
            1 if name.ends_with("bias") || name.ends_with("running_mean") => (0.0, 0.3),
            1 => (1.0, 0.3),
            _ => (0.0, (3.0 / fan).sqrt()),
        };
        let values: Vec<f32> = uniform(var.elem_count(), i as u64 * 7919 + 3)
            .into_iter()
            .map(|u| mean + width * u)
            .collect();
        var.set(&Tensor::from_vec(values, shape, &Device::Cpu).expect("fits")).expect("fits");
    }
    parameters
}

fn loss(config: &RecogniserConfig, parameters: &Parameters, train: &TrainConfig) -> Result<Tensor> {
    let model = Recogniser::for_training(config, parameters, 1)?;
    let lengths = [60, 44, 36];
    let mut values = Vec::new();
    for (i, &n) in lengths.iter().enumerate() {
        values.extend(uniform(n * 3, 5 + i as u64));
        values.resize((i + 1) * 60 * 3, 0.0);
    }
    let input = Sequence {
        hidden: Tensor::from_vec(values, (3, 60, 3), &Device::Cpu)?,
        lengths: lengths.to_vec(),
    };
    let labels = [
        Labels { tokens: vec![1, 4, 5, 4], open_ended: false, words: 2 },
        Labels { tokens: vec![3], open_ended: true, words: 0 },
        Labels { tokens: vec![], open_ended: false, words: 0 },
    ];
    let place = |latitude, longitude| Some(location_vector(GeoPoint { latitude, longitude }));
    let places = [place(10.0, 20.0), None, place(-40.0, 100.0)];
    let losses = Losses { config: train, places: &places, dro: None };
    let output = model.forward(&input, &Pass::training(Precision::F32, 9))?;
    losses.of(&output, &labels).map(|loss| loss.sum)
}

fn gradient_length(gradients: &GradStore, var: &candle_core::Var) -> Option<(Tensor, f64)> {
    let gradient = gradients.get(var)?.clone();
    let length = gradient.sqr().and_then(|g| g.sum_all()).and_then(|g| g.sqrt()).expect("a sum");
    Some((gradient, f64::from(length.to_scalar::<f32>().expect("f32"))))
}

/// Longest step of a difference.
const LONGEST_STEP: f64 = 5e-2;

/// Along the gradient of each parameter for which `wanted` holds, the loss rises as fast as the
/// gradient is long.
pub(super) fn check_differences(config: &RecogniserConfig, wanted: impl Fn(&str) -> bool) -> usize {
    let train = train_config();
    let parameters = random_parameters(config);
    let gradients = loss(config, &parameters, &train).and_then(|l| l.backward()).expect("a loss");
    let mut checked = 0;
    for (name, var) in parameters.trainable() {
        let (gradient, length) = gradient_length(&gradients, &var)
            .unwrap_or_else(|| panic!("no gradient reaches {name}"));
        if !wanted(&name) || length < 1e-3 {
            continue;
        }
        let before = var.as_tensor().copy().expect("a copy");
        let direction = (gradient / length).expect("a tensor");
        let loss_at = |step: f64| {
            let moved = (&direction * step).and_then(|d| &before + d).expect("a tensor");
            var.set(&moved).expect("fits");
            let loss = loss(config, &parameters, &train).expect("a loss");
            var.set(&before).expect("fits");
            f64::from(loss.to_scalar::<f32>().expect("f32"))
        };
        let here = loss_at(0.0);
        // A slope that drowns in the rounding of the f32 loss says nothing.
        let rounding = 8.0 * here.abs() * f64::from(f32::EPSILON) / LONGEST_STEP;
        if rounding > 0.05 * length {
            continue;
        }
        let slope = |step| (loss_at(step) - loss_at(-step)) / (2.0 * step);
        let one_sided = |step: f64| (4.0 * loss_at(step / 2.0) - loss_at(step) - 3.0 * here) / step;
        // The loss has kinks (ReLU, the nearest of two centres): what one step reaches, a
        // shorter one or one to the other side may not. The shorter, the more the rounding of
        // the loss is seen. All are exact to the third order of the step.
        let numeric = [0.03, 0.01, 0.003].map(|reach| {
            let step = (reach / length).min(LONGEST_STEP);
            let central = (4.0 * slope(step / 2.0) - slope(step)) / 3.0;
            [central, one_sided(step), one_sided(-step)]
        });
        assert!(
            numeric.iter().flatten().any(|n| (n - length).abs() < 1e-2 * length + 2e-3),
            "{name}: gradient {length}, differences {numeric:?}"
        );
        checked += 1;
    }
    checked
}

#[test]
fn every_gradient_is_the_difference() {
    // Without conditioning on places nothing is cut off, so that every difference must agree.
    let straight = config(Projection::Own, Conditioning::None, false);
    assert!(check_differences(&straight, |_| true) > 80);
    // Behind the ReLUs of ECAPA-TDNN a difference says little: a step that is long enough for
    // f32 crosses many kinks. The gradients of that head are those of the golden case.
    let ecapa = config(Projection::Shared, Conditioning::None, true);
    assert!(check_differences(&ecapa, |name| !name.starts_with("language.")) > 80);
}

#[test]
fn maps_of_places_learn_from_what_lies_behind_them() {
    for conditioning in [Conditioning::SharedTrainable, Conditioning::IndependentTrainable] {
        let maps = |name: &str| name.contains("lang2vec_conditioning_projs");
        let mut config = config(Projection::Own, conditioning, false);
        // One branch: a map also moves the predictions of branches behind it, and that way to
        // the loss is cut off.
        config.joint.geo.as_mut().expect("there is one").blocks = vec![2];
        assert_eq!(check_differences(&config, maps), 2);
    }
}

/// Frozen maps have no gradient; the class never reaches the prediction through the frames, only
/// the loss on the place does (one of weight 0 leaves no gradient at all).
#[test]
fn gradients_stop_where_they_should() {
    let of = |conditioning, class: bool| {
        let config = config(Projection::Own, conditioning, false);
        let parameters = random_parameters(&config);
        let mut train = train_config();
        train.low_weight = 0.0;
        train.language_weight = 0.0;
        let places = GeoWeights {
            share: if class { 0.0 } else { 0.999 },
            intermediate: 1.0,
            blending: Blending::Documented,
        };
        train.language_loss.as_mut().expect("there is one").places = places;
        let gradients =
            loss(&config, &parameters, &train).and_then(|l| l.backward()).expect("a loss");
        let all = parameters.all();
        move |name: &str| {
            let var = &all.iter().find(|(n, _)| n == name).expect(name).1;
            gradient_length(&gradients, var).map(|(_, length)| length)
        }
    };
    let (map, head) = ("geo.lang2vec_conditioning_projs.weight", "geo.lang2vec_head.0.0.weight");
    let frozen = of(Conditioning::SharedFrozen, true);
    assert_eq!((frozen(map), frozen(head)), (None, None));
    let trainable = of(Conditioning::SharedTrainable, true);
    assert!(trainable(map).expect("a gradient") > 1e-3);
    assert_eq!(trainable(head), None);
    assert!(of(Conditioning::None, false)(head).expect("a gradient") > 1e-4);
    let statistics = "geo.pooling.0.attention.2.running_mean";
    assert_eq!(trainable(statistics), None);
}

/// New modules leave a recogniser's output as it was until they have learned.
#[test]
fn a_recogniser_that_is_given_modules_says_what_it_said() -> Result<()> {
    let mut plain = config(Projection::Shared, Conditioning::SharedTrainable, true);
    let joint = std::mem::take(&mut plain.joint);
    let parameters = random_parameters(&plain);
    let input = Sequence {
        hidden: Tensor::from_vec(uniform(50 * 3, 1), (1, 50, 3), &Device::Cpu)?,
        lengths: vec![50],
    };
    let pass = Pass::inference(Precision::F32);
    let said = |config: &RecogniserConfig| {
        let output = Recogniser::for_training(config, &parameters, 4)?.forward(&input, &pass)?;
        output.high.values.flatten_all()?.to_vec1::<f32>()
    };
    let before = said(&plain)?;
    let with = RecogniserConfig { joint, ..plain };
    assert_eq!(before, said(&with)?);
    Ok(())
}

#[test]
fn taps_spell_tags_once_or_per_word() {
    let labels = Labels { tokens: vec![2, 4, 5], open_ended: false, words: 2 };
    let spelt = |predicts| target(&labels, predicts).tokens;
    assert_eq!(spelt(Predicts::Language), [2]);
    assert_eq!(spelt(Predicts::LanguagePerWord), [2, 2, 2]);
    assert_eq!(spelt(Predicts::Text), [2, 4, 5]);
    let silence = Labels { tokens: vec![], open_ended: false, words: 0 };
    assert!(target(&silence, Predicts::LanguagePerWord).tokens.is_empty());
}
