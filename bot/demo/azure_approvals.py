"""Approvals that environments of the local Azure DevOps ask for before a stage begins.

    GET PATCH  {project}/_apis/pipelines/approvals
    GET        {project}/_apis/pipelines/approvals/{approval}

https://learn.microsoft.com/rest/api/azure/devops/approvalsandchecks/approvals
"""

from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from bot.demo.azure_documents import Documents, Json, collection
from bot.demo.azure_routes import Refusal
from bot.demo.runs import Approval, Run, Runs


@dataclass(slots=True)
class Approvals:
    """`may_decide` is whether the caller's identity is an approver of the environments."""

    documents: Documents
    runs: Runs
    may_decide: bool = True

    def table(self) -> list[web.RouteDef]:
        path = "/{org}/{project}/_apis/pipelines/approvals"
        return [
            web.get(path, self._query),
            web.patch(path, self._update),
            web.get(path + "/{approval}", self._get),
        ]

    async def _query(self, request: web.Request) -> web.Response:
        wanted = request.query.get("approvalIds", "")
        found = [pair for pair in self._all() if not wanted or pair[1].id in wanted.split(",")]
        steps = request.query.get("$expand") == "steps"
        return web.json_response(collection([self.documents.approval(*pair, steps=steps) for pair in found]))

    async def _get(self, request: web.Request) -> web.Response:
        run, approval = self._named(request.match_info["approval"])
        return web.json_response(self.documents.approval(run, approval, steps=True))

    async def _update(self, request: web.Request) -> web.Response:
        return web.json_response(collection([self._decide(asked) for asked in await request.json()]))

    def _decide(self, asked: Json) -> Json:
        run, approval = self._named(asked.get("approvalId", ""))
        status = asked.get("status")
        if status not in ("approved", "rejected"):
            raise Refusal(400, "ApprovalUpdateException", "An approval can be approved and rejected.")
        if not self.may_decide:
            raise Refusal(403, "ApprovalUpdateAccessDeniedException", "User is not authorized to update the approval.")
        self.runs.decide(run, approval, status, asked.get("comment", ""))
        return self.documents.approval(run, approval, steps=True)

    def _named(self, name: str) -> tuple[Run, Approval]:
        found = next((pair for pair in self._all() if pair[1].id == name), None)
        if found is None:
            raise Refusal(404, "ApprovalNotFoundException", f"Approval {name} was not found.")
        return found

    def _all(self) -> Iterator[tuple[Run, Approval]]:
        for run in self.runs.all.values():
            for approval in run.approvals:
                yield run, approval
