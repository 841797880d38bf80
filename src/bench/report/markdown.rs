//! A report as Markdown.

use super::table::{self, Table};
use super::{LengthUnit, Report};

/// Confusions listed.
const CONFUSIONS: usize = 20;

pub(super) fn document(report: &Report) -> String {
    let mut text = format!("# {}\n", escape(&report.title));
    section(&mut text, "Summary", &table::summary(report));
    let name = table::our_name(report);
    if !report.ml_superb2.is_empty() {
        section(&mut text, "Beside ML-SUPERB 2.0", &table::ml_superb2(&report.ml_superb2, &name));
        text.push_str("\nRows compare only where data, labels and scorer are the same.\n");
    }
    if !report.ml_superb.is_empty() {
        section(&mut text, "Beside ML-SUPERB 1.0", &table::ml_superb(&report.ml_superb, &name));
        text.push_str(
            "\n10 min / 1 h of training. SUPERB_s compares only within its reference set.\n",
        );
    }
    section(&mut text, "Languages", &table::languages(report));
    if !report.confusions.is_empty() {
        let most = table::confusions(report, CONFUSIONS);
        section(&mut text, "Languages taken for another", &most);
    }
    if !report.lengths.bins.is_empty() {
        let title = match report.lengths.unit {
            LengthUnit::Seconds => "By length of the clip",
            LengthUnit::Characters => "By length of the reference",
        };
        section(&mut text, title, &table::lengths(report));
    }
    if !report.layer_weights.is_empty() {
        text.push_str("\n## Layer weights\n\n");
        for layers in &report.layer_weights {
            let weights: Vec<String> = layers.weights.iter().map(|w| format!("{w:.3}")).collect();
            text.push_str(&format!("- {}: {}\n", escape(&layers.name), weights.join(", ")));
        }
    }
    if !report.notes.is_empty() {
        text.push_str("\n## Notes\n\n");
        for note in &report.notes {
            text.push_str(&format!("- {}\n", escape(note)));
        }
    }
    text.push_str("\n## How these numbers came about\n\n");
    for (label, value) in table::provenance(report) {
        text.push_str(&format!("- {}: {}\n", escape(&label), code(&value)));
    }
    text
}

fn section(text: &mut String, title: &str, table: &Table) {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    text.push_str(&format!("\n## {title}\n\n"));
    text.push_str(&line(table.columns.iter().map(|column| (*column).to_owned()).collect()));
    text.push_str(&format!("|{}\n", "---|".repeat(table.columns.len())));
    for row in &table.rows {
        let cells = row
            .cells
            .iter()
            .map(|cell| if row.is_ours { format!("**{}**", escape(cell)) } else { escape(cell) });
        text.push_str(&line(cells.collect()));
    }
}

/// Text without meaning to Markdown, on one line.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#') {
            escaped.push('\\');
        }
        escaped.push(if c.is_control() { ' ' } else { c });
    }
    escaped
}

/// Text as code, whatever backticks are in it.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_stays_text() {
        assert_eq!(escape("a|b *c* <d>\n"), "a\\|b \\*c\\* \\<d\\> ");
        assert_eq!(code("a `b`"), "`` a `b` ``");
    }
}
