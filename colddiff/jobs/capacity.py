"""What the machines of a cluster hold, and how many workers they have room for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from colddiff.jobs.job import ResourcesSpec


@dataclass(frozen=True, slots=True)
class Capacity:
    """The machines of a cluster, with all that they hold, whether it is in use now or not."""

    machines: tuple[Mapping[str, float], ...]
    """Resources by name, as Ray has them: ``CPU``, ``GPU``, ``accelerator_type:A100``."""
    grows: bool = False
    """Whether an autoscaler adds machines when they are asked for."""

    def room(self, resources: ResourcesSpec) -> int:
        """How many workers that hold ``resources`` fit at once; each on one machine."""
        wanted = requested(resources)
        return sum(
            min(int(machine.get(name, 0.0) / count + 1e-9) for name, count in wanted.items())
            for machine in self.machines
        )

    def most(self, name: str) -> float:
        """The most of a resource that one machine has."""
        return max((machine.get(name, 0.0) for machine in self.machines), default=0.0)


def requested(resources: ResourcesSpec) -> dict[str, float]:
    """What one worker reserves, by Ray's names; never empty where a job asks for a CPU or a GPU."""
    wanted = {"CPU": float(resources.cpus), "GPU": float(resources.gpus)}
    if resources.accelerator is not None:
        # As Ray itself asks for a type: every machine that has it, has 1 of it.
        wanted[f"accelerator_type:{resources.accelerator}"] = 0.001
    return {name: count for name, count in wanted.items() if count}
