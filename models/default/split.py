#!/usr/bin/env python3
"""Chooses the development clips of a speech manifest.

    python3 split.py MANIFEST.tsv DEV.tsv

MANIFEST.tsv has the columns path, language, speaker, dataset, licence,
duration_s and text ('-' where unknown). DEV.tsv gets path, condition and
language of the clips to hold out of training; the table on standard output
counts both sides per language. The same manifest always gives the same list.

Two conditions:

- unseen: every clip of a speaker is held out; texts that other speakers also
  say stay in training, only the voice is new. Never the speaker with most of
  a language's minutes, and never more than a quarter of the language.
- seen: clips of speakers that are also trained on. Clips that share their
  words (the same text, a word-list entry inside a longer list, a rare name in
  the same collection of stories) are taken together, so no text that is
  held out is also trained on in that language. Single letters, syllables and
  digits are exempt: the table reports how many held-out clips consist of them.
"""

import collections
import csv
import hashlib
import re
import sys
import unicodedata

MOST_DEV = 2.5  # minutes per language
MOST_UNSEEN = 1.5  # minutes per language
MOST_UNSEEN_SHARE = 0.22  # of a language's minutes
SEEN_SHARE = 0.03  # of a language's minutes
FEWEST_SEEN = 10  # clips, in languages of SMALL minutes and more
SMALL = 5.0  # minutes: below, two to four seen clips
TINY = 1.3  # minutes: below, no seen clips
LARGEST_GROUP = 12  # clips that share words and may be held out together
STORIES = {"robotutor-english", "robotutor-swahili"}  # grouped by rare names too
MOST_OF_A_NAME = 15  # clips: a capitalised word above this is no rare name


def normal(text):
    """Lower-case words of a text, without punctuation."""
    text = unicodedata.normalize("NFC", text.casefold())
    kept = (c if unicodedata.category(c)[0] in "LMN" or c in "\u200c\u200d" else " " for c in text)
    return " ".join("".join(kept).split())


def is_spelling(text):
    """Whether every word of a normal text is a letter, a syllable or a number."""
    def short(word):
        base = [c for c in word if unicodedata.category(c)[0] in "LN"]
        han = any("\u4e00" <= c <= "\u9fff" for c in base)
        return word.isdecimal() or (len(base) <= 2 and not han)

    return bool(text) and all(short(word) for word in text.split())


def order(*parts):
    """A fixed pseudo-random sort key."""
    return hashlib.sha256("\t".join(parts).encode()).hexdigest()


def speaker_key(clip):
    """One key per speaker of a language; unknown speakers count per dataset.

    Identifiers that end in the same six digits name the same unnamed
    contributor of a language in two datasets.
    """
    if clip["speaker"] == "-":
        return "unknown:" + clip["dataset"]
    match = re.search(r"-([0-9a-f]{6})$", clip["speaker"])
    return match.group(1) if match else clip["speaker"]


def groups(clips):
    """Lists of clips of one language that share words."""
    parent = list(range(len(clips)))

    def find(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    same = collections.defaultdict(list)
    whole = {c["normal"] for c in clips if c["normal"] and not is_spelling(c["normal"])}
    for i, clip in enumerate(clips):
        words = clip["normal"].split()
        for size in range(1, len(words) + 1) if len(words) <= 12 else ():
            for start in range(len(words) - size + 1):
                piece = " ".join(words[start : start + size])
                if piece in whole:
                    same["text", piece].append(i)
        if len(words) > 12:
            same["text", clip["normal"]].append(i)
        for item in re.split(r"[.!?;]+", clip["text"]):
            item = normal(item)
            if item and item != clip["normal"] and not is_spelling(item):
                same["text", item].append(i)
        if clip["dataset"] in STORIES:
            for name in set(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,}", clip["text"])):
                same["name", clip["dataset"], name].append(i)
    for key, members in same.items():
        if key[0] == "name" and len(members) > MOST_OF_A_NAME:
            continue
        for i in members[1:]:
            parent[find(i)] = find(members[0])
    found = collections.defaultdict(list)
    for i, clip in enumerate(clips):
        found[find(i)].append(clip)
    return list(found.values())


def minutes(clips):
    return sum(c["seconds"] for c in clips) / 60


def has_words(clip):
    return bool(clip["normal"]) and not is_spelling(clip["normal"])


def unseen_clips(language, clips):
    """Clips of whole speakers to hold out of one language."""
    speakers = collections.defaultdict(list)
    for clip in clips:
        speakers[speaker_key(clip)].append(clip)
    total = minutes(clips)
    main = max(speakers, key=lambda s: (minutes(speakers[s]), s))
    budget = min(MOST_UNSEEN, MOST_UNSEEN_SHARE * total)

    def preference(speaker):
        own = speakers[speaker]
        share = sum(has_words(c) for c in own) / len(own)
        return (share < 0.5, minutes(own) < 0.15, order(language, speaker))

    chosen, used = [], 0.0
    for speaker in sorted(speakers, key=preference):
        if speaker != main and used + minutes(speakers[speaker]) <= budget:
            chosen += speakers[speaker]
            used += minutes(speakers[speaker])
    return chosen


def seen_clips(language, clips, total, room):
    """Clips to hold out whose speakers keep other clips in training."""
    if total < TINY:
        return []
    small = total < SMALL
    target = min(room, SEEN_SHARE * total)
    fewest = min(4, max(2, round(total))) if small else FEWEST_SEEN
    share = 0.08 if small else 0.12
    speakers = collections.defaultdict(float)
    for clip in clips:
        speakers[speaker_key(clip)] += clip["seconds"] / 60

    def preference(group):
        words = sum(has_words(c) for c in group) / len(group)
        text = sum(bool(c["normal"]) for c in group) / len(group)
        # One group in six of those without words goes in line with the others.
        key = order(language, *(c["path"] for c in group))
        later = words < 0.5 and int(key[:4], 16) % 6 != 0
        return (later, later and text < 0.5, key)

    chosen, used = [], 0.0
    taken = collections.defaultdict(float)
    for group in sorted(groups(clips), key=preference):
        if used >= target and len(chosen) >= fewest:
            break
        size = minutes(group)
        if len(group) > LARGEST_GROUP or used + size > min(room, share * total):
            continue
        added = collections.defaultdict(float)
        for clip in group:
            added[speaker_key(clip)] += clip["seconds"] / 60
        if any(taken[s] + m > 0.2 * speakers[s] for s, m in added.items()):
            continue
        chosen += group
        used += size
        for s, m in added.items():
            taken[s] += m
    return chosen


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    languages = collections.defaultdict(list)
    with open(sys.argv[1], encoding="utf-8", newline="") as source:
        for clip in csv.DictReader(source, delimiter="\t", quoting=csv.QUOTE_NONE):
            clip["seconds"] = float(clip["duration_s"])
            clip["normal"] = normal(clip["text"]) if clip["text"] != "-" else ""
            languages[clip["language"]].append(clip)

    rows, sums = [], collections.Counter()
    print("lang\ttrain\tseen\tunseen\ttrain\tseen\tunseen\tspeakers\tunseen\toverlap\tspelling")
    print("\tmin\tmin\tmin\tclips\tclips\tclips\t\tspeakers\tclips\tclips")
    for language in sorted(languages):
        clips = languages[language]
        unseen = unseen_clips(language, clips)
        out = {c["path"] for c in unseen}
        rest = [c for c in clips if c["path"] not in out]
        room = MOST_DEV - minutes(unseen)
        seen = seen_clips(language, rest, minutes(clips), room)
        out |= {c["path"] for c in seen}
        train = [c for c in clips if c["path"] not in out]
        texts = {c["normal"] for c in train}
        overlap = sum(has_words(c) and c["normal"] in texts for c in seen + unseen)
        spelling = sum(is_spelling(c["normal"]) for c in seen + unseen)
        values = [minutes(train), minutes(seen), minutes(unseen)]
        counts = [len(train), len(seen), len(unseen), len({speaker_key(c) for c in clips}),
                  len({speaker_key(c) for c in unseen}), overlap, spelling]
        print(language, *(f"{v:.2f}" for v in values), *counts, sep="\t")
        for i, value in enumerate(values + counts):
            sums[i] += value
        rows += [(c["path"], "seen", language) for c in seen]
        rows += [(c["path"], "unseen", language) for c in unseen]
    print("all", *(f"{sums[i]:.2f}" for i in range(3)), *(sums[i] for i in range(3, 10)), sep="\t")
    with open(sys.argv[2], "w", encoding="utf-8", newline="\n") as target:
        target.write("path\tcondition\tlanguage\n")
        for row in sorted(rows):
            target.write("\t".join(row) + "\n")


if __name__ == "__main__":
    main()
