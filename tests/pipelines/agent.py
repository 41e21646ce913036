"""A build agent on this machine: reads the pipeline of an image, and runs the scripts of its stages.

It knows the parts of Azure Pipelines that our YAML uses, and refuses the rest, so that nothing is left out unseen.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from bot.demo.runs import AgentRun, StageFailed, StageLog
from tests.pipelines.expressions import evaluate, expand_macros
from tests.pipelines.pipeline import Json, Memory, Pipeline, is_due, job_variables

# https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands
COMMAND = re.compile(r"##vso\[([\w.]+)\s*([^\]]*)\](.*)")
CANCEL_GRACE_S = 10.0
LINE_LIMIT = 2**20  # bytes

Log = Callable[[str], Awaitable[None]]


class LocalAgent:
    """Implements the port `Agent` of the local Azure DevOps. Every job gets a fresh copy of `source`.

    Artifacts are under `work/artifacts/RUN/NAME`. `environment` is what the steps see besides the pipeline's variables;
    of the variables of this process they see PATH and HOME.
    """

    def __init__(self, source: Path, work: Path, environment: Mapping[str, str], *, id_token: str = "") -> None:
        self._source, self._work, self._environment, self._id_token = source, work, environment, id_token
        self._memories: dict[int, Memory] = {}

    def artifact(self, run_id: int, name: str) -> Path:
        return self._work / "artifacts" / str(run_id) / name

    async def run(self, run: AgentRun) -> None:
        pipeline = Pipeline.load(
            self._source / f"pipelines/images/{run.definition.name}/azure-pipelines.yml", run.parameters
        )
        memory = self._memories.setdefault(run.id, Memory())
        names = [stage["stage"] for stage in pipeline.stages]
        for stage in pipeline.stages[names.index(run.first_stage) :]:
            name = stage["stage"]
            if not is_due(stage, memory):
                memory.results[name] = "Skipped"
                continue
            memory.results[name] = "Failed"
            async with run.stage(name) as log:
                await self._play(run, pipeline, stage, memory, log)
            memory.results[name] = "Succeeded"

    async def _play(self, run: AgentRun, pipeline: Pipeline, stage: Json, memory: Memory, log: StageLog) -> None:
        (job,) = stage["jobs"]
        memory.outputs[stage["stage"]] = {}
        folder = self._empty_folder(f"{run.id}-{stage['stage']}")
        variables = {**_predefined(run, folder), **pipeline.variables, **job_variables(job, memory)}
        steps = Job(self, run, {key.lower(): value for key, value in variables.items()}, log.log)
        try:
            await steps.play(job["steps"])
        finally:
            memory.outputs[stage["stage"]] = {f"{job['job']}.{name}": value for name, value in steps.outputs.items()}

    def _empty_folder(self, name: str) -> Path:
        """For one job: `s` for the sources, `a` for what becomes an artifact, `temp`."""
        folder = self._work / name
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("s", "a", "temp"):
            (folder / part).mkdir(parents=True)
        return folder

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        own = {name.upper().replace(".", "_"): value for name, value in variables.items()}
        return {**{name: os.environ[name] for name in ("PATH", "HOME")}, "TF_BUILD": "True", **own, **self._environment}

    def check_out(self, target: Path) -> None:
        shutil.copytree(self._source, target, dirs_exist_ok=True)

    def id_token(self) -> dict[str, str]:
        """What AzureCLI@2 adds for a service connection with workload identity federation."""
        return {"idToken": self._id_token} if self._id_token else {}


def _predefined(run: AgentRun, folder: Path) -> dict[str, str]:
    """https://learn.microsoft.com/azure/devops/pipelines/build/variables"""
    return {
        "Build.BuildId": str(run.id),
        "Build.BuildNumber": run.name,
        "Build.SourceVersion": "9dd4b2f0c1a24e7f8b6d5c4a3b2e1f0d9c8b7a65",
        "Build.Repository.Uri": "https://contoso@dev.azure.com/contoso/platform-images/_git/shipshape",
        "Build.SourcesDirectory": str(folder / "s"),
        "Build.ArtifactStagingDirectory": str(folder / "a"),
        "Agent.TempDirectory": str(folder / "temp"),
        "System.StageAttempt": str(run.attempt),
    }


class Job:
    """The steps of one job, in order. `variables` are by lower-case name; `outputs` are `step.variable`."""

    def __init__(self, agent: LocalAgent, run: AgentRun, variables: dict[str, str], log: Log) -> None:
        self.outputs: dict[str, str] = {}
        self._agent, self._run, self._variables, self._log = agent, run, variables, log
        self._path: list[str] = []
        self._failure = ""
        self._cancelled = False

    async def play(self, steps: list[Json]) -> None:
        """Raises StageFailed with the issue of the first step that failed.

        When the task is cancelled, the steps that are for `always()` still run.
        """
        for step in steps:
            if not self._is_due(step):
                continue
            try:
                await self._step(step)
            except StageFailed as error:
                self._failure = self._failure or str(error)
            except asyncio.CancelledError:
                self._cancelled = True
        if self._cancelled:
            raise asyncio.CancelledError
        if self._failure:
            raise StageFailed(self._failure)

    def _is_due(self, step: Json) -> bool:
        states = {
            "succeeded": lambda: not self._failure and not self._cancelled,
            "failed": lambda: bool(self._failure) and not self._cancelled,
            "always": lambda: True,
        }
        return bool(evaluate(step.get("condition", "succeeded()"), {"variables": self._variables}, states))

    async def _step(self, step: Json) -> None:
        await self._log(f"##[section]Starting: {step.get('displayName', next(iter(step)))}")
        sources = Path(self._variables["build.sourcesdirectory"])
        inputs = {name: self._expand(value) for name, value in step.get("inputs", {}).items()}
        if "checkout" in step:
            self._agent.check_out(sources)
        elif "bash" in step:
            await self._bash(step, ["-c", self._expand(step["bash"])])
        elif "publish" in step:
            self._publish(Path(self._expand(step["publish"])), self._expand(step["artifact"]))
        elif step["task"] == "AzureCLI@2":
            assert (inputs["scriptType"], inputs["scriptLocation"]) == ("bash", "scriptPath")
            token = self._agent.id_token() if inputs["addSpnToEnvironment"] else {}
            await self._bash(step, [inputs["scriptPath"]], token)
        elif step["task"] != "UsePythonVersion@0":  # the tests bring their own
            raise StageFailed(f"this agent does not know the step {step}")

    def _expand(self, value: Any) -> Any:
        return expand_macros(value, self._variables) if isinstance(value, str) else value

    def _publish(self, path: Path, artifact: str) -> None:
        target = self._agent.artifact(self._run.id, artifact)
        if not path.exists():
            raise StageFailed(f"Path does not exist: {path}")
        if target.exists():
            raise StageFailed(f"Artifact {artifact} already exists for build {self._run.id}.")
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            target.mkdir(parents=True)
            shutil.copy(path, target)

    async def _bash(self, step: Json, arguments: list[str], more: Mapping[str, str] | None = None) -> None:
        environment = self._agent.environment(self._variables)
        environment |= {name: self._expand(value) for name, value in step.get("env", {}).items()} | dict(more or {})
        environment["PATH"] = os.pathsep.join([*self._path, environment["PATH"]])
        process = await asyncio.create_subprocess_exec(
            "bash",
            *arguments,
            cwd=self._variables["build.sourcesdirectory"],
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=LINE_LIMIT,
        )
        reading = asyncio.create_task(self._read(process, step.get("name", "")))
        try:
            issue = await asyncio.shield(reading)
        except asyncio.CancelledError:
            await _end(process)
            await reading
            raise
        if code := await process.wait():
            await self._log(f"##[error]Bash exited with code '{code}'.")
            raise StageFailed(issue or f"Bash exited with code '{code}'.")

    async def _read(self, process: asyncio.subprocess.Process, name: str) -> str:
        """Log what the step prints, and do what it asks for. Returns its first error issue."""
        issue = ""
        assert process.stdout
        while line := await process.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            command = COMMAND.search(text)
            if not command:
                await self._log(text)
            elif command[1] == "task.logissue":
                issue = issue or command[3]
                await self._log(f"##[error]{command[3]}")
            elif command[1] == "task.prependpath":
                self._path.insert(0, command[3])
            elif command[1] == "task.setvariable":
                self._set_variable(name, command[2], command[3])
        return issue

    def _set_variable(self, step: str, properties: str, value: str) -> None:
        asked = dict(part.partition("=")[::2] for part in properties.split(";") if part)
        assert asked["isOutput"] == "true", "our scripts set output variables only"
        name = f"{step}.{asked['variable']}"
        self.outputs[name] = self._variables[name.lower()] = value


async def _end(process: asyncio.subprocess.Process) -> None:
    """As an agent ends a step: a signal to the process alone, and after a while the end of all that it started."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), CANCEL_GRACE_S)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
