"""plan.sh decides what is built, by asking the real shipshape command about a local MCR and a local ECR."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.core.images import Digest
from bot.demo.ecr import LocalEcr
from bot.demo.image_builder import BuiltImage, make_image, make_layer
from bot.demo.registry import LocalRegistry, answering
from tests.pipelines.programs import Unavailable, program
from tests.pipelines.scripts import Done, run_script

IMAGE, REPOSITORY, LINE = "dotnet-runtime-8", "dotnet/runtime", "8.0-bookworm-slim"
BASE = "mcr.microsoft.com/dotnet/runtime"
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


class Plans:
    """A base that moves, versions that appear in ECR, and what plan.sh makes of it."""

    def __init__(self, mcr: LocalRegistry, ecr: LocalEcr, folder: Path) -> None:
        self.mcr, self._ecr, self._folder = mcr, ecr, folder

    def move_base(self, release: str) -> Digest:
        return self.mcr.push(REPOSITORY, LINE, make_image([make_layer({"etc/release": release})]))

    def publish(self, base: Digest, *tags: str) -> None:
        self._ecr.publish(REPOSITORY, tags, built_from(base))

    async def make(self, **given: str) -> Done:
        mirrors = {"SHIPSHAPE_REGISTRY_MIRRORS": json.dumps({"mcr.microsoft.com": self.mcr.url})}
        database = {"SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{self._folder}/shipshape.db"}
        return await run_script("plan.sh", {"IMAGE": IMAGE, **self._ecr.environment(), **mirrors, **database, **given})


def built_from(base: Digest) -> BuiltImage:
    return make_image([make_layer({"etc/platform": base})], labels={"org.opencontainers.image.base.digest": base})


@pytest.fixture
async def plans(tmp_path: Path) -> AsyncIterator[Plans]:
    for name in ("jq", "shipshape"):
        try:
            program(name)
        except Unavailable as reason:
            pytest.skip(f"the scripts cannot run here: {reason}")
    async with LocalRegistry(tmp_path / "mcr") as mcr, LocalRegistry(tmp_path / "ecr") as kept, LocalEcr(kept) as ecr:
        yield Plans(mcr, ecr, tmp_path)


async def test_an_image_that_was_never_built_gets_its_first_version(plans: Plans) -> None:
    """Without a repository in ECR, the base is pinned to what it is now, and the rest comes from the catalog."""
    base = plans.move_base("first")

    done = await plans.make()

    assert done.code == 0, done.lines
    assert done.outputs == {
        "needed": "true",
        "registry": REGISTRY,
        "repository": REPOSITORY,
        "base": f"{BASE}@{base}",
        "base_name": f"{BASE}:{LINE}",
        "base_digest": base,
        "version_tag": f"{LINE}-1.0.0",
        "extra_tags": "8.0",
        "platforms": "linux/amd64",
        "lines": f"6.0-bullseye-slim {LINE} 10.0-noble",
    }


async def test_an_unchanged_base_ends_the_run_early_and_green(plans: Plans) -> None:
    """Nothing is built, and one clear line says why."""
    base = plans.move_base("first")
    plans.publish(base, f"{LINE}-1.4.0", "latest")

    done = await plans.make()

    assert (done.code, done.outputs) == (0, {"needed": "false"})
    assert done.lines[-1] == f"{IMAGE} is up to date: {BASE}:{LINE} is still {base}. Nothing is built."


async def test_a_moved_base_gets_the_next_minor_version(plans: Plans) -> None:
    """1.10 follows 1.9, and tags of a sibling line with the same prefix do not count."""
    old = plans.move_base("first")
    plans.publish(old, f"{LINE}-1.9.0", f"{LINE}-1.8.0", f"{LINE}-arm64v8-7.0.0", f"{LINE}-2.0", "latest")
    new = plans.move_base("second")

    done = await plans.make()

    assert done.code == 0, done.lines
    assert (done.outputs["base_digest"], done.outputs["version_tag"]) == (new, f"{LINE}-1.10.0")


async def test_skip_update_builds_an_unchanged_base_as_a_patch(plans: Plans) -> None:
    """The check is not asked for permission, but a rebuild without a new base is a patch."""
    base = plans.move_base("first")
    plans.publish(base, f"{LINE}-1.4.0")

    done = await plans.make(SKIP_UPDATE="true")

    assert done.code == 0, done.lines
    assert (done.outputs["needed"], done.outputs["version_tag"]) == ("true", f"{LINE}-1.4.1")


async def test_what_the_bot_decided_is_taken_without_asking_anybody(plans: Plans) -> None:
    """Base and version of the bot are used as they are: no request to MCR, so no drift after the approval."""
    plans.move_base("second")
    approved = "sha256:" + "a" * 64

    done = await plans.make(
        BASE=f"{BASE}@{approved}", VERSION_TAG=f"{LINE}-1.5.0", EXTRA_TAGS="8.0,stable", SKIP_UPDATE="true"
    )

    assert done.code == 0, done.lines
    assert (done.outputs["base"], done.outputs["base_digest"]) == (f"{BASE}@{approved}", approved)
    assert (done.outputs["version_tag"], done.outputs["extra_tags"]) == (f"{LINE}-1.5.0", "8.0 stable")
    assert plans.mcr.requests == []


async def test_not_knowing_is_a_failure_and_not_a_build(plans: Plans) -> None:
    """When MCR does not answer, the run fails and says that it does not know."""
    base = plans.move_base("first")
    plans.publish(base, f"{LINE}-1.4.0")
    plans.mcr.fail_next("HEAD", "", answering(403), times=100)
    plans.mcr.fail_next("GET", "", answering(403), times=100)

    done = await plans.make()

    assert done.code == 1
    assert done.lines[-1].startswith(f"plan: it is not known whether the base of {IMAGE} moved (")
    assert "needed" not in done.outputs


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"IMAGE": "../etc"}, "there is no pipelines/images/../etc/Dockerfile"),
        ({"BASE": "docker.io/fabrikam/runtime@sha256:" + "a" * 64}, "is not the base that the catalog names"),
        ({"BASE": f"{BASE}@latest"}, f"the base of {IMAGE} has no digest"),
        ({"VERSION_TAG": "latest"}, f"latest is not a version of the line {LINE}"),
        ({"VERSION_TAG": f"{LINE}-1.0.0\n##vso[task.setvariable variable=x]y"}, f"is not a version of the line {LINE}"),
        ({"EXTRA_TAGS": "8.0,a/b"}, "a/b is not a tag"),
    ],
    ids=["image", "foreign base", "no digest", "version", "injection", "extra tag"],
)
async def test_parameters_that_do_not_fit_the_catalog_are_refused(
    plans: Plans, given: dict[str, str], says: str
) -> None:
    """The parameters of a run cannot name another base, repository or tag, nor give commands to the agent."""
    fine = {"BASE": f"{BASE}@sha256:{'a' * 64}", "VERSION_TAG": f"{LINE}-1.0.0", "SKIP_UPDATE": "true"}

    done = await plans.make(**{**fine, "REASON": "a\n##vso[task.complete result=Failed]", **given})

    assert done.code == 1
    assert says in done.lines[-1]
    assert not [
        line for line in done.lines if "##vso" in line and not line.startswith("##vso[task.setvariable variable=needed")
    ]
