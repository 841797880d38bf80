//! A small corpus in the layout of the releases, from any manifest.

use super::{MlSuperbError, Split, TRANSCRIPTS};
use crate::audio::{DecodeOptions, WavFormat, decode_path, write_wav};
use crate::data::{Clip, Transcript};
use crate::text::{Language, one_line};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Audio per dataset and language of the ten-minute splits and of the hour, seconds.
const TEN_MINUTES_S: f64 = 600.0;
const HOUR_S: f64 = 3_600.0;
/// Folder for clips whose manifest names no dataset.
const NO_DATASET: &str = "own";
/// One clip in so many goes to development, and one to test, where no list says which are held out.
const HELD_OUT_IN: u64 = 10;

/// What a small corpus holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Mini {
    /// Pairs of dataset and language.
    pub pairs: usize,
    /// Lines per split.
    pub utterances: BTreeMap<Split, usize>,
    /// Clips without a language or a text.
    pub without_text: usize,
    /// Clips beyond the ten minutes or the hour of their split.
    pub beyond_budget: usize,
    /// Clips that cannot be decoded, with the reason.
    pub unreadable: Vec<String>,
}

/// A clip on its way into the corpus.
struct Chosen<'a> {
    clip: &'a Clip,
    text: String,
    /// Splits it belongs to: training may be both.
    splits: Vec<Split>,
}

/// Writes a corpus into the new folder `out`.
///
/// Clips that `held_out` names go to development and test by turns, the others to training; without any such name,
/// one in ten goes to each, chosen by name. Per dataset and language an hour of training is kept, of which the first
/// ten minutes are the smaller budget, and ten minutes of development and of test, in the order of the manifest.
/// Recordings become 16 kHz mono WAV files.
///
/// # Errors
/// [`MlSuperbError`]: nothing to write, `out` not empty, or the system refuses.
pub fn make_mini(
    clips: &[Clip],
    held_out: impl Fn(&str) -> bool,
    out: &Path,
) -> Result<Mini, MlSuperbError> {
    let is_taken = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken {
        return Err(MlSuperbError::Exists { folder: out.to_owned() });
    }
    let mut mini = Mini::default();
    let mut by_folder: BTreeMap<(String, Language), Vec<(&Clip, String)>> = BTreeMap::new();
    for clip in clips {
        let text = match &clip.transcript {
            Transcript::Text(text) => one_line(text),
            Transcript::Unknown | Transcript::Silence => String::new(),
        };
        match clip.language {
            Some(language) if !text.is_empty() => {
                let dataset = folder_name(clip.dataset.as_deref().unwrap_or(NO_DATASET));
                by_folder.entry((dataset, language)).or_default().push((clip, text));
            }
            _ => mini.without_text += 1,
        }
    }
    if by_folder.is_empty() {
        return Err(MlSuperbError::Nothing);
    }
    let any_held_out = clips.iter().any(|clip| held_out(&clip.name));
    for ((dataset, language), clips) in by_folder {
        let chosen = choose(clips, &held_out, any_held_out, &mut mini.beyond_budget);
        write_language(out, &dataset, language, &chosen, &mut mini)?;
        mini.pairs += 1;
    }
    Ok(mini)
}

/// Splits for the clips of one dataset and language.
fn choose<'a>(
    clips: Vec<(&'a Clip, String)>,
    held_out: impl Fn(&str) -> bool,
    any_held_out: bool,
    beyond_budget: &mut usize,
) -> Vec<Chosen<'a>> {
    let (mut train_s, mut dev_s, mut test_s) = (0.0, 0.0, 0.0);
    let mut turn = 0_u64;
    let mut chosen = Vec::new();
    for (clip, text) in clips {
        // 0 is development, 1 test, all else training.
        let lot = match (any_held_out, held_out(&clip.name)) {
            (true, true) => {
                turn += 1;
                (turn - 1) % 2
            }
            (true, false) => HELD_OUT_IN,
            (false, _) => name_hash(&clip.name) % HELD_OUT_IN,
        };
        let (spent, budget_s, split) = match lot {
            0 => (&mut dev_s, TEN_MINUTES_S, Split::Dev),
            1 => (&mut test_s, TEN_MINUTES_S, Split::Test),
            _ => (&mut train_s, HOUR_S, Split::Train1H),
        };
        if *spent + clip.duration_s > budget_s {
            *beyond_budget += 1;
            continue;
        }
        *spent += clip.duration_s;
        let mut splits = vec![split];
        if split == Split::Train1H && *spent <= TEN_MINUTES_S {
            splits.push(Split::Train10Min);
        }
        chosen.push(Chosen { clip, text, splits });
    }
    chosen
}

fn write_language(
    out: &Path,
    dataset: &str,
    language: Language,
    chosen: &[Chosen],
    mini: &mut Mini,
) -> Result<(), MlSuperbError> {
    let folder = out.join(dataset).join(language.code());
    let wav = folder.join("wav");
    let write = |path: PathBuf| move |source| MlSuperbError::Write { path, source };
    std::fs::create_dir_all(&wav).map_err(write(wav.clone()))?;
    // Parts of an id are joined by underscores, so that its prefix has none.
    let prefix = dataset.replace('_', "-");
    let mut transcripts: BTreeMap<Split, String> =
        TRANSCRIPTS.iter().map(|(split, _)| (*split, String::new())).collect();
    let mut number = 0;
    for Chosen { clip, text, splits } in chosen {
        let audio = match decode_path(&clip.path, &DecodeOptions::default()) {
            Ok(audio) => audio,
            Err(error) => {
                mini.unreadable.push(format!("{}: {error}", clip.name));
                continue;
            }
        };
        number += 1;
        let id = format!("{prefix}_{language}_{number:06}");
        write_wav(
            &wav.join(format!("{id}.wav")),
            &audio.samples,
            audio.sample_rate_hz,
            WavFormat::S16,
        )?;
        for split in splits {
            let lines = transcripts.entry(*split).or_default();
            writeln!(lines, "{id}\t{language}\t{text}").expect("writing to a string does not fail");
            *mini.utterances.entry(*split).or_default() += 1;
        }
    }
    for (split, file) in TRANSCRIPTS {
        let path = folder.join(file);
        let lines = transcripts.remove(&split).unwrap_or_default();
        std::fs::write(&path, lines).map_err(write(path.clone()))?;
    }
    Ok(())
}

/// A dataset's name as a folder: letters, digits, `-` and `_` stay.
fn folder_name(dataset: &str) -> String {
    let name: String = dataset
        .chars()
        .take(64)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    if name.is_empty() { NO_DATASET.to_owned() } else { name }
}

/// FNV-1a: the same on every machine.
fn name_hash(name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let hash = name
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The low bits alone are poorly mixed.
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(name: &str, duration_s: f64) -> Clip {
        Clip {
            path: name.into(),
            name: name.to_owned(),
            language: Language::lookup("eng"),
            speaker: None,
            dataset: None,
            duration_s,
            transcript: Transcript::Text("a".into()),
            weight: 1.0,
        }
    }

    #[test]
    fn budgets_fill_in_order_and_the_rest_is_counted() {
        let clips: Vec<Clip> = (0..10).map(|i| clip(&i.to_string(), 400.0)).collect();
        let held_out = |name: &str| ["0", "1", "2", "3"].contains(&name);
        let mut beyond = 0;
        let pairs = clips.iter().map(|clip| (clip, "a".to_owned())).collect();
        let chosen = choose(pairs, held_out, true, &mut beyond);
        let splits: Vec<(&str, Vec<Split>)> =
            chosen.iter().map(|c| (c.clip.name.as_str(), c.splits.clone())).collect();
        assert_eq!(splits[0], ("0", vec![Split::Dev]));
        assert_eq!(splits[1], ("1", vec![Split::Test]));
        assert_eq!(splits[2], ("4", vec![Split::Train1H, Split::Train10Min]));
        assert_eq!(splits[3], ("5", vec![Split::Train1H]));
        // Two of four held out do not fit into ten minutes; six in training are 40 minutes.
        assert_eq!((splits.len(), beyond), (8, 2));
    }

    #[test]
    fn names_of_datasets_become_folders() {
        assert_eq!(folder_name("../My data"), "---My-data");
        assert_eq!(folder_name(""), "own");
    }
}
