//! The tables of a report, the same in HTML and Markdown.

use super::{LengthUnit, Report, Results, Standing, Standing2, SummaryRow};
use crate::bench::ml_superb::published::{
    FBANK, FINDINGS, LabelSet, ML_SUPERB_ROWS, ML_SUPERB2_ROWS, PAPER_2023, PublishedRow,
};
use crate::data::Condition;
use crate::text::{Language, SuperbResults, Variant};

/// A table of text: the first column names the row, the others mostly hold numbers.
pub(super) struct Table {
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Row>,
    /// Columns that hold words, the first aside.
    pub(super) words: &'static [usize],
}

pub(super) struct Row {
    pub(super) cells: Vec<String>,
    /// Whether the row is ours among those of others.
    pub(super) is_ours: bool,
}

fn row(cells: Vec<String>) -> Row {
    Row { cells, is_ours: false }
}

/// Percent to one decimal, a dash for what is absent.
pub(super) fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.1}", 100.0 * rate))
}

fn published(value: f64) -> String {
    format!("{value:.1}")
}

/// `eng English`, or the code alone.
pub(super) fn with_name(code: &str) -> String {
    match Language::lookup(code).and_then(|language| language.name()) {
        Some(name) => format!("{code} {name}"),
        None => code.to_owned(),
    }
}

pub(super) fn summary(report: &Report) -> Table {
    let rows = report.summary.iter().map(|SummaryRow { name, scores: group }| {
        row(vec![
            name.clone(),
            percent(group.cer),
            percent(group.lid_accuracy),
            percent(group.wer),
            percent(group.macro_cer),
            percent(group.macro_lid_accuracy),
            group.languages.to_string(),
            group.clips.to_string(),
        ])
    });
    Table {
        columns: vec![
            "clips of",
            "CER %",
            "LID %",
            "WER %",
            "CER %, mean of languages",
            "LID %, mean of languages",
            "languages",
            "clips",
        ],
        rows: rows.collect(),
        words: &[],
    }
}

fn scorer(variant: Variant) -> String {
    match variant {
        Variant::Recipe => "recipe".to_owned(),
        Variant::Server => "server".to_owned(),
    }
}

/// Ours first, then the published rows of ML-SUPERB 2.0; `name` is what a system without a name is
/// called.
pub(super) fn ml_superb2(ours: &[Standing2], name: &str) -> Table {
    let our_row = |ours: &Standing2| Row {
        cells: vec![
            ours.system.as_deref().unwrap_or(name).to_owned(),
            percent(Some(ours.cer)),
            percent(Some(ours.lid_accuracy)),
            percent(Some(ours.worst15_cer)),
            percent(ours.std_cer),
            percent(ours.dialects.map(|[cer, _]| cer)),
            percent(ours.dialects.map(|[_, lid]| lid)),
            ours.labels.map_or("–", LabelSet::name).to_owned(),
            scorer(ours.scorer),
            ours.data.clone(),
        ],
        is_ours: true,
    };
    let mut rows: Vec<Row> = ours.iter().map(our_row).collect();
    rows.extend(ML_SUPERB2_ROWS.iter().map(|published_row| {
        let mut cells = vec![format!("MMS-1B, {}", published_row.model)];
        cells.extend(published_row.columns.map(published));
        cells.extend([
            published_row.labels.name().to_owned(),
            scorer(published_row.scorer),
            "ML-SUPERB 2.0 dev".to_owned(),
        ]);
        row(cells)
    }));
    Table {
        columns: vec![
            "system",
            "CER %",
            "LID %",
            "worst 15 CER %",
            "CER StD %",
            "dialect CER %",
            "dialect LID %",
            "labels",
            "scorer",
            "data",
        ],
        rows,
        words: &[7, 8, 9],
    }
}

/// Ours first, then the published rows of ML-SUPERB 1.0, `10 min / 1 h`; `name` is what a system
/// without a name is called.
pub(super) fn ml_superb(ours: &[Standing], name: &str) -> Table {
    let absent = || percent(None);
    let our_row = |ours: &Standing| {
        let cell = |column: usize| -> String {
            let values = ours.budgets.iter().map(|results| results.columns()[column]);
            if values.clone().all(|value| value.is_none()) {
                return absent();
            }
            values.map(percent).collect::<Vec<String>>().join(" / ")
        };
        let mut cells = vec![ours.system.as_deref().unwrap_or(name).to_owned()];
        cells.extend((0..7).map(cell));
        let scores = superb_scores(ours);
        let is_scored = scores.iter().any(Option::is_some);
        cells.push(if is_scored {
            let score = |score: &Option<f64>| score.map_or_else(absent, published);
            scores.iter().map(score).collect::<Vec<String>>().join(" / ")
        } else {
            absent()
        });
        cells.push(if is_scored { FINDINGS.name.to_owned() } else { absent() });
        Row { cells, is_ours: true }
    };
    let mut rows: Vec<Row> = ours.iter().map(our_row).collect();
    let both = |pick: fn(&SuperbResults) -> f64, results: &[SuperbResults; 2]| {
        format!("{:.1} / {:.1}", pick(&results[0]), pick(&results[1]))
    };
    let cells = |model: &str, set: &str, results: &[SuperbResults; 2], scores: [Option<f64>; 2]| {
        let score = |score: Option<f64>| score.map_or_else(absent, published);
        row(vec![
            model.to_owned(),
            both(|r| r.monolingual, results),
            both(|r| r.multilingual, results),
            both(|r| r.multilingual_few_shot, results),
            both(|r| r.lid, results),
            both(|r| r.joint_lid, results),
            both(|r| r.joint, results),
            both(|r| r.joint_few_shot, results),
            format!("{} / {}", score(scores[0]), score(scores[1])),
            set.to_owned(),
        ])
    };
    rows.extend(ML_SUPERB_ROWS.iter().map(|published_row| {
        let PublishedRow { model, results, set } = published_row;
        cells(model, set.name, results, set.scores(results))
    }));
    for set in [&FINDINGS, &PAPER_2023] {
        rows.push(cells("FBANK (log-mel features)", set.name, &FBANK, set.scores(&FBANK)));
    }
    Table {
        columns: vec![
            "system",
            "mono CER/PER",
            "ASR CER",
            "ASR few-shot CER",
            "LID acc.",
            "joint LID acc.",
            "joint CER",
            "joint few-shot CER",
            "SUPERB_s",
            "reference set",
        ],
        rows,
        words: &[9],
    }
}

/// SUPERB_s of each budget whose columns are all there, on the published corpus.
fn superb_scores(ours: &Standing) -> Vec<Option<f64>> {
    if !ours.is_published_corpus || ours.budgets.len() != 2 {
        return Vec::new();
    }
    let score = |(budget, results): (usize, &Results)| {
        let mut percent = [0.0; 7];
        for (percent, value) in percent.iter_mut().zip(results.columns()) {
            *percent = 100.0 * value?;
        }
        FINDINGS.score(budget, &SuperbResults::from_columns(percent))
    };
    ours.budgets.iter().enumerate().map(score).collect()
}

pub(super) fn speakers(condition: Option<Condition>) -> &'static str {
    match condition {
        Some(Condition::Seen) => "seen",
        Some(Condition::Unseen) => "unseen",
        None => "–",
    }
}

pub(super) fn languages(report: &Report) -> Table {
    let rows = report.languages.iter().map(|language| {
        let number = |value: Option<f64>, decimals: usize| {
            value.map_or_else(|| percent(None), |value| format!("{value:.decimals$}"))
        };
        row(vec![
            with_name(&language.code),
            number(language.training_minutes, 1),
            speakers(language.speakers).to_owned(),
            language.clips.to_string(),
            number(language.seconds, 0),
            percent(language.cer),
            percent(language.wer),
            percent(language.lid_accuracy),
        ])
    });
    Table {
        columns: vec![
            "language",
            "minutes trained on",
            "speakers",
            "clips",
            "seconds",
            "CER %",
            "WER %",
            "LID %",
        ],
        rows: rows.collect(),
        words: &[2],
    }
}

pub(super) fn confusions(report: &Report, most: usize) -> Table {
    let rows = report.confusions.iter().take(most).map(|confusion| {
        row(vec![
            with_name(&confusion.spoken),
            confusion.named.as_deref().map_or_else(|| "no language".to_owned(), with_name),
            confusion.clips.to_string(),
            format!("{:.0} %", 100.0 * confusion.clips as f64 / confusion.of.max(1) as f64),
        ])
    });
    Table {
        columns: vec!["spoken", "named", "clips", "of the language"],
        rows: rows.collect(),
        words: &[1],
    }
}

/// `2–3 s`, `over 240 characters`.
pub(super) fn length_label(from: f64, to: Option<f64>) -> String {
    match to {
        Some(to) => format!("{from}–{to}"),
        None => format!("{from}+"),
    }
}

pub(super) fn lengths(report: &Report) -> Table {
    let rows = report.lengths.bins.iter().map(|bin| {
        row(vec![
            length_label(bin.from, bin.to),
            bin.clips.to_string(),
            percent(bin.cer),
            percent(bin.lid_accuracy),
        ])
    });
    let unit = match report.lengths.unit {
        LengthUnit::Seconds => "seconds",
        LengthUnit::Characters => "characters",
    };
    Table { columns: vec![unit, "clips", "CER %", "LID %"], rows: rows.collect(), words: &[] }
}

/// Where, how and by whom: label and value.
pub(super) fn provenance(report: &Report) -> Vec<(String, String)> {
    let p = &report.provenance;
    let mut rows = vec![("command".to_owned(), p.command.clone())];
    if let Some(model) = &p.model {
        rows.push(("model".to_owned(), model.name.clone()));
        rows.push(("model SHA-256".to_owned(), model.sha256.clone()));
    }
    if let Some(precision) = &p.precision {
        rows.push(("precision".to_owned(), precision.clone()));
    }
    let revision = p.revision.as_deref().map_or_else(String::new, |r| format!(", revision {r}"));
    rows.push(("program".to_owned(), format!("asr {}{revision}", p.version)));
    rows.push(("date".to_owned(), p.date.clone()));
    rows.push(("labels".to_owned(), p.labels.clone()));
    rows.push(("scorer".to_owned(), p.scorer.clone()));
    rows.extend(
        p.inputs.iter().map(|input| {
            (input.role.clone(), format!("{} (SHA-256 {})", input.file, input.sha256))
        }),
    );
    rows
}

/// What our row is called.
pub(super) fn our_name(report: &Report) -> String {
    match &report.provenance.model {
        Some(model) => format!("asr, model {}", model.name),
        None => "these transcripts".to_owned(),
    }
}
