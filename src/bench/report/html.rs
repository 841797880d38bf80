//! A report as one HTML page that loads nothing.

use super::chart::{self, Column};
use super::colour::{CLASSES, Score};
use super::panels::maps;
use super::svg::escape;
use super::table::{self, Table, percent, with_name};
use super::{LanguageRow, LengthUnit, Report};
use crate::data::Condition;
use std::collections::BTreeMap;

const STYLE: &str = include_str!("style.css");
/// Confused pairs listed.
const PAIRS: usize = 24;
/// Most languages in the confusion matrix.
const MATRIX: usize = 16;

/// A section in the making: its anchor, title, and body.
struct Section {
    id: &'static str,
    title: &'static str,
    body: String,
}

pub(super) fn page(report: &Report) -> String {
    let sections: Vec<Section> = [
        overview(report),
        standings(report),
        map(report),
        languages(report),
        confusions(report),
        lengths(report),
        layers(report),
        curves(report),
        provenance(report),
    ]
    .into_iter()
    .flatten()
    .collect();
    let links: String = sections
        .iter()
        .map(|section| format!("<a href=\"#{}\">{}</a>", section.id, section.title))
        .collect();
    let bodies: String = sections
        .iter()
        .map(|section| {
            format!(
                "<section id=\"{}\"><h2>{}</h2>{}</section>\n",
                section.id, section.title, section.body
            )
        })
        .collect();
    let title = escape(&report.title);
    let model = report.provenance.model.as_ref();
    let subtitle = model.map_or_else(
        || "Transcripts scored".to_owned(),
        |model| format!("Model <b>{}</b>", escape(&model.name)),
    );
    let day = report.provenance.date.split('T').next().unwrap_or_default();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"data:,\"/>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><p class=\"brand\">asr · report</p><h1>{title}</h1><p>{subtitle} · asr {} · {}</p></header>\n\
         <nav aria-label=\"Sections\">{links}</nav>\n<main>\n{bodies}</main>\n\
         <footer>Made by <code>asr</code>. This page loads nothing and runs no script.</footer>\n</body>\n</html>\n",
        escape(&report.provenance.version),
        escape(day)
    )
}

/// A table in a frame that scrolls by itself on narrow screens.
fn html_table(table: &Table, caption: &str) -> String {
    let mut html = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table><thead><tr>"
    );
    for (i, column) in table.columns.iter().enumerate() {
        let class = if table.words.contains(&i) { " class=\"text\"" } else { "" };
        html.push_str(&format!("<th scope=\"col\"{class}>{}</th>", escape(column)));
    }
    html.push_str("</tr></thead><tbody>");
    for row in &table.rows {
        html.push_str(if row.is_ours { "<tr class=\"ours\">" } else { "<tr>" });
        for (i, cell) in row.cells.iter().enumerate() {
            let cell = escape(cell);
            html.push_str(&match i {
                0 => format!("<th scope=\"row\">{cell}</th>"),
                i if table.words.contains(&i) => format!("<td class=\"text\">{cell}</td>"),
                _ => format!("<td>{cell}</td>"),
            });
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

fn overview(report: &Report) -> Option<Section> {
    let headline = report.summary.first()?;
    let total = report.summary.iter().map(|row| row.scores.clips).max()?;
    let tile = |value: String, unit: &str, label: &str| {
        format!("<div class=\"tile\"><b>{value}<small>{unit}</small></b><span>{label}</span></div>")
    };
    let of = escape(&headline.name);
    let mut tiles = tile(percent(headline.scores.cer), " %", &format!("character errors, {of}"));
    if headline.scores.lid_accuracy.is_some() {
        tiles.push_str(&tile(
            percent(headline.scores.lid_accuracy),
            " %",
            &format!("languages named right, {of}"),
        ));
    }
    let mut codes: Vec<&str> = report.languages.iter().map(|row| row.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    tiles.push_str(&tile(codes.len().to_string(), "", "languages"));
    let clips = report.languages.iter().map(|row| row.clips).sum::<usize>().max(total);
    tiles.push_str(&tile(clips.to_string(), "", "clips"));
    let seconds: f64 = report.languages.iter().filter_map(|row| row.seconds).sum();
    if seconds > 0.0 {
        let (value, unit) = if seconds < 5_400.0 {
            (format!("{:.0}", seconds / 60.0), " min")
        } else {
            (format!("{:.1}", seconds / 3_600.0), " h")
        };
        tiles.push_str(&tile(value, unit, "of speech"));
    }
    let mut body = format!("<div class=\"tiles\">{tiles}</div>");
    body.push_str(&html_table(&table::summary(report), "Summary"));
    for note in &report.notes {
        body.push_str(&format!("<p class=\"note\">{}</p>", escape(note)));
    }
    Some(Section { id: "summary", title: "Summary", body })
}

fn standings(report: &Report) -> Option<Section> {
    let name = table::our_name(report);
    let mut body = String::new();
    if !report.ml_superb2.is_empty() {
        body.push_str(
            "<p>Published rows of ML-SUPERB 2.0 beside ours, which was scored by the same rules. Rows compare only where data, labels and scorer are the same.</p>",
        );
        body.push_str(&html_table(&table::ml_superb2(&report.ml_superb2, &name), "ML-SUPERB 2.0"));
    }
    if !report.ml_superb.is_empty() {
        body.push_str(
            "<p>Published rows of ML-SUPERB 1.0 beside ours, which was scored by the same rules; percent, after 10 min / 1 h of training. SUPERB_s compares only within its reference set, and rows only where the data is the same.</p>",
        );
        body.push_str(&html_table(&table::ml_superb(&report.ml_superb, &name), "ML-SUPERB 1.0"));
    }
    (!body.is_empty()).then_some(Section { id: "leaderboard", title: "Leaderboard", body })
}

fn legend(score: Score, class: &str) -> String {
    let items: String = (0..CLASSES)
        .map(|i| format!("<li><i class=\"swatch s{i}\"></i>{}</li>", score.label(i)))
        .collect();
    format!(
        "<ul class=\"legend {class}\">{items}<li><i class=\"swatch sx\"></i>not measured</li></ul>"
    )
}

fn map(report: &Report) -> Option<Section> {
    let maps = maps(report);
    if maps.world.is_empty() {
        return None;
    }
    let has_lid = report.languages.iter().any(|row| row.lid_accuracy.is_some());
    let mut body = String::from("<p>Each language where it is at home.");
    body.push_str(if has_lid { " Colour by:</p>" } else { "</p>" });
    if has_lid {
        body.push_str(
            "<input type=\"radio\" name=\"by\" id=\"by-cer\" checked=\"checked\"/><label for=\"by-cer\">character error rate</label>\
             <input type=\"radio\" name=\"by\" id=\"by-lid\"/><label for=\"by-lid\">language named right</label>",
        );
    }
    body.push_str("<div class=\"maps\">");
    body.push_str(&legend(Score::Cer, "for-cer"));
    if has_lid {
        body.push_str(&legend(Score::Lid, "for-lid"));
    }
    body.push_str(&maps.world);
    body.push_str("<div class=\"regions\">");
    for (name, picture) in &maps.regions {
        body.push_str(&format!("<figure><figcaption>{name}</figcaption>{picture}</figure>"));
    }
    body.push_str("</div></div>");
    if !maps.elsewhere.is_empty() {
        body.push_str(&format!(
            "<p class=\"note\">At home nowhere in particular: {}.</p>",
            escape(&maps.elsewhere.join(", "))
        ));
    }
    Some(Section { id: "map", title: "World map", body })
}

/// A bar from 0 to 100 percent with its value; more than 100 has an open end.
fn bar(rate: Option<f64>, speakers: Option<Condition>) -> String {
    let Some(rate) = rate else {
        return "<span class=\"bar none\"><b>–</b></span>".to_owned();
    };
    let kind = match speakers {
        Some(Condition::Unseen) => " unseen",
        Some(Condition::Seen) | None => "",
    };
    let over = if rate > 1.0 { " over" } else { "" };
    format!(
        "<span class=\"bar{kind}{over}\"><i style=\"width:{:.1}%\"></i><b>{:.1}</b></span>",
        100.0 * rate.clamp(0.0, 1.0),
        100.0 * rate
    )
}

fn languages(report: &Report) -> Option<Section> {
    if report.languages.is_empty() {
        return None;
    }
    let has_minutes = report.languages.iter().any(|row| row.training_minutes.is_some());
    let has_conditions = report.languages.iter().any(|row| row.speakers.is_some());
    let order = if has_minutes {
        "by falling minutes of training audio"
    } else {
        "in order of their codes"
    };
    let mut body = format!("<p>Character error rate in percent, {order}.");
    if has_conditions {
        body.push_str(
            " <span class=\"keys\"><span class=\"key\"><i class=\"bar\"></i> speakers also in training</span> <span class=\"key\"><i class=\"bar unseen\"></i> speakers never heard</span></span>",
        );
    }
    body.push_str("</p><ul class=\"bars\">");
    let mut rows: Vec<(&str, Vec<&LanguageRow>)> = Vec::new();
    for row in &report.languages {
        match rows.last_mut() {
            Some((code, group)) if *code == row.code => group.push(row),
            _ => rows.push((&row.code, vec![row])),
        }
    }
    for (code, group) in rows {
        let minutes = group[0].training_minutes.map_or_else(String::new, |minutes| {
            format!("<small class=\"minutes\">{minutes:.1} min</small>")
        });
        body.push_str(&format!(
            "<li><span class=\"name\"><b>{}</b> {}</span>{minutes}<span class=\"pair\">",
            escape(code),
            escape(group[0].name.as_deref().unwrap_or_default())
        ));
        for row in group {
            body.push_str(&bar(row.cer, row.speakers));
        }
        body.push_str("</span></li>");
    }
    body.push_str("</ul><details><summary>All numbers</summary>");
    body.push_str(&html_table(&table::languages(report), "Scores per language"));
    body.push_str("</details>");
    Some(Section { id: "languages", title: "Languages", body })
}

fn confusions(report: &Report) -> Option<Section> {
    if report.confusions.is_empty() {
        return None;
    }
    let mut body = String::from("<div class=\"two\">");
    body.push_str(&format!(
        "<div><h3>Most frequent</h3>{}</div>",
        html_table(&table::confusions(report, PAIRS), "Confused languages")
    ));
    body.push_str(&format!(
        "<div><h3>Who is taken for whom</h3><p>Rows: spoken. Columns: named. Share of the clips of a language, in percent; blue is right, orange wrong. The {MATRIX} languages most often confused at most.</p>{}</div></div>",
        matrix(report)
    ));
    Some(Section { id: "confusions", title: "Confused languages", body })
}

fn matrix(report: &Report) -> String {
    let mut involved: BTreeMap<&str, usize> = BTreeMap::new();
    let mut clips: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &report.languages {
        *clips.entry(&row.code).or_default() += row.clips;
    }
    let mut wrong: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut missed: BTreeMap<&str, usize> = BTreeMap::new();
    for confusion in &report.confusions {
        *involved.entry(&confusion.spoken).or_default() += confusion.clips;
        *missed.entry(&confusion.spoken).or_default() += confusion.clips;
        if let Some(named) = &confusion.named {
            *involved.entry(named).or_default() += confusion.clips;
            wrong.insert((&confusion.spoken, named), confusion.clips);
        }
    }
    let mut codes: Vec<(&str, usize)> =
        involved.into_iter().filter(|(code, _)| clips.contains_key(code)).collect();
    codes.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut codes: Vec<&str> = codes.into_iter().take(MATRIX).map(|(code, _)| code).collect();
    codes.sort_unstable();
    let mut html = String::from(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\"><table class=\"matrix\"><thead><tr><td></td>",
    );
    for code in &codes {
        html.push_str(&format!("<th scope=\"col\">{}</th>", escape(code)));
    }
    html.push_str("</tr></thead><tbody>");
    for spoken in &codes {
        html.push_str(&format!("<tr><th scope=\"row\">{}</th>", escape(spoken)));
        let all = clips.get(spoken).copied().unwrap_or(0);
        for named in &codes {
            let count = if spoken == named {
                all.saturating_sub(missed.get(spoken).copied().unwrap_or(0))
            } else {
                wrong.get(&(*spoken, *named)).copied().unwrap_or(0)
            };
            if count == 0 || all == 0 {
                html.push_str("<td></td>");
                continue;
            }
            let share = count as f64 / all as f64;
            let kind = if spoken == named { "right" } else { "wrong" };
            let strong = if share > 0.55 { " strong" } else { "" };
            html.push_str(&format!(
                "<td class=\"{kind}{strong}\" style=\"--s:{share:.2}\" title=\"{} named {}: {count} of {all} clips\">{:.0}</td>",
                escape(&with_name(spoken)),
                escape(&with_name(named)),
                100.0 * share
            ));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

fn lengths(report: &Report) -> Option<Section> {
    let bins = &report.lengths.bins;
    if bins.is_empty() {
        return None;
    }
    let (title, unit) = match report.lengths.unit {
        LengthUnit::Seconds => ("Length of the clip", "seconds of audio"),
        LengthUnit::Characters => ("Length of the reference", "characters of the reference"),
    };
    let plot = |label: &str, class: &str, pick: fn(&super::LengthBin) -> Option<f64>| {
        let columns: Vec<Column> = bins
            .iter()
            .map(|bin| Column {
                label: table::length_label(bin.from, bin.to),
                note: format!("n={}", bin.clips),
                value: pick(bin),
            })
            .collect();
        format!(
            "<figure><figcaption>{label} by {unit}</figcaption>{}</figure>",
            chart::columns(&format!("{label} by {unit}"), &columns, true, class)
        )
    };
    let mut body = String::from("<div class=\"two\">");
    body.push_str(&plot("Character error rate, %,", "fill-cer", |bin| bin.cer));
    if bins.iter().any(|bin| bin.lid_accuracy.is_some()) {
        body.push_str(&plot("Language named right, %,", "fill-lid", |bin| bin.lid_accuracy));
    }
    body.push_str("</div>");
    Some(Section { id: "lengths", title, body })
}

fn layers(report: &Report) -> Option<Section> {
    if report.layer_weights.is_empty() {
        return None;
    }
    let mut body = String::from(
        "<p>Weights of the layers in the weighted sum; 0 is the input of the first layer.</p><div class=\"two\">",
    );
    for layers in &report.layer_weights {
        let columns: Vec<Column> = layers
            .weights
            .iter()
            .enumerate()
            .map(|(i, weight)| Column {
                label: i.to_string(),
                note: String::new(),
                value: Some(*weight).filter(|weight| weight.is_finite()),
            })
            .collect();
        body.push_str(&format!(
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(&layers.name),
            chart::columns(&layers.name, &columns, false, "fill-cer")
        ));
    }
    body.push_str("</div>");
    Some(Section { id: "layers", title: "Layer weights", body })
}

fn curves(report: &Report) -> Option<Section> {
    if report.curves.is_empty() {
        return None;
    }
    let mut body = String::from("<div class=\"two\">");
    for (is_share, title) in [(false, "Training loss"), (true, "Held-out clips, percent")] {
        let shown: Vec<_> =
            report.curves.iter().filter(|curve| curve.is_share == is_share).collect();
        if shown.is_empty() {
            continue;
        }
        let keys: String = shown
            .iter()
            .enumerate()
            .map(|(i, curve)| {
                format!(
                    "<li><svg class=\"key-line\" viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"line series-{i}\" d=\"M0 4H24\"/></svg>{}</li>",
                    escape(&curve.name)
                )
            })
            .collect();
        body.push_str(&format!(
            "<figure><figcaption>{title}</figcaption>{}<ul class=\"legend\">{keys}</ul></figure>",
            chart::curves(title, &shown)
        ));
    }
    body.push_str("</div>");
    Some(Section { id: "curves", title: "Training", body })
}

fn provenance(report: &Report) -> Option<Section> {
    let rows: String = table::provenance(report)
        .iter()
        .map(|(label, value)| {
            format!("<dt>{}</dt><dd><code>{}</code></dd>", escape(label), escape(value))
        })
        .collect();
    let body = format!("<dl>{rows}</dl>");
    Some(Section { id: "provenance", title: "How these numbers came about", body })
}
