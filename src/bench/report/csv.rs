//! Scores per language as comma-separated values.

use super::LanguageRow;
use crate::data::Condition;

const HEADER: &str = "language,name,latitude,longitude,training_minutes,speakers,clips,seconds,characters,cer,wer,lid_accuracy";

pub(super) fn languages(rows: &[LanguageRow]) -> String {
    let mut text = format!("{HEADER}\r\n");
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v}"));
        let speakers = match row.speakers {
            Some(Condition::Seen) => "seen",
            Some(Condition::Unseen) => "unseen",
            None => "",
        };
        let cells = [
            field(&row.code),
            field(row.name.as_deref().unwrap_or_default()),
            number(row.place.map(|place| place.latitude)),
            number(row.place.map(|place| place.longitude)),
            number(row.training_minutes),
            speakers.to_owned(),
            row.clips.to_string(),
            number(row.seconds),
            row.characters.to_string(),
            number(row.cer),
            number(row.wer),
            number(row.lid_accuracy),
        ];
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// A text as one field: quoted where it holds a separator (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_needed() {
        assert_eq!(field("Pa'o Karen"), "Pa'o Karen");
        assert_eq!(field("Norwegian, \"Bokmål\""), "\"Norwegian, \"\"Bokmål\"\"\"");
    }
}
