//! What is wrong with a corpus, by kind: counted, and named.

use serde::Serialize;
use std::collections::BTreeMap;

/// Most examples named per kind.
const NAMED: usize = 10;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// A folder that is no language, or an id that carries none that is known.
    UnknownLanguage,
    /// A folder of a dataset without anything of a language in it.
    WrongLayout,
    /// A language's folder without one of its four transcripts.
    MissingTranscript,
    /// A line with one field, or bytes that are no UTF-8.
    MalformedLine,
    /// The same id twice in one split.
    DuplicateId,
    /// An id in training and in development or test, or in both of these.
    SplitOverlap,
    /// An id that carries another language than its folder.
    LanguageMismatch,
    /// A line without an audio file.
    MissingAudio,
    /// An audio file that cannot be read.
    UnreadableAudio,
    /// A transcript without a line.
    EmptyTranscript,
    /// A line without text; the published data has some.
    NoText,
    /// An audio file without a sample; the published data has some. Left out.
    EmptyAudio,
    /// An audio file in no transcript; the published data has some.
    UnlistedAudio,
    /// A few-shot language without some of its five training utterances.
    FewShotMissing,
    /// Languages that the label set leaves out.
    LeftOutByLabels,
}

impl ProblemKind {
    /// Whether something is broken, rather than worth knowing.
    #[must_use]
    pub fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::EmptyTranscript
                | Self::NoText
                | Self::EmptyAudio
                | Self::UnlistedAudio
                | Self::FewShotMissing
                | Self::LeftOutByLabels
        )
    }

    /// What it is, for people.
    #[must_use]
    pub fn description(self) -> &'static str {
        match self {
            Self::UnknownLanguage => "unknown language",
            Self::WrongLayout => "not the expected layout",
            Self::MissingTranscript => "missing transcript",
            Self::EmptyTranscript => "empty transcript",
            Self::MalformedLine => "malformed line",
            Self::DuplicateId => "duplicate id",
            Self::SplitOverlap => "id in several splits",
            Self::LanguageMismatch => "id of another language than its folder",
            Self::MissingAudio => "missing audio",
            Self::UnreadableAudio => "unreadable audio",
            Self::NoText => "line without text",
            Self::EmptyAudio => "audio without samples, left out",
            Self::UnlistedAudio => "audio in no transcript",
            Self::FewShotMissing => "few-shot training utterance that is not there",
            Self::LeftOutByLabels => "utterances of languages that the label set leaves out",
        }
    }
}

/// Faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which kind.
    pub kind: ProblemKind,
    /// How many.
    pub count: usize,
    /// The first of them.
    pub examples: Vec<String>,
}

/// Faults as they are found.
#[derive(Debug, Clone, Default)]
pub(super) struct Problems(BTreeMap<ProblemKind, Problem>);

impl Problems {
    pub(super) fn add(&mut self, kind: ProblemKind, what: impl FnOnce() -> String) {
        let problem =
            self.0.entry(kind).or_insert_with(|| Problem { kind, count: 0, examples: Vec::new() });
        problem.count += 1;
        if problem.examples.len() < NAMED {
            problem.examples.push(what().chars().take(200).collect());
        }
    }

    /// Faults first.
    pub(super) fn into_list(self) -> Vec<Problem> {
        self.0.into_values().collect()
    }
}
