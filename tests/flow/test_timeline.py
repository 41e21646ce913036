"""The real history of .NET base images at Microsoft's registry, replayed through the running application.

The registry serves what Microsoft's served at the clock's moment, Azure's Push stage publishes images that are
labelled with the base they were given, and every question is answered with Approve.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest

from bot.catalog.catalog import Catalog
from bot.clients.documents import DOCKER_LIST, DOCKER_MANIFEST
from bot.core.images import Digest, ImageReference
from bot.core.runner import Pace
from bot.demo.image_builder import Blob
from bot.demo.registry import answering
from bot.demo.world import LocalWorld
from tests.conftest import Bot, FakeClock
from tests.peers.teams import ALEX, Message, actions, texts
from tests.peers.timeline import DATA, HOST, History, PastRegistry, Recorded

pytestmark = pytest.mark.skipif(
    not DATA.exists(),
    reason="the history of Microsoft's digests is not there (../shared/timeline), so none is replayed",
)

WEEK = timedelta(days=7)
A_MONDAY = datetime(2020, 1, 6, 6, 0, tzinfo=UTC)
STATUSES = ("stale", "unbuilt", "unknown")
AMD64, ARM64 = "linux/amd64", "linux/arm64"


@dataclass(frozen=True, slots=True)
class Line:
    """A platform image of a replay, built on `dotnet/BASE`."""

    base: str
    platforms: tuple[str, ...] = (AMD64,)

    @property
    def name(self) -> str:
        """Such as `sdk-6.0-alpine`, and `sdk-6.0-alpine-arm64` for other platforms than amd64 alone."""
        others = () if self.platforms == (AMD64,) else (platform.partition("/")[2] for platform in self.platforms)
        return "-".join((*self.base.split(":"), *others))

    @property
    def reference(self) -> ImageReference:
        return ImageReference.parse(f"{HOST}/dotnet/{self.base}")


@dataclass(frozen=True, slots=True)
class Scene:
    """Platform images that are up to date when the replay starts, as far as their base exists then.

    `empty` leaves registry and ECR to the test.
    """

    start: datetime
    lines: tuple[Line, ...]
    empty: bool = False

    def slots(self, count: int) -> list[datetime]:
        """The first Mondays, 06:00 UTC, after the start."""
        weeks = (self.start - A_MONDAY) // WEEK
        return [A_MONDAY + (weeks + number) * WEEK for number in range(1, count + 1)]


def starting(start: str, *lines: Line | str) -> Scene:
    return Scene(utc(start), tuple(Line(line) if isinstance(line, str) else line for line in lines))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """What the check of one slot found, and which runs (image and base) came of it."""

    slot: datetime
    stale: frozenset[str]
    unbuilt: frozenset[str]
    unknown: frozenset[str]
    runs: tuple[tuple[str, str], ...]

    @property
    def is_quiet(self) -> bool:
        return not (self.stale or self.unbuilt or self.unknown or self.runs)


@pytest.fixture(scope="session")
def history() -> History:
    return History.read()


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    chosen: Scene = request.param
    return chosen


@pytest.fixture
def clock(scene: Scene) -> FakeClock:
    return FakeClock(scene.start)


@pytest.fixture
def catalog_file(tmp_path: Path, scene: Scene) -> Path:
    path = tmp_path / "catalog.yml"
    path.write_text(catalog_text(scene))
    return path


@pytest.fixture
async def world(
    tmp_path: Path,
    scene: Scene,
    history: History,
    catalog: Catalog,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[LocalWorld]:
    """The local peers: the registry has the past, and ECR an image on each base as it was at the start."""
    async with LocalWorld(tmp_path / "world", catalog, now=clock.now) as world:
        if not scene.empty:
            PastRegistry(history, clock).play_on(world.registry, {line.reference for line in scene.lines})
            build_all(world, scene, history)
        for key, value in world.ecr.environment().items():
            monkeypatch.setenv(key, value)
        yield world


def build_all(world: LocalWorld, scene: Scene, history: History) -> None:
    """Put every image into ECR as version 1.3.0, built on its base as it was at the start."""
    for line in scene.lines:
        image = world.catalog[line.name]
        if base := history.at(line.reference, scene.start):
            world.publish(image, f"{image.tag}-1.3.0", base.digest)


def catalog_text(scene: Scene) -> str:
    """A catalog of the scene's images, in the part of YAML that is JSON."""
    defaults = {
        "registry_id": "123456789012",
        "region": "eu-west-1",
        "pipeline": {"project": "platform-images", "id": 7},
        "approval": {"approvers": [ALEX.principal_name]},
    }
    images = {
        line.name: {
            "base": str(line.reference),
            "repository": line.reference.repository,
            "tag": line.name.partition("-")[2],
            "platforms": list(line.platforms),
        }
        for line in scene.lines
    }
    return json.dumps({"defaults": defaults, "images": images})


# What the data says should happen


def recompute(history: History, scene: Scene, weeks: int) -> list[Week]:
    """What each check has to find when every update is approved: plain loops over the recorded events."""
    events = {line: history.events(line.reference) for line in scene.lines}

    def served(line: Line, moment: datetime) -> Recorded | None:
        """The newest digest published until then; the registry keeps what is taken off the list."""
        return ([None] + [found for at, found in events[line] if at <= moment and found])[-1]

    built = {line: served(line, scene.start) for line in scene.lines}
    result = []
    for slot in scene.slots(weeks):
        found: dict[str, set[str]] = {status: set() for status in STATUSES}
        queued = []
        for line in scene.lines:
            before, now = built[line], served(line, slot)
            if now is None:
                found["unknown"].add(line.name)
                continue
            if before is None:
                found["unbuilt"].add(line.name)
            elif any(before.children[platform] != now.children[platform] for platform in line.platforms):
                found["stale"].add(line.name)
            else:
                continue
            queued.append((line.name, pinned(line, now)))
            built[line] = now
        names = {status: frozenset(found[status]) for status in STATUSES}
        result.append(Week(slot=slot, runs=tuple(sorted(queued)), **names))
    return result


def pinned(line: Line, base: Recorded) -> str:
    """The parameter that a run gets."""
    return f"{line.reference.name}@{base.digest}"


# What the bot does


async def replay(bot: Bot, history: History, scene: Scene, weeks: int) -> list[Week]:
    """Live through the weeks with every update approved. All has to be as recomputed, up to the labels in ECR."""
    expected = recompute(history, scene, weeks)
    for week in expected:
        assert await live_through(bot, week.slot) == week
    bases = {line.name: base.digest for line in scene.lines if (base := history.at(line.reference, scene.start))}
    bases |= {name: Digest(base.partition("@")[2]) for week in expected for name, base in week.runs}
    assert {line.name: recorded_base(bot, line) for line in scene.lines} == bases
    return expected


async def live_through(bot: Bot, slot: datetime) -> Week:
    """Let the timer fire at the slot, approve whatever the summary asks, and wait until all of it is in ECR."""
    bot.clock.time = slot
    posted, queued = len(bot.teams.messages), len(bot.runs)
    await bot.check()
    await bot.teams.until(lambda: len(bot.teams.messages) > posted, "the weekly message")
    summary = bot.teams.messages[posted]
    found = statuses(summary)
    if not found:
        assert_is_fresh(bot, summary)
    approved = await approve_all(bot, summary)
    await bot.check()  # the slot is done, whoever looks again
    await idle(bot)
    assert len(bot.teams.messages) == posted + 1 + 2 * approved  # each rebuild has one card and one notice
    names = {status: frozenset(name for name in found if found[name] == status) for status in STATUSES}
    return Week(slot=slot, runs=tuple(sorted(runs(bot)[queued:])), **names)


def assert_is_fresh(bot: Bot, message: Message) -> None:
    """The title says that everything is fresh, and nothing is asked."""
    images = [*bot.world.catalog]
    all_ = f"all {len(images)} images are fresh" if len(images) > 1 else f"{images[0]} is fresh"
    assert message.visible.strip().splitlines()[0].endswith(f" · {all_}")
    assert set(message.buttons) <= {"By week"}  # how long updates took, which asks nothing


async def check_now(bot: Bot, moment: str) -> Message:
    """A person asks for a check of everything; the card it leads to."""
    bot.clock.time = utc(moment)
    return await bot.teams.channel().ask("check")


async def rebuild_by_hand(bot: Bot, line: Line) -> None:
    """A person asks for a rebuild without a comparison; done when it is in ECR."""
    await bot.teams.channel().say(f"rebuild {line.name}")
    await bot.teams.until_shown(line.name, "in ECR as", "<at>")
    await idle(bot)


async def approve_all(bot: Bot, summary: Message) -> int:
    """Press every Approve of a card and wait until all is in ECR; how many there were."""
    waiting = [action for action in actions(summary.card) if action["title"] == "Approve"]
    for action in waiting:
        answer = await bot.teams.channel().invoke(action["verb"], action["data"], reply_to=summary.id)
        assert answer["statusCode"] == 200, answer
    await bot.teams.until(lambda: summary.visible.count("in ECR as") == len(waiting), "all is in ECR")
    await idle(bot)
    return len(waiting)


async def idle(bot: Bot) -> None:
    """Let the bot do whatever is left to do."""
    assert await bot.app.runner.advance() is Pace.IDLE
    await bot.app.notifier.deliver()


def rows(message: Message) -> dict[str, str]:
    """What a summary says about each image that needs something."""
    assert message.card
    found = {}
    for element in message.card["body"]:
        if element["type"] == "Container" and (told := list(texts(element, hidden=False))):
            first, *more = told
            found[first.split()[1]] = "\n".join([first, *more])
    return found


def statuses(message: Message) -> dict[str, str]:
    """What a new summary says each image is."""
    return {name: _status(text) for name, text in rows(message).items()}


def _status(row: str) -> str:
    if "Could not be checked" in row:
        return "unknown"
    return "unbuilt" if "No version is in ECR yet" in row else "stale"


def runs(bot: Bot) -> list[tuple[str, str]]:
    """Image and base of every run that Azure was asked for."""
    return [(run["image"], run["base"]) for run in bot.runs]


def recorded_base(bot: Bot, line: Line) -> str:
    """The base digest in the label of what the line's own tag points to in ECR."""
    storage, image = bot.world.registry.storage, bot.world.catalog[line.name]
    manifest = storage.manifest(f"{image.registry_id}/{image.repository}", image.tag)
    assert manifest
    config = storage.blob(json.loads(manifest.content)["config"]["digest"])
    assert config
    digest: str = json.loads(config)["config"]["Labels"]["org.opencontainers.image.base.digest"]
    return digest


def around(index: Recorded) -> Blob:
    """A document of our own around the recorded children of an index, for one whose bytes are lost."""
    manifests = []
    for platform, digest in index.children.items():
        os, architecture = platform.split("/")
        described = {"platform": {"os": os, "architecture": architecture}, "digest": digest, "size": 1}
        manifests.append({"mediaType": DOCKER_MANIFEST, **described})
    return Blob.of_json(DOCKER_LIST, {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": manifests})


# Two years

TWO_YEARS = starting(
    "2023-09-04T06:00",
    "sdk:6.0-bullseye-slim",
    "aspnet:6.0-alpine",
    "runtime-deps:8.0-jammy",  # is published in the second week
    Line("sdk:6.0-alpine", (ARM64,)),  # once its base moves for amd64 alone
    Line("sdk:7.0-alpine", (AMD64, ARM64)),  # is out of support after nine months
)


@pytest.mark.parametrize("scene", [TWO_YEARS], indirect=True, ids=["2023-to-2025"])
async def test_two_years_of_mondays(bot: Bot, scene: Scene, history: History) -> None:
    """Each week the summary asks for exactly what moved, each approval is one run, and quiet weeks are one line."""
    weeks = await replay(bot, history, scene, 104)
    assert weeks[-1].slot == utc("2025-09-01T06:00")
    assert any(week.is_quiet for week in weeks)
    read = [request.path for request in bot.world.registry.requests if request.method == "GET"]
    read = [path for path in read if path.startswith("/v2/dotnet/")]
    assert len(read) == len(set(read))  # an index never changes, so none is read twice


# What is worth a case of its own


@pytest.mark.parametrize(
    "scene",
    [starting("2022-03-14T06:00", "sdk:6.0-bullseye-slim", "aspnet:6.0-bullseye-slim", "runtime:6.0-bullseye-slim")],
    indirect=True,
    ids=["2022-03-17"],
)
async def test_three_digests_in_a_day_are_one_update(bot: Bot, scene: Scene, history: History) -> None:
    """Three digests within nine hours are one question and one run the next Monday, for the last of them."""
    found = {
        line: history.changes(line.reference, utc("2022-03-17T00:00"), utc("2022-03-18T00:00")) for line in scene.lines
    }
    assert {len(digests) for digests in found.values()} == {3}
    (week,) = await replay(bot, history, scene, 1)
    assert week.runs == tuple(sorted((line.name, pinned(line, found[line][-1])) for line in scene.lines))


A_DAY = starting("2022-03-17T05:00", "aspnet:6.0-bullseye-slim")  # new digests at 05:35, 09:35 and 14:08


@pytest.mark.parametrize("scene", [A_DAY], indirect=True, ids=["2022-03-17"])
async def test_only_the_second_digest_of_that_day_is_an_update(bot: Bot, scene: Scene, history: History) -> None:
    """The first and the third moved arm alone: the first is no question, and the third does not undo an approval."""
    (line,) = scene.lines
    assert_is_fresh(bot, await check_now(bot, "2022-03-17T06:00"))
    card = await check_now(bot, "2022-03-17T10:00")
    assert statuses(card) == {line.name: "stale"}
    bot.clock.time = utc("2022-03-17T15:00")
    assert await approve_all(bot, card) == 1
    second = history.at(line.reference, utc("2022-03-17T10:00"))
    assert second
    assert runs(bot) == [(line.name, pinned(line, second))]
    assert_is_fresh(bot, await check_now(bot, "2022-03-17T16:00"))


@pytest.mark.parametrize("scene", [A_DAY], indirect=True, ids=["2022-03-17"])
async def test_a_question_outlives_a_move_for_another_platform(bot: Bot, scene: Scene) -> None:
    """A check that finds the base moved for arm alone leaves the waiting question of an amd64 image as it is."""
    card = await check_now(bot, "2022-03-17T10:00")
    assert card.buttons.count("Approve") == 1
    await check_now(bot, "2022-03-17T15:00")
    await idle(bot)
    assert card.buttons.count("Approve") == 1


@pytest.mark.parametrize("scene", [A_DAY], indirect=True, ids=["2022-03-17"])
async def test_a_rejection_outlives_a_move_for_another_platform(bot: Bot, scene: Scene) -> None:
    """Who rejected a base for amd64 is not asked again when it moves for arm alone."""
    card = await check_now(bot, "2022-03-17T10:00")
    await bot.teams.channel().press(card, "Reject…", reason="breaks our proxy")
    assert "Approve" not in (await check_now(bot, "2022-03-17T15:00")).buttons


@pytest.mark.parametrize(
    "scene", [starting("2021-05-24T06:00", "runtime-deps:6.0-alpine")], indirect=True, ids=["runtime-deps-alpine"]
)
async def test_an_index_that_moves_for_other_platforms_is_no_update(bot: Bot, scene: Scene, history: History) -> None:
    """The index moved three times in June 2021 and amd64 did not: seven quiet weeks before an update in July."""
    weeks = await replay(bot, history, scene, 8)
    assert len(history.changes(scene.lines[0].reference, utc("2021-05-24T06:00"), utc("2021-07-05T06:00"))) == 3
    assert [week.is_quiet for week in weeks] == [True] * 7 + [False]


def only_windows_moved(*, empty: bool) -> pytest.MarkDecorator:
    moves = {"2022-03-08T19:00": "2022-03-08T20:30", "2023-06-13T19:10": "2023-06-13T19:13"}
    scenes = [(replace(starting(start, "aspnet:6.0"), empty=empty), later) for start, later in moves.items()]
    return pytest.mark.parametrize(("scene", "later"), scenes, indirect=["scene"], ids=[*moves])


@only_windows_moved(empty=False)
async def test_an_index_that_cannot_be_read_is_unknown(bot: Bot, scene: Scene, later: str, history: History) -> None:
    """Only Windows children moved, in an index whose bytes are lost: neither an update nor fresh, and no run.

    HEAD is faithful here, and GET answers 404, which Microsoft's registry does not. While the digest stays, HEAD alone
    proves that the image is fresh.
    """
    (line,) = scene.lines
    before, now = (history.at(line.reference, moment) for moment in (scene.start, utc(later)))
    assert before
    assert now
    assert before.digest != now.digest
    assert_is_fresh(bot, await check_now(bot, scene.start.isoformat()))
    assert bot.world.registry.count("GET", "/v2/dotnet/") == 0
    card = await check_now(bot, later)
    assert statuses(card) == {line.name: "unknown"}
    assert f"{HOST} has no dotnet/aspnet@{now.digest.short}" in card.visible
    assert "Approve" not in card.buttons
    await idle(bot)
    assert runs(bot) == []
    assert recorded_base(bot, line) == before.digest


@only_windows_moved(empty=True)
async def test_an_index_that_moves_for_windows_is_no_update(
    bot: Bot, scene: Scene, later: str, history: History
) -> None:
    """With the same children in a document that can be read, the move for Windows leaves the image fresh.

    The children are the recorded ones; the documents around them are ours, and so are the digests of the index.
    """
    (line,) = scene.lines
    before, now = (history.at(line.reference, moment) for moment in (scene.start, utc(later)))
    assert before
    assert now
    storage = bot.world.registry.storage
    storage.put_manifest(line.reference.repository, around(before), line.reference.tag)
    assert await approve_all(bot, await check_now(bot, scene.start.isoformat())) == 1
    storage.put_manifest(line.reference.repository, around(now), line.reference.tag)
    assert_is_fresh(bot, await check_now(bot, later))
    status = await bot.teams.channel().ask(f"status {line.name}")
    assert "The base moved for other platforms only; linux/amd64 is the same" in status.text
    assert len(runs(bot)) == 1


@pytest.mark.parametrize(
    "scene",
    [starting("2022-11-07T06:00", "sdk:6.0-alpine", "sdk:7.0-alpine", "runtime:7.0-alpine")],
    indirect=True,
    ids=["2022-11-07"],
)
async def test_five_changes_in_a_week_are_one_update(bot: Bot, scene: Scene, history: History) -> None:
    """Five digests between two checks are one question and one run, for the last of them."""
    found = {
        line: history.changes(line.reference, utc("2022-11-07T06:00"), utc("2022-11-14T06:00")) for line in scene.lines
    }
    assert {len(digests) for digests in found.values()} == {5}
    (week,) = await replay(bot, history, scene, 1)
    assert week.runs == tuple(sorted((line.name, pinned(line, found[line][-1])) for line in scene.lines))


@pytest.mark.parametrize(
    "scene",
    [starting("2021-03-08T06:00", "sdk:6.0", "aspnet:6.0", "runtime:6.0")],
    indirect=True,
    ids=["2021-03-08"],
)
async def test_five_unreadable_changes_can_be_built_by_hand(bot: Bot, scene: Scene, history: History) -> None:
    """Five digests in a week of indexes whose bytes are lost: unknown, not asked; a rebuild by hand takes the fifth.

    HEAD is faithful, GET answers 404. A tag that has not moved since that rebuild is fresh without being read.
    """
    found = {
        line: history.changes(line.reference, utc("2021-03-08T06:00"), utc("2021-03-15T06:00")) for line in scene.lines
    }
    assert {len(digests) for digests in found.values()} == {5}
    slot, after = scene.slots(2)
    week = await live_through(bot, slot)
    assert week.unknown == {line.name for line in scene.lines}
    assert week.runs == ()
    for line in scene.lines:
        await rebuild_by_hand(bot, line)
    assert runs(bot) == [(line.name, pinned(line, found[line][-1])) for line in scene.lines]
    assert (await live_through(bot, after)).is_quiet


@pytest.mark.parametrize(
    "scene",
    [starting("2023-04-12T12:00", "sdk:6.0-cbl-mariner", "aspnet:6.0-cbl-mariner", "runtime:7.0-cbl-mariner")],
    indirect=True,
    ids=["2023-04-17"],
)
async def test_a_change_an_hour_before_the_check_is_seen(bot: Bot, scene: Scene, history: History) -> None:
    """What was published on a Monday at 04:49 is asked for by the check at 06:00 of the same day."""
    found = {
        line: history.changes(line.reference, utc("2023-04-17T04:00"), utc("2023-04-17T06:00")) for line in scene.lines
    }
    assert {len(digests) for digests in found.values()} == {1}
    (week,) = await replay(bot, history, scene, 1)
    assert week.slot == utc("2023-04-17T06:00")
    assert week.runs == tuple(sorted((line.name, pinned(line, found[line][-1])) for line in scene.lines))


@pytest.mark.parametrize(
    ("scene", "published"),
    [
        (starting("2022-10-12T12:00", "runtime:7.0-cbl-mariner"), "2022-10-17T21:27:44"),
        (starting("2022-11-04T12:00", "sdk:6.0-alpine", "sdk:7.0-bullseye-slim"), "2022-11-07T22:50:04"),
    ],
    indirect=["scene"],
    ids=["2022-10-17", "2022-11-07"],
)
async def test_a_change_after_the_check_waits_a_week(bot: Bot, scene: Scene, published: str, history: History) -> None:
    """What was published on a Monday evening is no news on that day and is asked for by the next check."""
    for line in scene.lines:
        assert utc(published) in [at for at, _ in history.events(line.reference)]
    first, second = await replay(bot, history, scene, 2)
    assert first.slot < utc(published) < first.slot + timedelta(days=1)
    assert first.is_quiet
    assert second.stale == {line.name for line in scene.lines}


@pytest.mark.parametrize(
    ("scene", "published"),
    [
        (starting("2023-06-22T12:00", "runtime-deps:6.0", "runtime-deps:7.0-alpine"), "2023-06-22T20:14:04"),
        (starting("2023-10-24T12:00", "runtime-deps:6.0", "runtime-deps:7.0-alpine"), "2023-10-24T16:36:09"),
        (starting("2024-05-31T12:00", "runtime-deps:6.0", "runtime-deps:6.0-alpine"), "2024-05-31T17:37:38"),
    ],
    indirect=["scene"],
    ids=["2023-06-22", "2023-10-24", "2024-05-31"],
)
async def test_the_same_digest_with_a_newer_date_is_no_update(
    bot: Bot, scene: Scene, published: str, history: History
) -> None:
    """A digest that is published once more is what it was: one line, no run."""
    for line in scene.lines:
        again = [found for at, found in history.events(line.reference) if at == utc(published)]
        assert again == [history.at(line.reference, scene.start)]
    (week,) = await replay(bot, history, scene, 1)
    assert week.is_quiet


@pytest.mark.parametrize(
    "scene", [starting("2025-07-07T06:00", "runtime-deps:8.0-alpine")], indirect=True, ids=["alpine"]
)
async def test_a_tag_rolled_back_to_an_older_system_is_an_update(bot: Bot, scene: Scene, history: History) -> None:
    """A floating tag went from Alpine 3.21 to 3.22, back, and there again: each move is built."""
    (line,) = scene.lines
    weeks = await replay(bot, history, scene, 15)
    bases = [history.at(line.reference, week.slot) for week in weeks if week.stale]
    systems = [system for base in bases if base for system in base.systems]
    assert [system for system, _ in groupby(systems)] == ["alpine3.22", "alpine3.21", "alpine3.22"]


@pytest.mark.parametrize(
    "scene",
    [starting("2020-10-13T12:00", "aspnet:5.0-alpine", "aspnet:5.0-focal", "aspnet:5.0-buster-slim")],
    indirect=True,
    ids=["2020-10-13"],
)
async def test_a_tag_that_turns_into_an_index(bot: Bot, scene: Scene, history: History) -> None:
    """The recorded base was a single image and the tag is an index now: unknown, until it is built by hand once.

    The new index is faithful. The manifest of the single image was not recorded, and neither were the children, so GET
    of them answers 404, where Microsoft's registry would have let the bot see that amd64 moved.
    """
    slot, *_, later = scene.slots(5)
    everything = {line.name for line in scene.lines}
    for line in scene.lines:
        before, now = (history.at(line.reference, moment) for moment in (scene.start, slot))
        assert before
        assert now
        assert (before.is_index, now.is_index) == (False, True)
    week = await live_through(bot, slot)
    assert week.unknown == everything
    assert week.runs == ()
    for line in scene.lines:
        await rebuild_by_hand(bot, line)
    assert_is_fresh(bot, await check_now(bot, slot.isoformat()))
    assert (await live_through(bot, later)).stale == everything


@pytest.mark.parametrize(
    "scene",
    [starting("2023-11-17T12:00", "sdk:6.0-bullseye-slim", "sdk:6.0-alpine", "sdk:6.0-jammy")],
    indirect=True,
    ids=["sdk"],
)
async def test_a_tag_that_vanishes_from_the_list_is_still_served(bot: Bot, scene: Scene, history: History) -> None:
    """While the tags are off the list nothing changes; they come back with other digests, which are asked for."""
    unlisted = (utc("2023-11-18T05:05:10"), None)
    assert all(unlisted in history.events(line.reference) for line in scene.lines)
    assert_is_fresh(bot, await check_now(bot, "2023-11-18T05:30"))
    card = await check_now(bot, "2023-11-18T07:00")
    assert statuses(card) == {line.name: "stale" for line in scene.lines}
    assert await approve_all(bot, card) == len(scene.lines)
    assert len(runs(bot)) == len(scene.lines)
    assert (await live_through(bot, scene.slots(1)[0])).is_quiet


@pytest.mark.parametrize(
    ("scene", "ended"),
    [
        (starting("2024-06-03T06:00", "sdk:7.0-alpine", "aspnet:7.0-bullseye-slim"), "2024-06-11T15:19:26"),
        (starting("2025-01-13T06:00", "sdk:6.0-bullseye-slim", "aspnet:6.0-alpine"), "2025-01-14T20:43:03"),
    ],
    indirect=["scene"],
    ids=["dotnet-7", "dotnet-6"],
)
async def test_after_the_end_of_support_all_is_fresh_for_ever(
    bot: Bot, scene: Scene, ended: str, history: History
) -> None:
    """The last digest of a version is built, and from then on each week is one line: the registry keeps serving it."""
    assert all((utc(ended), None) in history.events(line.reference) for line in scene.lines)
    weeks = await replay(bot, history, scene, 8)
    assert all(week.is_quiet for week in weeks if week.slot > utc(ended) + WEEK)


@pytest.mark.parametrize(
    "scene", [starting("2026-06-08T12:00", "runtime-deps:10.0-noble", "runtime-deps:8.0")], indirect=True, ids=["429"]
)
async def test_a_registry_that_refuses_at_the_slot_is_unknown(bot: Bot, scene: Scene, history: History) -> None:
    """As on 2026-06-15, the registry answers 429: unknown with the reason, and the update is found a week later."""
    slot, after = scene.slots(2)
    refuses = answering(429, headers={"Retry-After": "60"})
    bot.world.registry.fail_next("HEAD", "/manifests/", refuses, times=len(scene.lines))
    week = await live_through(bot, slot)
    assert week.unknown == {line.name for line in scene.lines}
    assert week.runs == ()
    assert bot.teams.messages[-1].visible.count(f"{HOST} answered 429 (too many requests)") == len(scene.lines)
    assert (await live_through(bot, after)).stale == week.unknown


@pytest.mark.parametrize(
    "scene", [starting("2025-01-13T06:00", "sdk:6.0-bullseye-slim")], indirect=True, ids=["2025-01-14"]
)
async def test_an_update_that_nobody_answers_is_asked_for_every_week(bot: Bot, scene: Scene) -> None:
    """A question that expired without an answer is asked anew by the next check, and by each one after it."""
    for slot in scene.slots(4):
        bot.clock.time = slot
        posted = len(bot.teams.messages)
        await bot.check()
        await idle(bot)
        new = bot.teams.messages[posted:]
        assert [message.buttons.count("Approve") for message in new if message.card] == [1]
        assert sum("nobody decided in time" in message.visible for message in new) == (slot != scene.slots(1)[0])
