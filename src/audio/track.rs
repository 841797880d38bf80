//! One audio track: its decoder and its codec's peculiarities.

use std::borrow::Cow;

use symphonia::core::audio::Channels;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AAC, CODEC_ID_AC3, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_MP1, CODEC_ID_MP2,
    CODEC_ID_MP3, CODEC_ID_OPUS, CODEC_ID_SPEEX, CODEC_ID_TRUEHD, CODEC_ID_WAVPACK, CODEC_ID_WMA,
};
use symphonia::core::codecs::audio::{
    AudioCodecId, AudioCodecParameters, AudioDecoder, AudioDecoderOptions,
};
use symphonia::core::errors::Error;
use symphonia::core::formats::{FormatReader, TrackType};
use symphonia::core::packet::Packet;
use symphonia::core::units::{TimeBase, Timestamp};

use crate::audio::aac::low_complexity_core;
use crate::audio::mix::append_mono;
use crate::audio::opus::{OPUS_RATE_HZ, OpusDecoder, OpusError, OpusHead};
use crate::audio::prepare::Hints;
use crate::audio::trim::Trim;
use crate::audio::{AudioError, DecodeOptions, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ};

/// More channels than any microphone array in use; the PCM decoder reserves a packet for
/// each channel a header claims, so the claim is checked first.
const MAX_CHANNELS: usize = 256;
/// Longest silence that stands in for one lost packet, in seconds.
const MAX_LOST_PACKET_S: f64 = 1.0;
/// A lossy stream may part this much from its declared length or its time stamps, because
/// those are rounded to packets or milliseconds.
const SLACK_S: f64 = 0.1;

/// The selected track of a container, and its decoder.
pub(super) struct Track {
    pub(super) id: u32,
    /// Rate of the decoded samples, in Hz.
    pub(super) sample_rate_hz: u32,
    /// How many of them there should be, before trimming.
    pub(super) declared_frames: Option<u64>,
    /// How long the container says the track is, in seconds.
    pub(super) declared_s: Option<f64>,
    pub(super) trim: Trim,
    decoder: Decoder,
    params: AudioCodecParameters,
    time_base: Option<TimeBase>,
}

enum Decoder {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<OpusDecoder>),
}

/// What became of a packet.
pub(super) enum Decoded {
    /// Its samples were appended; they are at this rate, in Hz, and of so many channels.
    Samples { rate_hz: u32, n_channels: usize },
    /// It is lost; so much silence would take its place.
    Lost { reason: Loss, duration_s: f64 },
}

/// Why a packet is lost.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum Loss {
    Symphonia(#[from] Error),
    Opus(#[from] OpusError),
}

impl Track {
    /// Selects the default audio track of `format` and sets its decoder up for `options`.
    pub(super) fn select(
        name: &str,
        format: &dyn FormatReader,
        options: &DecodeOptions,
        hints: &Hints,
    ) -> Result<Self, AudioError> {
        let no_track = || AudioError::NoTrack { name: name.to_owned() };
        let track = format.default_track(TrackType::Audio).ok_or_else(no_track)?;
        let params =
            track.codec_params.as_ref().and_then(|params| params.audio()).ok_or_else(no_track)?;
        check_claims(name, params)?;
        let (decoder, params, dropped_s) = set_up(name, params, options)?;
        let source_rate_hz = params.sample_rate.unwrap_or(0);
        check_rate(source_rate_hz)?;
        let n_channels = params.channels.as_ref().map_or(0, Channels::count);
        if n_channels > 0 {
            check_channel(name, options.channel, n_channels)?;
        }
        let sample_rate_hz = match &decoder {
            Decoder::Symphonia(_) => source_rate_hz,
            Decoder::Opus(decoder) => decoder.sample_rate_hz(),
        };
        let padding = hints.padding(track.id);
        let trim = match padding {
            Some(padding) => Trim::padding(padding, sample_rate_hz, dropped_s),
            None if is_mpeg_audio(params.codec) || params.codec == CODEC_ID_AAC => {
                let delay = track.delay.unwrap_or(0);
                Trim::gapless(delay, track.num_frames, track.padding)
            }
            None => Trim::none(),
        };
        let n_frames = hints.ogg_frames(track.id).or(track.num_frames);
        let whole_s = n_frames.map(|n| n as f64 / f64::from(source_rate_hz));
        let whole_s = whole_s.or_else(|| media_duration_s(format));
        let decoded_s = whole_s.map(|whole_s| (whole_s - dropped_s).max(0.0));
        Ok(Self {
            id: track.id,
            sample_rate_hz,
            declared_s: padding.map_or(decoded_s, |padding| Some(padding.heard_s(whole_s?))),
            declared_frames: decoded_s
                .map(|decoded_s| (decoded_s * f64::from(sample_rate_hz)).round() as u64),
            trim,
            decoder,
            params,
            time_base: track.time_base,
        })
    }

    pub(super) fn codec_name(&self) -> &'static str {
        match &self.decoder {
            Decoder::Symphonia(decoder) => decoder.codec_info().short_name,
            Decoder::Opus(_) => "opus",
        }
    }

    /// Rate of the encoded sound, in Hz.
    pub(super) fn source_rate_hz(&self) -> u32 {
        self.params.sample_rate.unwrap_or(self.sample_rate_hz)
    }

    /// 0 if only decoding will tell.
    pub(super) fn n_channels(&self) -> usize {
        self.params.channels.as_ref().map_or(0, Channels::count)
    }

    /// Appends the samples of `packet`, untrimmed but for Opus, to `mono`.
    pub(super) fn decode(
        &mut self,
        name: &str,
        packet: &Packet,
        channel: Option<usize>,
        mono: &mut Vec<f32>,
    ) -> Result<Decoded, AudioError> {
        let mut outcome = self.decode_once(name, packet, channel, mono)?;
        if let Err(Loss::Symphonia(Error::DecodeError(reason))) = outcome
            && reason.contains("signal spec")
        {
            // The MP3 decoder is bound to the rate and channels of its first packet; joined
            // files may change them.
            self.decoder = Decoder::Symphonia(new_decoder(name, &self.params)?);
            outcome = self.decode_once(name, packet, channel, mono)?;
        }
        Ok(outcome.unwrap_or_else(|reason| {
            let duration_s = self.duration_s(packet).clamp(0.0, MAX_LOST_PACKET_S);
            Decoded::Lost { reason, duration_s }
        }))
    }

    fn decode_once(
        &mut self,
        name: &str,
        packet: &Packet,
        channel: Option<usize>,
        mono: &mut Vec<f32>,
    ) -> Result<Result<Decoded, Loss>, AudioError> {
        let decoder = match &mut self.decoder {
            Decoder::Symphonia(decoder) => decoder,
            Decoder::Opus(decoder) => {
                let outcome = decoder.decode(&packet.data, packet.trim_end.get(), mono);
                let samples = Decoded::Samples {
                    rate_hz: self.sample_rate_hz,
                    n_channels: self.n_channels(),
                };
                return Ok(outcome.map(|()| samples).map_err(Loss::from));
            }
        };
        let decoded = match decoder.decode(packet) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(error.into())),
        };
        let spec = decoded.spec();
        let (rate_hz, n_channels) = (spec.rate(), spec.channels().count());
        check_rate(rate_hz)?;
        check_channel(name, channel, n_channels)?;
        append_mono(&decoded, channel, mono);
        Ok(Ok(Decoded::Samples { rate_hz, n_channels }))
    }

    /// When `packet` is to be heard, in seconds, if the container says.
    pub(super) fn start_s(&self, packet: &Packet) -> Option<f64> {
        self.time_base?.calc_time(packet.pts).map(|time| time.as_secs_f64())
    }

    fn duration_s(&self, packet: &Packet) -> f64 {
        let ticks = i64::try_from(packet.block_dur().get()).unwrap_or(i64::MAX);
        self.time_base
            .and_then(|time_base| time_base.calc_time(Timestamp::new(ticks)))
            .map_or(0.0, |time| time.as_secs_f64())
    }

    /// How much may be missing, at the end or between time stamps, without anything being
    /// wrong, in seconds.
    pub(super) fn slack_s(&self) -> f64 {
        if self.codec_name().starts_with("pcm_") || self.codec_name() == "flac" {
            0.0
        } else {
            SLACK_S
        }
    }
}

/// The length of the only track of a file, in seconds, where just the file says it.
fn media_duration_s(format: &dyn FormatReader) -> Option<f64> {
    let info = format.media_info();
    let duration = info.duration.filter(|_| format.tracks().len() == 1)?;
    let time = info.time_base?.calc_duration(duration)?;
    Some(time.as_secs_f64()).filter(|&duration_s| duration_s > 0.0)
}

/// The decoder for a track, the parameters as the decoder sees them, and how many seconds it
/// drops by itself at the start.
fn set_up(
    name: &str,
    params: &AudioCodecParameters,
    options: &DecodeOptions,
) -> Result<(Decoder, AudioCodecParameters, f64), AudioError> {
    let mut params = params.clone();
    if params.codec == CODEC_ID_OPUS {
        let head = opus_head(name, &params)?;
        params.channels = Some(Channels::Discrete(head.n_channels as u16));
        params.sample_rate = Some(OPUS_RATE_HZ);
        let dropped_s = f64::from(head.pre_skip) / f64::from(OPUS_RATE_HZ);
        let decoder = OpusDecoder::new(head, options.channel, options.sample_rate_hz);
        return Ok((Decoder::Opus(Box::new(decoder)), params, dropped_s));
    }
    if params.codec == CODEC_ID_AAC
        && let Some(config) = params.extra_data.as_deref()
        && let Cow::Owned(core) = low_complexity_core(config)
    {
        params.extra_data = Some(core.into());
    }
    let decoder = new_decoder(name, &params)?;
    let params = decoder.codec_params().clone();
    check_claims(name, &params)?;
    Ok((Decoder::Symphonia(decoder), params, 0.0))
}

fn opus_head(name: &str, params: &AudioCodecParameters) -> Result<OpusHead, AudioError> {
    let head = match params.extra_data.as_deref() {
        Some(head) => OpusHead::parse(head),
        None => OpusHead::without(params.channels.as_ref().map_or(0, Channels::count)),
    };
    head.ok_or_else(|| AudioError::OpusStream {
        name: name.to_owned(),
        source: OpusError::Header.into(),
    })
}

fn new_decoder(
    name: &str,
    params: &AudioCodecParameters,
) -> Result<Box<dyn AudioDecoder>, AudioError> {
    let codecs = symphonia::default::get_codecs();
    if codecs.get_audio_decoder(params.codec).is_none() {
        let codec = unsupported_codec_name(params.codec);
        return Err(AudioError::Codec { name: name.to_owned(), codec });
    }
    // MP3 is trimmed here instead: Symphonia drops whatever exceeds the declared length.
    let options = AudioDecoderOptions::default().gapless(!is_mpeg_audio(params.codec));
    codecs
        .make_audio_decoder(params, &options)
        .map_err(|source| AudioError::Headers { name: name.to_owned(), source })
}

/// The name of a codec that people may meet but that cannot be decoded.
fn unsupported_codec_name(codec: AudioCodecId) -> String {
    let name = match codec {
        CODEC_ID_AC3 => "AC-3",
        CODEC_ID_EAC3 => "E-AC-3",
        CODEC_ID_DCA => "DTS",
        CODEC_ID_SPEEX => "Speex",
        CODEC_ID_WMA => "Windows Media",
        CODEC_ID_WAVPACK => "WavPack",
        CODEC_ID_TRUEHD => "TrueHD",
        _ => return codec.to_string(),
    };
    name.to_owned()
}

fn is_mpeg_audio(codec: AudioCodecId) -> bool {
    [CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3].contains(&codec)
}

fn check_claims(name: &str, params: &AudioCodecParameters) -> Result<(), AudioError> {
    if let Some(rate) = params.sample_rate {
        check_rate(rate)?;
    }
    match params.channels.as_ref().map(Channels::count) {
        Some(found) => check_channel_count(name, found),
        None => Ok(()),
    }
}

pub(super) fn check_channel_count(name: &str, found: usize) -> Result<(), AudioError> {
    if (1..=MAX_CHANNELS).contains(&found) {
        Ok(())
    } else {
        Err(AudioError::ChannelCount { name: name.to_owned(), found })
    }
}

pub(super) fn check_rate(found_hz: u32) -> Result<(), AudioError> {
    if (MIN_SAMPLE_RATE_HZ..=MAX_SAMPLE_RATE_HZ).contains(&found_hz) {
        Ok(())
    } else {
        Err(AudioError::SampleRate { found_hz })
    }
}

pub(super) fn check_channel(
    name: &str,
    channel: Option<usize>,
    found: usize,
) -> Result<(), AudioError> {
    match channel {
        Some(asked) if asked >= found => {
            Err(AudioError::Channel { name: name.to_owned(), asked, found })
        }
        _ => Ok(()),
    }
}
