//! From decoded planes to one channel of f32.

use symphonia::core::audio::conv::IntoSample;
use symphonia::core::audio::sample::Sample;
use symphonia::core::audio::{Audio as _, AudioBuffer, GenericAudioBufferRef};

/// Appends one channel of `decoded`, or the mean of all of them, to `mono`.
///
/// `channel` must exist in `decoded`; nothing is appended otherwise.
pub(super) fn append_mono(
    decoded: &GenericAudioBufferRef<'_>,
    channel: Option<usize>,
    mono: &mut Vec<f32>,
) {
    match decoded {
        GenericAudioBufferRef::U8(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::U16(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::U24(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::U32(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::S8(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::S16(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::S24(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::S32(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::F32(planes) => append_planes(planes, channel, mono),
        GenericAudioBufferRef::F64(planes) => append_planes(planes, channel, mono),
    }
}

fn append_planes<S: Sample + IntoSample<f32>>(
    planes: &AudioBuffer<S>,
    channel: Option<usize>,
    mono: &mut Vec<f32>,
) {
    if let Some(channel) = channel {
        if let Some(plane) = planes.plane(channel) {
            mono.extend(plane.iter().map(|&sample| sample.into_sample()));
        }
        return;
    }
    let start = mono.len();
    mono.resize(start + planes.frames(), 0.0);
    for plane in planes.iter_planes() {
        for (sum, &sample) in mono[start..].iter_mut().zip(plane) {
            let sample: f32 = sample.into_sample();
            *sum += sample;
        }
    }
    if planes.num_planes() > 1 {
        let scale = 1.0 / planes.num_planes() as f32;
        for sum in &mut mono[start..] {
            *sum *= scale;
        }
    }
}
