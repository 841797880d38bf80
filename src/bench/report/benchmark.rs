//! From the runs of a benchmark to a report.

use super::{CurveError, LayerWeights, Place, Provenance, Report, SummaryRow, read_curves};
use crate::bench::ml_superb::Release;
use crate::bench::ml_superb::run::{RunFiles, Scored, System, Track, standings};
use crate::text::Language;
use std::collections::BTreeMap;

impl Report {
    /// What the runs of ML-SUPERB found. Languages, confusions, lengths and curves are those of the run
    /// that both recognises and identifies with the lowest error rate; `minutes` of training audio
    /// per language.
    ///
    /// `None` without a run.
    ///
    /// # Errors
    /// [`CurveError`] if the log of that run cannot be read.
    pub fn of_benchmark(
        systems: &[System],
        release: &Release,
        minutes: &BTreeMap<Language, f64>,
        place: impl Fn(Language) -> Option<Place>,
        provenance: Provenance,
    ) -> Result<Option<Self>, CurveError> {
        let runs =
            || systems.iter().flat_map(|system| system.runs.iter().map(move |run| (system, run)));
        let error = |run: &Scored| {
            let of = |utterances: &[crate::text::UtteranceScore]| {
                let errors: usize = utterances.iter().map(|u| u.errors).sum();
                let characters: usize = utterances.iter().map(|u| u.characters).sum();
                errors as f64 / characters.max(1) as f64
            };
            let does_both = matches!(run.job.track, Track::AsrLid | Track::Second);
            (u8::from(!does_both), of(&run.utterances))
        };
        let best = runs().min_by(|(_, a), (_, b)| {
            let (a, b) = (error(a), error(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        });
        let Some((main_system, main)) = best else { return Ok(None) };
        let labels = Some(release.labels);
        let mut report =
            Self::of_transcripts(&main.report, &main.utterances, labels, place, provenance);
        for row in &mut report.languages {
            let language = Language::lookup(&row.code);
            row.training_minutes = language.and_then(|code| minutes.get(&code).copied());
        }
        report.languages.sort_by(|a, b| {
            let minutes = |minutes: Option<f64>| minutes.unwrap_or(0.0);
            minutes(b.training_minutes)
                .total_cmp(&minutes(a.training_minutes))
                .then_with(|| a.code.cmp(&b.code))
        });
        report.title = "ML-SUPERB".to_owned();
        report.notes.insert(
            0,
            format!(
                "Languages, confusions, lengths and curves below are those of {}: {}.",
                main_system.name,
                main.name()
            ),
        );
        // What the page is about comes first.
        let is_main = |run: &Scored| std::ptr::eq(run, main);
        let others = runs().filter(|(_, run)| !is_main(run));
        report.summary = std::iter::once((main_system, main))
            .chain(others)
            .flat_map(|(system, run)| {
                let labels = None;
                let provenance = report.provenance.clone();
                let one = Self::of_transcripts(
                    &run.report,
                    &run.utterances,
                    labels,
                    |_| None,
                    provenance,
                );
                let name = format!("{}: {}", system.name, run.name());
                one.summary.into_iter().map(move |row| {
                    let of_all = row.name == "all" || row.name == "trained languages";
                    let name = if of_all { name.clone() } else { format!("{name}, {}", row.name) };
                    SummaryRow { name, ..row }
                })
            })
            .collect();
        (report.ml_superb, report.ml_superb2) = standings(systems, release);
        report.layer_weights = runs()
            .filter(|(_, run)| !run.facts.layer_weights.is_empty())
            .map(|(system, run)| LayerWeights {
                name: format!("{}: {}", system.name, run.name()),
                weights: run.facts.layer_weights.clone(),
            })
            .collect();
        report.curves = read_curves(&RunFiles::of(&main.folder).log())?;
        Ok(Some(report))
    }
}
