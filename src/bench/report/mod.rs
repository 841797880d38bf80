//! What a benchmark found, as pages: HTML for reading, Markdown for pasting, JSON and CSV for other programs.
//!
//! The page is one file that loads nothing: styles and drawings are inside, there is no script, and its own
//! content policy forbids the rest.

mod benchmark;
mod chart;
mod colour;
mod csv;
mod curves;
mod gather;
mod html;
mod map;
mod markdown;
mod panels;
mod place;
mod provenance;
mod svg;
mod table;

pub use curves::{Curve, CurveError, read_curves};
pub use map::Place;
pub use provenance::{Input, ModelIdentity, Provenance, command_line, utc_date};

use super::Group;
use super::ml_superb::published::LabelSet;
use crate::data::Condition;
use crate::files;
use crate::text::Variant;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Version of the layout of `report.json`.
pub const SCHEMA: u32 = 1;

/// The files that [`Report::write`] makes.
pub const FILES: [&str; 4] = ["report.html", "report.md", "report.json", "report.csv"];

/// Everything that the pages show; rates are fractions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was measured.
    pub title: String,
    /// How the numbers came about.
    pub provenance: Provenance,
    /// Scores over groups of clips.
    pub summary: Vec<SummaryRow>,
    /// Ours among the published rows of ML-SUPERB 1.0, where its rules were followed.
    pub ml_superb: Vec<Standing>,
    /// Ours among the published rows of ML-SUPERB 2.0, where its rules were followed.
    pub ml_superb2: Vec<Standing2>,
    /// Scores per language and kind of speaker, by falling minutes of training.
    pub languages: Vec<LanguageRow>,
    /// Languages taken for another, the most frequent first.
    pub confusions: Vec<Confusion>,
    /// Scores by length.
    pub lengths: Lengths,
    /// Weights of the layers in a weighted sum, where given.
    pub layer_weights: Vec<LayerWeights>,
    /// Curves of training, where given.
    pub curves: Vec<Curve>,
    /// What a reader should know: what was left out, what does not compare.
    pub notes: Vec<String>,
}

/// Scores over some clips.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SummaryRow {
    /// Which clips.
    pub name: String,
    /// Their scores.
    #[serde(flatten)]
    pub scores: Group,
}

/// Our results by the rules of ML-SUPERB 1.0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// What was tested; `None` for the model or the transcripts that the report is of.
    pub system: Option<String>,
    /// After training on 10 min and on 1 h; one entry where no budget is implied.
    pub budgets: Vec<Results>,
    /// Whether the corpus and all configurations are the published ones, so that SUPERB_s has a
    /// meaning.
    pub is_published_corpus: bool,
}

/// Columns of ML-SUPERB 1.0 in one budget, fractions; `None` for what was not run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Results {
    /// Monolingual recognition: error rate, mean of languages.
    pub monolingual: Option<f64>,
    /// Recognition: error rate, languages trained in full.
    pub multilingual: Option<f64>,
    /// Recognition: error rate, few-shot languages.
    pub multilingual_few_shot: Option<f64>,
    /// Identification: accuracy, languages trained in full.
    pub lid: Option<f64>,
    /// Both at once: accuracy, languages trained in full.
    pub joint_lid: Option<f64>,
    /// Both at once: error rate, languages trained in full.
    pub joint: Option<f64>,
    /// Both at once: error rate, few-shot languages.
    pub joint_few_shot: Option<f64>,
}

impl Results {
    /// In the order of the published columns.
    #[must_use]
    pub fn columns(&self) -> [Option<f64>; 7] {
        [
            self.monolingual,
            self.multilingual,
            self.multilingual_few_shot,
            self.lid,
            self.joint_lid,
            self.joint,
            self.joint_few_shot,
        ]
    }
}

/// Our results by the rules of ML-SUPERB 2.0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing2 {
    /// What was tested; `None` for the model or the transcripts that the report is of.
    pub system: Option<String>,
    /// What was scored.
    pub data: String,
    /// Labels of the references, if stated.
    pub labels: Option<LabelSet>,
    /// The scorer.
    pub scorer: Variant,
    /// Mean over languages of the mean over utterances.
    pub cer: f64,
    /// Mean over languages.
    pub lid_accuracy: f64,
    /// Sum of the fifteen largest over fifteen.
    pub worst15_cer: f64,
    /// Sample standard deviation over languages.
    pub std_cer: Option<f64>,
    /// CER and accuracy on language varieties, where there are any.
    pub dialects: Option<[f64; 2]>,
}

/// Scores of one language, of one kind of speaker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LanguageRow {
    /// ISO 639-3 code, `und` where not stated.
    pub code: String,
    /// English name.
    pub name: Option<String>,
    /// Where it is at home.
    pub place: Option<Place>,
    /// Audio trained on, if known.
    pub training_minutes: Option<f64>,
    /// Whether the speakers are in training, if known.
    pub speakers: Option<Condition>,
    /// Clips scored.
    pub clips: usize,
    /// Seconds of audio scored, if known.
    pub seconds: Option<f64>,
    /// Characters of the references.
    pub characters: usize,
    /// Character error rate.
    pub cer: Option<f64>,
    /// Word error rate.
    pub wer: Option<f64>,
    /// Share whose language was named.
    pub lid_accuracy: Option<f64>,
}

/// A language that was named in place of the one spoken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// Code of the language spoken.
    pub spoken: String,
    /// Code of the language named; `None` where none was.
    pub named: Option<String>,
    /// How often.
    pub clips: usize,
    /// Clips of the language spoken.
    pub of: usize,
}

/// Scores by length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lengths {
    /// What length is measured in.
    pub unit: LengthUnit,
    /// From short to long; none without clips.
    pub bins: Vec<LengthBin>,
}

/// What length is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Seconds of audio.
    Seconds,
    /// Characters of the reference, where only texts are known.
    Characters,
}

/// Clips from one length to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LengthBin {
    /// Shortest, inclusive.
    pub from: f64,
    /// Longest, exclusive; `None` without bound.
    pub to: Option<f64>,
    /// How many.
    pub clips: usize,
    /// Character errors of all over characters of all.
    pub cer: Option<f64>,
    /// Share whose language was named.
    pub lid_accuracy: Option<f64>,
}

/// Weights of a weighted sum over layers.
#[derive(Debug, Clone, PartialEq, Serialize, serde::Deserialize)]
pub struct LayerWeights {
    /// Whose they are.
    pub name: String,
    /// One weight per layer, the input of the first layer first.
    pub weights: Vec<f64>,
}

/// Pages that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file or folder.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Numbers that JSON has no word for.
    #[error("cannot write the report as JSON")]
    Json(#[from] serde_json::Error),
}

impl Report {
    /// The page.
    #[must_use]
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// The report as Markdown tables.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        markdown::document(self)
    }

    /// Scores per language as comma-separated values with a header (RFC 4180), rates as fractions.
    #[must_use]
    pub fn to_csv(&self) -> String {
        csv::languages(&self.languages)
    }

    /// Writes [`FILES`] into `folder`, making it where needed.
    ///
    /// Each file appears under its name only once it is complete.
    ///
    /// # Errors
    /// [`ReportError`] naming the file.
    pub fn write(&self, folder: &Path) -> Result<(), ReportError> {
        let write = |path: &Path| {
            let path = path.to_owned();
            |source| ReportError::Write { path, source }
        };
        std::fs::create_dir_all(folder).map_err(write(folder))?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        let texts = [self.to_html(), self.to_markdown(), json, self.to_csv()];
        for (name, text) in FILES.iter().zip(texts) {
            let path = folder.join(name);
            files::write_whole(&path, text.as_bytes()).map_err(write(&path))?;
        }
        Ok(())
    }
}
