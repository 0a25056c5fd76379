"""The README of an exported checkpoint: its model card as Markdown, metrics with provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colddiff.evaluation.best import REAL, left_out, shown_metrics, shown_notes, unfit_metric
from colddiff.report.grids import number
from colddiff.report.tables import FLOOR
from colddiff.samplers import column_labels


def card_readme(
    card: Mapping[str, Any], omega: Sequence[str] | None = None, best: str | None = None
) -> str:
    """Markdown text of a card: degradation, usage, training, results.

    ``omega``: what is random in D, by name; None if that is not known, as of a plugin's kind.
    ``best``: ``evaluation.best`` of its job, which may ask for a distance that does not fit.
    """
    kind, T = card["degradation"]["kind"], card["degradation"]["num_timesteps"]
    image = card["image"]
    colours = {1: "grey", 3: "colour"}.get(image["channels"], f"{image['channels']}-channel")
    parts = [
        f"# {card['name']}, step {card['step']}",
        f"A restorer for **{kind}** (T = {T}) on {colours} images of {image['size']} x "
        f"{image['size']} px: {card['restorer']['kind']}, {card['parameters']:,} parameters, EMA "
        f"weights (sha256 `{card['weights_sha256']}`). Made with colddiff; see `card.json` for "
        "details.",
        "## Usage\n\n" + _usage(card, omega),
        *([_plugins(card)] if card["plugins"] else []),
        "## Training\n\n" + _training(card),
        "## Results\n\n" + _results(card.get("evaluation"), best),
    ]
    return "\n\n".join(parts) + "\n"


def _usage(card: Mapping[str, Any], omega: Sequence[str] | None) -> str:
    trust = "".join(f" --trust-plugin {_sha256(name)}" for name in card["plugins"])
    command = "    colddiff restore --checkpoint DIR"
    lines = [f"{command} ./clean --degrade --fit --out ./trial{trust}"]
    if not omega:
        lines.insert(0, f"{command} photo.png --severity all --fit --out ./strips{trust}")
        known = "    # of the worst severity; of another, --severity N"
        lines.insert(1, f"{command} photo.png --fit --out ./restored{trust}{known}")
    else:
        lines.append(f"{command} './trial/*.degraded.png' --out ./restored{trust}")
    if card.get("terminal"):
        lines.append("    colddiff submit generate checkpoint=DIR num_samples=1000")
    lines += ["", 'or in Python: `colddiff.load_checkpoint("DIR")`.']
    if omega or omega is None:
        known = f"({', '.join(omega)}) is random" if omega else "is random, if anything is,"
        lines += [
            "",
            f"What {known} in {card['degradation']['kind']} cannot be told from an image: "
            "`--degrade` draws it and keeps it beside the degraded image; of images that were "
            "degraded elsewhere it is given with `--omega FILE`.",
        ]
    if not card.get("terminal"):
        lines += ["", "It can restore only: without a distribution of x_T it cannot generate."]
    return "\n".join(lines)


def _plugins(card: Mapping[str, Any]) -> str:
    names = "\n".join(f"- `{name}`" for name in card["plugins"])
    return (
        "## Plugins\n\nThe degradation or the network is defined by\n\n" + names + "\n\n"
        "This is code, which runs only with `--trust-plugin`. Read it first."
    )


def _training(card: Mapping[str, Any]) -> str:
    facts = card["training"]
    rows = {
        "data (manifest digest)": facts.get("data_digest"),
        "global batch size": facts["global_batch_size"],
        "optimizer steps": card["step"],
        "learning rate": facts["optimizer"]["lr"],
        "EMA decay": facts["ema"]["decay"],
        "loss": facts["loss"],
        "precision": facts["precision"],
        "augmentation": facts["augment"],
        "seed": facts["seed"],
        "last training loss": facts.get("last_loss"),
        "commit": card["git"].get("commit"),
        "torch": card["versions"].get("torch"),
    }
    if facts.get("reference"):
        rows = {"imported from the paper's code, sha256": facts["reference"].get("sha256")} | {
            name: rows[name] for name in ("data (manifest digest)", "optimizer steps")
        }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value is not None]
    return "| | |\n|---|---|\n" + "\n".join(lines)


def _results(evaluation: Mapping[str, Any] | None, best: str | None = None) -> str:
    if evaluation is None:
        return "This checkpoint was not evaluated."
    provenance = evaluation["provenance"]
    metrics = shown_metrics(evaluation["metrics"], provenance, best)
    last, features = unfit_metric(provenance), ""
    if left_out(provenance, best) is None:
        features = (
            f" {provenance['metric']}: {provenance['protocol']}; weights "
            f"`{provenance['feature_weights_sha256']}`."
        )
    found = {path.rpartition("/")[2] for path in metrics}
    names = sorted(found, key=lambda name: (name == last, name))
    labels = column_labels(path.split("/")[1] for path in metrics if path.count("/") == 2)
    labels |= {FLOOR: REAL} if FLOOR in labels else {}
    rows = []
    for column, label in labels.items():
        cells = [metrics.get(f"eval/{column}/{name}") for name in names]
        if any(cell is not None for cell in cells):
            shown = " | ".join("" if cell is None else number(cell, 4) for cell in cells)
            rows.append(f"| {label} | {shown} |")
    head = f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}\n"
    return (
        head
        + "\n".join(rows)
        + f"\n\n{provenance['n']} test images (manifest `{provenance['test_manifest']}`), "
        f"severities {provenance['severities'][0]}..0 in {len(provenance['severities']) - 1} steps,"
        f" seed {provenance['seed']}.{features} {provenance['image_protocol']}."
        + "".join(f"\n\n{note[:1].upper()}{note[1:]}." for note in shown_notes(provenance, best))
    )


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _sha256(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".py")
