#!/usr/bin/env python3
"""Draws how coverage grew by core-seconds: curves.py OUT.svg NAME=RESULT.json…, each file as `compress fuzz --json` printed
it on a system that tells them."""
import json, pathlib, sys

W, H, LEFT, BOTTOM = 720, 400, 70, 50
COLOURS = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b"]


def main(out, pairs):
    curves = {}
    for p in pairs:
        name, file = p.split("=", 1)
        curves[name] = [(s, f) for s, _, f, _ in json.loads(pathlib.Path(file).read_text().splitlines()[0])["curve"]]
    most_s = max(c[-1][0] for c in curves.values())
    most_f = max(c[-1][1] for c in curves.values())
    x = lambda s: LEFT + s / most_s * (W - LEFT - 150)
    y = lambda f: H - BOTTOM - f / most_f * (H - BOTTOM - 20)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{W}" height="{H}" font-family="sans-serif" font-size="12">']
    svg.append(f'<rect width="{W}" height="{H}" fill="white"/>')
    for i in range(6):
        f, s = most_f * i / 5, most_s * i / 5
        svg.append(f'<line x1="{LEFT}" y1="{y(f):.0f}" x2="{W - 150}" y2="{y(f):.0f}" stroke="#ddd"/>')
        svg.append(f'<text x="{LEFT - 6}" y="{y(f) + 4:.0f}" text-anchor="end">{f:.0f}</text>')
        svg.append(f'<text x="{x(s):.0f}" y="{H - BOTTOM + 18}" text-anchor="middle">{s:.0f}</text>')
    svg.append(f'<text x="{(LEFT + W - 150) / 2:.0f}" y="{H - 12}" text-anchor="middle">core-seconds</text>')
    svg.append(f'<text x="14" y="{H / 2:.0f}" transform="rotate(-90 14 {H / 2:.0f})" text-anchor="middle">features</text>')
    for (name, c), colour in zip(curves.items(), COLOURS):
        points = " ".join(f"{x(s):.1f},{y(f):.1f}" for s, f in c)
        svg.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        svg.append(f'<text x="{W - 144}" y="{y(c[-1][1]) + 4:.0f}" fill="{colour}">{name} {c[-1][1]}</text>')
    svg.append("</svg>")
    pathlib.Path(out).write_text("\n".join(svg) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
