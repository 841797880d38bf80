#!/usr/bin/env python3
"""Draws the curves of a training run.

    python3 plot.py LOG.jsonl CURVES.svg

LOG.jsonl is the log that `asr finetune` writes. Left: training loss per token,
nats. Right: character error rate and language accuracy on the held-out clips,
percent, seen and unseen speakers.
"""

import json
import sys

WIDTH, HEIGHT, MARGIN, GAP = 420, 260, 44, 64
COLOURS = {"loss": "#444444", "CER seen": "#c2410c", "CER unseen": "#fb923c", "LID seen": "#1d4ed8", "LID unseen": "#60a5fa"}


def panel(left, title, series, low, high, steps):
    """One plot: axes, a line per series, names at their ends."""
    top, bottom, right = MARGIN, MARGIN + HEIGHT, left + WIDTH

    def x(step):
        return left + WIDTH * step / steps

    def y(value):
        return bottom - HEIGHT * (min(max(value, low), high) - low) / (high - low)

    out = [f'<text x="{left}" y="{top - 14}" font-weight="bold">{title}</text>']
    for i in range(6):
        value = low + (high - low) * i / 5
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for i in range(5):
        step = steps * i / 4
        out.append(f'<text x="{x(step):.1f}" y="{bottom + 18}" text-anchor="middle">{step:g}</text>')
    taken = []
    for name, points in series.items():
        if not points:
            continue
        path = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
        if len(series) > 1:
            at = y(points[-1][1]) + 4
            while any(abs(at - other) < 13 for other in taken):
                at += 13
            taken.append(at)
            out.append(f'<text x="{right + 6}" y="{at:.1f}" fill="{COLOURS[name]}">{name} {points[-1][1]:.1f}</text>')
    return out


def main(log, target):
    loss, scores = [], {"CER seen": [], "CER unseen": [], "LID seen": [], "LID unseen": []}
    with open(log, encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            if "loss" in line:
                loss.append((line["step"], line["loss"]))
            for condition, group in line.get("dev", {}).items():
                if group["cer"] is not None:
                    scores[f"CER {condition}"].append((line["step"], 100 * group["cer"]))
                scores[f"LID {condition}"].append((line["step"], 100 * group["lid_accuracy"]))
    steps = loss[-1][0]
    right = MARGIN + WIDTH + GAP
    out = panel(MARGIN, "training loss per token, nats, by step", {"loss": loss}, 0, 5, steps)
    out += panel(right, "held-out clips, percent, by step", scores, 0, 100, steps)
    size = f'width="{right + WIDTH + 130}" height="{HEIGHT + 2 * MARGIN}"'
    with open(target, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n')
        file.write('<rect width="100%" height="100%" fill="white"/>\n')
        file.write("\n".join(out) + "\n</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
