//! Whole models on a CUDA device against the CPU: `bash tests/gpu.sh`.
#![cfg(feature = "cuda")]

use asr::audio::{DecodeOptions, decode_path};
use asr::config::embedded_model;
use asr::decode::Transcriber;
use asr::model::{
    ConvLayer, ConvNorm, Encoder, EncoderConfig, Family, Parameters, Pass, RelativePositions,
    Sampling, Variant, compute_on, waveform_batch,
};
use asr_kernels::gradients::Gradients;
use asr_kernels::reference::uniform;
use asr_kernels::{Precision, accelerator, adamw};
use candle_core::{Device, Result, Tensor};

fn config(family: Family) -> EncoderConfig {
    let single = family != Family::MrHubert;
    EncoderConfig {
        input_channels: 1,
        conv_layers: [(10, 5), (3, 2), (2, 2)]
            .map(|(kernel, stride)| ConvLayer { dim: 32, kernel, stride })
            .to_vec(),
        conv_norm: ConvNorm::FirstGroup,
        embed_dim: 64,
        ffn_dim: 96,
        heads: 4,
        stage_layers: if single { vec![2] } else { vec![1, 2, 1] },
        rate_ratios: if single { vec![] } else { vec![[1, 2]] },
        sampling: Sampling::ConvAdapter { kernel: 1 },
        layer_norm_first: false,
        position_kernel: 16,
        position_groups: 4,
        dropout: 0.1,
        attention_dropout: 0.0,
        activation_dropout: 0.1,
        input_dropout: 0.1,
        layer_drop: 0.0,
        variant: Variant {
            family,
            always_project: true,
            relative_positions: (family == Family::Wavlm)
                .then_some(RelativePositions { buckets: 16, max_distance: 20 }),
            ..Variant::default()
        },
    }
}

/// Output, gradients of every parameter and parameters after a step, by name.
fn step_on(device: &Device, config: &EncoderConfig) -> Result<Vec<(String, Vec<f32>)>> {
    compute_on(device.clone());
    let parameters = Parameters::default();
    let encoder = Encoder::new(config, &parameters.seeded(3))?;
    let clips = [uniform(4000, 1), uniform(2700, 2)];
    let input = waveform_batch(&[&clips[0], &clips[1]])?;
    let encoded = encoder.outputs(&input, &[], &Pass::training(Precision::F32, 7))?;
    let output = &encoded.output().hidden;
    let weights = uniform(output.elem_count(), 5);
    let weights = Tensor::from_vec(weights, output.shape(), output.device())?;
    let variables = parameters.trainable();
    let mut gradients = Gradients::of(variables.iter().map(|(_, var)| var));
    gradients.backward(&(output * weights)?.sum_all()?)?;
    let mut found = vec![("output".to_owned(), output.flatten_all()?.to_vec1()?)];
    let step = adamw::Step {
        betas: [0.9, 0.98],
        scale: 1.0,
        shrink: 0.999,
        rate: 1e-3,
        root: 1.0,
        eps: 1e-3,
    };
    for (name, var) in &variables {
        if !gradients.reached(var) {
            continue;
        }
        let n = var.elem_count();
        let slopes = if device.is_cpu() {
            let slopes = gradients.get(var).expect("reached").to_vec();
            adamw::update(var, step, (&mut vec![0.0; n], &mut vec![0.0; n]), &slopes)?;
            slopes
        } else {
            let gradient = gradients.elsewhere(var)?.expect("reached");
            let norm = adamw::norm_and_factor(std::slice::from_ref(&gradient), 1.0, 1e9)?;
            let (mean, square) = (var.zeros_like()?, var.zeros_like()?);
            adamw::update_on_device(var, step, (&mean, &square), &gradient, &norm)?;
            gradient.flatten_all()?.to_vec1()?
        };
        found.push((format!("gradient of {name}"), slopes));
        found.push((name.clone(), var.flatten_all()?.to_vec1()?));
    }
    compute_on(Device::Cpu);
    Ok(found)
}

/// One test: where models are made is one setting of the process.
#[test]
#[ignore = "needs a CUDA device: bash tests/gpu.sh"]
fn models_train_and_transcribe_as_on_the_cpu() -> Result<()> {
    let card = accelerator::cuda(0).expect("this test is for machines with a CUDA device");
    for family in [Family::Hubert, Family::Wavlm, Family::MrHubert] {
        let config = config(family);
        let (want, got) = (step_on(&Device::Cpu, &config)?, step_on(&card, &config)?);
        assert_eq!(want.len(), got.len());
        for ((name, want), (same, got)) in want.iter().zip(&got) {
            assert_eq!(name, same);
            let largest = want.iter().fold(1.0_f32, |max, v| max.max(v.abs()));
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                let close = (g - w).abs() <= 2e-3 * largest;
                assert!(close, "{family:?}, {name} at {i}: {g} on the device, {w} on the CPU");
            }
        }
    }
    let audio = decode_path("examples/audio/eng.flac".as_ref(), &DecodeOptions::default())
        .expect("a clip of ours");
    let transcribe = |device: &Device| {
        compute_on(device.clone());
        let model = embedded_model().expect("the embedded model");
        let transcriber = Transcriber::new(&model, Precision::F32).expect("a model");
        let heard = transcriber.transcribe(&[&audio.samples], None).expect("text");
        compute_on(Device::Cpu);
        (heard[0].text.clone(), heard[0].languages[0].code)
    };
    assert_eq!(transcribe(&card), transcribe(&Device::Cpu));
    Ok(())
}
