"""A sampling trajectory from x_T to x_0, as a strip and an animation of states and estimates."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from colddiff.evaluation.trajectory import Trajectory, evenly
from colddiff.report.sheets import INK, MARGIN, SheetColumn, draw_sheet, png

STATE, ESTIMATE = "x_t", "R(x_t, t)"
STEPS_MS, HOLD_MS, END_MS = 4000, 600, 2000
"""Durations in an animation: of all steps together, of the first frame, of the last frame."""


def trajectory_strip(
    path: Trajectory, *, title: str = "", columns: int = 8, images: int = 3
) -> bytes:
    """A PNG with severity decreasing from left to right: x_t of each image above R(x_t, t)."""
    chosen = evenly(range(len(path.severities)), columns)
    shown = min(images, path.states.shape[1])
    sheet = draw_sheet(
        [
            SheetColumn(
                f"t = {path.severities[i]}",
                np.stack([path.states[i, :shown], path.estimates[i, :shown]], axis=1).reshape(
                    2 * shown, *path.states.shape[2:]
                ),
            )
            for i in chosen
        ],
        row_labels=[STATE, ESTIMATE] * shown,
        title=title,
        rows_per_group=2,
    )
    return png(sheet)


def trajectory_animation(path: Trajectory, *, title: str = "", images: int = 6) -> bytes:
    """A looping GIF from T to 0: x_t above R(x_t, t), with the severity."""
    frames = [_frame(path, i, title, images) for i in range(len(path.severities))]
    # One palette for all frames: with separate palettes, flat areas flicker.
    palette = _palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    step = min(400, max(40, STEPS_MS // len(frames)))
    durations = [step] * len(frames)
    durations[0], durations[-1] = HOLD_MS, END_MS
    buffer = io.BytesIO()
    indexed[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=durations,
        loop=0,
        disposal=1,
    )
    return buffer.getvalue()


def _frame(path: Trajectory, i: int, title: str, images: int) -> Image.Image:
    shown = min(images, path.states.shape[1])
    pairs = np.stack([path.states[i, :shown], path.estimates[i, :shown]])
    T, t = path.severities[0], path.severities[i]
    sheet = draw_sheet(
        [SheetColumn("", pairs[:, k]) for k in range(shown)],
        row_labels=[STATE, ESTIMATE],
        title=f"{title + ', ' if title else ''}t = {t}",
    )
    # Progress bar: fills up as severity decreases.
    draw = ImageDraw.Draw(sheet)
    left, right, top = MARGIN, sheet.width - MARGIN, MARGIN + 38
    draw.rectangle((left, top, right, top + 4), fill="#e3e3e8")
    done = left + round((right - left) * (T - t) / T)
    if done > left:
        draw.rectangle((left, top, done, top + 4), fill=INK)
    return sheet


def _palette(frames: list[Image.Image]) -> Image.Image:
    few = [frames[i] for i in evenly(range(len(frames)), 6)]
    together = Image.new("RGB", (few[0].width, sum(frame.height for frame in few)))
    top = 0
    for frame in few:
        together.paste(frame, (0, top))
        top += frame.height
    return together.quantize(colors=256, method=Image.Quantize.MEDIANCUT)
