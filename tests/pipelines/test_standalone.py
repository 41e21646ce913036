"""The pipeline without the bot, on ECR: shipshape, the aws command and the scripts decide and do everything."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from bot.demo.ecr import LocalEcr, LocalScan
from bot.demo.registry import LocalRegistry
from tests.pipelines.engine import BaseImage, Engine
from tests.pipelines.programs import Unavailable, program
from tests.pipelines.registry import MOTO_LOGIN, MOTO_PASSWORD, registry
from tests.pipelines.scripts import run_script
from tests.pipelines.world import IMAGE, LINE, World, log_of, outcome

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient

pytestmark = pytest.mark.e2e
TOKEN = "the-token-of-the-service-connection"
GREEN_AND_EARLY = {"Build": "succeeded", "Test": "skipped", "Push": "skipped"}
PASSED = {"Build": "succeeded", "Test": "succeeded", "Push": "succeeded"}


@pytest.fixture
def world(tmp_path: Path, docker: Engine, base: BaseImage) -> Iterator[World]:
    """It pushes to a registry with the password that ECR gives out, and only that."""
    try:
        program("aws")
        with registry(tmp_path / "ecr", login=MOTO_LOGIN) as found:
            ecr = replace(found, password=MOTO_PASSWORD)
            world = World(tmp_path, docker, ecr, base, "platform/standalone")
            for name in ("REGISTRY_USERNAME", "REGISTRY_PASSWORD"):
                del world.environment[name]
            yield world
    except Unavailable as reason:
        pytest.skip(f"the aws command or the registry cannot run here: {reason}")


async def test_the_first_run_builds_and_the_next_ends_early(world: World, tmp_path: Path) -> None:
    """The repository is created as asked and version 1.0.0 is built; then runs end early and green."""
    world.expect_little()
    base = world.base.publish("first")
    mirrors = json.dumps({world.base.name.partition("/")[0]: f"http://{world.base.name.partition('/')[0]}"})
    async with LocalRegistry(tmp_path / "moto") as kept, LocalEcr(kept) as aws:
        settings = {"SHIPSHAPE_REGISTRY_MIRRORS": mirrors, "ECR_REGION": aws.region, "IMMUTABLE_VERSIONS": "true"}
        async with world.azure(id_token=TOKEN, **settings, **aws.environment()) as azure:
            first = await azure.finish({"image": IMAGE})
            world.show_in(aws)
            unchanged = await azure.finish({"image": IMAGE})
            scanned = await push_again(world, aws, azure.result(first))
        (created,) = client(aws).describe_repositories(repositoryNames=[world.repository])["repositories"]

    assert [outcome(run) for run in (first, unchanged)] == [PASSED, GREEN_AND_EARLY]
    assert unchanged.result == "succeeded"
    assert f"is still {base}. Nothing is built." in log_of(unchanged, "Build")[-1]
    tags = world.ecr.versions(world.repository)
    assert tags.keys() == {f"{LINE}-1.0.0", "8.0", "latest"}
    assert world.ecr.labels(world.repository, "latest")["org.opencontainers.image.base.digest"] == base
    assert created["imageScanningConfiguration"] == {"scanOnPush": True}
    assert created["imageTagMutability"] == "MUTABLE_WITH_EXCLUSION"
    assert created["imageTagMutabilityExclusionFilters"] == [{"filterType": "WILDCARD", "filter": f"{LINE}-*"}]
    assert azure.result(first)["scan"] is None
    assert (scanned["digest"], scanned["scan"]) == (tags["latest"], {"status": "COMPLETE", "findings": {"HIGH": 1}})
    everything = "\n".join(line for stage in first.stages for line in log_of(first, stage))
    assert f"Creating the ECR repository {world.repository}" in everything
    assert TOKEN not in everything
    assert MOTO_PASSWORD not in everything


async def push_again(world: World, aws: LocalEcr, result: dict[str, Any]) -> dict[str, Any]:
    """The Push stage once more, when ECR has scanned the image. Nothing is moved; the new result is returned."""
    aws.scans[result["version_tag"]] = LocalScan(findings=({"name": "CVE-2026-10001", "severity": "HIGH"},))
    given = {name.upper(): result[name] for name in ("image", "digest", "version_tag", "base_name", "base_digest")}
    more = {"REPOSITORY": world.repository, "EXTRA_TAGS": "8.0", "BUILD_ARTIFACTSTAGINGDIRECTORY": str(world.work)}
    environment = {**world.environment, **aws.environment(), **given, **more, "ECR_REGION": aws.region}
    done = await run_script("push.sh", environment, world.source)
    assert done.code == 0, done.lines
    assert "Scan: COMPLETE 1 HIGH" in done.lines
    repeated: dict[str, Any] = json.loads((world.work / "result.json").read_text())
    return repeated


def client(aws: LocalEcr) -> "ECRClient":
    return boto3.client(
        "ecr",
        region_name=aws.region,
        endpoint_url=aws.url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
