#!/usr/bin/env bash
# Makes the fixtures of the audio layer: one sentence in every format.
# Needs espeak-ng 1.51, ffmpeg 5.1 and opus-tools 0.2 (libopus 1.3.1); other versions may give other bytes.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

espeak-ng -v en -s 190 -w "$work/spoken.wav" "The quick brown fox"
ff() { ffmpeg -v error -y -bitexact "${@:1:$#-1}" -metadata_header_padding 0 "${@: -1}"; }

# 11111 samples: not a whole number of milliseconds, packets or blocks.
ff -i "$work/spoken.wav" -af "aresample=16000,atrim=end_sample=11111" -ac 1 -c:a pcm_s16le "$work/s.wav"
mono=(-i "$work/s.wav")
# The right channel is the left one, 3 ms later and softer.
stereo=(-i "$work/s.wav" -filter_complex "[0:a]asplit[l][r];[r]adelay=3,volume=0.5[q];[l][q]join=inputs=2:channel_layout=stereo,aresample=44100")
# Eight channels, each half as loud as the one before.
eight=(-i "$work/s.wav" -filter_complex "[0:a]atrim=start=0.3:end=0.33,asetpts=PTS-STARTPTS,aresample=192000,pan=octagonal|c0=c0|c1=0.5*c0|c2=0.25*c0|c3=0.125*c0|c4=0.0625*c0|c5=0.03125*c0|c6=0.015625*c0|c7=0.0078125*c0")

ff "${mono[@]}" -c:a flac -compression_level 12 sentence.flac
ff "${mono[@]}" -c:a flac sentence-flac.ogg
ff "${mono[@]}" -c:a flac sentence-flac.mka
ff "${mono[@]}" -c:a alac sentence-alac.m4a
ff "${mono[@]}" -c:a alac sentence-alac.caf
ff "${mono[@]}" -c:a libmp3lame -b:a 32k sentence.mp3
ff "${mono[@]}" -c:a libmp3lame -q:a 5 -write_xing 0 -id3v2_version 0 sentence-no-xing.mp3
ff "${stereo[@]}" -c:a libmp3lame -b:a 96k sentence-stereo-44k.mp3
ff "${mono[@]}" -c:a mp2 -b:a 64k sentence.mp2
ff "${mono[@]}" -c:a libvorbis -q:a 1 sentence.ogg
ff "${mono[@]}" -c:a libvorbis -q:a 1 sentence-vorbis.webm
ff "${mono[@]}" -c:a libopus -b:a 24k -page_duration 200000 sentence.opus
ff "${mono[@]}" -ar 48000 -c:a libopus -b:a 32k -application voip sentence-hybrid.opus
ff "${mono[@]}" -ar 48000 -c:a libopus -b:a 64k -application audio sentence-celt.opus
ff "${stereo[@]}" -ar 48000 -c:a libopus -b:a 64k -application audio sentence-stereo.opus
ff "${mono[@]}" -c:a libopus -b:a 24k sentence.webm
ff "${mono[@]}" -c:a libopus -b:a 24k -f webm - > sentence-live.webm
ff "${mono[@]}" -c:a libopus -b:a 24k sentence-opus.mp4
ff "${mono[@]}" -c:a libopus -b:a 24k sentence-opus.caf
ff "${mono[@]}" -c:a aac -b:a 32k sentence.aac
ff "${mono[@]}" -c:a aac -b:a 32k sentence.m4a
ff "${mono[@]}" -c:a aac -b:a 32k -movflags +faststart sentence-faststart.m4a
ff "${mono[@]}" -c:a aac -b:a 32k -movflags frag_keyframe+empty_moov sentence-fragmented.m4a
ff "${mono[@]}" -c:a aac -b:a 32k sentence-aac.mka
ff "${mono[@]}" -c:a libmp3lame -b:a 32k sentence-mp3.mp4
ff "${mono[@]}" -c:a adpcm_ms sentence-adpcm-ms.wav
ff "${mono[@]}" -c:a adpcm_ima_wav sentence-adpcm-ima.wav
ff "${mono[@]}" -c:a pcm_mulaw sentence-mulaw.wav
ff "${mono[@]}" -c:a pcm_alaw sentence-alaw.wav
ff "${mono[@]}" -c:a pcm_u8 sentence-u8.wav
ff "${mono[@]}" -c:a pcm_mulaw sentence-mulaw.aiff
ff "${eight[@]}" -c:a flac eight-channels-192k.flac
ff -i "$work/s.wav" -t 0.2 -c:a pcm_s24le short-s24.wav
ff -i "$work/s.wav" -t 0.2 -c:a pcm_s32le short-s32.wav
ff -i "$work/s.wav" -t 0.2 -c:a pcm_f32le short-f32.wav
ff -i "$work/s.wav" -t 0.1 -c:a pcm_f64le short-f64.wav
ff -i "$work/s.wav" -t 0.2 -rf64 always short-rf64.wav
ff -i "$work/s.wav" -t 0.2 -c:a pcm_s24be short-s24.aiff
ff -i "$work/s.wav" -t 0.2 -c:a pcm_f32be short-f32.caf
ff -i "$work/s.wav" -t 0.2 -c:a pcm_s16le -f wav - > short-piped.wav

# What libopus makes of the first quarter second: 16-bit PCM at 48 kHz, without dither.
for name in sentence sentence-hybrid sentence-celt sentence-stereo; do
  opusdec --quiet --rate 48000 --no-dither "$name.opus" "$work/$name.wav"
  ff -i "$work/$name.wav" -t 0.25 -c:a flac -compression_level 12 "libopus-$name.flac"
done
