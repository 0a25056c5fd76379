"""The catalogues of kinds: what each holds, by the name of its command."""

from __future__ import annotations

from typing import Any

from colddiff.cli.catalogue.fields import Section, section, summary
from colddiff.degradations import DEGRADATIONS
from colddiff.errors import SpecError
from colddiff.features.spec import FEATURES
from colddiff.restorers import RESTORERS
from colddiff.samplers import SAMPLERS, Sampler
from colddiff.schedules import SCHEDULES
from colddiff.spec import Catalogue
from colddiff.terminal import TERMINALS

CATALOGUES: dict[str, Catalogue[Any]] = {
    "degradations": DEGRADATIONS,
    "schedules": SCHEDULES,
    "restorers": RESTORERS,
    "samplers": SAMPLERS,
    "terminals": TERMINALS,
    "features": FEATURES,
}


def list_kinds(noun: str) -> dict[str, str]:
    """The names in a catalogue, each with what it is."""
    found = CATALOGUES[noun]
    return {name: summary(_class(found[name])) for name in found}


def find_kind(noun: str, name: str) -> Section:
    """One of a catalogue; a sampler has properties, others have fields. SpecError if unknown."""
    found = CATALOGUES[noun]
    if name not in found:
        raise SpecError(f"{found.noun}: {found.unknown(name)}")
    entry = found[name]
    if isinstance(entry, Sampler):
        return Section(name, summary(type(entry)), {}, _properties(entry))
    return section(name, entry)


def _class(entry: Any) -> type:
    return entry if isinstance(entry, type) else type(entry)


def _properties(sampler: Sampler) -> dict[str, str]:
    calls = "one an image" if sampler.single_step else "one for each of the job's `severities`"
    omega = "read: restore needs it where D is random" if sampler.needs_omega else "not needed"
    return {
        "in tables": sampler.label,
        "metrics": f"eval/{sampler.column}/...",
        "network calls": calls,
        "omega": omega,
    }
