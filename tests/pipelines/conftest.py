"""Started once for all tests: an engine, a registry that stands for MCR, and one that stands for ECR."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines.engine import BaseImage, Engine, engine
from tests.pipelines.programs import Unavailable, wait_until
from tests.pipelines.registry import LOGIN, PASSWORD, Registry, registry
from tests.pipelines.world import LINE, World


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    try:
        with engine() as found:
            yield found
    except Unavailable as reason:
        pytest.skip(f"no Docker engine can be started here: {reason}")


@pytest.fixture(scope="session")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry]]:
    """MCR, where everybody may read, and ECR, which asks for a password."""
    folder = tmp_path_factory.mktemp("registries")
    try:
        with registry(folder / "mcr") as mcr, registry(folder / "ecr", login=LOGIN) as ecr:
            yield mcr, Registry(ecr.host, ecr.storage, PASSWORD)
    except Unavailable as reason:
        pytest.skip(f"no registry can be started here: {reason}")


@pytest.fixture(scope="session")
def base(docker: Engine, registries: tuple[Registry, Registry]) -> BaseImage:
    image = BaseImage(docker, registries[0], f"dotnet/runtime:{LINE}")
    try:
        image.publish("first")
    except Unavailable as reason:
        pytest.skip(f"no base image can be made here: {reason}")
    return image


@pytest.fixture
def world(
    tmp_path: Path,
    docker: Engine,
    registries: tuple[Registry, Registry],
    base: BaseImage,
) -> Iterator[World]:
    """Every test has its own repository, so that none sees the tags of another."""
    yield World(tmp_path, docker, registries[1], base, f"platform/{uuid.uuid4().hex[:12]}")
    # The engine takes a moment to remove the container of a build that was ended.
    wait_until(lambda: docker.containers() == [])
