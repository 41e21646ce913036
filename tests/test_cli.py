"""The command line, as programs of their own against the local world."""

import asyncio
import json
import os
import re
import socket
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from bot.catalog.entries import schema
from bot.core.images import Digest, ImageReference
from bot.demo.registry import answering, hang
from bot.demo.world import LocalWorld
from bot.store.store import SqlStore
from tests.conftest import Bot, StartBot
from tests.peers.teams import ALEX

ROOT = Path(__file__).resolve().parents[1]
SDK, ASPNET_6, ASPNET_8 = "dotnet-sdk-6", "dotnet-aspnet-6", "dotnet-aspnet-8"
SDK_TAG = "6.0-bullseye-slim"
APP_ID = "11111111-2222-4333-8444-555555555555"
NOBODY = "http://127.0.0.1:9"
STARTING_S, ENDING_S = 30.0, 10.0

Environment = dict[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Each line of output as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


async def shipshape(*arguments: str, env: Environment, typed: str = "", cwd: Path = ROOT) -> Done:
    """Run a command to its end. Whatever happens, nobody is shown a traceback."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bot", *arguments)
    process = await asyncio.create_subprocess_exec(*command, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(60):
        out, err = await process.communicate(typed.encode())
    assert process.returncode is not None
    done = Done(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in done.err + done.out, done.err
    return done


@pytest.fixture
def bare() -> Environment:
    """An environment without any setting."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


@pytest.fixture
def env(bare: Environment, world: LocalWorld, catalog_file: Path, tmp_path: Path) -> Environment:
    """The settings of a bot in the local world, that may be asked by anybody on this machine."""
    return {
        **bare,
        **world.environment(),
        "SHIPSHAPE_CATALOG": str(catalog_file),
        "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/shipshape.db",
        "SHIPSHAPE_ALLOW_ANONYMOUS": "true",
        "SHIPSHAPE_PORT": "0",
        "SHIPSHAPE_POLL_INTERVAL": "0.1",
    }


def rewrite(catalog_file: Path, **images: dict[str, Any]) -> None:
    """Change images of the catalog, or add them."""
    document = yaml.safe_load(catalog_file.read_text())
    for name, changes in images.items():
        document["images"].setdefault(name, {}).update(changes)
    catalog_file.write_text(yaml.safe_dump(document, sort_keys=False))


def base_of(world: LocalWorld, name: str) -> ImageReference:
    base = world.catalog[name].base
    assert base is not None
    return base


def move_base(world: LocalWorld, name: str) -> Digest:
    return world.move_base(base_of(world, name))


# check


async def test_check_of_fresh_images(world: LocalWorld, env: Environment) -> None:
    """All fresh: exit 0 and the one object of the design, with every base asked for once."""
    done = await shipshape("check", "--json", env=env)
    assert done.code == 0
    report = done.json
    assert list(report) == ["checked_at", "images", "requests"]
    age = datetime.now(UTC) - datetime.fromisoformat(report["checked_at"])
    assert timedelta() <= age < timedelta(minutes=1)
    assert report["images"] == [
        {
            "name": image.name,
            "status": "fresh",
            "reason": "built from the current base",
            "base": str(image.base),
            "recorded_digest": world.base_digest(image),
            "current_digest": world.base_digest(image),
            "evidence": "label",
            "version_tag": f"{image.tag}-1.3.0",
        }
        for image in world.catalog.values()
    ]
    assert list(report["requests"]) == ["registry", "ecr"]
    assert report["requests"]["registry"] == world.registry.count("HEAD") == 3
    assert report["requests"]["ecr"] > 0


async def test_check_tells_people_what_is_out_of_support(world: LocalWorld, env: Environment) -> None:
    """A line of an image out of support never just says fresh; without release metadata nothing is claimed."""
    told, unknown = await asyncio.gather(
        shipshape("check", SDK, env=env),
        shipshape("check", SDK, env={**env, "SHIPSHAPE_RELEASE_METADATA_URL": "off"}),
    )
    assert (told.code, unknown.code) == (0, 0)
    assert "fresh" in told.out
    assert told.out.endswith("built from the current base; out of support since 2024-11-12\n")
    assert unknown.out.endswith("built from the current base\n")


async def test_check_of_a_stale_image(world: LocalWorld, env: Environment) -> None:
    """Something stale: exit 10, both digests; one image named is the only one looked at."""
    before = world.base_digest(world.catalog[SDK])
    after = move_base(world, SDK)
    done = await shipshape("check", SDK.upper(), "--json", env=env)
    assert done.code == 10
    (row,) = done.json["images"]
    assert (row["name"], row["status"]) == (SDK, "stale")
    assert (row["recorded_digest"], row["current_digest"]) == (before, after)
    assert world.registry.count("HEAD", "aspnet") == 0


async def test_check_of_an_unknown_image(world: LocalWorld, env: Environment) -> None:
    """Something that cannot be found out: exit 20 with the reason, also beside a stale one; the others are checked."""
    world.registry.fail_next("HEAD", "dotnet/aspnet/manifests/6", answering(401), times=9)
    move_base(world, SDK)
    done = await shipshape("check", "--json", env=env)
    assert done.code == 20
    stale, unknown, fresh = done.json["images"]
    assert [row["status"] for row in (stale, unknown, fresh)] == ["stale", "unknown", "fresh"]
    assert unknown["reason"]
    assert (unknown["current_digest"], unknown["version_tag"], unknown["evidence"]) == (None, None, "none")


async def test_dry_run_tells_and_does_nothing(
    world: LocalWorld, env: Environment, catalog_file: Path, tmp_path: Path
) -> None:
    """`--dry-run` tells what a bot would do by each image's mode, also for one never built; nothing is done."""
    rewrite(
        catalog_file,
        new={"base": str(base_of(world, SDK)), "repository": "new/one", "tag": "v1"},
        **{ASPNET_6: {"mode": "auto"}, ASPNET_8: {"mode": "notify"}},
    )
    for name in (ASPNET_6, ASPNET_8):
        move_base(world, name)
    as_json, as_text = await asyncio.gather(
        shipshape("check", "new", "--dry-run", "--json", env=env), shipshape("check", "--dry-run", env=env)
    )
    assert (as_json.code, as_text.code) == (10, 10)
    told = [line.rpartition("would: ")[2] for line in as_text.out.splitlines()]
    assert dict(zip((SDK, ASPNET_6, ASPNET_8, "new"), told, strict=True)) == {
        SDK: "nothing",
        ASPNET_6: "queue",
        ASPNET_8: "tell",
        "new": "ask",
    }
    (new,) = as_json.json["images"]
    assert (new["status"], new["version_tag"], new["recorded_digest"]) == ("unbuilt", None, None)
    assert new["would"] == "ask"
    line = (
        r"new +unbuilt +- +\? → [0-9a-f]{12} +no version of v1 is in new/one yet; out of support since \S+  would: ask"
    )
    assert re.fullmatch(line, as_text.out.splitlines()[-1])
    assert world.azure.runs.all == {}
    assert not (tmp_path / "shipshape.db").exists()


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("dotnet-skd-6", "There is no image dotnet-skd-6. Did you mean dotnet-sdk-6?"),
        ("aspnet", "aspnet may be several images: dotnet-aspnet-6, dotnet-aspnet-8."),
        ("x" * 10_000, f"There is no image {'x' * 60}… in the catalog."),
    ],
    ids=["typo", "several", "long"],
)
async def test_image_that_is_not_in_the_catalog(bare: Environment, catalog_file: Path, named: str, told: str) -> None:
    """A name that the catalog does not have is exit 1 and one line that helps."""
    done = await shipshape("check", SDK, named, env={**bare, "SHIPSHAPE_CATALOG": str(catalog_file)})
    assert (done.code, done.out, done.err) == (1, "", f"shipshape: {told}\n")


async def test_catalog_that_is_not_there(bare: Environment, tmp_path: Path) -> None:
    """Without a catalog every command that needs it is exit 1 with its path."""
    done = await shipshape("check", env={**bare, "SHIPSHAPE_CATALOG": str(tmp_path / "missing.yml")})
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"shipshape: {tmp_path / 'missing.yml'}: cannot be read: ")


# next-tag


async def test_next_tag(world: LocalWorld, env: Environment, catalog_file: Path) -> None:
    """1.0.0 without a repository, a patch for a fresh image, a minor for a stale one, unless it is told which.

    A registry is only needed to find out which; without it that is an error.
    """
    rewrite(catalog_file, new={"base": str(base_of(world, SDK)), "repository": "new/one", "tag": "v1"})
    move_base(world, ASPNET_8)
    world.registry.fail_next("HEAD", "dotnet/aspnet/manifests/6", answering(401), times=9)
    mirrors = json.loads(env["SHIPSHAPE_REGISTRY_MIRRORS"])
    down = {**env, "SHIPSHAPE_REGISTRY_MIRRORS": json.dumps(dict.fromkeys(mirrors, NOBODY))}
    *done, failed = await asyncio.gather(
        shipshape("next-tag", "new", env=env),
        shipshape("next-tag", SDK, env=env),
        shipshape("next-tag", ASPNET_8, env=env),
        shipshape("next-tag", SDK, "--new-base", env=down),
        shipshape("next-tag", ASPNET_8, "--no-new-base", env=down),
        shipshape("next-tag", ASPNET_6, env=env),
    )
    assert [(each.code, each.out) for each in done] == [
        (0, "v1-1.0.0\n"),
        (0, f"{SDK_TAG}-1.3.1\n"),
        (0, "8.0-bookworm-slim-1.4.0\n"),
        (0, f"{SDK_TAG}-1.4.0\n"),
        (0, "8.0-bookworm-slim-1.3.1\n"),
    ]
    assert (failed.code, failed.out) == (1, "")
    assert failed.err.startswith("shipshape: mcr.microsoft.com asks for a password")


# doctor


async def test_doctor_finds_all_well(world: LocalWorld, env: Environment) -> None:
    """Settings, catalog, database, login, each base, each repository and each pipeline: a line each, exit 0."""
    done = await shipshape("doctor", env=env)
    assert (done.code, done.err) == (0, "")
    assert [line.split(":")[0] for line in done.out.splitlines()] == [
        "ok    settings",
        "ok    catalog",
        "ok    database",
        "ok    login",
        *(f"ok    {what} of {name}" for name in world.catalog for what in ("base", "ECR")),
        "ok    pipeline 12 of platform-images",
        "ok    pipeline 13 of platform-images",
        "ok    pipeline 7 of platform-images",
        "ok    release metadata",
    ]
    assert f"ok    ECR of {SDK}: {SDK_TAG}-1.3.0" in done.out
    assert world.azure.runs.all == {}


async def test_doctor_names_what_is_ill(world: LocalWorld, env: Environment, tmp_path: Path) -> None:
    """Each peer that is down is a FAIL line with its reason, exit 1; the lines of the others are still there."""
    world.registry.fail_next("HEAD", "dotnet/sdk/", answering(401), times=9)
    ill = {
        **env,
        "SHIPSHAPE_AZURE_DEVOPS_URL": f"{NOBODY}/contoso",
        "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/no/folder.db",
    }
    done = await shipshape("doctor", env=ill)
    assert (done.code, done.err) == (1, "")
    fails = [line.removeprefix("FAIL  ") for line in done.out.splitlines() if line.startswith("FAIL")]
    assert [line.split(":")[0] for line in fails] == [
        "database",
        f"base of {SDK}",
        *(f"pipeline {number} of platform-images" for number in (12, 13, 7)),
    ]
    assert all(len(line.split(": ", 1)[1]) > 10 for line in fails)
    assert f"ok    base of {ASPNET_8}" in done.out
    assert f"ok    ECR of {SDK}" in done.out


async def test_doctor_looks_at_the_queue_of_events(world: LocalWorld, env: Environment) -> None:
    """How many messages wait in it; and a queue that is not there is a failure with a plain reason."""
    queue_url = world.ecr.open_queue()
    world.ecr.send(queue_url, "{}")
    well, ill = await asyncio.gather(
        shipshape("doctor", env={**env, "SHIPSHAPE_ECR_EVENTS_QUEUE_URL": queue_url}),
        shipshape("doctor", env={**env, "SHIPSHAPE_ECR_EVENTS_QUEUE_URL": f"{queue_url}-misspelt"}),
    )
    assert (well.code, well.out.splitlines()[-2]) == (0, "ok    events of ECR: messages in the queue: about 1")
    assert (ill.code, ill.out.splitlines()[-2]) == (1, "FAIL  events of ECR: SQS has no queue ecr-events-misspelt")


async def test_doctor_looks_at_the_service_hooks(world: LocalWorld, env: Environment) -> None:
    """With a password set somebody has to be told of all events; a token that may not see that is no failure."""
    env = {**env, "SHIPSHAPE_HOOK_SECRET": "correct horse battery staple"}
    nobody = await shipshape("doctor", env=env)
    told = "FAIL  service hooks: no address is told of all events; `shipshape hooks install` subscribes and mends"
    assert (nobody.code, nobody.out.splitlines()[-2]) == (1, told)
    await shipshape("hooks", "install", "--url", "https://shipshape.contoso.com/api/hooks/azure-devops", env=env)
    well = await shipshape("doctor", env=env)
    told = "ok    service hooks: all events are told to shipshape.contoso.com"
    assert (well.code, well.out.splitlines()[-2]) == (0, told)
    next(iter(world.azure.hooks.subscriptions.values())).status = "disabledBySystem"
    assert (await shipshape("doctor", env=env)).code == 1
    world.azure.fail_next("GET", "/hooks/subscriptions", 403)
    unseen = await shipshape("doctor", env=env)
    assert (unseen.code, "this token may not see the subscriptions" in unseen.out) == (0, True)


async def test_doctor_looks_at_the_release_metadata(world: LocalWorld, env: Environment) -> None:
    """Whether it can be had and read now, with the reason; nothing where it is switched off."""
    well = await shipshape("doctor", env=env)
    assert well.out.splitlines()[-1] == f"ok    release metadata: {len(world.releases.channels)} versions of .NET"
    world.releases.failure = answering(404)
    ill = await shipshape("doctor", env=env)
    assert ill.code == 1
    assert ill.out.splitlines()[-1].startswith("FAIL  release metadata: 127.0.0.1 (")
    off = await shipshape("doctor", env={**env, "SHIPSHAPE_RELEASE_METADATA_URL": "off"})
    assert (off.code, "release metadata" in off.out) == (0, False)


async def test_doctor_of_settings_and_catalog(bare: Environment, tmp_path: Path) -> None:
    """What is missing in the settings and what is wrong in the catalog are told together."""
    (tmp_path / "catalog.yml").write_text("images: {}\n")
    done = await shipshape("doctor", env={**bare, "SHIPSHAPE_CATALOG": str(tmp_path / "catalog.yml")}, cwd=tmp_path)
    assert done.code == 1
    assert [line.split(": ")[:2] for line in done.out.splitlines()] == [
        ["FAIL  settings", "SHIPSHAPE_BOT_APP_ID"],
        ["FAIL  settings", "SHIPSHAPE_BOT_TENANT_ID"],
        ["FAIL  settings", "SHIPSHAPE_BOT_APP_PASSWORD"],
        ["FAIL  settings", "SHIPSHAPE_AZURE_DEVOPS_URL"],
        ["FAIL  catalog", f"{tmp_path}/catalog.yml:1"],
    ]


async def test_doctor_without_credentials(env: Environment) -> None:
    """With nothing but the settings of the bot missing, the peers are looked at all the same."""
    del env["SHIPSHAPE_ALLOW_ANONYMOUS"], env["SHIPSHAPE_AZURE_DEVOPS_URL"]
    done = await shipshape("doctor", env=env)
    assert done.code == 1
    assert done.out.count("FAIL  settings") == 4
    assert f"ok    ECR of {ASPNET_6}" in done.out
    assert "login" not in done.out
    assert "pipeline" not in done.out


# catalog-schema, manifest, and what all have in common


async def test_small_commands(bare: Environment, tmp_path: Path) -> None:
    """`catalog-schema` needs no settings; `manifest` writes the package, or says what it lacks; a bad option is 2."""
    printed, built, without_id, unknown, nothing, script = await asyncio.gather(
        shipshape("catalog-schema", env=bare, cwd=tmp_path),
        shipshape("manifest", "--out", str(tmp_path / "out"), env={**bare, "SHIPSHAPE_BOT_APP_ID": APP_ID}),
        shipshape("manifest", "--out", str(tmp_path / "other"), env=bare),
        shipshape("check", "--fast", env=bare),
        shipshape(env=bare),
        shipshape("--help", env=bare),
    )
    assert (printed.code, printed.json) == (0, schema())
    assert (built.code, built.out) == (0, f"{tmp_path}/out/shipshape.zip\n")
    assert APP_ID in zipfile.ZipFile(tmp_path / "out" / "shipshape.zip").read("manifest.json").decode()
    assert (without_id.code, without_id.out) == (1, "")
    assert without_id.err.startswith("shipshape: SHIPSHAPE_BOT_APP_ID: ")
    assert (unknown.code, "No such option: --fast" in unknown.err) == (2, True)
    for command in ("serve", "demo", "chat", "check", "doctor", "next-tag", "catalog-schema", "manifest"):
        assert command in script.out
    assert "Usage" in nothing.out + nothing.err


async def test_console_script_is_the_same() -> None:
    """`shipshape` is `python -m bot`."""
    script = Path(sys.executable).with_name("shipshape")
    if not script.exists():
        pytest.skip("The project is not installed beside this Python, so there is no console script.")
    process = await asyncio.create_subprocess_exec(script, "catalog-schema", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert json.loads(out) == schema()


@pytest.mark.parametrize("command", [("check",), ("next-tag", SDK), ("serve",), ("chat",), ("manifest", "--out", "x")])
async def test_wrong_settings_stop_every_command(bare: Environment, tmp_path: Path, command: tuple[str, ...]) -> None:
    """Each mistake in the settings is a line on standard error, exit 1."""
    wrong = {**bare, "SHIPSHAPE_PORT": "many", "SHIPSHAPE_SHEDULE": "0 6 * * 1"}
    done = await shipshape(*command, env=wrong, cwd=tmp_path)
    assert (done.code, done.out) == (1, "")
    assert [line.split(": ")[1] for line in done.err.splitlines()] == ["SHIPSHAPE_PORT", "SHIPSHAPE_SHEDULE"]


# serve


@dataclass
class Serving:
    """`shipshape serve`, listening."""

    process: asyncio.subprocess.Process
    url: str

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.text()

    async def end(self) -> tuple[int, str]:
        """Ask it to end; its exit code, and what else it wrote."""
        self.process.terminate()
        try:
            async with asyncio.timeout(ENDING_S):
                _, err = await self.process.communicate()
        except TimeoutError:
            self.process.kill()
            raise
        assert self.process.returncode is not None
        return self.process.returncode, err.decode()


@asynccontextmanager
async def serving(env: Environment) -> AsyncIterator[Serving]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "serve", env=env, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(STARTING_S):
            seen = ""
            while not (found := re.search(r"listening on (http://[\d.:]+)", seen)):
                line = await process.stderr.readline()
                assert line, f"it ended before it listened: {seen}"
                seen += line.decode()
        yield Serving(process, found[1])
    finally:
        if process.returncode is None:
            await Serving(process, "").end()


@pytest.fixture
async def served(env: Environment) -> AsyncIterator[Serving]:
    async with serving(env) as served:
        yield served


async def test_serve_is_refused_without_credentials(bare: Environment, catalog_file: Path) -> None:
    """A production start without credentials ends with 1 and names all that is missing."""
    env = {
        **bare,
        "SHIPSHAPE_CATALOG": str(catalog_file),
        "SHIPSHAPE_AZURE_DEVOPS_URL": "https://dev.azure.com/contoso",
    }
    missing, open_to_all = await asyncio.gather(
        shipshape("serve", env=env),
        shipshape("serve", env={**env, "SHIPSHAPE_ALLOW_ANONYMOUS": "true", "SHIPSHAPE_HOST": "0.0.0.0"}),
    )
    assert (missing.code, open_to_all.code) == (1, 1)
    assert [line.split(": ")[1] for line in missing.err.splitlines()] == [
        "SHIPSHAPE_BOT_APP_ID",
        "SHIPSHAPE_BOT_TENANT_ID",
        "SHIPSHAPE_BOT_APP_PASSWORD",
    ]
    assert "SHIPSHAPE_ALLOW_ANONYMOUS: is refused" in open_to_all.err


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_serve_that_cannot_start(env: Environment, tmp_path: Path, taken_port: int) -> None:
    """A database, schedule or port that cannot be used is one line and exit 1."""
    wrong = {
        "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/no/folder.db",
        "SHIPSHAPE_SCHEDULE": "every monday",
        "SHIPSHAPE_PORT": str(taken_port),
    }
    done = await asyncio.gather(*(shipshape("serve", env={**env, key: value}) for key, value in wrong.items()))
    assert [each.code for each in done] == [1, 1, 1]
    errors = [[line for line in each.err.splitlines() if line.startswith("shipshape: ")] for each in done]
    assert [len(lines) for lines in errors] == [1, 1, 1]
    assert "SHIPSHAPE_DATABASE_URL: the database cannot be opened: unable to open database file" in errors[0][0]
    assert "SHIPSHAPE_SCHEDULE: 'every monday' does not have five fields" in errors[1][0]
    assert "address already in use" in errors[2][0]


async def test_serve_answers_and_ends(served: Serving, tmp_path: Path) -> None:
    """While it runs it tells health, readiness and numbers; on SIGTERM it ends by itself, with 0."""
    assert await served.get("/healthz") == (200, "ok\n")
    assert await served.get("/readyz") == (200, "ready\n")
    status, text = await served.get("/metrics")
    assert status == 200
    assert 'shipshape_peer_requests_total{peer="registry"}' in text
    assert (await served.get("/nothing"))[0] == 404
    code, rest = await served.end()
    assert code == 0
    assert "Traceback" not in rest, rest
    assert (tmp_path / "shipshape.db").exists()


async def test_serve_ends_during_a_check_that_hangs(world: LocalWorld, env: Environment, tmp_path: Path) -> None:
    """A registry that never answers holds up neither the start, with a slot to catch up, nor the end."""
    past = datetime.now(UTC) - timedelta(days=30)
    async with SqlStore(f"sqlite+aiosqlite:///{tmp_path}/shipshape.db") as store:
        await store.claim_slot(past, past)
    world.registry.fail_next("HEAD", "", hang, times=99)
    async with serving(env) as served:
        async with asyncio.timeout(ENDING_S):
            while world.registry.count("HEAD") == 0:  # noqa: ASYNC110 -- the registry tells nobody
                await asyncio.sleep(0.05)
        assert (await served.get("/readyz"))[0] == 200
        code, rest = await served.end()
    assert code == 0
    assert "Traceback" not in rest, rest


async def test_serve_ends_during_a_poll_for_events(world: LocalWorld, env: Environment) -> None:
    """A bot that waits for a message of the queue ends at once, however long the poll still takes."""
    async with serving({**env, "SHIPSHAPE_ECR_EVENTS_QUEUE_URL": world.ecr.open_queue()}) as served:
        async with asyncio.timeout(ENDING_S):
            while "ReceiveMessage" not in world.ecr.calls:  # noqa: ASYNC110 -- moto tells nobody
                await asyncio.sleep(0.05)
        before = asyncio.get_running_loop().time()
        code, rest = await served.end()
        assert asyncio.get_running_loop().time() - before < 10
    assert code == 0
    assert "Traceback" not in rest, rest


# chat


async def chat(url: str, typed: str, *arguments: str) -> Done:
    return await shipshape("chat", "--url", url, *arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, typed=typed)


async def test_chat(world: LocalWorld, served: Serving) -> None:
    """Each line is a message whose answer is one JSON line; `!1` presses a button, one that is not there is told."""
    move_base(world, SDK)
    answered, none, typo = await asyncio.gather(
        chat(served.url, f"status {SDK}\n\n  \n", "--json"),
        chat(served.url, "!1\n", "--json"),
        chat(served.url, "status dotnet-skd-6\n!99\n!x\n!1\n", "--json"),
    )
    assert [(each.code, each.err) for each in (answered, none, typo)] == [(0, "")] * 3
    (line,) = answered.lines
    assert line["type"] == "message"
    assert line["attachments"][0]["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert SDK in json.dumps(line["attachments"][0]["content"])

    assert none.lines == [{"type": "note", "text": "There is no button 1; the last card has 0."}]
    suggested, beyond, no_number, *pressed = typo.lines
    assert f"status {SDK}" in json.dumps(suggested)
    assert (beyond["type"], no_number["type"]) == ("note", "note")
    assert beyond["text"].startswith("There is no button 99; the last card has ")
    assert no_number["text"].startswith("There is no button x; ")
    response = next(line for line in pressed if line["type"] == "invokeResponse")
    assert response["value"]["statusCode"] == 200
    assert "The base moved for linux/amd64 (label)" in json.dumps(pressed)


@pytest.fixture
async def open_to_all(start_bot: StartBot) -> AsyncIterator[Bot]:
    """A bot that anybody on this machine may ask."""
    async with start_bot(ALLOW_ANONYMOUS="true", BOT_TENANT_ID="") as bot:
        yield bot


async def test_chat_for_people(open_to_all: Bot) -> None:
    """Without `--json` cards are text with their buttons counted; who is no approver is told so."""
    typed = f"rebuild {SDK} hardening\napprove {SDK}\n"
    done = await chat(open_to_all.app.url, typed, "--as", "nestor.wilke@contoso.com")
    assert (done.code, done.err) == (0, "")
    assert "Type a command" in done.out
    assert SDK in done.out
    assert re.search(r"\[!1\] \w+", done.out)
    assert "You may not approve" in done.out
    assert open_to_all.runs == []


async def test_chat_follows_a_rebuild(open_to_all: Bot) -> None:
    """An approver's rebuild is seen to its end: its card is edited until the image is in ECR."""
    done = await chat(open_to_all.app.url, f"rebuild {SDK} hardening\n", "--json", "--wait", "2")
    assert (done.code, done.err) == (0, "")
    edits = [line for line in done.lines if line["type"] == "messageUpdate"]
    assert f"{SDK_TAG}-1.3.1" in json.dumps(edits[-1])
    assert [run["image"] for run in open_to_all.runs] == [SDK]


async def test_chat_with_nobody(start_bot: StartBot) -> None:
    """When no bot answers, or one that wants signed messages, chat says so and ends with 1."""
    async with start_bot() as production:
        unsigned, alone = await asyncio.gather(chat(production.app.url, "help\n"), chat(NOBODY, "help\n", "--json"))
    assert (unsigned.code, alone.code) == (1, 1)
    assert "chat needs SHIPSHAPE_ALLOW_ANONYMOUS=true" in unsigned.err
    assert (alone.out, alone.err) == ("", f"shipshape: no bot answers at {NOBODY}: start it with `make demo`\n")


async def test_bot_ends_right_after_an_action(start_bot: StartBot) -> None:
    """An end that comes in the same moment as news for the loops, here a rejection, is an end all the same."""
    async with asyncio.timeout(ENDING_S), start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        bot.move_base(SDK)
        await bot.next_week()
        await bot.teams.until_shown(SDK, "waits for approval")
        await bot.teams.personal(ALEX).invoke("reject", {"target": SDK, "reason": "not now"})
