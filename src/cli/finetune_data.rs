//! What a fine-tuning run reads before it starts.

use super::Talk;
use super::failure::{AnyError, CliError};
use super::locate::{Located, locate};
use super::model::{embedded_sha256, file_sha256, hexadecimal};
use crate::config::{EncoderFiles, InputConfig, ModelFiles, Recipe, Upstream, embedded_model};
use crate::data::{Clip, DevList, Transcript, read_manifest};
use crate::features::EncoderInput;
use crate::model::{EncoderConfig, GeoPoint, Parameters, location_vector};
use crate::text::{Language, Vocabulary, normalise, place_of_language};
use std::path::Path;

/// The encoder that a recipe builds on, and the SHA-256 of its weights.
pub(super) fn upstream(
    recipe: &Recipe,
    talk: Talk,
) -> Result<Option<(Upstream, [u8; 32])>, AnyError> {
    let Some(name) = &recipe.upstream else { return Ok(None) };
    let (mut upstream, sha256) = load_upstream(name, false, talk)?;
    if let Some(rates) = &recipe.upstream_rates {
        upstream.encoder = rates.of(&upstream.encoder);
    }
    recipe.validate_for(&upstream.encoder, &upstream.input)?;
    Ok(Some((upstream, sha256)))
}

/// An encoder and the SHA-256 of its weights.
pub(super) fn load_upstream(
    name: &str,
    offline: bool,
    talk: Talk,
) -> Result<(Upstream, [u8; 32]), AnyError> {
    Ok(match locate(name, offline, &[], talk)? {
        Located::Embedded => (Upstream::of_folder(&embedded_model()?), embedded_sha256()),
        Located::Path(path) => {
            let upstream = Upstream::load(&path)?;
            let sha256 = file_sha256(upstream.weights.as_deref().unwrap_or(&path))?;
            (upstream, sha256)
        }
    })
}

/// What tells the hidden states of an encoder from those of others.
pub(super) fn identity(upstream: &Upstream, sha256: &[u8; 32]) -> String {
    format!("{} {:?}", hexadecimal(sha256), upstream.input)
}

pub(super) fn read_clips(
    recipe: &Recipe,
    folder: &Path,
) -> Result<(Vec<Clip>, Vec<Clip>, DevList), AnyError> {
    let dev_list = DevList::read(&folder.join(&recipe.data.dev))?;
    let (mut train, mut dev) = (Vec::new(), Vec::new());
    for (i, manifest) in recipe.data.manifests.iter().enumerate() {
        for mut clip in read_manifest(&recipe.data.root.join(manifest))? {
            clip.weight = recipe.data.weights.get(i).copied().unwrap_or(1.0);
            if i == 0 && dev_list.condition(&clip.name).is_some() {
                dev.push(clip);
            } else {
                train.push(clip);
            }
        }
    }
    Ok((train, dev, dev_list))
}

/// Parameters of a model that the recipe goes on from, and its vocabulary; a pre-trained encoder
/// has none.
pub(super) fn initial_model(
    folder: &Path,
    recipe: &Recipe,
) -> Result<(Option<Vocabulary>, Parameters), AnyError> {
    let other = || CliError::OtherModel { folder: folder.to_owned() };
    let fits = |encoder: &EncoderConfig| {
        recipe.encoder.as_ref().is_some_and(|wanted| encoder.same_shape(wanted))
    };
    if EncoderFiles::is_in(folder) {
        let (found, parameters) = EncoderFiles::read(folder)?.into_encoder();
        let input = match found.input {
            InputConfig::LogMel { features, norm } => Some(EncoderInput::LogMel(features, norm)),
            InputConfig::Waveform { .. } => None,
        };
        if input != recipe.input() || !fits(&found.encoder) {
            return Err(other().into());
        }
        return Ok((None, parameters));
    }
    let files = ModelFiles::read(folder)?;
    let found = &files.config;
    let same_head = found.downstream == recipe.downstream;
    if Some(found.input()) != recipe.input() || !fits(&found.encoder) || !same_head {
        return Err(other().into());
    }
    files.parameters.retain(|name| recipe.joint.keeps(name));
    Ok((Some(files.vocabulary), files.parameters))
}

/// The geolocation vector of each language, where it has a place.
pub(super) fn places(vocabulary: &Vocabulary) -> Vec<Option<Vec<f32>>> {
    vocabulary
        .language_ids()
        .map(|id| {
            let (latitude, longitude) = place_of_language(vocabulary.language_of(id)?)?;
            Some(location_vector(GeoPoint { latitude, longitude }))
        })
        .collect()
}

pub(super) fn build_vocabulary(clips: &[Clip], min_count: u64) -> Result<Vocabulary, AnyError> {
    let languages: Vec<Language> = clips.iter().filter_map(|clip| clip.language).collect();
    let texts = clips.iter().filter_map(|clip| match (&clip.transcript, clip.language) {
        (Transcript::Text(text), Some(language)) => Some(normalise(text, language)),
        _ => None,
    });
    Ok(Vocabulary::build(languages, texts, min_count)?)
}
