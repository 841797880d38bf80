#!/usr/bin/env python3
"""Draws the curves of an `asr pretrain` run.

    python3 plot_pretraining.py RUN CURVES.svg STAGE...

RUN holds a folder per stage with its log.jsonl. Left: loss on hidden frames, nats
per frame and resolution. Right: hidden frames whose unit is predicted, percent.
Lines are training, dots the held-out clips.
"""

import json
import sys

WIDTH, HEIGHT, MARGIN, GAP = 420, 260, 44, 70
COLOURS = ["#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207", "#0e7490"]


def read(run, stages):
    """Series by name: training and held-out points of (step, loss, percent right)."""
    series = {}
    for stage in stages:
        with open(f"{run}/{stage}/log.jsonl", encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                for key, value in line.items():
                    if key.startswith("accuracy."):
                        head = key.removeprefix("accuracy.")
                        training, _ = series.setdefault(f"{stage} {head}", ([], []))
                        training.append((line["step"], line[f"loss.{head}"], 100 * value))
                for head, scores in line.get("dev", {}).get("heads", {}).items():
                    _, held_out = series.setdefault(f"{stage} {head}", ([], []))
                    held_out.append((line["step"], scores["loss"], 100 * scores["accuracy"]))
    return series


def panel(left, title, series, which, high):
    """One plot of column `which` of the points, from 0 to `high`."""
    top, bottom, right = MARGIN, MARGIN + HEIGHT, left + WIDTH
    steps = max(point[0] for training, _ in series.values() for point in training)

    def x(step):
        return left + WIDTH * step / steps

    def y(value):
        return bottom - HEIGHT * min(value, high) / high

    out = [f'<text x="{left}" y="{top - 14}" font-weight="bold">{title}</text>']
    for i in range(6):
        value = high * i / 5
        out.append(f'<line x1="{left}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for i in range(5):
        out.append(f'<text x="{x(steps * i / 4):.1f}" y="{bottom + 18}" text-anchor="middle">{steps * i / 4:g}</text>')
    for i, (name, (training, held_out)) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x(point[0]):.1f},{y(point[which]):.1f}" for point in training)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(p[0]):.1f}" cy="{y(p[which]):.1f}" r="4" fill="{colour}"/>' for p in held_out]
        out.append(f'<text x="{right - 130}" y="{top + 14 + 15 * i if which == 1 else bottom - 6 - 15 * i}" fill="{colour}">{name}</text>')
    return out


def main(run, target, *stages):
    series = read(run, stages)
    right = MARGIN + WIDTH + GAP
    out = panel(MARGIN, "loss on hidden frames, nats, by step", series, 1, 7)
    out += panel(right, "hidden frames predicted, percent, by step", series, 2, 30)
    size = f'width="{right + WIDTH + MARGIN}" height="{HEIGHT + 2 * MARGIN}"'
    with open(target, "w", encoding="utf-8") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n')
        file.write('<rect width="100%" height="100%" fill="white"/>\n')
        file.write("\n".join(out) + "\n</svg>\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
