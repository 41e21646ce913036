"""What pipelines/ declares fits together, and passes the linters of its languages."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from bot.catalog.catalog import load
from bot.demo.runs import PARAMETERS, STAGES
from tests.pipelines.expressions import ExpressionError, evaluate
from tests.pipelines.pipeline import Pipeline
from tests.pipelines.programs import Unavailable, program

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
IMAGES = sorted(path.name for path in (PIPELINES / "images").iterdir())
TEST_IMAGES = ROOT / "tests/pipelines/images"


def passes(name: str, *arguments: str | Path) -> None:
    """Run a linter, or skip when it is not there."""
    try:
        path = program(name)
    except Unavailable as reason:
        pytest.skip(str(reason))
    done = subprocess.run([path, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_image_of_the_catalog_has_its_folder_and_no_other_is_there() -> None:
    """The catalog and the folders name the same nine images."""
    assert sorted(load(PIPELINES / "catalog.yml")) == IMAGES
    assert len(IMAGES) == 9


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_declared_in_full_and_names_no_base(image: str) -> None:
    """The base is in the catalog alone; what the test expects names an application that exists."""
    folder = PIPELINES / "images" / image
    instructions = (folder / "Dockerfile").read_text().splitlines()
    expectations = json.loads((folder / "expectations.json").read_text())

    assert instructions[:2] == ["ARG BASE", "FROM ${BASE}"]
    assert [line for line in instructions if line.startswith("FROM")] == ["FROM ${BASE}"]
    assert expectations.keys() >= {"user", "ports", "environment", "commands", "application"}
    assert (PIPELINES / "integration-tests" / expectations["application"]["name"] / "Dockerfile").is_file()


@pytest.mark.parametrize("image", IMAGES)
def test_a_pipeline_takes_what_the_bot_sends_and_builds_its_own_image_only(image: str) -> None:
    """Every parameter of a run is declared, the run's name carries the request id, and another image is refused."""
    path = PIPELINES / "images" / image / "azure-pipelines.yml"

    pipeline = Pipeline.load(path, dict.fromkeys(PARAMETERS, "") | {"image": image, "skip_update": "true"})

    assert tuple(stage["stage"] for stage in pipeline.stages) == STAGES
    assert yaml.safe_load(path.read_text())["name"] == "$(Date:yyyyMMdd)$(Rev:.r)-${{ parameters.request_id }}"
    with pytest.raises(ValueError, match="image is 'other'"):
        Pipeline.load(path, {"image": "other"})
    with pytest.raises(ValueError, match="Unexpected parameter tag"):
        Pipeline.load(path, {"tag": "latest"})


def test_the_definitions_are_valid_by_the_schema_of_azure_pipelines() -> None:
    """Microsoft's schema knows every key and every input of every task."""
    definitions = [PIPELINES / "platform-image.yml", *PIPELINES.glob("images/*/azure-pipelines.yml")]
    passes("check-jsonschema", "--builtin-schema", "vendor.azure-pipelines", *definitions, *TEST_IMAGES.glob("*/*.yml"))


def test_the_scripts_pass_shellcheck() -> None:
    """Also those that run inside the images."""
    passes("shellcheck", *PIPELINES.rglob("*.sh"))


def test_the_dockerfiles_pass_hadolint() -> None:
    """Every Dockerfile of the product and of its tests."""
    passes("hadolint", *PIPELINES.rglob("Dockerfile"), *(ROOT / "tests/pipelines").rglob("Dockerfile"))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("and(eq('A', 'a'), ne('a', 'b'))", True),
        ("or(not(eq('a', 'a')), eq('', variables['none']))", True),
        ("eq(variables['plan.needed'], 'true')", True),
        ("variables.plan", ""),
        ("'it''s'", "it's"),
    ],
)
def test_the_local_agent_evaluates_expressions_as_azure_does(expression: str, value: object) -> None:
    """Texts compare without regard to case, and what does not exist is empty."""
    assert evaluate(expression, {"variables": {"plan.needed": "True"}}) == value


@pytest.mark.parametrize("expression", ["startsWith('a', 'b')", "eq('a'", "eq('a', 'a') b", "a b", "(", "%"])
def test_the_local_agent_refuses_what_it_does_not_understand(expression: str) -> None:
    """A condition that it cannot evaluate stops a test instead of passing it."""
    with pytest.raises(ExpressionError):
        evaluate(expression, {"a": ""})
