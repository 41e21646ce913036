"""ECR's events, which a rule of EventBridge puts into an SQS queue.

boto3 blocks, so every call runs in a thread of its own. Events come at least once, in any order, or not at all.
https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html
The bot needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:GetQueueAttributes.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError
from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from bot.core.hints import Outcome
from bot.core.repository_events import EventKind, RepositoryEvent
from bot.errors import Malformed, NotFound, PeerError, PeerRefused, PeerUnavailable

WAIT_S = 20  # the longest poll there is, for the fewest requests; the end of the process does not wait for it
CALL_S = 10
BATCH = 10  # messages, the most that SQS gives at once
MOST_RECEIVES = 5  # of a message that cannot be taken
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 5, 300
SHOWN = 200  # characters of a message that is set aside
SET_ASIDE = "set_aside"
LATER = "later"
HOST = re.compile(r"sqs[.]([a-z0-9-]+)[.]")
ABSENT = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
THROTTLED = frozenset({"RequestThrottled", "ThrottlingException"})

Take = Callable[[RepositoryEvent], Awaitable[Outcome]]
Count = Callable[[str], None]
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Message(_Model):
    """What ReceiveMessage gives. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_Message.html"""

    id: str = Field(alias="MessageId")
    receipt: str = Field(alias="ReceiptHandle")
    body: str = Field("", alias="Body")
    receives: int = Field(1, validation_alias=AliasPath("Attributes", "ApproximateReceiveCount"))


PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Word = Annotated[str, Field(max_length=300, pattern=PRINTABLE)]


class _Event(_Model):
    """What all events have. https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html"""

    id: Annotated[str, Field(min_length=1, max_length=100, pattern=PRINTABLE)]
    account: Word
    region: Word
    detail: dict[str, Any]


class _Action(_Model):
    action: Literal["PUSH", "DELETE"] = Field(alias="action-type")
    result: Word
    repository: Word = Field(alias="repository-name")
    digest: Word = Field("", alias="image-digest")
    tag: Word = Field("", alias="image-tag")  # absent for what has none


class _Scan(_Model):
    repository: Word = Field(alias="repository-name")  # the whole ARN in events of Inspector
    digest: Word = Field(alias="image-digest")
    tags: tuple[Word, ...] = Field((), alias="image-tags")


class EcrEvents:
    """The queue of one region. `follow` hands on what arrives, until it is cancelled; then `close`."""

    def __init__(self, queue_url: str) -> None:
        self._url = queue_url
        self._name = urlsplit(queue_url).path.rpartition("/")[2]
        self._client: Any = None
        self._redrives: bool | None = None
        self.one_pass = asyncio.Lock()  # held while messages are taken, not while they are waited for

    async def close(self) -> None:
        """Waits for no poll that is under way; what that one still brings comes again, as if it had been lost."""
        if self._client:
            await _in_thread(self._client.close)

    async def waiting(self) -> int:
        """About how many messages wait. Raises PeerError."""
        attributes = await self._attributes()
        return int(attributes.get("ApproximateNumberOfMessages", 0))

    async def follow(self, take: Take, count: Count) -> None:
        """Take what arrives, for ever. `count` is told what became of each message."""
        pause_s = 0
        while True:
            try:
                await self.read(take, count)
                if pause_s:
                    logger.info("the events of queue %s are read again", self._name)
                pause_s = 0
            except Exception as error:
                if not isinstance(error, PeerError):
                    logger.exception("queue %s could not be read", self._name)
                elif not pause_s:
                    logger.warning("the bot goes on without events of ECR: %s", error)
                pause_s = min(max(2 * pause_s, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)

    async def read(self, take: Take, count: Count) -> None:
        """One poll, and what it brought. Raises PeerError when the queue cannot be read."""
        messages = await self._receive()
        async with self.one_pass:
            outcomes = [await self._outcome(message, take) for message in messages]
            for outcome in outcomes:
                count(outcome)
            done = [message for message, outcome in zip(messages, outcomes, strict=True) if outcome != LATER]
            if done:
                await self._delete(done)

    async def _outcome(self, message: _Message, take: Take) -> str:
        """A message that is not taken comes again after the queue's visibility timeout."""
        try:
            event = decode(message.body)
            return await take(event) if event else Outcome.IGNORED
        except PeerError as error:
            logger.warning("an event of ECR has to wait: %s", error)
            return LATER
        except Malformed as error:
            return await self._unreadable(message, str(error))
        except Exception:
            logger.exception("an event of ECR could not be taken")
            return LATER

    async def _unreadable(self, message: _Message, problem: str) -> str:
        """Tried a few times, then set aside: by the queue's own rule if it has one, else by forgetting it."""
        if message.receives < MOST_RECEIVES or await self._has_redrive():
            return LATER
        logger.error("message %s is set aside (%s): %r", message.id, problem, message.body[:SHOWN])
        return SET_ASIDE

    async def _has_redrive(self) -> bool:
        """Whether the queue itself moves what is received too often to another queue."""
        if self._redrives is None:
            try:
                self._redrives = "RedrivePolicy" in await self._attributes()
            except PeerError:
                return False
        return self._redrives

    async def _receive(self) -> list[_Message]:
        request = {
            "QueueUrl": self._url,
            "MaxNumberOfMessages": BATCH,
            "WaitTimeSeconds": WAIT_S,
            "MessageSystemAttributeNames": ["ApproximateReceiveCount"],
        }
        return await self._call(lambda sqs: _messages(sqs.receive_message(**request)))

    async def _delete(self, messages: list[_Message]) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": message.receipt} for number, message in enumerate(messages)]
        answer = await self._call(lambda sqs: sqs.delete_message_batch(QueueUrl=self._url, Entries=entries))
        if answer.get("Failed"):
            logger.warning("%d messages of queue %s come again", len(answer["Failed"]), self._name)

    async def _attributes(self) -> dict[str, str]:
        request = {"QueueUrl": self._url, "AttributeNames": ["ApproximateNumberOfMessages", "RedrivePolicy"]}
        answer = await self._call(lambda sqs: sqs.get_queue_attributes(**request))
        return dict(answer.get("Attributes", {}))

    async def _call(self, work: Callable[[Any], Result]) -> Result:
        """One API call. Raises NotFound, PeerRefused, PeerUnavailable."""
        return await _in_thread(partial(self._work, work))

    def _work(self, work: Callable[[Any], Result]) -> Result:
        try:
            self._client = self._client or self._open()
            return work(self._client)
        except (aws.BotoCoreError, aws.ClientError, ResponseParserError, ValueError) as error:
            raise _error(error, self._name) from None

    def _open(self) -> Any:
        config = Config(
            connect_timeout=CALL_S,
            read_timeout=WAIT_S + CALL_S,
            retries={"mode": "standard", "total_max_attempts": 2},
        )
        region = HOST.match(urlsplit(self._url).hostname or "")
        return boto3.Session().client("sqs", region_name=region[1] if region else None, config=config)


def _in_thread(work: Callable[[], Result]) -> asyncio.Future[Result]:
    """Run it in a thread that nobody has to wait for: neither who is cancelled nor the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def run() -> None:
        try:
            tell = partial(future.set_result, work())
        except Exception as error:
            tell = partial(future.set_exception, error)
        with suppress(RuntimeError):  # nobody is there any more
            loop.call_soon_threadsafe(lambda: future.done() or tell())

    Thread(target=run, name="ecr-events", daemon=True).start()
    return future


def _messages(answer: dict[str, Any]) -> list[_Message]:
    return [_Message.model_validate(message) for message in answer.get("Messages", [])]


def decode(body: str) -> RepositoryEvent | None:
    """The event in a message, also when a topic of SNS is in between; None for one that is about something else.

    Raises Malformed when it cannot be read.
    """
    event = _object(body)
    if event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
        event = _object(event["Message"])
    try:
        match event.get("source"), event.get("detail-type"):
            case "aws.ecr", "ECR Image Action":
                return _action(event)
            case ("aws.ecr", "ECR Image Scan") | ("aws.inspector2", "Inspector2 Scan"):
                return _scan(event)
    except ValidationError as error:
        raise Malformed(f"an event of ECR of another shape: {error.errors()[0]['loc']}") from None
    return None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(found, dict):
        raise Malformed("JSON, but no object")
    return found


def _action(event: dict[str, Any]) -> RepositoryEvent | None:
    envelope = _Event.model_validate(event)
    action = _Action.model_validate(envelope.detail)
    kind = EventKind.PUSHED if action.action == "PUSH" else EventKind.DELETED
    if action.result != "SUCCESS" or not action.tag:
        return None
    return _repository_event(envelope, kind, action.repository, action.digest, (action.tag,))


def _scan(event: dict[str, Any]) -> RepositoryEvent:
    envelope = _Event.model_validate(event)
    scan = _Scan.model_validate(envelope.detail)
    repository = scan.repository.partition(":repository/")[2] or scan.repository
    return _repository_event(envelope, EventKind.SCANNED, repository, scan.digest, scan.tags)


def _repository_event(
    envelope: _Event, kind: EventKind, repository: str, digest: str, tags: tuple[str, ...]
) -> RepositoryEvent:
    return RepositoryEvent(
        id=envelope.id,
        kind=kind,
        registry_id=envelope.account,
        region=envelope.region,
        repository=repository,
        digest=digest,
        tags=tags,
    )


def _error(error: Exception, queue: str) -> PeerError:
    """Ours for one of botocore's, without its text, which may hold credentials."""
    match error:
        case aws.ClientError():
            code = error.response.get("Error", {}).get("Code", "no code")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in ABSENT:
                return NotFound(f"SQS has no queue {queue}")
            if status == 429 or status >= 500 or code in THROTTLED:
                return PeerUnavailable(f"SQS could not do {error.operation_name} of {queue} ({code})")
            return PeerRefused(f"SQS refused {error.operation_name} of {queue} ({code})")
        case aws.NoCredentialsError() | aws.PartialCredentialsError():
            return PeerRefused("SQS cannot be asked: no AWS credentials were found")
        case aws.NoRegionError():
            return PeerRefused("SQS cannot be asked: no AWS region is set, and the queue's address names none")
    return PeerUnavailable(f"SQS could not be asked ({type(error).__name__})")
