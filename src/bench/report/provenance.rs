//! How numbers came about.

use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How the numbers of a report came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provenance {
    /// The command, as it can be typed again.
    pub command: String,
    /// Version of this program.
    pub version: String,
    /// Revision of its source, where the build knew it.
    pub revision: Option<String>,
    /// When, UTC (ISO 8601).
    pub date: String,
    /// The model; `None` for transcripts that came from elsewhere.
    pub model: Option<ModelIdentity>,
    /// Arithmetic of matrix products, where a model was run.
    pub precision: Option<String>,
    /// Where the labels come from.
    pub labels: String,
    /// The rules of comparing and averaging.
    pub scorer: String,
    /// Files that were read.
    pub inputs: Vec<Input>,
}

/// Which model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelIdentity {
    /// Its name.
    pub name: String,
    /// SHA-256 of its weights, hexadecimal.
    pub sha256: String,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Input {
    /// What it was read for.
    pub role: String,
    /// As the command names it.
    pub file: String,
    /// SHA-256 of its content, hexadecimal.
    pub sha256: String,
}

impl Provenance {
    /// This program, now; the rest as given.
    #[must_use]
    pub fn now(command: String, labels: String, scorer: String) -> Self {
        Self {
            command,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // Set by whoever builds a release: ASR_REVISION=$(git rev-parse HEAD) cargo build
            revision: option_env!("ASR_REVISION").map(str::to_owned),
            date: utc_date(SystemTime::now()),
            model: None,
            precision: None,
            labels,
            scorer,
            inputs: Vec::new(),
        }
    }
}

/// A command line that a shell takes back: the program's name, then its arguments, quoted where needed.
#[must_use]
pub fn command_line(program: &str, arguments: impl Iterator<Item = String>) -> String {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '=' | ',' | ':' | '+');
    let mut line = program.to_owned();
    for argument in arguments {
        line.push(' ');
        if !argument.is_empty() && argument.chars().all(plain) {
            line.push_str(&argument);
        } else {
            line.push_str(&format!("'{}'", argument.replace('\'', "'\\''")));
        }
    }
    line
}

/// A time as `2026-03-01T12:00:00Z`; times before 1970 are taken as 1970.
#[must_use]
pub fn utc_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that the leap day ends one; 400 years have 146 097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_by_hand() {
        let date = |seconds| utc_date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(date(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn commands_can_be_typed_again() {
        let arguments = ["score", "my ref.txt", "it's", "", "--scheme=plain"].map(str::to_owned);
        assert_eq!(
            command_line("asr", arguments.into_iter()),
            r"asr score 'my ref.txt' 'it'\''s' '' --scheme=plain"
        );
    }
}
