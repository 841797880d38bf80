//! A score report as text for people: percent, one line per language.

use std::fmt::Write;

use super::{MlSuperb2Report, MlSuperbGroup, MlSuperbReport, PlainReport, ScoreReport, Variant};

impl ScoreReport {
    /// The report as an aligned table, percent to one decimal as the benchmarks publish them, `-` for what is absent.
    ///
    /// Lines end with a newline; languages are sorted by code, the total comes first.
    pub fn to_table(&self) -> String {
        match self {
            Self::Plain(report) => plain_table(report),
            Self::MlSuperb(report) => ml_superb_table(report),
            Self::MlSuperb2(report) => ml_superb2_table(report),
        }
    }
}

fn plain_table(report: &PlainReport) -> String {
    let mut rows = vec![row(["language", "utterances", "CER %", "WER %", "LID %"])];
    let scores = |name: &str, utterances: usize, cer, wer, lid| {
        [name.to_owned(), utterances.to_string(), percent(cer), percent(wer), percent(lid)].to_vec()
    };
    rows.push(scores("all", report.utterances, report.cer, report.wer, report.lid_accuracy));
    for (name, language) in &report.per_language {
        rows.push(scores(
            name,
            language.utterances,
            language.cer,
            language.wer,
            language.lid_accuracy,
        ));
    }
    aligned(&rows)
}

fn ml_superb_table(report: &MlSuperbReport) -> String {
    let mut rows = vec![row(["language", "utterances", "CER %", "LID %"])];
    let scores = |name: &str, group: &MlSuperbGroup| {
        [
            name.to_owned(),
            group.utterances.to_string(),
            percent(group.cer),
            percent(group.lid_accuracy),
        ]
        .to_vec()
    };
    for (name, group) in [("trained", &report.trained), ("reserved", &report.reserved)] {
        rows.extend(group.as_ref().map(|group| scores(name, group)));
    }
    rows.extend(report.per_language.iter().map(|(name, group)| scores(name, group)));
    aligned(&rows)
}

fn ml_superb2_table(report: &MlSuperb2Report) -> String {
    let mut rows =
        vec![row(["language", "utterances", "CER %", "LID %", "worst 15 CER %", "CER StD %"])];
    rows.push(vec![
        "all".to_owned(),
        report.utterances.to_string(),
        percent(Some(report.cer)),
        percent(Some(report.lid_accuracy)),
        percent(Some(report.worst15_cer)),
        percent(report.std_cer),
    ]);
    for (name, language) in &report.per_language {
        rows.push(vec![
            name.clone(),
            language.utterances.to_string(),
            percent(Some(language.cer)),
            percent(Some(language.lid_accuracy)),
        ]);
    }
    let mut table = aligned(&rows);
    let scorer = match report.variant {
        Variant::Recipe => "recipe",
        Variant::Server => "server",
    };
    write_line(&mut table, &format!("scorer: ml-superb2 {scorer}"));
    if !report.skipped.is_empty() {
        write_line(
            &mut table,
            &format!("skipped, no text in the reference: {}", report.skipped.join(", ")),
        );
    }
    if !report.languages_without_text.is_empty() {
        write_line(
            &mut table,
            &format!("no scored utterance: {}", report.languages_without_text.join(", ")),
        );
    }
    table
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".to_owned(), |fraction| format!("{:.1}", 100.0 * fraction))
}

fn write_line(table: &mut String, line: &str) {
    writeln!(table, "{line}").expect("writing to a string does not fail");
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..n_columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut table = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, &width))| {
                    if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                })
                .collect();
        write_line(&mut table, cells.join("  ").trim_end());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{Scheme, Variant, score};

    #[test]
    fn tables_by_hand() {
        let (reference, hypothesis) =
            ("cv_eng_1 [eng] ab\ncv_dan_2 [dan] !", "cv_eng_1 [eng] ac\ncv_dan_2 [eng] !");
        let table = |scheme| {
            score(reference, hypothesis, scheme, Variant::Recipe).expect("valid").to_table()
        };
        assert_eq!(
            table(Scheme::Plain),
            "\
language  utterances  CER %  WER %  LID %
all                2   33.3   50.0   50.0
dan                1    0.0    0.0    0.0
eng                1   50.0  100.0  100.0
"
        );
        assert_eq!(
            table(Scheme::MlSuperb),
            "\
language  utterances  CER %  LID %
trained            1   33.3  100.0
reserved           1    0.0    0.0
dan                1    0.0    0.0
eng                1   33.3  100.0
"
        );
        assert_eq!(
            table(Scheme::MlSuperb2),
            "\
language  utterances  CER %  LID %  worst 15 CER %  CER StD %
all                1   50.0  100.0             3.3          -
eng                1   50.0  100.0
scorer: ml-superb2 recipe
skipped, no text in the reference: cv_dan_2
no scored utterance: dan
"
        );
    }
}
