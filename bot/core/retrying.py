"""Letting failed runs go on."""

from contextlib import suppress
from dataclasses import replace

from bot.core.checker import Checker
from bot.core.deciding import DecideService
from bot.core.describing import describe
from bot.core.people import Person
from bot.core.permissions import Permissions
from bot.core.ports import Clock, Pipelines, Store, Wake
from bot.core.queueing import other_run
from bot.core.reading import ReadService
from bot.core.rebuilds import Rebuild, State
from bot.errors import CommandError, Conflict, PeerRefused, PeerUnavailable


class RetryService:
    """For approvers and who asked for the rebuild. Raises CommandError, whose text is the answer, or Refused."""

    def __init__(
        self,
        reads: ReadService,
        decisions: DecideService,
        permissions: Permissions,
        store: Store,
        checker: Checker,
        pipelines: Pipelines,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._reads = reads
        self._decisions = decisions
        self._permissions = permissions
        self._store = store
        self._checker = checker
        self._pipelines = pipelines
        self._clock = clock
        self._wake = wake

    async def retry(self, which: str, person: Person) -> Rebuild:
        """Let a failed run go on at the stage that failed. What was approved stays: digest and version tag.

        The row moves first, so that a run that begins again has a rebuild that follows it, and moves back when Azure
        refuses. After a crash in between the runner sees that nothing began. Raises PeerError as well.
        """
        failed: list[Rebuild] = []

        async def decide(rebuild: Rebuild) -> Rebuild:
            await self._must_be_retryable(rebuild, person)
            failed[:] = [rebuild]
            return await self._decisions.save(rebuild, rebuild.retry(person, self._clock.now()), person, "retry")

        retried = await self._decisions.decide(which, person, "retry", decide)
        await self._tell_azure(failed[0], retried, person)
        self._wake.runs()
        return retried

    async def _tell_azure(self, failed: Rebuild, retried: Rebuild, person: Person) -> None:
        """Raises CommandError, and puts the row back, when Azure does not take it."""
        stage = failed.failed_stage
        assert retried.run_id is not None
        assert stage is not None
        try:
            await self._pipelines.retry_stage(retried.run_project, retried.run_id, stage.ref_name or stage.name)
        except PeerUnavailable as error:
            follows = f"The card of {retried.image} shows what comes of it."
            raise CommandError(f"Azure DevOps did not confirm the retry ({error}). {follows}") from None
        except PeerRefused as error:
            back = replace(failed, revision=retried.revision)
            with suppress(Conflict):  # the runner was faster, and has seen how the run stands
                await self._decisions.save(retried, back, person, "retry refused by Azure", str(error))
            raise _no_retry(retried, str(error)) from None

    async def _must_be_retryable(self, rebuild: Rebuild, person: Person) -> None:
        """Raises CommandError with what to do instead, Refused, PeerError."""
        image = self._reads.image(rebuild.image)
        await self._permissions.must_have_a_say(image, person, "retry", rebuild)
        await self._reads.must_not_be_on_hold(image.name)
        if rebuild.state is not State.FAILED or rebuild.is_rollback:
            raise CommandError(f"Nothing to retry: {describe(rebuild)}.")
        newest = (await self._store.history(image.name, 1))[0]
        if newest.id != rebuild.id:
            raise CommandError(f"Too late to retry {rebuild.id}: {describe(newest)}.")
        if rebuild.run_id is None or rebuild.new_digest is None or rebuild.failed_stage is None:
            raise _no_retry(rebuild, "none of its stages failed")
        if rebuild.override is None and not image.windows.is_open(self._clock.now()):
            raise CommandError(f"The maintenance window of {image.name} is closed; retry when it opens.")
        if busy := await other_run(self._pipelines, rebuild, image):
            raise CommandError(f"Run {busy.number} of {image.name} is under way; try again after it.")
        if not await self._checker.same_for(image, rebuild.new_digest, await self._checker.current(image)):
            told = f"The base of {image.name} moved since, and an approval is for one base only. A check asks again."
            raise CommandError(told, suggestion=f"check {image.name}")


def _no_retry(rebuild: Rebuild, reason: str) -> CommandError:
    text = f"The run of {rebuild.image} cannot go on: {reason}. A new run begins from the start."
    return CommandError(text, suggestion=f"rebuild {rebuild.image} retry of {rebuild.id}")
