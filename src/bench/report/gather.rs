//! From scores to a report.

use super::{
    Confusion, LanguageRow, LengthBin, LengthUnit, Lengths, Place, Provenance, Report, Results,
    SCHEMA, Standing, Standing2, SummaryRow,
};
use crate::bench::corpus::mean;
use crate::bench::ml_superb::published::LabelSet;
use crate::bench::{CorpusScores, Group};
use crate::text::{
    Language, MlSuperb2Report, MlSuperbGroup, MlSuperbReport, Scheme, ScoreError, ScoreReport,
    UtteranceScore, Variant, one_line, score,
};
use std::collections::BTreeMap;

/// Bounds between lengths.
const SECONDS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0];
const CHARACTERS: &[f64] = &[10.0, 20.0, 40.0, 60.0, 80.0, 120.0, 160.0, 240.0];

/// The hypothesis tag of a clip in which no speech was found: a code that is no language.
const NO_LANGUAGE: &str = "[und]";

/// What one utterance adds to confusions and lengths.
struct Outcome<'a> {
    language: Option<&'a str>,
    named: Option<&'a str>,
    length: f64,
    errors: usize,
    characters: usize,
}

impl Report {
    /// What [`evaluate`](crate::bench::evaluate) found; `minutes` of training audio per language where known.
    ///
    /// Clips with a transcript are also scored by the public scorer of ML-SUPERB 2.0, on the texts as the manifest
    /// has them.
    #[must_use]
    pub fn of_corpus(
        scores: &CorpusScores,
        minutes: &BTreeMap<Language, f64>,
        place: impl Fn(Language) -> Option<Place>,
        provenance: Provenance,
    ) -> Self {
        let mut notes = Vec::new();
        let ml_superb2 = match by_public_scorer(scores) {
            Ok(report) => {
                if !report.skipped.is_empty() {
                    notes.push(format!(
                        "The ML-SUPERB 2.0 scorer leaves out {} clips without text after normalising.",
                        report.skipped.len()
                    ));
                }
                vec![standing2(&report, None, "this corpus".to_owned())]
            }
            Err(error) => {
                notes.push(format!("Not scored by the rules of ML-SUPERB 2.0: {error}."));
                Vec::new()
            }
        };
        let without_text = scores.clips.iter().filter(|clip| clip.reference.is_none()).count();
        if without_text > 0 {
            notes.push(format!(
                "{without_text} clips have no transcript: they count for identification only."
            ));
        }
        let groups = [("seen", &scores.seen), ("unseen", &scores.unseen), ("all", &scores.all)];
        let mut languages: Vec<LanguageRow> = scores
            .languages
            .iter()
            .map(|row| LanguageRow {
                code: row.language.to_string(),
                name: row.language.name().map(str::to_owned),
                place: place(row.language),
                training_minutes: minutes.get(&row.language).copied(),
                speakers: row.condition,
                clips: row.clips,
                seconds: Some(row.seconds),
                characters: row.characters,
                cer: row.cer,
                wer: row.wer,
                lid_accuracy: Some(row.lid_accuracy),
            })
            .collect();
        sort(&mut languages);
        let codes: Vec<(String, Option<String>)> = scores
            .clips
            .iter()
            .map(|clip| (clip.language.to_string(), clip.named.map(|named| named.to_string())))
            .collect();
        let outcomes: Vec<Outcome> = scores
            .clips
            .iter()
            .zip(&codes)
            .map(|(clip, (language, named))| Outcome {
                language: Some(language),
                named: named.as_deref(),
                length: clip.seconds,
                errors: clip.character_errors,
                characters: clip.characters,
            })
            .collect();
        Self {
            schema: SCHEMA,
            title: "Scores on a corpus".to_owned(),
            provenance,
            summary: groups
                .into_iter()
                .filter(|(_, group)| group.clips > 0)
                .map(|(name, group)| summary_of_group(name, group))
                .collect(),
            ml_superb: Vec::new(),
            ml_superb2,
            languages,
            confusions: confusions(&outcomes),
            lengths: Lengths { unit: LengthUnit::Seconds, bins: bins(&outcomes, SECONDS) },
            layer_weights: Vec::new(),
            curves: Vec::new(),
            notes,
        }
    }

    /// What [`score_utterances`](crate::text::score_utterances) found; `labels` as stated by whoever asks.
    #[must_use]
    pub fn of_transcripts(
        report: &ScoreReport,
        utterances: &[UtteranceScore],
        labels: Option<LabelSet>,
        place: impl Fn(Language) -> Option<Place>,
        provenance: Provenance,
    ) -> Self {
        let mut characters: BTreeMap<&str, usize> = BTreeMap::new();
        for utterance in utterances {
            *characters.entry(utterance.language.as_deref().unwrap_or("und")).or_default() +=
                utterance.characters;
        }
        let row = |code: &str, clips, cer, wer, lid_accuracy| {
            let language = Language::lookup(code);
            LanguageRow {
                code: code.to_owned(),
                name: language.and_then(|l| l.name()).map(str::to_owned),
                place: language.and_then(&place),
                training_minutes: None,
                speakers: None,
                clips,
                seconds: None,
                characters: characters.get(code).copied().unwrap_or(0),
                cer,
                wer,
                lid_accuracy,
            }
        };
        let mut notes = Vec::new();
        let (mut ml_superb, mut ml_superb2) = (Vec::new(), Vec::new());
        let (summary, mut languages): (Vec<SummaryRow>, Vec<LanguageRow>) = match report {
            ScoreReport::Plain(plain) => {
                let languages: Vec<LanguageRow> = plain
                    .per_language
                    .iter()
                    .map(|(code, s)| row(code, s.utterances, s.cer, s.wer, s.lid_accuracy))
                    .collect();
                let mut all = summary_of_rows("all", &languages);
                let scores = &mut all.scores;
                (scores.cer, scores.wer) = (plain.cer, plain.wer);
                scores.lid_accuracy = plain.lid_accuracy;
                (vec![all], languages)
            }
            ScoreReport::MlSuperb(pooled) => {
                let languages: Vec<LanguageRow> = pooled
                    .per_language
                    .iter()
                    .map(|(code, s)| row(code, s.utterances, s.cer, None, s.lid_accuracy))
                    .collect();
                ml_superb.push(Standing {
                    system: None,
                    budgets: vec![results(pooled)],
                    is_published_corpus: false,
                });
                let reserved = crate::text::RESERVED_LANGUAGES;
                let summary = [
                    ("trained languages", &pooled.trained, false),
                    ("few-shot languages", &pooled.reserved, true),
                ]
                .into_iter()
                .filter_map(|(name, group, few_shot)| {
                    let group = group.as_ref()?;
                    let rows: Vec<LanguageRow> = languages
                        .iter()
                        .filter(|row| reserved.contains(&row.code.as_str()) == few_shot)
                        .cloned()
                        .collect();
                    let mut summary = summary_of_rows(name, &rows);
                    summary.scores.cer = group.cer;
                    summary.scores.lid_accuracy = group.lid_accuracy;
                    Some(summary)
                })
                .collect();
                (summary, languages)
            }
            ScoreReport::MlSuperb2(means) => {
                let languages: Vec<LanguageRow> = means
                    .per_language
                    .iter()
                    .map(|(code, s)| {
                        row(code, s.utterances, Some(s.cer), None, Some(s.lid_accuracy))
                    })
                    .collect();
                if !means.skipped.is_empty() {
                    notes.push(format!(
                        "Left out, no text in the reference after normalising: {}.",
                        named(&means.skipped)
                    ));
                }
                if !means.languages_without_text.is_empty() {
                    notes.push(format!(
                        "Languages without a scored utterance: {}.",
                        named(&means.languages_without_text)
                    ));
                }
                ml_superb2.push(standing2(means, labels, "these transcripts".to_owned()));
                (vec![summary_of_rows("all", &languages)], languages)
            }
        };
        sort(&mut languages);
        let outcomes: Vec<Outcome> = utterances
            .iter()
            .map(|utterance| Outcome {
                language: utterance.language.as_deref(),
                named: utterance.predicted.as_deref(),
                length: utterance.characters as f64,
                errors: utterance.errors,
                characters: utterance.characters,
            })
            .collect();
        // Without a single tag nothing was identified, and nothing confused.
        let is_identified = summary.iter().any(|row| row.scores.lid_accuracy.is_some());
        let mut bins = bins(&outcomes, CHARACTERS);
        if !is_identified {
            bins.iter_mut().for_each(|bin| bin.lid_accuracy = None);
        }
        Self {
            schema: SCHEMA,
            title: "Scores of transcripts".to_owned(),
            provenance,
            summary,
            ml_superb,
            ml_superb2,
            languages,
            confusions: if is_identified { confusions(&outcomes) } else { Vec::new() },
            lengths: Lengths { unit: LengthUnit::Characters, bins },
            layer_weights: Vec::new(),
            curves: Vec::new(),
            notes,
        }
    }
}

/// The clips with transcripts by the recipe's scorer of ML-SUPERB 2.0.
fn by_public_scorer(scores: &CorpusScores) -> Result<MlSuperb2Report, ScoreError> {
    let (mut reference, mut hypothesis) = (String::new(), String::new());
    // Names may hold spaces; the place in the list does for an id.
    for (id, clip) in scores.clips.iter().enumerate() {
        let Some(text) = &clip.reference else { continue };
        let tag = clip.named.map_or_else(|| NO_LANGUAGE.to_owned(), |named| format!("[{named}]"));
        reference.push_str(&format!("{id} [{}] {}\n", clip.language, one_line(text)));
        hypothesis.push_str(&format!("{id} {tag} {}\n", one_line(&clip.heard)));
    }
    match score(&reference, &hypothesis, Scheme::MlSuperb2, Variant::Recipe)? {
        ScoreReport::MlSuperb2(report) => Ok(report),
        ScoreReport::Plain(_) | ScoreReport::MlSuperb(_) => Err(ScoreError::NothingToScore),
    }
}

/// With tags both tasks were done at once, without them recognition alone.
fn results(report: &MlSuperbReport) -> Results {
    let cer = |group: &Option<MlSuperbGroup>| group.as_ref().and_then(|group| group.cer);
    let lid = report.trained.as_ref().and_then(|group| group.lid_accuracy);
    let (trained, few_shot) = (cer(&report.trained), cer(&report.reserved));
    match lid {
        Some(_) => Results {
            joint_lid: lid,
            joint: trained,
            joint_few_shot: few_shot,
            ..Results::default()
        },
        None => {
            Results { multilingual: trained, multilingual_few_shot: few_shot, ..Results::default() }
        }
    }
}

pub(super) fn standing2(
    report: &MlSuperb2Report,
    labels: Option<LabelSet>,
    data: String,
) -> Standing2 {
    Standing2 {
        system: None,
        data,
        labels,
        scorer: report.variant,
        cer: report.cer,
        lid_accuracy: report.lid_accuracy,
        worst15_cer: report.worst15_cer,
        std_cer: report.std_cer,
        dialects: None,
    }
}

fn summary_of_group(name: &str, group: &Group) -> SummaryRow {
    let name = if name == "all" { "all".to_owned() } else { format!("{name} speakers") };
    SummaryRow { name, scores: group.clone() }
}

/// Counts and means over languages; what is pooled over utterances the caller knows.
fn summary_of_rows(name: &str, rows: &[LanguageRow]) -> SummaryRow {
    SummaryRow {
        name: name.to_owned(),
        scores: Group {
            languages: rows.iter().filter(|row| row.code != "und").count(),
            clips: rows.iter().map(|row| row.clips).sum(),
            macro_cer: mean(rows.iter().filter_map(|row| row.cer)),
            macro_lid_accuracy: mean(rows.iter().filter_map(|row| row.lid_accuracy)),
            ..Group::default()
        },
    }
}

/// By falling minutes of training, then by code; seen before unseen speakers.
fn sort(rows: &mut [LanguageRow]) {
    rows.sort_by(|a, b| {
        let minutes = |row: &LanguageRow| row.training_minutes.unwrap_or(0.0);
        minutes(b)
            .total_cmp(&minutes(a))
            .then_with(|| a.code.cmp(&b.code))
            .then_with(|| a.speakers.cmp(&b.speakers))
    });
}

fn confusions(outcomes: &[Outcome]) -> Vec<Confusion> {
    let mut of: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong: BTreeMap<(&str, Option<&str>), usize> = BTreeMap::new();
    for outcome in outcomes {
        let Some(spoken) = outcome.language else { continue };
        *of.entry(spoken).or_default() += 1;
        if outcome.named != Some(spoken) {
            *wrong.entry((spoken, outcome.named)).or_default() += 1;
        }
    }
    let mut confusions: Vec<Confusion> = wrong
        .into_iter()
        .map(|((spoken, named), clips)| Confusion {
            spoken: spoken.to_owned(),
            named: named.map(str::to_owned),
            clips,
            of: of[spoken],
        })
        .collect();
    confusions.sort_by_key(|confusion| std::cmp::Reverse(confusion.clips));
    confusions
}

fn bins(outcomes: &[Outcome], bounds: &[f64]) -> Vec<LengthBin> {
    let mut bins = Vec::new();
    for i in 0..=bounds.len() {
        let from = if i == 0 { 0.0 } else { bounds[i - 1] };
        let to = bounds.get(i).copied();
        let inside: Vec<&Outcome> = outcomes
            .iter()
            .filter(|outcome| outcome.length >= from && to.is_none_or(|to| outcome.length < to))
            .collect();
        let sum = |pick: fn(&Outcome) -> usize| -> usize {
            inside.iter().map(|outcome| pick(outcome)).sum()
        };
        let (errors, characters) = (sum(|o| o.errors), sum(|o| o.characters));
        let with_language = sum(|o| usize::from(o.language.is_some()));
        let right = sum(|o| usize::from(o.language.is_some() && o.language == o.named));
        let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
        bins.push(LengthBin {
            from,
            to,
            clips: inside.len(),
            cer: share(errors, characters),
            lid_accuracy: share(right, with_language),
        });
    }
    let first = bins.iter().position(|bin| bin.clips > 0).unwrap_or(bins.len());
    let last = bins.iter().rposition(|bin| bin.clips > 0).map_or(first, |i| i + 1);
    bins.drain(first..last).collect()
}

/// The first few of a list, and how many more there are.
fn named(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::score_utterances;

    fn provenance() -> Provenance {
        Provenance::now("asr score ref hyp".into(), "not stated".into(), "plain".into())
    }

    fn report(scheme: Scheme, reference: &str, hypothesis: &str) -> Report {
        let (scores, utterances) =
            score_utterances(reference, hypothesis, scheme, Variant::Recipe).expect("valid");
        let place = |language: Language| {
            (language.code() == "eng").then_some(Place { latitude: 52.0, longitude: -1.0 })
        };
        Report::of_transcripts(&scores, &utterances, Some(LabelSet::Original), place, provenance())
    }

    const REFERENCE: &str = "cv_eng_1 [eng] abcde\ncv_eng_2 [eng] ab cd ef gh ij\ncv_dan_3 [dan] på\ncv_dan_4 [dan] nej";
    const HYPOTHESIS: &str =
        "cv_eng_1 [eng] abcde\ncv_eng_2 [deu] ab cd ef gh\ncv_dan_3 [dan] pa\ncv_dan_4 [swe] nej";

    #[test]
    fn transcripts_by_hand() {
        let plain = report(Scheme::Plain, REFERENCE, HYPOTHESIS);
        // 3 + 1 errors of 5 + 14 + 2 + 3 characters.
        assert_eq!(plain.summary[0].scores.cer, Some(4.0 / 24.0));
        assert_eq!((plain.summary[0].scores.languages, plain.summary[0].scores.clips), (2, 4));
        assert_eq!(plain.summary[0].scores.lid_accuracy, Some(0.5));
        assert_eq!((plain.languages[0].code.as_str(), plain.languages[0].place), ("dan", None));
        assert_eq!(plain.languages[1].characters, 19);
        let pairs: Vec<(&str, Option<&str>, usize, usize)> = plain
            .confusions
            .iter()
            .map(|c| (c.spoken.as_str(), c.named.as_deref(), c.clips, c.of))
            .collect();
        assert_eq!(pairs, [("dan", Some("swe"), 1, 2), ("eng", Some("deu"), 1, 2)]);
        let lengths: Vec<(f64, Option<f64>, usize)> =
            plain.lengths.bins.iter().map(|bin| (bin.from, bin.to, bin.clips)).collect();
        assert_eq!(lengths, [(0.0, Some(10.0), 3), (10.0, Some(20.0), 1)]);
        assert!(plain.ml_superb.is_empty() && plain.ml_superb2.is_empty());
    }

    #[test]
    fn each_scheme_has_its_standing() {
        let first = report(Scheme::MlSuperb, REFERENCE, HYPOTHESIS);
        let [results] = first.ml_superb[0].budgets[..] else { panic!("one budget") };
        // The space after the tag counts: 3 of 6 + 15, and 1 of 3 + 4.
        assert_eq!(results.joint, Some(3.0 / 21.0));
        assert_eq!(results.joint_few_shot, Some(1.0 / 7.0));
        assert_eq!(results.joint_lid, Some(0.5));
        assert_eq!(first.summary.len(), 2);
        let second = report(Scheme::MlSuperb2, REFERENCE, HYPOTHESIS);
        let standing = &second.ml_superb2[0];
        assert_eq!(standing.labels, Some(LabelSet::Original));
        // English (0 + 3/14) / 2, Danish (1/2 + 0) / 2.
        assert!((standing.cer - (3.0 / 14.0 / 2.0 + 0.25) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn without_tags_nothing_is_confused() {
        let report = report(Scheme::Plain, "a x\nb y", "a [eng] x\nb [deu] y");
        assert!(report.confusions.is_empty());
        assert!(report.lengths.bins.iter().all(|bin| bin.lid_accuracy.is_none()));
    }
}
