"""A client for approvals of environments, which the azure-devops library lacks, in the manner of its own clients.

https://learn.microsoft.com/rest/api/azure/devops/approvalsandchecks/approvals
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

LOCATION = "37794717-f36f-4d78-b2bf-4dc30d0cfbcd"
VERSION = "7.1-preview.1"


@cache
def approvals_client() -> type:
    """The class, made when it is first needed: nothing of the library may be imported before `Organization`."""
    from azure.devops.client import Client

    class ApprovalsClient(Client):  # type: ignore[misc]
        """Answers documents as they come."""

        def query(self, project: str, approval_ids: Sequence[str]) -> list[dict[str, Any]]:
            query = {"approvalIds": ",".join(approval_ids), "$expand": "steps"}
            answer = self._send("GET", LOCATION, VERSION, route_values={"project": project}, query_parameters=query)
            return list(self._unwrap_collection(answer) or [])

        def update(self, project: str, approval_id: str, status: str, comment: str) -> list[dict[str, Any]]:
            content = [{"approvalId": approval_id, "status": status, "comment": comment}]
            answer = self._send("PATCH", LOCATION, VERSION, route_values={"project": project}, content=content)
            return list(self._unwrap_collection(answer) or [])

    return ApprovalsClient
