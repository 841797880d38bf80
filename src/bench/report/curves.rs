//! Curves of a training run, from its `log.jsonl`.

use serde::Serialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Most points kept of one curve; neighbours are averaged beyond.
const MAX_POINTS: usize = 240;
/// Longest line of a log that is read.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// What is drawn, such as `loss` or `CER, seen speakers`.
    pub name: String,
    /// Whether values are shares of 1, to be shown in percent.
    pub is_share: bool,
    /// Step and value.
    pub points: Vec<(u64, f64)>,
}

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CurveError {
    /// The file.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line that is no JSON object with a step.
    #[error("`{}`, line {line}: not a JSON object with a `step`", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// Nothing to draw.
    #[error("`{}` has neither losses nor scores", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Loss, and scores on held-out clips, of a log that `asr finetune` wrote.
///
/// A last line that was cut off is left out; values that are not finite are too.
///
/// # Errors
/// [`CurveError`] naming file and line.
pub fn read_curves(path: &Path) -> Result<Vec<Curve>, CurveError> {
    let read = |source| CurveError::Read { path: path.to_owned(), source };
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(read)?);
    let wanted: [(&str, &[&str], bool); 6] = [
        ("loss", &["loss"], false),
        ("loss, held out", &["dev", "loss"], false),
        ("CER, seen speakers", &["dev", "seen", "cer"], true),
        ("CER, unseen speakers", &["dev", "unseen", "cer"], true),
        ("LID, seen speakers", &["dev", "seen", "lid_accuracy"], true),
        ("LID, unseen speakers", &["dev", "unseen", "lid_accuracy"], true),
    ];
    let mut points: [Vec<(u64, f64)>; 6] = Default::default();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let longest = MAX_LINE_BYTES as u64 + 1;
        let n = reader.by_ref().take(longest).read_until(b'\n', &mut bytes).map_err(read)?;
        if n == 0 {
            break;
        }
        let is_whole = bytes.ends_with(b"\n");
        let invalid = || CurveError::Line { path: path.to_owned(), line };
        if bytes.len() > MAX_LINE_BYTES {
            return Err(invalid());
        }
        let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
            if is_whole {
                return Err(invalid());
            }
            break;
        };
        let step = value["step"].as_u64().ok_or_else(invalid)?;
        for ((_, keys, _), points) in wanted.iter().zip(&mut points) {
            let found = keys.iter().try_fold(&value, |value, key| value.get(key));
            if let Some(number) = found.and_then(Value::as_f64).filter(|v| v.is_finite()) {
                points.push((step, number));
            }
        }
    }
    let curves: Vec<Curve> = wanted
        .iter()
        .zip(points)
        .filter(|(_, points)| points.len() > 1)
        .map(|((name, _, is_share), points)| Curve {
            name: (*name).to_owned(),
            is_share: *is_share,
            points: thinned(&points),
        })
        .collect();
    if curves.is_empty() {
        return Err(CurveError::Empty { path: path.to_owned() });
    }
    Ok(curves)
}

/// At most [`MAX_POINTS`] points: the means of equal stretches.
fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let stretch = points.len().div_ceil(MAX_POINTS).max(1);
    points
        .chunks(stretch)
        .filter_map(|chunk| {
            let n = chunk.len() as f64;
            let step = chunk.iter().map(|(step, _)| *step as f64).sum::<f64>() / n;
            let value = chunk.iter().map(|(_, value)| value).sum::<f64>() / n;
            value.is_finite().then_some((step.round() as u64, value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Curve>, CurveError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text).expect("written");
        read_curves(&path)
    }

    #[test]
    fn losses_and_scores_are_found_and_a_cut_line_is_left_out() {
        let curves = read(
            "{\"step\":1,\"loss\":4.0}\n{\"step\":2,\"loss\":null}\n{\"step\":3,\"loss\":2.0}\n\
             {\"step\":3,\"dev\":{\"seen\":{\"cer\":0.9,\"lid_accuracy\":0.1}}}\n\
             {\"step\":6,\"dev\":{\"seen\":{\"cer\":0.8,\"lid_accuracy\":null}}}\n{\"step\":7,\"lo",
        )
        .expect("a log");
        assert_eq!(curves.len(), 2);
        assert_eq!(curves[0].points, [(1, 4.0), (3, 2.0)]);
        assert_eq!((curves[1].name.as_str(), curves[1].is_share), ("CER, seen speakers", true));
    }

    #[test]
    fn faults_name_their_line() {
        let error = read("{\"step\":1,\"loss\":4.0}\nnonsense\n").expect_err("no JSON");
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(matches!(read("{\"loss\":1}\n"), Err(CurveError::Line { line: 1, .. })));
        assert!(matches!(read("{\"step\":1}\n"), Err(CurveError::Empty { .. })));
    }

    #[test]
    fn long_curves_are_thinned_to_their_means() {
        let points: Vec<(u64, f64)> = (0..1_000).map(|i| (i, i as f64)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_POINTS);
        assert_eq!(thin[0], (2, 2.0));
    }
}
