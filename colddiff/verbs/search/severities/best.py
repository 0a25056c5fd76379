"""``best.yaml``: the best lists as jobs that `submit evaluate` and `submit generate` take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from colddiff.evaluation.spec import carried_over
from colddiff.verbs.search.severities.confirm import BestList
from colddiff.verbs.search.severities.lists import SeverityList
from colddiff.verbs.search.severities.results import variant_name
from colddiff.verbs.search.severities.task import ListTask

NUM_SAMPLES = 1000
"""Images that the file's generate job makes where x_T has a distribution."""


class _Plain(yaml.SafeDumper):
    """Lists in one line, and everything written out where it is used."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Plain.add_representer(list, _Plain.represent_list)


def best_yaml(task: ListTask, best: Sequence[BestList], *, draws: bool) -> str:
    """The file: sections for the largest budget, and a variant for each of the others.

    ``draws``: whether samples that start from x_T of the checkpoint's terminal are worth making.
    """
    *smaller, largest = best
    variants = {
        variant_name(found.budget): _sections(task, found.state.trial.chosen, draws)
        for found in smaller
    }
    lines = [
        f"# {restore_command(task, found)}   # at most {found.budget} network calls"
        for found in best
    ]
    data = {
        "description": f"The best severities for at most {largest.budget} network calls, found by "
        "a search; variants have those for fewer.",
        **_sections(task, largest.state.trial.chosen, draws),
        **({"variants": variants} if variants else {}),
    }
    return "\n".join([*lines, yaml.dump(data, Dumper=_Plain, sort_keys=False, width=100)])


def restore_command(task: ListTask, best: BestList) -> str:
    """The command that restores a person's own images with a best list."""
    chosen = best.state.trial.chosen
    return (
        f"colddiff restore --checkpoint {task.base.checkpoint} --sampler {chosen.sampler} "
        f"--severities {','.join(map(str, chosen.severities))} IMG... --out DIR"
    )


def _sections(task: ListTask, chosen: SeverityList, draws: bool) -> dict[str, Any]:
    base, spec = task.base, task.trained.evaluation
    shared: dict[str, Any] = {"checkpoint": base.checkpoint, "severities": list(chosen.severities)}
    evaluate: dict[str, Any] = {
        **carried_over(spec.to_dict()),
        **shared,
        "samplers": [chosen.sampler],
        "curve": None,  # of even severities, which the chosen ones replace
    }
    generate: dict[str, Any] = {**shared, "sampler": chosen.sampler}
    if base.test_data is not None:
        evaluate["test_data"] = base.test_data
    if draws or base.test_data is None:
        generate["num_samples"] = NUM_SAMPLES
    else:
        generate["data"] = base.test_data
    return {"evaluate": evaluate, "generate": generate}
