"""Service hooks of the local Azure DevOps: the subscriptions, and the events that are sent to them.

    GET POST            _apis/hooks/subscriptions
    GET PUT DELETE      _apis/hooks/subscriptions/{subscription}

Azure itself refuses an address that is not https, and one on loopback; here it is the only kind there is.
https://learn.microsoft.com/azure/devops/service-hooks/events
"""

import asyncio
import base64
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

import aiohttp
from aiohttp import web

from bot.demo.azure_documents import WHO, Documents, Json, collection, project_id, time_of
from bot.demo.azure_routes import Refusal
from bot.demo.runs import STAGES, Run

logger = logging.getLogger(__name__)

TIMEOUT_S = 10
MASKED = "********"
RUN, STAGE, JOB = (f"ms.vss-pipelines.{what}-state-changed-event" for what in ("run", "stage", "job"))
BUILD = "build.complete"
PENDING, COMPLETED = (f"ms.vss-pipelinechecks-events.approval-{what}" for what in ("pending", "completed"))
# Event type → publisher and the newest version of its resource.
EVENTS = {
    BUILD: ("tfs", "2.0"),
    **dict.fromkeys((RUN, STAGE, JOB, PENDING, COMPLETED), ("pipelines", "5.1-preview.1")),
}


@dataclass(slots=True, kw_only=True)
class Subscription:
    """A subscription as it was asked for. `sent` is how many notifications went out."""

    id: str
    asked: Json
    created: datetime
    modified: datetime
    status: str = "enabled"
    sent: int = 0

    @property
    def inputs(self) -> dict[str, str]:
        """Where to, and with which name and password."""
        return dict(self.asked.get("consumerInputs") or {})


@dataclass(slots=True)
class ServiceHooks:
    """`subscriptions` by id. Nothing survives a restart."""

    documents: Documents
    now: Callable[[], datetime]
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    _seen: dict[int, dict[str, str]] = field(default_factory=dict)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)

    def table(self) -> list[web.RouteDef]:
        all_of_them = "/{org}/_apis/hooks/subscriptions"
        one = all_of_them + "/{subscription}"
        return [
            web.get(all_of_them, self._list),
            web.post(all_of_them, self._create),
            web.get(one, self._get),
            web.put(one, self._replace),
            web.delete(one, self._delete),
        ]

    async def stop(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    # The API

    async def _list(self, request: web.Request) -> web.Response:
        keys = ("publisherId", "eventType", "consumerId", "consumerActionId")
        wanted = {key: request.query[key] for key in keys if key in request.query}
        found = [self._document(each) for each in self.subscriptions.values() if wanted.items() <= each.asked.items()]
        return web.json_response(collection(found))

    async def _create(self, request: web.Request) -> web.Response:
        now = self.now()
        subscription = Subscription(
            id=str(uuid.uuid4()), asked=self._checked(await request.json()), created=now, modified=now
        )
        self.subscriptions[subscription.id] = subscription
        return web.json_response(self._document(subscription))

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._document(self._named(request)))

    async def _replace(self, request: web.Request) -> web.Response:
        subscription = self._named(request)
        subscription.asked = self._checked(await request.json())
        subscription.status, subscription.modified = subscription.asked.get("status", "enabled"), self.now()
        return web.json_response(self._document(subscription))

    async def _delete(self, request: web.Request) -> web.Response:
        del self.subscriptions[self._named(request).id]
        return web.Response(status=204)

    def _named(self, request: web.Request) -> Subscription:
        name = request.match_info["subscription"]
        if name not in self.subscriptions:
            raise Refusal(404, "SubscriptionNotFoundException", f"The subscription {name} was not found.")
        return self.subscriptions[name]

    def _checked(self, asked: Json) -> Json:
        """Raises Refusal for what Azure would not take."""
        publisher, _ = EVENTS.get(asked.get("eventType", ""), ("", ""))
        projects = {project_id(definition.project) for definition in self.documents.definitions.values()}
        if asked.get("publisherId") != publisher:
            raise Refusal(400, "SubscriptionInputException", "The publisher has no such event type.")
        if (asked.get("consumerId"), asked.get("consumerActionId")) != ("webHooks", "httpRequest"):
            raise Refusal(400, "SubscriptionInputException", "Only webHooks and httpRequest are known here.")
        if (asked.get("publisherInputs") or {}).get("projectId") not in projects:
            raise Refusal(400, "SubscriptionInputException", "The project does not exist.")
        if not (asked.get("consumerInputs") or {}).get("url"):
            raise Refusal(400, "SubscriptionInputException", "The input url is required.")
        return asked

    def _document(self, subscription: Subscription) -> Json:
        inputs = subscription.inputs
        if "basicAuthPassword" in inputs:
            inputs["basicAuthPassword"] = MASKED
        return subscription.asked | {
            "id": subscription.id,
            "url": f"{self.documents.url}/_apis/hooks/subscriptions/{subscription.id}",
            "status": subscription.status,
            "eventDescription": "Any",
            "actionDescription": f"To {inputs['url']}",
            "createdBy": WHO,
            "createdDate": time_of(subscription.created),
            "modifiedBy": WHO,
            "modifiedDate": time_of(subscription.modified),
            "consumerInputs": inputs,
        }

    # Events

    def run_changed(self, run: Run) -> None:
        """Send an event for everything about the run that is not as it was."""
        before, now = self._seen.get(run.id, {}), _states(run)
        self._seen[run.id] = now
        for key in [key for key in now if before.get(key) != now[key]]:
            for event_type, resource in self._events(run, key):
                self.publish(run, event_type, resource)

    def publish(self, run: Run, event_type: str, resource: Json) -> None:
        """Send an event about a run to everybody who subscribed to it, each in a task of its own."""
        project = project_id(self.documents.definitions[run.pipeline_id].project)
        for subscription in self.subscriptions.values():
            asked = subscription.asked
            of_it = (asked["eventType"], asked["publisherInputs"]["projectId"]) == (event_type, project)
            if of_it and subscription.status == "enabled":
                subscription.sent += 1
                body = self._notification(subscription, event_type, resource | {"projectId": project})
                task = asyncio.create_task(_send(subscription.inputs, body))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)

    def _events(self, run: Run, key: str) -> Iterator[tuple[str, Json]]:
        about = self._about(run)
        if key == "run":
            yield RUN, about
            if run.result:
                yield BUILD, self.documents.build(run)
            return
        if approval := next((each for each in run.approvals if each.id == key), None):
            document = self.documents.approval(run, approval, steps=True)
            event = PENDING if approval.status == "pending" else COMPLETED
            told = {"id": str(run.id), "name": run.name}
            yield event, {"approval": document, "approvalId": approval.id, "run": told}
            return
        stage = {"name": key, "displayName": key, **self._standing(run, key)}
        yield STAGE, {"stage": stage, **about}
        yield JOB, {"job": {"name": "__default", **self._standing(run, key)}, "stage": stage, **about}

    def _about(self, run: Run) -> Json:
        document = self.documents.run(run)
        return {"runId": run.id, "runUrl": document["url"], "run": document, "pipeline": document["pipeline"]}

    def _standing(self, run: Run, stage: str) -> Json:
        attempt = run.current(stage)
        state = {"pending": "notStarted", "inProgress": "running"}.get(attempt.state, "completed")
        known = {"startTime": time_of(attempt.started), "finishTime": time_of(attempt.finished)}
        known |= {"result": attempt.result}
        told = {name: value for name, value in known.items() if value}
        return {"id": str(uuid.uuid4()), "attempt": attempt.number, "state": state, **told}

    def _notification(self, subscription: Subscription, event_type: str, resource: Json) -> Json:
        publisher, version = EVENTS[event_type]
        container = {"baseUrl": f"{self.documents.url}/"}
        return {
            "subscriptionId": subscription.id,
            "notificationId": subscription.sent,
            "id": str(uuid.uuid4()),
            "eventType": event_type,
            "publisherId": publisher,
            "message": None,
            "detailedMessage": None,
            "resource": resource,
            "resourceVersion": version,
            "resourceContainers": {
                "collection": {"id": str(uuid.UUID(int=2)), **container},
                "account": {"id": str(uuid.UUID(int=1)), **container},
                "project": {"id": resource["projectId"], **container},
            },
            "createdDate": time_of(self.now()),
        }


def _states(run: Run) -> dict[str, str]:
    """What events tell of: the run as a whole, each stage that has begun or ended, and each approval."""
    stages = {name: run.current(name) for name in STAGES}
    moved = {name: attempt for name, attempt in stages.items() if attempt.state != "pending"}
    told = {name: f"{attempt.number} {attempt.state} {attempt.result}" for name, attempt in moved.items()}
    return {"run": f"{run.status} {run.result}", **told, **{each.id: each.status for each in run.approvals}}


async def _send(inputs: dict[str, str], body: Json) -> None:
    credentials = f"{inputs.get('basicAuthUsername', '')}:{inputs.get('basicAuthPassword', '')}"
    headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(inputs["url"], json=body, headers=headers) as response,
        ):
            if response.status >= 400:
                logger.warning("an event was answered %d", response.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        logger.warning("an event could not be delivered: %s", type(error).__name__)
