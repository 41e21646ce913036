"""The catalog: what a good file becomes, and how each mistake is told."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from bot.catalog.catalog import Catalog, load
from bot.catalog.entries import schema
from bot.core.images import ImagePlatform, ImageReference, Mode, PipelineReference
from bot.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]

# The example of the design, word for word.
EXAMPLE = """\
defaults:
  registry_id: "123456789012"        # AWS account
  region: eu-west-1
  pipeline: {project: platform-images, id: 7}
  platforms: [linux/amd64]
  mode: ask                          # ask: approve first · auto: queue at once · notify: only tell
  approval: {approvers: [platform-team@contoso.com], required: 1, self_approve: true, expires: 7d}
images:
  dotnet-sdk-6:
    base: mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim
    repository: dotnet/sdk           # ECR
    tag: 6.0-bullseye-slim           # versions are 6.0-bullseye-slim-1.0.0, -1.1.0, …
    extra_tags: ["6.0"]
    pipeline: {id: 12}
"""
MORE = EXAMPLE + "  more:\n    base: mcr.microsoft.com/dotnet/aspnet:8.0\n    repository: dotnet/aspnet\n    tag: v8\n"
FIVE_MISTAKES = """\
defaults:
  registry_id: "123456789012"
  region: Ireland
  pipeline: {project: platform-images, id: 7}
  approval: {approvers: [platform-team@contoso.com]}
images:
  dotnet-sdk-6:
    base: dotnet/sdk:6.0
    repository: dotnet/sdk
    tag: 6.0
  dotnet-aspnet-6:
    base: mcr.microsoft.com/dotnet/aspnet:6.0
    repository: dotnet/aspnet
    tag: v6
    pipelines: {id: 13}
  dotnet-runtime-6:
    base: mcr.microsoft.com/dotnet/runtime:6.0
    repository: dotnet/runtime
"""
TOLD = [
    ":3: defaults.region is wrong: String should match pattern '^[a-z]{2}(-[a-z]+)+-\\d$'",
    ":8: images.dotnet-sdk-6.base is wrong: 'dotnet/sdk:6.0' does not start with a registry host,"
    " such as mcr.microsoft.com/",
    ":10: images.dotnet-sdk-6.tag is not text: write it in quotes",
    ":15: images.dotnet-aspnet-6.pipelines is not known here",
    ":16: images.dotnet-runtime-6.tag is missing",
]

Load = Callable[[str], Catalog]
Problems = Callable[[str], list[str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "catalog.yml"


@pytest.fixture
def read(file: Path) -> Load:
    def read(text: str) -> Catalog:
        file.write_text(text, "utf-8")
        return load(file)

    return read


@pytest.fixture
def problems(file: Path, read: Load) -> Problems:
    """The problems of a text, each without the name of the file."""

    def problems(text: str) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            read(text)
        assert all(problem.startswith(str(file)) and "\n" not in problem for problem in refused.value.problems)
        return [problem.removeprefix(str(file)) for problem in refused.value.problems]

    return problems


def test_example_of_the_design(read: Load) -> None:
    """The example becomes an image with its own pipeline id and everything else from the defaults."""
    image = read(EXAMPLE)["dotnet-sdk-6"]
    assert image.base == ImageReference.parse("mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim")
    assert (image.registry_id, image.region, image.repository) == ("123456789012", "eu-west-1", "dotnet/sdk")
    assert (image.tag, image.extra_tags) == ("6.0-bullseye-slim", ("6.0",))
    assert image.pipeline == PipelineReference(project="platform-images", id=12)
    assert image.platforms == (ImagePlatform.parse("linux/amd64"),)
    assert image.mode is Mode.ASK
    assert image.approval.approvers == {"platform-team@contoso.com"}
    assert (image.approval.required, image.approval.self_approve) == (1, True)
    assert image.approval.expires == timedelta(days=7)


@pytest.mark.parametrize("file", [ROOT / "pipelines" / "catalog.yml", ROOT / "bot" / "demo" / "catalog.yml"], ids=str)
def test_catalogs_of_the_project(file: Path) -> None:
    """The catalogs that come with the project load, and an editor finds nothing wrong with them."""
    document = yaml.safe_load(file.read_text("utf-8"))
    assert list(load(file)) == list(document["images"])
    assert mistakes(document) == []


def test_defaults_are_merged(read: Load) -> None:
    """Mappings are merged key by key, lists and single values are replaced, and the defaults stay as they are."""
    catalog = read(
        MORE
        + """\
    mode: auto
    platforms: [linux/arm64/v8, windows/amd64]
    approval: {required: 2, approvers: [Alex.Wilber@contoso.com, megan.bowen@contoso.com], expires: 12h}
"""
    )
    more, sdk = catalog["more"], catalog["dotnet-sdk-6"]
    assert more.pipeline == PipelineReference(project="platform-images", id=7)
    assert more.platforms == (ImagePlatform("linux", "arm64"), ImagePlatform("windows", "amd64"))
    assert more.mode is Mode.AUTO
    assert more.approval.approvers == {"alex.wilber@contoso.com", "megan.bowen@contoso.com"}
    assert (more.approval.required, more.approval.self_approve) == (2, True)
    assert more.approval.expires == timedelta(hours=12)
    assert (sdk.approval.required, sdk.platforms, sdk.mode) == (1, (ImagePlatform("linux", "amd64"),), Mode.ASK)


def test_five_mistakes_are_five_lines(problems: Problems) -> None:
    """Every mistake is told at once, in the order of the file, with its line; one in the defaults is told once."""
    assert problems(FIVE_MISTAKES) == TOLD


@pytest.mark.parametrize("command", ["serve", "check"])
def test_program_does_not_start_with_mistakes(tmp_path: Path, command: str) -> None:
    """The command ends with 1 and names each mistake on a line of its own, without a traceback."""
    file = tmp_path / "catalog.yml"
    file.write_text(FIVE_MISTAKES)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SHIPSHAPE_")}
    settings = {
        "SHIPSHAPE_CATALOG": str(file),
        "SHIPSHAPE_ALLOW_ANONYMOUS": "true",
        "SHIPSHAPE_AZURE_DEVOPS_URL": "https://dev.azure.com/contoso",
        "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/shipshape.db",
        "SHIPSHAPE_PORT": "0",
    }
    program = subprocess.run(
        [sys.executable, "-m", "bot", command],
        env=environment | settings,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    told = program.stderr.splitlines()
    assert program.returncode == 1
    assert [line.partition(str(file))[2] for line in told if str(file) in line] == TOLD
    assert "Traceback" not in program.stdout + program.stderr


def test_parent_is_another_image(read: Load) -> None:
    """A base may name another image of the catalog, also one further down."""
    catalog = read(EXAMPLE + "  app:\n    base: platform:web\n    repository: app\n    tag: v1\n" + WEB)
    assert (catalog["app"].base, catalog["app"].parent) == (None, "web")
    assert (catalog["web"].base, catalog["web"].parent) == (None, "dotnet-sdk-6")


WEB = "  web:\n    base: platform:dotnet-sdk-6\n    repository: web\n    tag: v1\n"


@pytest.mark.parametrize(
    ("parents", "told"),
    [
        ({"a": "a"}, {"a": "leads back to the image itself"}),
        (
            {"a": "b", "b": "c", "c": "a"},
            dict.fromkeys("abc", "leads back to the image itself"),
        ),
        ({"a": "nothing"}, {"a": "names nothing, which is not in this catalog"}),
        ({"a": "''"}, {"a": "is wrong: \"platform:''\" does not name an image of this catalog"}),
    ],
    ids=["itself", "circle of three", "unknown", "no name"],
)
def test_parents_that_cannot_be(problems: Problems, parents: dict[str, str], told: dict[str, str]) -> None:
    """A parent that is not there, or a chain of parents that comes back, is a mistake of each image in it."""
    lines = [
        f'  {name}: {{base: "platform:{parent}", repository: {name}, tag: v1}}' for name, parent in parents.items()
    ]
    first = len(EXAMPLE.splitlines()) + 1
    expected = [f":{first + number}: images.{name}.base {told[name]}" for number, name in enumerate(parents)]
    assert problems(EXAMPLE + "\n".join(lines)) == expected


def test_child_of_a_circle_is_reported_and_ends(problems: Problems) -> None:
    """An image above a circle it is not part of does not make the reader go round for ever."""
    lines = ["  a: {base: platform:b, repository: a, tag: v1}", "  b: {base: platform:b, repository: b, tag: v1}"]
    assert any("images.b.base leads back" in problem for problem in problems(EXAMPLE + "\n".join(lines)))


def test_line_in_ecr_belongs_to_one_image(problems: Problems, read: Load) -> None:
    """Two images must not share repository and tag; the same tag in another repository, account or region is fine."""
    same = "  same: {base: mcr.microsoft.com/a:1, repository: dotnet/sdk, tag: 6.0-bullseye-slim"
    assert problems(f"{EXAMPLE}{same}}}") == [":15: images.same.tag is the same line in ECR as that of dotnet-sdk-6"]
    for other in ("region: us-east-1", 'registry_id: "210987654321"'):
        assert "same" in read(f"{EXAMPLE}{same}, {other}}}")


@pytest.mark.parametrize(
    ("approval", "told"),
    [
        ("{required: 2}", "2 needed, 1 named as approvers"),
        ("{approvers: []}", "1 needed, 0 named as approvers"),
        ("{required: 2, approvers: [a@contoso.com, A@contoso.com]}", "2 needed, 1 named as approvers"),
    ],
    ids=["too few", "nobody", "one person twice"],
)
def test_rules_that_nobody_can_meet(problems: Problems, approval: str, told: str) -> None:
    """More approvals than different approvers is a mistake, told where the image says it."""
    assert problems(f"{MORE}    approval: {approval}\n") == [f":19: images.more.approval can never be met: {told}"]


def test_rules_of_the_defaults_are_told_once(problems: Problems, read: Load) -> None:
    """Defaults that nobody can meet are one mistake for all images; who is only told needs no approver."""
    nobody = MORE.replace("[platform-team@contoso.com]", "[]")
    assert problems(nobody) == [":7: defaults.approval.approvers can never be met: 1 needed, 0 named as approvers"]
    assert len(read(nobody.replace("mode: ask", "mode: notify"))) == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", [":1: the file has to be a mapping with `images`"], id="empty"),
        pytest.param("- a\n", [":1: the file has to be a mapping with `images`"], id="list"),
        pytest.param("images: {}\n", [":1: images has to name at least one image"], id="no images"),
        pytest.param(
            f"{EXAMPLE}imags: {{}}\n", [":15: imags is not known here; known are defaults and images"], id="key"
        ),
        pytest.param(f"{EXAMPLE}  bare:\n", [":15: images.bare has to be a mapping"], id="bare name"),
        pytest.param(
            MORE.replace("  more:", "  Dotnet_8:"),
            [":15: images.Dotnet_8 is not a name of lower-case letters, digits, dots and dashes"],
            id="name",
        ),
        pytest.param(
            MORE.replace("  more:", "  failures:"),
            [":15: images.failures is a word of the chat commands; call the image otherwise"],
            id="word of a command",
        ),
        pytest.param(
            EXAMPLE.replace("  region:", "  regoin:"),
            [":3: defaults.regoin is not known here", ":9: images.dotnet-sdk-6.region is missing"],
            id="defaults key",
        ),
        pytest.param(
            EXAMPLE.replace("{id: 12}", "{id: '12'}"),
            [":14: images.dotnet-sdk-6.pipeline.id is wrong: Input should be a valid integer"],
            id="number in quotes",
        ),
        pytest.param(
            EXAMPLE.replace("base: mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim", "base:"),
            [":10: images.dotnet-sdk-6.base is not text: write it in quotes"],
            id="no base",
        ),
        pytest.param(
            EXAMPLE.replace("expires: 7d", "expires: 7 days"),
            [":7: defaults.approval.expires is wrong: '7 days' is not a duration such as 12h or 7d"],
            id="duration",
        ),
        pytest.param(
            EXAMPLE.replace("[linux/amd64]", "[linux/amd64, amd64]"),
            [":5: defaults.platforms.1 is wrong: 'amd64' is not a platform such as linux/amd64"],
            id="platform",
        ),
        pytest.param(
            EXAMPLE.replace("mode: ask ", "mode: asks"),
            [":6: defaults.mode is wrong: Input should be 'ask', 'auto' or 'notify'"],
            id="mode",
        ),
        pytest.param(
            MORE.replace("aspnet:8.0", f"aspnet@sha256:{'ab' * 32}"),
            [
                f":16: images.more.base is wrong: 'mcr.microsoft.com/dotnet/aspnet@sha256:{'ab' * 32}'"
                " names a digest; a base is a tag that moves"
            ],
            id="pinned base",
        ),
        pytest.param(
            MORE.replace("tag: v8", f"tag: {'v' * 101}"),
            [":18: images.more.tag is wrong: a tag of more than 100 characters leaves no room for the version"],
            id="long tag",
        ),
    ],
)
def test_mistakes_are_told_where_they_are(problems: Problems, text: str, told: list[str]) -> None:
    """Each kind of mistake is told with its line and in plain words."""
    assert problems(text) == told


def test_nothing_is_written_twice(problems: Problems) -> None:
    """A key or an image that is there twice would silently lose the first: it is a mistake at the second."""
    assert problems(f"{MORE}    tag: v9\n") == [":19: images.more.tag is written twice"]
    again = MORE + "  more:\n    base: mcr.microsoft.com/a:1\n    repository: a\n    tag: v1\n"
    assert ":19: images.more is written twice" in problems(again)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("images:\n\tsdk: {}\n", ":2: not YAML: found character '\\t' that cannot start any token"),
        ("images:\n  sdk: [\n", ":3: not YAML: expected the node content, but found '<stream end>'"),
        ("images:\n  sdk: *other\n", ":2: not YAML: found undefined alias 'other'"),
        ("images:\n  sdk: !!python/object:os.system {}\n", ":2: not YAML: could not determine a constructor"),
        ("images: {}\n---\nimages: {}\n", ":2: not YAML: but found another document"),
        ("images:\n  sdk: {tag: 2026-02-31}\n", ": not YAML: day is out of range for month"),
        ("images: \x00\n", ": not YAML: unacceptable character #x0000"),
        ("images:\n  sdk: &a {approval: *a}\n", ": something contains itself, or is nested too deeply"),
        ("images: " + "[" * 5000, ": something contains itself, or is nested too deeply"),
    ],
    ids=["tab", "open", "alias", "object", "two documents", "date", "control", "circle", "deep"],
)
def test_what_is_not_yaml(problems: Problems, text: str, told: str) -> None:
    """A file that YAML itself refuses is one sentence, with the line where there is one."""
    (problem,) = problems(text)
    assert problem.startswith(told)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder, or not text is named with the reason."""
    (tmp_path / "latin.yml").write_bytes(b"images: \xff\xfe\n")
    for path in (tmp_path / "missing.yml", tmp_path, tmp_path / "latin.yml"):
        with pytest.raises(ConfigError) as refused:
            load(path)
        assert [problem.startswith(f"{path}: cannot be read: ") for problem in refused.value.problems] == [True]


def mistakes(document: Any) -> list[str]:
    """What an editor with the schema marks, by path."""
    validator = Draft202012Validator(schema())
    return sorted(error.json_path for error in validator.iter_errors(document))


def test_schema_accepts_the_example() -> None:
    """The schema is one, and the example of the design fits it."""
    Draft202012Validator.check_schema(schema())
    assert mistakes(yaml.safe_load(EXAMPLE)) == []


def test_schema_refuses_typos() -> None:
    """A misspelt key or value is marked, wherever it stands."""
    cases: list[tuple[Callable[[Any], Any], str]] = [
        (lambda d: d.update(imags={}), "$"),
        (lambda d: d.pop("images"), "$"),
        (lambda d: d["defaults"].update(regoin="eu-west-1"), "$.defaults"),
        (lambda d: d["defaults"].update(registry_id=123456789012), "$.defaults.registry_id"),
        (lambda d: d["defaults"]["approval"].update(expires="7 days"), "$.defaults.approval.expires"),
        (lambda d: d["images"]["dotnet-sdk-6"].update(mode="asks"), "$.images['dotnet-sdk-6'].mode"),
        (lambda d: d["images"]["dotnet-sdk-6"].update(tag=6.0), "$.images['dotnet-sdk-6'].tag"),
        (lambda d: d["images"]["dotnet-sdk-6"]["pipeline"].update(id="12"), "$.images['dotnet-sdk-6'].pipeline.id"),
    ]
    for change, where in cases:
        document = yaml.safe_load(EXAMPLE)
        change(document)
        assert mistakes(document) == [where]


def test_defaults_in_the_schema_fit_it() -> None:
    """What the schema offers as a default is something it accepts."""
    whole = schema()
    for described, default in _defaults(whole):
        validator = Draft202012Validator({"$defs": whole["$defs"], **described})
        assert list(validator.iter_errors(default)) == []


def _defaults(described: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    if isinstance(described, dict):
        if "default" in described:
            yield described, described["default"]
        for value in described.values():
            yield from _defaults(value)


@pytest.mark.parametrize(
    ("approval", "told"),
    [
        ("{required: 21, channels: ['19:a@thread.tacv2']}", "approval.required is wrong"),
        ("{expires: 4m}", "approval.expires is wrong: a request waits for five minutes at least"),
        ("{expires: 91d}", "approval.expires is wrong: a request waits for five minutes at least"),
        ("{expires: 1d, remind: 1d}", "approval is wrong: `remind` has to be shorter than `expires`"),
        ("{remind: soon}", "approval.remind"),
        ("{channels: [general]}", "approval.channels.0 is wrong"),
    ],
)
def test_rules_that_make_no_sense(problems: Problems, approval: str, told: str) -> None:
    """Too many approvals, deadlines nobody can keep or remembers, and channels that are none are told."""
    found = problems(f"{MORE}    approval: {approval}\n")
    assert found
    assert all(told in problem for problem in found)


def test_members_of_a_team_may_be_enough(read: Load) -> None:
    """With a channel named, nobody else has to be."""
    rules = read(f"{MORE}    approval: {{approvers: [], required: 5, channels: ['19:a@thread.tacv2']}}\n")
    assert rules["more"].approval.channels == ("19:a@thread.tacv2",)


@pytest.mark.parametrize(
    ("approval", "remind"),
    [("{expires: 2h}", timedelta(days=1)), ("{remind: 90m}", timedelta(minutes=90)), ("{remind: never}", None)],
)
def test_reminders(read: Load, approval: str, remind: timedelta | None) -> None:
    """A reminder comes after a day, or as the catalog says, which may be never."""
    assert read(f"{MORE}    approval: {approval}\n")["more"].approval.remind == remind
