"""An SQS queue that is as fast as a test needs; moto's takes a second to hand out ten of many messages.

https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from aiohttp import web

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/shipshape-ecr-events"


class Queue:
    """Hands out each message until it is deleted, ten at a time. An empty one answers at once.

    `nonsense` is what the next receives are answered instead.
    """

    def __init__(self, bodies: Iterable[str] = ()) -> None:
        self.waiting = {str(number): body for number, body in enumerate(bodies)}
        self.received = Counter[str]()
        self.calls = Counter[str]()
        self.nonsense: list[Any] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].partition(".")[2]
        self.calls[operation] += 1
        asked = await request.json()
        answer = self._delete(asked) if operation == "DeleteMessageBatch" else self._receive()
        return web.json_response(answer, content_type="application/x-amz-json-1.0")

    def _receive(self) -> Any:
        if self.nonsense:
            return self.nonsense.pop(0)
        batch = list(self.waiting.items())[:10]
        self.received.update(receipt for receipt, _ in batch)
        messages = [{"MessageId": receipt, "ReceiptHandle": receipt, "Body": body} for receipt, body in batch]
        return {"Messages": messages} if messages else {}

    def _delete(self, asked: Any) -> Any:
        for entry in asked["Entries"]:
            del self.waiting[entry["ReceiptHandle"]]
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}
