"""The JSON schema of a job file, for completion, documentation and checks in editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from colddiff.jobs.verb import VERBS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ABOUT: dict[str, dict[str, Any]] = {
    "name": {
        "type": "string",
        "description": "name in the job's id; default: the file's name",
    },
    "description": {
        "type": "string",
        "description": "the job in one line, and below it how it differs from its source",
    },
    "pack": {
        "type": "string",
        "description": "commands that pack its data, if it names none; never run",
    },
    "targets": {
        "type": "object",
        "description": "published numbers that the job aims to reproduce, and their source",
    },
    "measured": {
        "type": "object",
        "description": "measured here, by this project: numbers, their source and how; no "
        "reproduction of the paper's",
    },
}
"""Descriptive fields of a job file: all but its sections and variants."""


def job_file_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a job file: a section per verb and the descriptive fields.

    Includes all kinds that are registered now, those of loaded plugins among them.
    """
    specs = {verb: VERBS[verb].spec() for verb in VERBS}
    by_spec, shared = models_json_schema([(spec, "validation") for spec in specs.values()])
    sections = {
        verb: {
            "description": VERBS[verb].help,
            "anyOf": [by_spec[spec, "validation"], {"type": "null"}],
        }
        for verb, spec in specs.items()
    }
    # A variant is merged over the file: its sections are fragments, so only names are checked.
    fragments = {
        verb: {"type": "object", "propertyNames": {"enum": list(spec.model_fields)}}
        for verb, spec in specs.items()
    }
    variants = {
        "type": "object",
        "description": "by name: what `--variant NAME` merges over this file",
        "additionalProperties": {
            "type": "object",
            "properties": {**ABOUT, **fragments},
            "additionalProperties": False,
        },
    }
    return {
        "$schema": DIALECT,
        "title": "colddiff job file",
        "type": "object",
        "properties": {**ABOUT, **sections, "variants": variants},
        "additionalProperties": False,
        "$defs": shared.get("$defs", {}),
    }
