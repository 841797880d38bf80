//! Live results as lines, for pipes and files.

use super::super::Talk;
use super::super::failure::AnyError;
use super::super::output::{
    LanguageEntry, LocationEntry, ModelEntry, rounded, seconds, write_stdout,
};
use super::session::{Delays, Display, Notice, Source, Status, Summary};
use crate::decode::LiveSegment;
use serde::Serialize;
use serde_json::json;

/// Languages that are shown.
pub(super) const TOP: usize = 3;

/// The languages of a segment with their scores, and where the voice points.
pub(super) fn languages(segment: &LiveSegment) -> String {
    let understood = &segment.understood;
    let mut named: Vec<String> = understood
        .languages
        .iter()
        .take(TOP)
        .map(|language| format!("{} {:.2}", language.code, language.score))
        .collect();
    if named.is_empty() {
        named.push("-".to_owned());
    }
    if let Some(place) = understood.location {
        named.push(format!("at {:.1} {:.1}", place.latitude, place.longitude));
    }
    named.join(", ")
}

/// A segment on one line.
pub(super) fn line(segment: &LiveSegment, with_text: bool) -> String {
    let kind = if segment.is_final { "final" } else { "partial" };
    let text = if with_text { printable(&segment.understood.text) } else { String::new() };
    let (start_s, end_s, languages) = (segment.start_s, segment.end_s, languages(segment));
    format!("{start_s:.2} {end_s:.2} {kind} [{languages}] {text}").trim_end().to_owned()
}

/// Text without what would move a cursor: tokens of others may be anything.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn delays(name: &str, delays: &Delays) -> String {
    delays.median_and_longest().map_or_else(String::new, |(median, longest)| {
        format!(", {name} {median:.2} s (median), {longest:.2} s (longest)")
    })
}

/// What happened all in all, in words.
pub(super) fn summary(summary: &Summary) -> String {
    format!(
        "heard {:.1} s, {} samples dropped, {} overruns{}{}{}",
        summary.heard_s,
        summary.counts.dropped,
        summary.counts.overruns,
        match summary.n_lost {
            0 => String::new(),
            n => format!(", device lost {n} times"),
        },
        delays("latency", &summary.latency),
        delays("first language after", &summary.first_language),
    )
}

/// What happened to the input, in words.
pub(super) fn notice(notice: Notice) -> String {
    match notice {
        Notice::Lost { reason } => {
            format!("the device is gone ({}); waiting for it", printable(reason))
        }
        Notice::Back { source } => format!("the device is back: {}", describe(source)),
        Notice::Dropped { counts } => {
            format!("{} samples dropped, {} overruns so far", counts.dropped, counts.overruns)
        }
    }
}

/// An input in words.
pub(super) fn describe(source: &Source) -> String {
    let Source { name, sample_rate_hz, n_channels } = source;
    let channels = if *n_channels == 1 { "channel" } else { "channels" };
    format!("`{}`, {sample_rate_hz} Hz, {n_channels} {channels}", printable(name))
}

/// A line for each partial and final segment.
pub(super) struct TextLines {
    with_text: bool,
    talk: Talk,
}

impl TextLines {
    pub(super) fn new(with_text: bool, talk: Talk) -> Self {
        Self { with_text, talk }
    }
}

impl Display for TextLines {
    fn start(&mut self, source: &Source) -> Result<(), AnyError> {
        self.talk.progress(format_args!("listening to {}", describe(source)));
        Ok(())
    }

    fn segment(&mut self, segment: &LiveSegment, _latency_s: f64) -> Result<(), AnyError> {
        Ok(write_stdout(format!("{}\n", line(segment, self.with_text)).as_bytes())?)
    }

    fn notice(&mut self, at_s: f64, what: Notice) -> Result<(), AnyError> {
        self.talk.warn(format_args!("at {at_s:.1} s: {}", notice(what)));
        Ok(())
    }

    fn status(&mut self, _status: &Status) {}

    fn end(&mut self, all: &Summary) -> Result<(), AnyError> {
        self.talk.progress(summary(all));
        Ok(())
    }
}

/// A JSON object per line.
pub(super) struct JsonLines {
    model: ModelEntry,
    with_text: bool,
}

#[derive(Serialize)]
struct SegmentEntry<'a> {
    schema: u32,
    event: &'static str,
    start_s: f64,
    end_s: f64,
    voice_start_s: f64,
    language: Option<String>,
    languages: Vec<LanguageEntry>,
    location: Option<LocationEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    latency_s: f64,
}

impl JsonLines {
    pub(super) fn new(model: ModelEntry, with_text: bool) -> Self {
        Self { model, with_text }
    }
}

fn write(value: &impl Serialize) -> Result<(), AnyError> {
    Ok(write_stdout(format!("{}\n", serde_json::to_string(value)?).as_bytes())?)
}

fn delays_json(delays: &Delays) -> serde_json::Value {
    delays.median_and_longest().map_or(
        serde_json::Value::Null,
        |(median, longest)| json!({"median": seconds(median), "longest": seconds(longest)}),
    )
}

impl Display for JsonLines {
    fn start(&mut self, source: &Source) -> Result<(), AnyError> {
        write(&json!({
            "schema": 1,
            "event": "start",
            "input": source.name,
            "sample_rate_hz": source.sample_rate_hz,
            "channels": source.n_channels,
            "model": self.model,
        }))
    }

    fn segment(&mut self, segment: &LiveSegment, latency_s: f64) -> Result<(), AnyError> {
        let understood = &segment.understood;
        write(&SegmentEntry {
            schema: 1,
            event: if segment.is_final { "final" } else { "partial" },
            start_s: seconds(segment.start_s),
            end_s: seconds(segment.end_s),
            voice_start_s: seconds(segment.voice_start_s),
            language: understood.languages.first().map(|language| language.code.to_string()),
            languages: understood.languages.iter().take(TOP).map(Into::into).collect(),
            location: understood.location.map(Into::into),
            text: self.with_text.then_some(&understood.text),
            score: self.with_text.then(|| rounded(understood.score)),
            latency_s: seconds(latency_s),
        })
    }

    fn notice(&mut self, at_s: f64, notice: Notice) -> Result<(), AnyError> {
        let at_s = seconds(at_s);
        write(&match notice {
            Notice::Lost { reason } => {
                json!({"schema": 1, "event": "device_lost", "time_s": at_s, "reason": reason})
            }
            Notice::Back { source } => json!({
                "schema": 1,
                "event": "device_back",
                "time_s": at_s,
                "input": source.name,
                "sample_rate_hz": source.sample_rate_hz,
                "channels": source.n_channels,
            }),
            Notice::Dropped { counts } => json!({
                "schema": 1,
                "event": "dropped",
                "time_s": at_s,
                "dropped_samples": counts.dropped,
                "overruns": counts.overruns,
            }),
        })
    }

    fn status(&mut self, _status: &Status) {}

    fn end(&mut self, summary: &Summary) -> Result<(), AnyError> {
        write(&json!({
            "schema": 1,
            "event": "end",
            "duration_s": seconds(summary.heard_s),
            "dropped_samples": summary.counts.dropped,
            "overruns": summary.counts.overruns,
            "devices_lost": summary.n_lost,
            "latency_s": delays_json(&summary.latency),
            "first_language_s": delays_json(&summary.first_language),
        }))
    }
}
