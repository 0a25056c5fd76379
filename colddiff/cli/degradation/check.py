"""`colddiff check`: tests the laws on a degradation, and measures its severity profile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colddiff.cli.degradation.target import Target, Variant, Words, read_target
from colddiff.cli.options import Json
from colddiff.cli.output import emit, emit_json, emit_table
from colddiff.data.open import open_transformed

if TYPE_CHECKING:
    from colddiff.laws import Finding
    from colddiff.severity_profile import SeverityProfile
    from colddiff.types import Image

NUM_IMAGES = (4, 64)
PIXELS = 2e8


def check(
    words: Words,
    data: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Packed images to measure on; default: synthetic images."),
    ] = None,
    variant: Variant = None,
    as_json: Json = False,
) -> None:
    """Test the laws on a degradation and measure its effect. Exit 1: a law is broken."""
    from colddiff.errors import ColddiffError
    from colddiff.laws import broken, check_laws
    from colddiff.severity_profile import measure_severity_profile
    from colddiff.synthetic import synthetic_images, synthetic_omega

    target = read_target(words, variant)
    D = target.spec.build(target.shape)
    count = _affordable(target)
    images = _packed(data, target, count) if data else synthetic_images(target.shape, count)
    findings = check_laws(target.spec, target.shape, images)
    wrong = broken(findings)
    # An operator that raises or returns NaN cannot be measured.
    measurable = not any(f.problem or f.law == "finite" for f in wrong)
    profile = (
        measure_severity_profile(D, images, synthetic_omega(D, len(images))) if measurable else None
    )
    if as_json:
        emit_json(_as_data(target, findings, profile, data))
    else:
        _print(target, findings, profile, data)
    if wrong:
        laws = "; ".join(f"{f.law}: {_line(f)}" for f in wrong)
        raise ColddiffError(
            f"{target.spec.kind} breaks {len(wrong)} of {len(findings)} laws: {laws}"
        )


def _affordable(target: Target) -> int:
    """Number of images for which measuring all severities takes seconds."""
    pixels = math.prod(target.shape.chw) * (target.spec.num_timesteps + 1)
    return min(max(int(PIXELS / pixels), NUM_IMAGES[0]), NUM_IMAGES[1])


def _packed(uri: str, target: Target, count: int) -> Image:
    import torch

    from colddiff.errors import DataError
    from colddiff.laws import BATCH
    from colddiff.transforms import normalise

    source = open_transformed(uri, target.augment, target.shape, f"--data: {uri}")
    if source.manifest.count < BATCH:
        raise DataError(f"--data: {uri} has {source.manifest.count} images, the laws need {BATCH}")
    pixels = source.images(0, min(count, source.manifest.count))
    return normalise(torch.from_numpy(pixels))


def _line(finding: Finding) -> str:
    measured = finding.problem or f"measured {_number(finding.measured)}"
    return f"{finding.statement} ({measured}, allowed {_number(finding.allowed)})"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _print(
    target: Target, findings: list[Finding], profile: SeverityProfile | None, data: str | None
) -> None:
    emit(str(target))
    emit("")
    emit_table(
        ("LAW", "", "MEASURED", "ALLOWED"),
        [
            (
                finding.statement,
                "holds" if finding.holds else "BROKEN",
                finding.problem or _number(finding.measured),
                _number(finding.allowed),
            )
            for finding in findings
        ],
    )
    if profile is None:
        return
    emit("")
    origin = data or "synthetic"
    emit(f"Distance of D(x0, t) from x0 over {profile.num_images} images ({origin}), scale 0..1")
    emit_table(
        ("SEVERITY", "", "RMSE", "PSNR"),
        [
            (str(t), name, f"{profile.rmse[t]:.4f}", f"{profile.psnr(t):.1f} dB")
            for name, t in _marks(profile).items()
        ],
    )
    emit("")
    emit(f"dead steps: {_runs(profile.dead) or 'none'} (steps that change less than 1e-5)")
    if len(profile.dead) == profile.num_timesteps:
        return
    t = profile.largest_step
    emit(f"largest step: {profile.roughness:.3g} times the mean step, from {t - 1} to {t}")


def _marks(profile: SeverityProfile) -> dict[str, int]:
    T = profile.num_timesteps
    return {name: t for name, t in (("T/4", T // 4), ("T/2", T // 2), ("T", T)) if t}


def _runs(severities: list[int]) -> str:
    """Severities as text, such as ``1, 4-7``."""
    runs: list[list[int]] = []
    for t in severities:
        if runs and runs[-1][1] == t - 1:
            runs[-1][1] = t
        else:
            runs.append([t, t])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _as_data(
    target: Target, findings: list[Finding], profile: SeverityProfile | None, data: str | None
) -> dict[str, Any]:
    laws = [
        {
            "law": finding.law,
            "statement": finding.statement,
            "holds": finding.holds,
            "measured": finding.measured if math.isfinite(finding.measured) else None,
            "allowed": finding.allowed,
            "problem": finding.problem,
        }
        for finding in findings
    ]
    return {
        "name": target.name,
        "degradation": target.spec.to_dict(),
        "image": list(target.shape.chw),
        "data": data,
        "laws": laws,
        "removal": None if profile is None else _profile_data(profile),
    }


def _profile_data(profile: SeverityProfile) -> dict[str, Any]:
    def left(t: int) -> dict[str, Any]:
        psnr = profile.psnr(t)
        return {
            "severity": t,
            "rmse": float(profile.rmse[t]),
            "psnr": psnr if math.isfinite(psnr) else None,
        }

    roughness = profile.roughness
    return {
        "num_images": profile.num_images,
        "left": {name: left(t) for name, t in _marks(profile).items()},
        "dead_steps": profile.dead,
        "largest_step": profile.largest_step,
        "roughness": roughness if math.isfinite(roughness) else None,
    }
