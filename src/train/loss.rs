//! The loss of a batch: text, language and place together.

use super::dro::{CtcDro, GroupLoss};
use super::{TrainConfig, TrainError};
use crate::data::Labels;
use crate::model::{LOCATION_DIM, Predicts, RecogniserOutput};
use crate::objective::{
    AngularMargin, ClipLosses, GeoWeights, MultiResolutionCtc, intermediate_ctc, location_loss,
};
use asr_kernels::ctc::Target;
use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

const BLANK: u32 = 0;

/// Loss of the language head and of the places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageLoss {
    /// Weight of a clip's loss beside the nats of its CTC loss.
    pub weight: f64,
    /// Margin and scale of the language head.
    pub margin: AngularMargin,
    /// Weights of the places beside the class.
    pub places: GeoWeights,
}

impl LanguageLoss {
    pub(super) fn validate(&self) -> std::result::Result<(), TrainError> {
        let check = |ok: bool, field, expected| {
            if ok { Ok(()) } else { Err(TrainError::Setting { field, expected }) }
        };
        let AngularMargin { margin, scale } = self.margin;
        check(
            self.weight > 0.0 && self.weight <= 1e3,
            "language_loss.weight",
            "above 0, at most 1000",
        )?;
        check((0.0..1.5).contains(&margin), "language_loss.margin.margin", "from 0 up to 1.5")?;
        check(scale > 0.0 && scale <= 1e3, "language_loss.margin.scale", "above 0, at most 1000")?;
        let GeoWeights { share, intermediate, .. } = self.places;
        check((0.0..1.0).contains(&share), "language_loss.places.share", "from 0 up to 1")?;
        check(
            (0.0..=1.0).contains(&intermediate),
            "language_loss.places.intermediate",
            "from 0 to 1",
        )
    }
}

/// The loss of a batch, not yet averaged.
pub(super) struct RecognitionLoss {
    /// Sum over clips; to be differentiated.
    pub(super) sum: Tensor,
    pub(super) n_tokens: usize,
    pub(super) n_infeasible: usize,
    pub(super) clips: ClipCosts,
}

/// High-resolution CTC loss of each clip.
pub(super) struct ClipCosts {
    losses: ClipLosses,
    /// Language and output frames of each clip.
    clips: Vec<(Option<usize>, usize)>,
}

impl ClipCosts {
    /// Sum, nats, and what each clip of a language cost.
    pub(super) fn read(&self) -> Result<(f64, Vec<GroupLoss>)> {
        let nats = self.losses.nats()?;
        let groups = self.clips.iter().zip(&nats);
        let groups = groups.filter_map(|(&(language, frames), nats)| {
            Some(GroupLoss { language: language?, nats: (*nats)?, frames })
        });
        Ok((nats.iter().flatten().sum(), groups.collect()))
    }
}

/// What is to be learned, and how much each part counts.
pub(super) struct Losses<'a> {
    pub(super) config: &'a TrainConfig,
    /// The geolocation vector of each language.
    pub(super) places: &'a [Option<Vec<f32>>],
    pub(super) dro: Option<&'a CtcDro>,
}

/// The language of a clip as its position in the vocabulary: its tag is its first token.
fn language(labels: &Labels) -> Option<usize> {
    labels.tokens.first().and_then(|&tag| (tag as usize).checked_sub(1))
}

/// What a tap is to spell.
fn target(labels: &Labels, predicts: Predicts) -> Target {
    let whole = || Target { tokens: labels.tokens.clone(), open_ended: labels.open_ended };
    let tags = |n| Target {
        tokens: labels.tokens.first().map(|&tag| vec![tag; n]).unwrap_or_default(),
        open_ended: false,
    };
    match predicts {
        Predicts::Text => whole(),
        Predicts::Language => tags(1),
        Predicts::LanguagePerWord => tags(labels.words + 1),
    }
}

impl Losses<'_> {
    pub(super) fn of(
        &self,
        output: &RecogniserOutput,
        labels: &[Labels],
    ) -> Result<RecognitionLoss> {
        let targets: Vec<Target> = labels.iter().map(|l| target(l, Predicts::Text)).collect();
        let ctc = MultiResolutionCtc {
            low_weight: self.config.low_weight,
            first_token_weight: self.config.language_weight,
            blank: BLANK,
        };
        let clip_weights: Option<Vec<f32>> =
            self.dro.map(|dro| labels.iter().map(|l| dro.factor(language(l))).collect());
        let (high, low) = (&output.high, output.low.as_ref());
        let loss = ctc.loss(
            (&high.values, &high.lengths),
            low.map(|low| (&low.values, low.lengths.as_slice())),
            &targets,
            clip_weights.as_deref(),
        )?;
        let mut sum = loss.sum;
        if !output.intermediate.is_empty() {
            let share = self.config.intermediate_weight;
            sum = (sum * (1.0 - share))?;
            for (predicts, logits) in &output.intermediate {
                let targets: Vec<Target> = labels.iter().map(|l| target(l, *predicts)).collect();
                let at = (&logits.values, logits.lengths.as_slice());
                let tap = intermediate_ctc(at, &targets, BLANK)?;
                sum = (sum + (tap * (share / output.intermediate.len() as f64))?)?;
            }
        }
        if let Some(language) = &self.config.language_loss
            && let Some(of_language) = self.of_language(language, output, labels)?
        {
            sum = (sum + (of_language * language.weight)?)?;
        }
        let clips = labels.iter().map(language).zip(high.lengths.iter().copied()).collect();
        Ok(RecognitionLoss {
            sum,
            n_tokens: loss.n_tokens,
            n_infeasible: loss.n_infeasible,
            clips: ClipCosts { losses: loss.clips, clips },
        })
    }

    /// Sum over the clips that have a language; places count where the language has one.
    fn of_language(
        &self,
        loss: &LanguageLoss,
        output: &RecogniserOutput,
        labels: &[Labels],
    ) -> Result<Option<Tensor>> {
        let languages: Vec<Option<usize>> = labels.iter().map(language).collect();
        let known: Vec<f32> = languages.iter().map(|l| f32::from(u8::from(l.is_some()))).collect();
        let device = output.high.values.device();
        let known = Tensor::new(known, device)?;
        let class = match &output.language {
            Some(head) => {
                // Clips without a language get any label and count nothing.
                let classes: Vec<u32> = languages.iter().map(|l| l.unwrap_or(0) as u32).collect();
                (loss.margin.loss(&head.cosines, &classes)? * &known)?
            }
            None if output.places.is_empty() => return Ok(None),
            None => known.zeros_like()?,
        };
        let (wanted, placed) = self.wanted_places(&languages, device)?;
        let place = |predicted: &Tensor| location_loss(predicted, &wanted)? * &placed;
        let last = output.language.as_ref().and_then(|head| head.location.as_ref());
        let last = last.map(place).transpose()?;
        let inner: Vec<Tensor> = output.places.iter().map(place).collect::<Result<_>>()?;
        loss.places.blend(&class, last.as_ref(), &inner)?.sum_all().map(Some)
    }

    /// The geolocation vector of each clip, `(batch, 299)`, and 1 where it has one, `(batch,)`.
    fn wanted_places(
        &self,
        languages: &[Option<usize>],
        device: &Device,
    ) -> Result<(Tensor, Tensor)> {
        let mut wanted = Vec::with_capacity(languages.len() * LOCATION_DIM);
        let mut placed = Vec::with_capacity(languages.len());
        for language in languages {
            let vector = language.and_then(|l| self.places.get(l)).and_then(Option::as_ref);
            placed.push(f32::from(u8::from(vector.is_some())));
            match vector {
                Some(vector) => wanted.extend_from_slice(vector),
                None => wanted.resize(wanted.len() + LOCATION_DIM, 0.0),
            }
        }
        let shape = (languages.len(), LOCATION_DIM);
        Ok((Tensor::from_vec(wanted, shape, device)?, Tensor::new(placed, device)?))
    }
}

#[cfg(test)]
mod strategy_tests;
#[cfg(test)]
mod tests;
