//! A clip is the same alone and in any batch.

use crate::encoders::{batch, clip, encoder_config, random_parameters, recogniser_config};
use asr::model::{
    Conditioning, EcapaConfig, EncoderConfig, GeoConfig, IntermediateCtcConfig, JointConfig,
    LanguageHeadConfig, Logits, Pass, Predicts, Projection, Recogniser, RecogniserConfig, Sampling,
    Tap,
};
use asr_kernels::Precision;
use candle_core::{Result, Tensor};
use proptest::prelude::*;

/// Largest difference between two outputs over the valid frames of a clip.
fn difference(alone: &Tensor, together: &Tensor, clip: usize, frames: usize) -> Result<f32> {
    let alone = alone.get(0)?.narrow(0, 0, frames)?;
    let together = together.get(clip)?.narrow(0, 0, frames)?;
    (alone - together)?.abs()?.flatten_all()?.max(0)?.to_scalar()
}

/// Every module that looks along time. Random maps back, so that places change the frames.
fn joint_config() -> JointConfig {
    JointConfig {
        intermediate_ctc: Some(IntermediateCtcConfig {
            taps: vec![Tap { block: 0, predicts: Predicts::Language }],
            projection: Projection::Own,
            conditioning: false,
        }),
        geo: Some(GeoConfig {
            blocks: vec![0],
            bottleneck: 4,
            embedding: 6,
            conditioning: Conditioning::SharedFrozen,
        }),
        language: Some(LanguageHeadConfig {
            block: None,
            ecapa: Some(EcapaConfig { dim: 16, outputs: 10 }),
            bottleneck: 4,
            embedding: 6,
            sub_centres: 2,
            location: true,
        }),
    }
}

struct Batch {
    config: EncoderConfig,
    model: Recogniser,
    clips: Vec<Vec<f32>>,
    extra: usize,
}

impl Batch {
    fn new(config: EncoderConfig, steps: &[usize], extra: usize, seed: u64) -> Result<Self> {
        let parameters = random_parameters(&config, seed)?;
        let joint = RecogniserConfig { joint: joint_config(), ..recogniser_config(&config) };
        let model = Recogniser::for_training(&joint, &parameters, seed)?;
        let clips = (0_u64..).zip(steps).map(|(i, &n)| clip(&config, n, seed ^ (i + 1))).collect();
        Ok(Self { config, model, clips, extra })
    }

    /// Names of outputs with the largest difference between alone and together.
    fn differences(&self, clip: usize) -> Result<Vec<(String, f32)>> {
        let clips: Vec<&[f32]> = self.clips.iter().map(Vec::as_slice).collect();
        let together = batch(&self.config, &clips, self.extra)?;
        let alone = batch(&self.config, &clips[clip..=clip], 0)?;
        let pass = Pass::inference(Precision::F32);
        let mut differences = Vec::new();
        let mut add = |name: String, a: (&Tensor, &[usize]), t: (&Tensor, &[usize])| {
            assert_eq!(a.1[0], t.1[clip], "valid frames of {name}");
            differences.push((name, difference(a.0, t.0, clip, a.1[0])?));
            Ok::<(), candle_core::Error>(())
        };
        let encoder = self.model.encoder();
        let (a, t) = (encoder.trace(&alone, &[], &pass)?, encoder.trace(&together, &[], &pass)?);
        for (i, (a, t)) in a.resolutions.iter().zip(&t.resolutions).enumerate() {
            let (a, t) = (&a.output, &t.output);
            add(format!("resolution {i}"), (&a.hidden, &a.lengths), (&t.hidden, &t.lengths))?;
        }
        let alone = self.model.forward(&alone, &pass)?;
        let together = self.model.forward(&together, &pass)?;
        let mut add_logits = |name: &str, a: &Logits, t: &Logits| {
            let (a, t) = ((&a.values, a.lengths.as_slice()), (&t.values, t.lengths.as_slice()));
            add(name.to_owned(), a, t)
        };
        add_logits("logits", &alone.high, &together.high)?;
        match (&alone.low, &together.low) {
            (Some(low), Some(together)) => add_logits("low logits", low, together)?,
            (low, together) => assert!(low.is_none() && together.is_none(), "one head is missing"),
        }
        for ((_, a), (_, t)) in alone.intermediate.iter().zip(&together.intermediate) {
            add_logits("tap", a, t)?;
        }
        let mut of_clip = |name: &str, a: &Tensor, t: &Tensor| {
            let difference = (a.get(0)? - t.get(clip)?)?.abs()?.max(0)?.to_scalar::<f32>()?;
            differences.push((name.to_owned(), difference));
            Ok::<(), candle_core::Error>(())
        };
        for (a, t) in alone.places.iter().zip(&together.places) {
            of_clip("place", a, t)?;
        }
        if let (Some(a), Some(t)) = (&alone.language, &together.language) {
            of_clip("cosines", &a.cosines, &t.cosines)?;
        }
        Ok(differences)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_clip_is_the_same_alone_and_in_a_batch(
        config in encoder_config(),
        steps in prop::collection::vec(1_usize..160, 2..5),
        extra in 0_usize..20,
        seed in any::<u64>(),
    ) {
        let n_clips = steps.len();
        let batch = Batch::new(config, &steps, extra, seed).expect("a valid configuration");
        for clip in 0..n_clips {
            for (name, difference) in batch.differences(clip).expect("shapes fit") {
                // NaN is no small difference either.
                prop_assert!(difference < 1e-4, "{name} of clip {clip} differs by {difference}");
            }
        }
    }

    #[test]
    fn frames_are_as_many_as_the_configuration_says(
        config in encoder_config(),
        steps in 1_usize..160,
        seed in any::<u64>(),
    ) {
        let frames = config.frames(steps.max(config.receptive_field()));
        // Modules with an even kernel lose frames on the way down, but never all.
        let (Sampling::ConvAdapter { kernel } | Sampling::Plain { kernel }) = config.sampling;
        let wanted = match kernel % 2 {
            1 => frames..=frames,
            _ => 1..=frames,
        };
        let batch = Batch::new(config, &[steps], 0, seed).expect("a valid configuration");
        let input = super::encoders::batch(&batch.config, &[&batch.clips[0]], 0).expect("one clip");
        let logits = batch.model.forward(&input, &Pass::inference(Precision::F32)).expect("fits").high;
        prop_assert!(wanted.contains(&logits.lengths[0]), "{:?} of {wanted:?}", logits.lengths);
        let shape = [1, logits.lengths[0], super::encoders::VOCAB_SIZE];
        prop_assert_eq!(logits.values.dims(), &shape);
    }
}
