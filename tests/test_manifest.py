"""The Teams app package, as `shipshape manifest` builds it."""

import json
import os
import struct
import subprocess
import sys
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import bot
from bot.teams.commands.table import COMMANDS

ROOT = Path(__file__).parents[1]
SCHEMAS = ROOT.parent / "shared/contracts/teams"
APP_ID = "11111111-2222-4333-8444-555555555555"
# They stand on the cards as buttons, or are the way out of something; `help` names them.
NOT_SUGGESTED = {"approve", "reject", "cancel", "now", "retry", "snooze", "hold", "release", "rollback", "unsubscribe"}
MOST_SUGGESTIONS = 10
RGB, RGBA = 2, 6


def build(out: Path, app_id: str = APP_ID) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SHIPSHAPE_BOT_APP_ID": app_id}
    command = [sys.executable, "-m", "bot", "manifest", "--out", str(out)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("package") / "new"
    done = build(out)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(out / "shipshape.zip"), "")
    return zipfile.ZipFile(out / "shipshape.zip")


@pytest.fixture(scope="module")
def manifest(package: zipfile.ZipFile) -> Any:
    return json.loads(package.read("manifest.json"))


def png(content: bytes) -> tuple[int, int, int, bytes]:
    """Width, height, colour type and the pixels of a PNG of 8 bits per channel. https://www.w3.org/TR/png/"""
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind = content[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + content[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (content[:8], depth, interlace) == (b"\x89PNG\r\n\x1a\n", 8, 0)
    return width, height, colour, _unfiltered(zlib.decompress(chunks[b"IDAT"]), width, {RGB: 3, RGBA: 4}[colour])


def _unfiltered(data: bytes, width: int, size: int) -> bytes:
    stride, above, pixels = width * size, bytes(width * size), bytearray()
    for start in range(0, len(data), stride + 1):
        row = bytearray(data[start + 1 : start + 1 + stride])
        for i in range(stride):
            left, up = (row[i - size] if i >= size else 0), above[i]
            corner = above[i - size] if i >= size else 0
            row[i] = (row[i] + _predicted(data[start], left, up, corner)) % 256
        above = bytes(row)
        pixels += row
    return bytes(pixels)


def _predicted(kind: int, left: int, up: int, corner: int) -> int:
    nearest = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
    return (0, left, up, (left + up) // 2, nearest)[kind]


@pytest.mark.parametrize("version", ["1.23", "1.25", "1.29"])
def test_the_manifest_is_valid(manifest: Any, version: str) -> None:
    """Microsoft's schema of the version it names, and of later ones, accepts the manifest."""
    path = SCHEMAS / f"MicrosoftTeams.schema.v{version}.json"
    if not path.is_file():
        pytest.skip("Microsoft's schemas are not beside this repository (../shared/contracts/teams).")
    schema = json.loads(path.read_text("utf-8-sig"))
    content = {**manifest, "manifestVersion": version, "$schema": manifest["$schema"].replace("1.23", version)}

    errors = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(content)]

    assert errors == []


def test_the_bot_is_the_registered_one(manifest: Any) -> None:
    """The app id of the settings is the app's and the bot's, and no placeholder is left."""
    assert (manifest["id"], manifest["bots"][0]["botId"]) == (APP_ID, APP_ID)
    assert "${" not in json.dumps(manifest)


def test_the_versions_agree(manifest: Any) -> None:
    """The app package, the Python package and its metadata are of one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    assert {manifest["version"], bot.__version__, project["version"]} == {bot.__version__}


def test_the_bot_is_for_people_and_teams(manifest: Any) -> None:
    """It can be added to a personal chat and to a team, and suggests commands in each of its scopes."""
    [registered] = manifest["bots"]
    [commands] = registered["commandLists"]

    assert {"personal", "team"} <= set(registered["scopes"])
    assert set(commands["scopes"]) == set(registered["scopes"])


def test_suggested_commands_exist(manifest: Any) -> None:
    """What Teams suggests are commands that the bot has, and every other command was left out on purpose."""
    suggested = [command["title"] for command in manifest["bots"][0]["commandLists"][0]["commands"]]
    visible = {command.name for command in COMMANDS.values() if not command.hidden}

    assert len(suggested) == len(set(suggested)) <= MOST_SUGGESTIONS
    assert set(suggested) == visible - NOT_SUGGESTED


def test_the_package_holds_what_it_names(package: zipfile.ZipFile, manifest: Any) -> None:
    """Manifest and icons lie at the top of the archive, and nothing else is in it."""
    assert sorted(package.namelist()) == sorted(["manifest.json", *manifest["icons"].values()])


def test_the_color_icon_is_full(package: zipfile.ZipFile, manifest: Any) -> None:
    """192 pixels square, without transparency, on the manifest's own colour."""
    width, height, colour, pixels = png(package.read(manifest["icons"]["color"]))

    assert (width, height, colour) == (192, 192, RGB)
    assert pixels[:3].hex() == manifest["accentColor"].removeprefix("#").lower()


def test_the_outline_icon_is_white_on_nothing(package: zipfile.ZipFile, manifest: Any) -> None:
    """32 pixels square, white where it is not transparent, with a transparent corner."""
    width, height, colour, pixels = png(package.read(manifest["icons"]["outline"]))
    seen = [pixels[i : i + 4] for i in range(0, len(pixels), 4) if pixels[i + 3]]

    assert (width, height, colour) == (32, 32, RGBA)
    assert {pixel[:3] for pixel in seen} == {b"\xff\xff\xff"}
    assert 0 < len(seen) < width * height / 2
    assert pixels[3] == 0


@pytest.mark.parametrize("app_id", ["", "shipshape"])
def test_a_package_needs_the_app_id(tmp_path: Path, app_id: str) -> None:
    """Without a proper app id no package is written, and the setting to mend is named."""
    done = build(tmp_path, app_id)

    assert (done.returncode, done.stdout) == (1, "")
    assert "SHIPSHAPE_BOT_APP_ID" in done.stderr
    assert list(tmp_path.iterdir()) == []
