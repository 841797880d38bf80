#!/usr/bin/env python3
"""Reads what the binary writes with other people's parsers.

    python3 -m venv /tmp/formats && /tmp/formats/bin/pip install webvtt-py praatio
    /tmp/formats/bin/python tests/formats.py target/release/asr

SubRip and WebVTT go through webvtt-py (and ffmpeg, where it is installed), TextGrid through
praatio, JSON through Python. The first thing that is wrong ends the run.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import webvtt
from praatio import textgrid

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples" / "audio"


def run(asr, *arguments):
    done = subprocess.run([asr, *map(str, arguments)], capture_output=True, check=True)
    return done.stdout.decode("utf-8")


def letters(text):
    return "".join(text.split())


def check_subtitles(asr, folder):
    clips = sorted(p for p in EXAMPLES.iterdir() if p.suffix not in (".md", ".txt"))
    results = json.loads(run(asr, "transcribe", "-f", "json", "--word-timestamps", EXAMPLES))
    assert len(results) == len(clips), (len(results), len(clips))
    for form, read in (("srt", webvtt.from_srt), ("vtt", webvtt.read)):
        run(asr, "transcribe", "-f", form, "-o", f"{folder}/", EXAMPLES)
        for clip, result in zip(clips, results):
            path = folder / f"{clip.stem}.{form}"
            captions = list(read(str(path)))
            assert captions, path
            last = 0.0
            for caption in captions:
                assert last <= caption.start_in_seconds, (path, caption)
                assert caption.start_in_seconds <= caption.end_in_seconds, (path, caption)
                last = caption.end_in_seconds
            assert last <= result["duration_s"] + 1, path
            heard = letters(" ".join(caption.text for caption in captions))
            assert heard == letters(result["text"]), (path, heard)
            if shutil.which("ffmpeg"):
                subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "srt", "-"], check=True, capture_output=True)
    print(f"subtitles of {len(clips)} clips, srt and vtt")


def check_alignments(asr, folder):
    n_words = 0
    for text in sorted(EXAMPLES.glob("*.txt")):
        audio = next(p for p in EXAMPLES.glob(f"{text.stem}.*") if p.suffix != ".txt")
        path = folder / f"{text.stem}.TextGrid"
        run(asr, "align", audio, text, "-l", text.stem, "-f", "textgrid", "-o", path)
        result = json.loads(run(asr, "align", audio, text, "-l", text.stem))
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True, reportingMode="error")
        assert grid.tierNames == ("lines", "words", "characters"), grid.tierNames
        assert abs(grid.maxTimestamp - result["duration_s"]) < 1e-3, path
        for tier in grid.tiers:
            assert tier.validate(reportingMode="error"), path
        words = [w for line in result["segments"] for w in line["words"]]
        labels = [entry.label for entry in grid.getTier("words").entries if entry.label]
        assert labels == [w["word"] for w in words if w["end_s"] > w["start_s"]], path
        n_words += len(labels)
    print(f"alignments, {n_words} words")


def main():
    asr = sys.argv[1] if len(sys.argv) > 1 else "target/release/asr"
    with tempfile.TemporaryDirectory() as folder:
        check_subtitles(asr, pathlib.Path(folder))
        check_alignments(asr, pathlib.Path(folder))


main()
