//! Modules that fine-tuning adds: they change nothing at first, learn by the right gradient, and
//! can be merged or fed from disk.

use super::tests::{check_differences, config, random_parameters};
use crate::model::{
    Adaptation, Conditioning, DownstreamConfig, HeadLayer, LoraTarget, Parameters, Pass,
    Projection, Recogniser, RecogniserConfig, Sequence, TransformerHeadConfig,
};
use asr_kernels::Precision;
use asr_kernels::reference::uniform;
use candle_core::{Device, Result, Tensor};

fn lora(dropout: f32) -> Adaptation {
    use LoraTarget::{Fc1, Fc2, K, O, Q, V};
    Adaptation::Lora { rank: 3, alpha: 6.0, dropout, targets: vec![Q, K, V, O, Fc1, Fc2].into() }
}

/// A recogniser without anything beside its CTC output.
fn plain() -> RecogniserConfig {
    let mut config = config(Projection::Own, Conditioning::None, false);
    config.joint = Default::default();
    config
}

fn with(adaptation: Adaptation) -> RecogniserConfig {
    let mut config = plain();
    config.encoder.variant.adaptation = Some(adaptation);
    config
}

fn downstream(transformer: bool) -> DownstreamConfig {
    DownstreamConfig {
        layer_sum: true,
        transformer: transformer.then(|| head(HeadLayer::Transformer)),
    }
}

fn head(layer: HeadLayer) -> TransformerHeadConfig {
    TransformerHeadConfig {
        projection: 8,
        dim: 6,
        ffn_dim: 10,
        heads: 2,
        layer,
        ..TransformerHeadConfig::default()
    }
}

fn input() -> Result<Sequence> {
    let hidden = Tensor::from_vec(uniform(2 * 50 * 3, 1), (2, 50, 3), &Device::Cpu)?;
    Ok(Sequence { hidden, lengths: vec![50, 33] })
}

/// Logits of both clips over their valid frames.
fn said(model: &Recogniser, input: &Sequence) -> Result<Vec<f32>> {
    let output = model.forward(input, &Pass::inference(Precision::F32))?.high;
    let mut values = Vec::new();
    for (clip, &n) in output.lengths.iter().enumerate() {
        let valid = output.values.get(clip)?.narrow(0, 0, n)?;
        values.extend(valid.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(values)
}

#[test]
fn new_modules_leave_outputs_bit_identical() -> Result<()> {
    let parameters = random_parameters(&plain());
    let before = said(&Recogniser::for_training(&plain(), &parameters, 4)?, &input()?)?;
    for adaptation in [lora(0.1), Adaptation::Bottleneck { width: 3 }] {
        let parameters = parameters.fork();
        let count = parameters.count();
        let model = Recogniser::for_training(&with(adaptation), &parameters, 4)?;
        assert!(parameters.count() > count);
        let after = said(&model, &input()?)?;
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&before), bits(&after), "{adaptation:?}");
    }
    Ok(())
}

#[test]
fn merged_updates_say_what_they_said_apart() -> Result<()> {
    let config = with(lora(0.0));
    let parameters = random_parameters(&config);
    let apart = said(&Recogniser::new(&config, &parameters)?, &input()?)?;
    let merged = parameters.fork();
    merged.merge_low_rank(lora(0.0))?;
    assert!(merged.all().iter().all(|(name, _)| !name.contains("lora_")));
    let together = said(&Recogniser::new(&plain(), &merged)?, &input()?)?;
    let without = parameters.fork();
    without.retain(|name| !name.contains("lora_"));
    let without = said(&Recogniser::new(&plain(), &without)?, &input()?)?;
    let worst =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst(&apart, &together) < 1e-5, "differ by {}", worst(&apart, &together));
    assert!(worst(&apart, &without) > 1e-2, "the updates do something");
    // The model in training keeps its updates.
    assert!(parameters.all().iter().any(|(name, _)| name.contains("lora_")));
    Ok(())
}

#[test]
fn gradients_of_new_modules_are_differences() {
    // Four blocks; six maps of two matrices each, and two adapters of two maps.
    let low_rank = |name: &str| name.contains("lora_");
    assert!(check_differences(&with(lora(0.2)), low_rank) > 40);
    let adapters = |name: &str| name.contains("houlsby");
    assert!(check_differences(&with(Adaptation::Bottleneck { width: 3 }), adapters) > 20);
    for transformer in [false, true] {
        let config = RecogniserConfig { downstream: downstream(transformer), ..plain() };
        let head = |name: &str| name.starts_with("downstream.") || name.starts_with("proj.");
        let least = if transformer { 25 } else { 2 };
        assert!(check_differences(&config, head) > least);
    }
    for layer in [
        HeadLayer::Conformer { kernel: 3 },
        HeadLayer::EBranchformer { mlp_dim: 8, kernel: 3, merge_kernel: 5 },
    ] {
        let downstream = DownstreamConfig { layer_sum: true, transformer: Some(head(layer)) };
        let config = RecogniserConfig { downstream, ..plain() };
        let new = |name: &str| name.starts_with("downstream.encoder.encoders.");
        assert!(check_differences(&config, new) > 40, "{layer:?}");
    }
}

/// A recogniser that reads states says what it says of the encoder's input.
#[test]
fn states_can_be_computed_once() -> Result<()> {
    for (layer_sum, ratios, stages) in
        [(true, vec![[1, 2]], vec![1, 2, 1]), (true, vec![], vec![2]), (false, vec![], vec![2])]
    {
        let mut config = RecogniserConfig { downstream: downstream(true), ..plain() };
        config.downstream.layer_sum = layer_sum;
        config.encoder.stage_layers = stages;
        config.encoder.rate_ratios = ratios;
        let parameters: Parameters = random_parameters(&config);
        let model = Recogniser::for_training(&config, &parameters, 1)?;
        let (input, pass) = (input()?, Pass::inference(Precision::F32));
        let states = model.states(&input, &pass)?;
        assert_eq!(states.hidden.dim(2)?, model.states_width());
        let want = said(&model, &input)?;
        let found = said(&model.reading_states()?, &states)?;
        assert_eq!(want.len(), found.len());
        for (w, f) in want.iter().zip(&found) {
            assert!((w - f).abs() < 1e-5, "{f} instead of {w}");
        }
        // A clip is the same alone, lower rates repeated by its own length.
        let short = Sequence {
            hidden: input.hidden.narrow(0, 1, 1)?.narrow(1, 0, 33)?.contiguous()?,
            lengths: vec![33],
        };
        let alone = said(&Recogniser::for_training(&config, &parameters, 1)?, &short)?;
        let together = &want[want.len() - alone.len()..];
        for (a, t) in alone.iter().zip(together) {
            assert!((a - t).abs() < 1e-5, "{t} in a batch, {a} alone");
        }
    }
    Ok(())
}
