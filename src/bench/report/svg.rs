//! Text and numbers as they stand in HTML and SVG.

/// Text for an element or a quoted attribute. Control characters that HTML forbids become spaces.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() && !matches!(c, '\t' | '\n') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A coordinate: a tenth of a unit is finer than a pixel.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    match text.strip_suffix(".0") {
        Some("-0") => "0".to_owned(),
        Some(whole) => whole.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_stays_text() {
        assert_eq!(
            escape("<script>'a' & \"b\"\u{0}</script>"),
            "&lt;script&gt;&#39;a&#39; &amp; &quot;b&quot; &lt;/script&gt;"
        );
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([12.0, 0.04, -0.04, -3.26].map(number), ["12", "0", "0", "-3.3"]);
    }
}
