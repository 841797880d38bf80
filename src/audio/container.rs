//! Demultiplexing and decoding through Symphonia.

use std::io::ErrorKind;

use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;

use crate::audio::damage::DamageLog;
use crate::audio::input::Watch;
use crate::audio::prepare::{Hints, Medium};
use crate::audio::stream::BlockSource;
use crate::audio::track::{Decoded, Track};
use crate::audio::{AudioError, DecodeOptions, SourceInfo};

/// Demultiplexer errors in a row after which the rest of the input is given up.
const MAX_CONSECUTIVE_ERRORS: u32 = 64;
/// Packets in a row without a single sample after which the rest is given up.
const MAX_BARREN_PACKETS: u32 = 100_000;
/// Silence put in place of what is missing, beyond which there must be as much sound, in
/// seconds. A few bytes may claim any length.
const SILENCE_CREDIT_S: f64 = 60.0;
/// Containers with time stamps of their own, where others count what they read.
const TIMED: [&str; 3] = ["flac", "matroska", "ogg"];

/// A container with one selected audio track, decoded packet by packet.
pub(super) struct Container {
    name: String,
    options: DecodeOptions,
    watch: Watch,
    format: Box<dyn FormatReader>,
    hints: Hints,
    track: Track,
    info: SourceInfo,
    /// Seconds decoded before the current track or rate began.
    base_s: f64,
    /// Frames decoded since then, trimmed.
    n_frames: u64,
    /// Frames decoded of the current track, trimmed or not.
    n_untrimmed: u64,
    /// Where the time stamps put the first of `n_untrimmed`, in seconds.
    origin_s: Option<f64>,
    consecutive_errors: u32,
    n_barren: u32,
    /// Seconds of sound and of silence in place of something missing, so far.
    sound_s: f64,
    silence_s: f64,
    ended: bool,
}

impl Container {
    /// Recognises the container, selects the default audio track and sets its decoder up.
    pub(super) fn open(
        medium: Medium,
        name: &str,
        extension: Option<&str>,
        options: &DecodeOptions,
        watch: &Watch,
    ) -> Result<Self, AudioError> {
        let mut hint = Hint::new();
        if let Some(extension) = extension {
            hint.with_extension(extension);
        }
        let stream = MediaSourceStream::new(medium.media, MediaSourceStreamOptions::default());
        let format = symphonia::default::get_probe()
            .probe(&hint, stream, FormatOptions::default(), MetadataOptions::default())
            .map_err(|source| match watch.check(name) {
                Err(limit) => limit,
                Ok(()) => probe_error(name, source),
            })?;
        let track = Track::select(name, format.as_ref(), options, &medium.hints)?;
        let info = SourceInfo {
            container: format.format_info().short_name.to_owned(),
            codec: track.codec_name().to_owned(),
            sample_rate_hz: track.source_rate_hz(),
            n_channels: track.n_channels(),
            duration_s: track.declared_s,
        };
        Ok(Self {
            name: name.to_owned(),
            options: options.clone(),
            watch: watch.clone(),
            format,
            hints: medium.hints,
            track,
            info,
            base_s: 0.0,
            n_frames: 0,
            n_untrimmed: 0,
            origin_s: None,
            consecutive_errors: 0,
            n_barren: 0,
            sound_s: 0.0,
            silence_s: 0.0,
            ended: false,
        })
    }

    fn now_s(&self) -> f64 {
        self.base_s + self.n_frames as f64 / f64::from(self.track.sample_rate_hz)
    }

    /// The next packet of the selected track, or `None` at its end.
    fn next_packet(&mut self, damage: &mut DamageLog) -> Result<Option<Packet>, AudioError> {
        loop {
            let outcome = self.format.next_packet();
            self.watch.check(&self.name)?;
            match outcome {
                Ok(Some(packet)) => {
                    self.consecutive_errors = 0;
                    if packet.track_id == self.track.id {
                        return Ok(Some(packet));
                    }
                }
                Ok(None) => {
                    self.report_length(damage, false);
                    self.ended = true;
                    return Ok(None);
                }
                // The next link of a chained stream.
                Err(Error::ResetRequired) => {
                    self.report_length(damage, false);
                    return Ok(None);
                }
                Err(Error::IoError(source)) if source.kind() != ErrorKind::UnexpectedEof => {
                    return Err(AudioError::Read { name: self.name.clone(), source });
                }
                Err(Error::IoError(_)) => {
                    self.report_length(damage, !self.may_end_anywhere());
                    self.ended = true;
                    return Ok(None);
                }
                Err(error) => {
                    damage.lost(self.now_s(), 0.0, &error);
                    self.consecutive_errors += 1;
                    if self.consecutive_errors > MAX_CONSECUTIVE_ERRORS {
                        self.report_length(damage, true);
                        self.ended = true;
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Whether the end of the file is a good end: for WAV of unknown length and for Matroska
    /// written to a pipe there is no other.
    fn may_end_anywhere(&self) -> bool {
        match self.info.container.as_str() {
            "wave" => self.track.declared_frames.is_none(),
            "matroska" => !self.hints.truncated,
            _ => false,
        }
    }

    /// Puts silence where the time stamp of the next packet leaps ahead of what was decoded.
    fn fill_gap(&mut self, packet: &Packet, mono: &mut Vec<f32>, damage: &mut DamageLog) {
        if !TIMED.contains(&self.info.container.as_str()) {
            return;
        }
        let Some(start_s) = self.track.start_s(packet) else {
            return;
        };
        let rate = f64::from(self.track.sample_rate_hz);
        let decoded_s = self.n_untrimmed as f64 / rate;
        let origin_s = *self.origin_s.get_or_insert(start_s - decoded_s);
        let gap_s = start_s - origin_s - decoded_s;
        // Half a sample, for the rounding of the division.
        if gap_s <= self.track.slack_s() + 0.5 / rate {
            return;
        }
        damage.gap(self.now_s(), gap_s);
        if !self.append_silence(gap_s, mono) {
            self.origin_s = Some(start_s - decoded_s);
        }
    }

    /// Appends silence if it may be afforded.
    fn append_silence(&mut self, duration_s: f64, mono: &mut Vec<f32>) -> bool {
        let affordable = self.silence_s + duration_s <= SILENCE_CREDIT_S + self.sound_s;
        if affordable {
            let rate = f64::from(self.track.sample_rate_hz);
            let n_samples = (duration_s * rate).round() as usize;
            mono.resize(mono.len() + n_samples, 0.0);
            self.n_untrimmed += n_samples as u64;
            self.silence_s += duration_s;
        }
        affordable
    }

    /// Appends the samples of `packet`.
    fn decode(
        &mut self,
        packet: &Packet,
        mono: &mut Vec<f32>,
        damage: &mut DamageLog,
    ) -> Result<(), AudioError> {
        let start = mono.len();
        let channel = self.options.channel;
        match self.track.decode(&self.name, packet, channel, mono)? {
            Decoded::Samples { rate_hz, n_channels } => {
                let n_samples = mono.len() - start;
                damage.sound(n_samples);
                if self.info.n_channels == 0 {
                    self.info.n_channels = n_channels;
                }
                if rate_hz != self.track.sample_rate_hz {
                    self.change_rate(rate_hz);
                }
                self.sound_s += n_samples as f64 / f64::from(rate_hz);
                self.n_untrimmed += n_samples as u64;
            }
            Decoded::Lost { reason, duration_s } => {
                damage.lost(self.now_s(), duration_s, &reason);
                self.append_silence(duration_s, mono);
            }
        }
        self.n_barren = if mono.len() == start { self.n_barren + 1 } else { 0 };
        if self.n_barren > MAX_BARREN_PACKETS {
            self.report_length(damage, true);
            self.ended = true;
        }
        Ok(())
    }

    /// Compares what was decoded of the current track with what was declared.
    fn report_length(&self, damage: &mut DamageLog, broke_off: bool) {
        let rate = f64::from(self.track.sample_rate_hz);
        let declared = self.track.declared_frames.filter(|&declared| {
            let missing_s = declared.saturating_sub(self.n_untrimmed) as f64 / rate;
            missing_s > self.track.slack_s()
        });
        if declared.is_some() || broke_off {
            let declared_s = declared.map(|frames| self.base_s + frames as f64 / rate);
            damage.truncated(self.now_s(), declared_s);
        }
    }

    /// Time goes on from here at another rate.
    fn change_rate(&mut self, rate_hz: u32) {
        self.base_s = self.now_s();
        self.n_frames = 0;
        self.n_untrimmed = 0;
        self.origin_s = None;
        self.track.sample_rate_hz = rate_hz;
        self.track.declared_frames = None;
    }

    /// Takes up the next link of a chained stream.
    fn next_track(&mut self) -> Result<(), AudioError> {
        self.base_s = self.now_s();
        self.n_frames = 0;
        self.n_untrimmed = 0;
        self.origin_s = None;
        self.track = Track::select(&self.name, self.format.as_ref(), &self.options, &self.hints)?;
        Ok(())
    }
}

impl BlockSource for Container {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_block(
        &mut self,
        mono: &mut Vec<f32>,
        damage: &mut DamageLog,
    ) -> Result<Option<u32>, AudioError> {
        if self.ended {
            return Ok(None);
        }
        let start = mono.len();
        let packet = self.next_packet(damage)?;
        if let Some(packet) = &packet {
            self.fill_gap(packet, mono, damage);
            self.decode(packet, mono, damage)?;
            self.track.trim.apply(mono, start);
        } else {
            self.track.trim.finish(mono);
        }
        self.n_frames += (mono.len() - start) as u64;
        let rate_hz = self.track.sample_rate_hz;
        if packet.is_none() && !self.ended {
            self.next_track()?;
        }
        Ok(Some(rate_hz))
    }
}

/// What a failure before the first packet means.
fn probe_error(name: &str, source: Error) -> AudioError {
    let name = name.to_owned();
    match source {
        Error::IoError(source) if source.kind() != ErrorKind::UnexpectedEof => {
            AudioError::Read { name, source }
        }
        Error::Unsupported(reason) if reason.starts_with("core (probe)") => {
            AudioError::UnknownFormat { name }
        }
        source => AudioError::Headers { name, source },
    }
}
