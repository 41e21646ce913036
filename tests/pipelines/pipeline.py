"""A pipeline as Azure would compile it: its template expanded, its conditions evaluated stage by stage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from tests.pipelines.expressions import evaluate, expand_runtime, expand_template

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A pipeline with its template expanded. Every stage has one job."""

    variables: dict[str, str]
    stages: list[Json]

    @classmethod
    def load(cls, path: Path, given: Mapping[str, str]) -> Self:
        """Read an azure-pipelines.yml that extends a template. Raises ValueError for parameters that do not fit."""
        pipeline = _read(path)
        values = {"parameters": _parameters(pipeline, given)}
        extends = expand_template(pipeline["extends"], values)
        template = _read(path.parent / extends["template"])
        values = {"parameters": _parameters(template, extends["parameters"]), "variables": template["variables"]}
        return cls(variables=template["variables"], stages=expand_template(template["stages"], values))


def _read(path: Path) -> Json:
    document: Json = yaml.safe_load(path.read_text("utf-8"))
    return document


def _parameters(document: Json, given: Mapping[str, str]) -> dict[str, str]:
    declared = {parameter["name"]: parameter for parameter in document["parameters"]}
    if unknown := given.keys() - declared.keys():
        raise ValueError(f"Unexpected parameter {', '.join(sorted(unknown))}")
    values = {name: given.get(name, parameter.get("default")) for name, parameter in declared.items()}
    for name, value in values.items():
        if value is None:
            raise ValueError(f"A value for {name} has to be given")
        if value not in declared[name].get("values", [value]):
            raise ValueError(f"{name} is {value!r}, allowed is {declared[name]['values']}")
    return values


@dataclass(slots=True, kw_only=True)
class Memory:
    """What a run hands from stage to stage: outputs by stage, as `job.step.variable`, and results by stage."""

    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    results: dict[str, str] = field(default_factory=dict)

    def dependencies(self) -> dict[str, Any]:
        return {stage: {"outputs": outputs} for stage, outputs in self.outputs.items()}

    def stage_dependencies(self) -> dict[str, Any]:
        """The same, one level deeper: `stageDependencies.Build.image.outputs['plan.base']`."""
        found: dict[str, Any] = {}
        for stage, outputs in self.outputs.items():
            for name, value in outputs.items():
                job, _, rest = name.partition(".")
                found.setdefault(stage, {}).setdefault(job, {}).setdefault("outputs", {})[rest] = value
        return found


def is_due(stage: Json, memory: Memory) -> bool:
    """Whether a stage's condition holds after what went before."""
    needed = stage.get("dependsOn", [])
    results = {memory.results.get(name) for name in ([needed] if isinstance(needed, str) else needed)}
    succeeded = {"succeeded": lambda: results <= {"Succeeded"}}
    return bool(evaluate(stage.get("condition", "succeeded()"), {"dependencies": memory.dependencies()}, succeeded))


def job_variables(job: Json, memory: Memory) -> dict[str, str]:
    """The variables of a job, with what earlier stages handed on."""
    values = {"stageDependencies": memory.stage_dependencies()}
    return {name: expand_runtime(text, values) for name, text in job.get("variables", {}).items()}
