#!/usr/bin/env python3
"""Makes synthetic training clips, and clips without speech.

    python3 synthesise.py speech MANIFEST.tsv DEV.tsv SENTENCES.tsv OUT_DIR
        [--minutes 14] [--languages afr,ben,...] [--jobs 2] [--seed 1]
    python3 synthesise.py nonspeech OUT_DIR [--minutes 15] [--seed 1]

The texts are the transcripts of MANIFEST.tsv that are not in DEV.tsv, and
SENTENCES.tsv (language, text and, where the spelling does not tell the sound,
what to say). No text that DEV.tsv holds out is spoken. Every clip has its own
voice, pitch, speed and spectrum; then it goes through the Opus codec as the
recordings did. OUT_DIR gets 16 kHz mono 16-bit WAV files and a manifest.tsv
with the columns of MANIFEST.tsv, which is replaced as the work goes on. The
same arguments and program versions give the same clips; languages not named
keep the rows of earlier runs.

Needs espeak-ng, flite, festival with the voices named below, sox, opusenc and
opusdec (opus-tools).
"""

import argparse
import collections
import concurrent.futures
import csv
import hashlib
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
import wave

from split import is_spelling, normal

RATE = 16000
COLUMNS = ["path", "language", "speaker", "dataset", "licence", "duration_s", "text"]
LICENCE = "as its texts"
CLIP_SECONDS = (1.0, 20.0)

# espeak-ng voices per language. Left out, because the spelling does not tell
# the vowels or the word limits: Arabic, Hebrew, Urdu and Thai; and Setswana,
# whose rules drop vowels.
ESPEAK = {
    "afr": ["af"], "bel": ["be"], "ben": ["bn"], "bul": ["bg"], "cat": ["ca"],
    "ces": ["cs"], "cmn": ["cmn-latn-pinyin"], "cym": ["cy"], "dan": ["da"], "deu": ["de"],
    "ell": ["el"], "eng": ["en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029",
                           "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-us-nyc"],
    "epo": ["eo"], "est": ["et"], "eus": ["eu"], "fin": ["fi"],
    "fra": ["fr-fr", "fr-be", "fr-ch"], "gla": ["gd"], "gle": ["ga"], "hin": ["hi"],
    "hrv": ["hr"], "hun": ["hu"], "hye": ["hy"], "ind": ["id"], "ita": ["it"],
    "jpn": ["ja"], "kan": ["kn"], "kor": ["ko"], "lit": ["lt"], "mal": ["ml"],
    "mar": ["mr"], "msa": ["ms"], "nld": ["nl"], "nob": ["nb"], "pan": ["pa"],
    "pol": ["pl"], "por": ["pt-br", "pt"], "ron": ["ro"], "rus": ["ru"], "slk": ["sk"],
    "slv": ["sl"], "spa": ["es", "es-419"], "srp": ["sr"], "swa": ["sw"], "swe": ["sv"],
    "tam": ["ta"], "tok": ["eo"], "tuk": ["tk"], "tur": ["tr"],
    "ukr": ["uk"],
}
SPOKEN_ONLY = {"cmn", "jpn"}  # their characters need the third column: pinyin, kana
VARIANTS = (
    [f"m{i}" for i in range(1, 9)] + [f"f{i}" for i in range(1, 6)] * 2
    + ["klatt", "klatt2", "klatt3", "klatt4", "klatt5", "klatt6"]
    + """Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco
    Mario Michael Mike adam anika antonio aunty belinda benjamin boris caleb croak david ed
    edward edward2 grandma grandpa gustave iven iven2 iven3 iven4 john kaukovalta linda
    marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro shelby steph
    steph2 steph3 travis victor zac""".split()
)
FLITE = {"eng": ["slt", "rms", "awb", "kal16"]}
# Festival voices: name and character set of the text.
FESTIVAL = {
    "cat": [("upc_ca_ona_hts", "iso-8859-15")],
    "ces": [("czech_dita", "iso-8859-2"), ("czech_krb", "iso-8859-2"),
            ("czech_machac", "iso-8859-2"), ("czech_ph", "iso-8859-2")],
    "eng": [("kal_diphone", "ascii"), ("cmu_us_slt_arctic_hts", "ascii")],
    "fin": [("hy_fi_mv_diphone", "iso-8859-1"), ("suo_fi_lj_diphone", "iso-8859-1")],
    "hin": [("hindi_NSK_diphone", "utf-8")],
    "ita": [("lp_diphone", "iso-8859-1"), ("pc_diphone", "iso-8859-1")],
    "mar": [("marathi_NSK_diphone", "utf-8")],
    "rus": [("msu_ru_nsh_clunits", "utf-8")],
}
OTHER_SHARE = 0.3  # of the clips of a language that flite or festival speaks
NOT_TEXT = re.compile(r"[#{}+*_|<>=/\\]")

Job = collections.namedtuple("Job", "path language engine voice charset text spoken settings")


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as source:
        yield from csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE)


def texts_of(manifest, dev, sentences):
    """Pairs of text and what to say, per language."""
    held = {row["path"] for row in read_rows(dev)}
    texts, dev_texts = collections.defaultdict(dict), collections.defaultdict(set)
    for row in read_rows(manifest):
        text = row["text"]
        if text == "-":
            continue
        if row["path"] in held:
            dev_texts[row["language"]].add(normal(text))
        elif not NOT_TEXT.search(text):
            spelling = is_spelling(normal(text))
            if not spelling or all(w.isdecimal() for w in normal(text).split()):
                if row["language"] not in SPOKEN_ONLY:
                    texts[row["language"]].setdefault(text, text)
    own = collections.defaultdict(dict)
    for row in read_rows(sentences):
        own[row["language"]][row["text"]] = row.get("spoken") or row["text"]
    for language, pairs in texts.items():
        for text in [t for t in pairs if normal(t) in dev_texts[language]]:
            del pairs[text]
    for language, pairs in own.items():
        for text in [t for t in pairs if normal(t) in dev_texts[language]]:
            del pairs[text]
    return texts, own


def speak_form(language, spoken):
    """What the synthesiser gets: capitals alone would be spelled."""
    lines = spoken.split("\n")
    spoken = "\n".join(x.lower() if x.isupper() and len(x) > 5 else x for x in lines)
    if language == "tok":  # Esperanto letters for the same sounds
        return spoken.replace("w", "ŭ").replace("W", "Ŭ")
    return spoken


def seconds_guess(text):
    """A rough length of the spoken text; ideographs and digits count more."""
    count = 0.0
    for char in text:
        if "\u3400" <= char <= "\u9fff" or "\uac00" <= char <= "\ud7a3":
            count += 3.2
        elif "\u3040" <= char <= "\u30ff":
            count += 2.0
        elif unicodedata.category(char)[0] == "N":
            count += 5
        elif unicodedata.category(char)[0] in "LM":
            count += 1
        else:
            count += 0.6
    return 0.4 + count / 14


def plan(language, texts, own, minutes, seed):
    """The jobs of one language: texts in random order, joined where short."""
    rng = random.Random(f"{seed} {language}")
    heard = sorted(texts.items())
    sentences = sorted(own.items())
    jobs, total, queue = [], 0.0, []
    used = collections.Counter()
    while total < minutes * 60 and (heard or sentences):
        if not queue:
            # One round: every sentence of ours, and as many or more others.
            queue = rng.sample(heard, min(len(heard), max(150, 3 * len(sentences))))
            queue += sentences
            rng.shuffle(queue)
        pieces = [queue.pop()]
        # Words make lists; now and then sentences follow each other too.
        goal = rng.choice([1.2, 2.0, 3.0, 4.0, 6.0])
        while queue and sum(seconds_guess(t) for t, _ in pieces) < goal and len(pieces) < 6:
            pieces.append(queue.pop())
        while len(pieces) > 1 and sum(seconds_guess(t) for t, _ in pieces) > 15:
            queue.insert(0, pieces.pop())
        if seconds_guess(pieces[0][0]) > 19:
            continue
        text = " ".join(t for t, _ in pieces)
        spoken = "\n".join(
            s if s.rstrip().endswith(tuple(".!?,;:…。।？！")) else s + "," for _, s in pieces
        )
        engine, voice, charset = "espeak-ng", rng.choice(ESPEAK[language]), "utf-8"
        settings = {
            "speed": round(rng.uniform(0.88, 1.14), 3),
            "gain": round(rng.uniform(-9, -1), 1),
            "bass": round(rng.uniform(-6, 6), 1),
            "treble": round(rng.uniform(-9, 5), 1),
            "echo": round(rng.uniform(2, 25), 1) if rng.random() < 0.25 else 0,
            "silence": (round(rng.uniform(0.05, 0.3), 2), round(rng.uniform(0.05, 0.3), 2)),
        }
        others = [("flite", v, "ascii") for v in FLITE.get(language, [])]
        others += [("festival", v, c) for v, c in FESTIVAL.get(language, [])]
        settings["variant"] = rng.choice(VARIANTS)
        settings["wpm"] = rng.randint(120, 200)
        settings["pitch"] = rng.randint(20, 80)
        if others and rng.random() < OTHER_SHARE:
            other = rng.choice(others)
            # What their letter-to-sound rules cannot take stays with espeak-ng.
            digits = any(unicodedata.category(c)[0] == "N" for c in spoken)
            try:
                spoken.encode(other[2])
                fits = other[0] == "flite" or not digits or language in ("eng", "ces")
            except UnicodeEncodeError:
                fits = False
            if fits and '"' not in spoken and "\\" not in spoken:
                engine, voice, charset = other
        form = speak_form(language, spoken)
        key = hashlib.sha256(repr((seed, language, engine, voice, form, sorted(settings.items()))).encode())
        path = f"{language}/{engine}-{key.hexdigest()[:12]}.wav"
        used[text] += 1
        if used[text] > 40:
            break
        jobs.append(Job(path, language, engine, voice, charset, text, form, settings))
        total += seconds_guess(text) / settings["speed"]
    return jobs


def call(*command, **kwargs):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, timeout=120, **kwargs)


def lisp_bytes(text, charset):
    return b'"' + text.replace("\n", " ").encode(charset) + b'"'


def speak(job, raw):
    """Writes what the synthesiser says to the WAV file raw."""
    settings = job.settings
    if job.engine == "espeak-ng":
        call("espeak-ng", "-v", f"{job.voice}+{settings['variant']}", "-s", str(settings["wpm"]),
             "-p", str(settings["pitch"]), "-w", raw, "--", job.spoken)
    elif job.engine == "flite":
        stretch = round(150 / settings["wpm"], 3)
        call("flite", "-voice", job.voice, "--setf", f"duration_stretch={stretch}", "-t",
             job.spoken.replace("\n", " "), "-o", raw)
    else:
        script = b"(voice_%s)\n(Parameter.set 'Duration_Stretch %.3f)\n" % (
            job.voice.encode(), 150 / settings["wpm"])
        script += b"(utt.save.wave (utt.synth (Utterance Text %s)) %s 'riff)\n" % (
            lisp_bytes(job.spoken, job.charset), lisp_bytes(raw, "utf-8"))
        with tempfile.NamedTemporaryFile(suffix=".scm") as file:
            file.write(script)
            file.flush()
            call("festival", "-b", file.name)


def seconds_of(path):
    with wave.open(str(path)) as clip:
        return clip.getnframes() / clip.getframerate()


def make(out, job):
    """Makes one clip; its manifest row, or None where that does not work."""
    target = out / job.path
    if not target.exists():
        s = job.settings
        with tempfile.TemporaryDirectory() as folder:
            raw, shaped, coded = (f"{folder}/{name}" for name in ("a.wav", "b.wav", "c.opus"))
            effects = ["speed", str(s["speed"]), "rate", str(RATE),
                       "silence", "1", "0.01", "0.1%", "reverse", "silence", "1", "0.01", "0.1%", "reverse",
                       "bass", str(s["bass"]), "treble", str(s["treble"])]
            if s["echo"]:
                effects += ["reverb", str(s["echo"]), "50", "30"]
            effects += ["pad", str(s["silence"][0]), str(s["silence"][1]), "norm", str(s["gain"])]
            try:
                speak(job, raw)
                call("sox", "-D", raw, "-c", "1", "-b", "16", shaped, "gain", "-6", *effects)
                call("opusenc", "--quiet", "--serial", "1", "--bitrate", "17", shaped, coded)
                call("opusdec", "--quiet", "--no-dither", "--rate", str(RATE), coded, raw)
                seconds = seconds_of(raw)
            except (OSError, subprocess.SubprocessError, wave.Error, EOFError):
                return None
            if not CLIP_SECONDS[0] <= seconds <= CLIP_SECONDS[1]:
                return None
            # Far from what the text needs: the synthesiser spelled or dropped it.
            if not 0.25 < seconds / seconds_guess(job.text) < 3.5:
                return None
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(".part")
            partial.write_bytes(pathlib.Path(raw).read_bytes())
            partial.replace(target)
    voice = job.voice if job.engine != "espeak-ng" else f"{job.voice}+{job.settings['variant']}"
    return {
        "path": job.path, "language": job.language, "speaker": f"{job.engine}-{voice}",
        "dataset": f"synthetic-{job.engine}", "licence": LICENCE,
        "duration_s": f"{seconds_of(target):.2f}", "text": job.text,
    }


def write_manifest(out, rows):
    partial = out / "manifest.part"
    with open(partial, "w", encoding="utf-8", newline="\n") as target:
        target.write("\t".join(COLUMNS) + "\n")
        for row in rows:
            target.write("\t".join(" ".join(row[c].split()) for c in COLUMNS) + "\n")
    partial.replace(out / "manifest.tsv")


def speech(options):
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    texts, own = texts_of(options.manifest, options.dev, options.sentences)
    languages = options.languages.split(",") if options.languages else sorted(ESPEAK)
    earlier = list(read_rows(out / "manifest.tsv")) if (out / "manifest.tsv").exists() else []
    kept = [row for row in earlier if row["language"] not in languages]
    plans = {l: plan(l, texts[l], own[l], options.minutes, options.seed) for l in languages}
    # Language by language in turns, so that an early manifest has them all.
    depth = max(map(len, plans.values()))
    jobs = [p[i] for i in range(depth) for p in plans.values() if i < len(p)]
    done, failed = [], collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for count, (job, row) in enumerate(zip(jobs, pool.map(lambda j: make(out, j), jobs)), 1):
            if row:
                done.append(row)
            else:
                failed[f"{job.language} {job.engine} {job.voice}"] += 1
            if count % 100 == 0:
                # Earlier clips of these languages stay in use until all new ones are there.
                rows = {row["path"]: row for row in earlier + done}
                write_manifest(out, sorted(rows.values(), key=lambda r: r["path"]))
    write_manifest(out, sorted(kept + done, key=lambda r: r["path"]))
    totals = collections.Counter()
    for row in kept + done:
        totals[row["language"]] += float(row["duration_s"]) / 60
    for language in sorted(totals):
        print(f"{language}\t{totals[language]:.1f} min")
    print(f"all\t{sum(totals.values()):.1f} min\t{len(kept + done)} clips")
    for what, count in sorted(failed.items()):
        print(f"left out\t{what}\t{count}")


def sounds(rng):
    """The kind and the sox effects of one clip without speech."""
    length = round(rng.uniform(1.0, 15.0), 2)
    level = rng.uniform(-60, -3)
    kind = rng.choice(["silence", "white", "pink", "brown", "hum", "tone", "sweep",
                       "pulses", "band"])
    synth = ["synth", str(length)]
    after = ["gain", "-n", f"{level:.1f}"]
    if kind == "silence":
        return kind, ["trim", "0", str(length)]
    if kind in ("white", "pink", "brown"):
        synth += [f"{kind}noise"]
        if rng.random() < 0.4:
            after = ["tremolo", f"{rng.uniform(0.2, 6):.2f}", str(rng.randint(20, 90))] + after
    elif kind == "hum":
        base = rng.choice([50, 60])
        synth += [w for k in (1, 2, 3, 5) for w in ("sine", "create" if k == 1 else "mix", str(base * k))]
        after = ["lowpass", str(rng.randint(200, 2000))] + after
    elif kind == "tone":
        synth += [rng.choice(["sine", "square", "triangle", "sawtooth"]), str(rng.randint(80, 4000))]
    elif kind == "sweep":
        synth += ["sine", f"{rng.randint(50, 500)}:{rng.randint(1000, 7000)}"]
    elif kind == "pulses":
        synth += ["whitenoise", "synth", str(length), "square", "amod", f"{rng.uniform(0.7, 8):.2f}"]
        after = ["lowpass", str(rng.randint(800, 7000))] + after
    elif kind == "band":
        synth += ["whitenoise"]
        after = ["band", str(rng.randint(200, 4000)), str(rng.randint(50, 900))] + after
    return kind, synth + after


def music(rng):
    """Sox arguments that play a short random tune with a second voice."""
    beat = rng.uniform(0.15, 0.6)
    form = rng.choice(["pluck", "sine", "triangle", "sawtooth", "square"])
    words = []
    for i in range(rng.randint(6, max(6, int(12 / beat)))):
        step = rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) - 12 * rng.randint(0, 1)
        second = step + rng.choice([-12, -5, 4, 7])
        words += [":"] if i else []
        words += ["synth", f"{beat:.2f}", form, f"%{step}", "synth", f"{beat:.2f}", form, "mix",
                  f"%{second}", "fade", "t", "0.01", f"{beat:.2f}", "0.05"]
    return words, ["gain", "-n", f"{rng.uniform(-40, -3):.1f}", "reverb", str(rng.randint(0, 60))]


def nonspeech(options):
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"{options.seed} nonspeech")
    rows, total = [], 0.0
    while total < options.minutes * 60:
        path = f"{len(rows):04d}.wav"
        with tempfile.TemporaryDirectory() as folder:
            raw, coded = f"{folder}/a.wav", f"{folder}/b.opus"
            if rng.random() < 0.2:
                kind = "music"
                notes, after = music(rng)
                call("sox", "-R", "-D", "-n", "-r", str(RATE), "-b", "16", "-c", "1", f"{folder}/n.wav", *notes)
                call("sox", "-R", "-D", f"{folder}/n.wav", raw, *after)
            else:
                kind, effects = sounds(rng)
                call("sox", "-R", "-D", "-n", "-r", str(RATE), "-b", "16", "-c", "1", raw, *effects)
            if rng.random() < 0.5:
                call("opusenc", "--quiet", "--serial", "1", "--bitrate", "17", raw, coded)
                call("opusdec", "--quiet", "--no-dither", "--rate", str(RATE), coded, str(out / path))
            else:
                (out / path).write_bytes(pathlib.Path(raw).read_bytes())
        seconds = seconds_of(out / path)
        total += seconds
        rows.append({"path": path, "language": "-", "speaker": kind, "dataset": "synthetic-nonspeech",
                     "licence": "CC0-1.0", "duration_s": f"{seconds:.2f}", "text": "<silence>"})
    write_manifest(out, rows)
    kinds = collections.Counter(row["speaker"] for row in rows)
    print(f"{total / 60:.1f} min\t{len(rows)} clips\t{dict(kinds)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speech")
    for name in ("manifest", "dev", "sentences", "out"):
        one.add_argument(name)
    one.add_argument("--minutes", type=float, default=14, help="about so many for each language")
    one.add_argument("--languages", default="", help="ISO 639-3 codes with commas; all if left out")
    one.add_argument("--jobs", type=int, default=2)
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(run=speech)
    two = commands.add_parser("nonspeech")
    two.add_argument("out")
    two.add_argument("--minutes", type=float, default=15)
    two.add_argument("--seed", type=int, default=1)
    two.set_defaults(run=nonspeech)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
