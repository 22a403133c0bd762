"""The API's actions, by subject. What they take and answer is in docs/api.md.

Each method names its operation as the server's OpenAPI document does; a test compares them.
"""

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal, Unpack, cast

from jupyter_datastore_client import shapes
from jupyter_datastore_client.http import Http

_WAIT_SECONDS = 30.0

Object = dict[str, Any]

# `list` is also the name of methods.
_KernelList = list[shapes.Kernel]
_SessionList = list[shapes.Session]
_ExecutionList = list[shapes.Execution]
_CommList = list[shapes.Comm]
_CheckpointList = list[shapes.Checkpoints]
_TerminalList = list[shapes.Terminal]
_Cells = Literal["all"] | list[str]


class _Actions:
    def __init__(self, http: Http) -> None:
        self._http = http


class Kernelspecs(_Actions):
    """The kernels that can be started."""

    async def list(self) -> shapes.KernelSpecs:
        """Return all of them, and the default's name."""
        return cast("shapes.KernelSpecs", await self._http.call("GET /api/kernelspecs"))

    async def get(self, name: str) -> shapes.KernelSpec:
        """Return one."""
        answer = await self._http.call("GET /api/kernelspecs/{name}", name=name)
        return cast("shapes.KernelSpec", answer)

    async def refresh(self) -> shapes.KernelSpecs:
        """Look on the disk again."""
        return cast("shapes.KernelSpecs", await self._http.call("POST /api/kernelspecs/refresh"))


class Kernels(_Actions):
    """Running kernels, and requests that they answer at once."""

    async def list(self) -> _KernelList:
        """Return the kernels."""
        return cast("_KernelList", await self._http.call("GET /api/kernels"))

    async def get(self, kernel_id: str) -> shapes.Kernel:
        """Return one."""
        answer = await self._http.call("GET /api/kernels/{kernel_id}", kernel_id=kernel_id)
        return cast("shapes.Kernel", answer)

    async def start(self, **body: Unpack[shapes.StartKernel]) -> shapes.Kernel:
        """Start a kernel: the default one, or the kernelspec `name`, in the folder `path`."""
        return cast("shapes.Kernel", await self._http.call("POST /api/kernels", body=body))

    async def refresh(self) -> _KernelList:
        """Look which kernels still run."""
        return cast("_KernelList", await self._http.call("POST /api/kernels/refresh"))

    async def shut_down(self, kernel_id: str) -> None:
        """End a kernel."""
        await self._http.call("DELETE /api/kernels/{kernel_id}", kernel_id=kernel_id)

    async def interrupt(self, kernel_id: str) -> None:
        """Interrupt what a kernel runs."""
        await self._http.call("POST /api/kernels/{kernel_id}/interrupt", kernel_id=kernel_id)

    async def restart(self, kernel_id: str) -> shapes.Kernel:
        """Restart a kernel."""
        answer = await self._http.call(
            "POST /api/kernels/{kernel_id}/restart", kernel_id=kernel_id, timeout_seconds=120
        )
        return cast("shapes.Kernel", answer)

    async def complete(
        self,
        kernel_id: str,
        code: str,
        cursor_pos: int | None = None,
        *,
        wait_seconds: float | None = None,
    ) -> Object:
        """Return the kernel's complete_reply; 504 when it is busy for `wait_seconds` (10)."""
        body = {"code": code, "cursor_pos": cursor_pos, "timeout": wait_seconds}
        return await self._ask("complete", kernel_id, body)

    async def inspect(
        self,
        kernel_id: str,
        code: str,
        cursor_pos: int | None = None,
        *,
        detail_level: int = 0,
        wait_seconds: float | None = None,
    ) -> Object:
        """Return the kernel's inspect_reply; 504 when it is busy for `wait_seconds` (10)."""
        body = {"code": code, "cursor_pos": cursor_pos, "detail_level": detail_level}
        return await self._ask("inspect", kernel_id, body | {"timeout": wait_seconds})

    async def is_complete(
        self, kernel_id: str, code: str, *, wait_seconds: float | None = None
    ) -> Object:
        """Return the kernel's is_complete_reply; 504 when it is busy for `wait_seconds` (10)."""
        return await self._ask("is_complete", kernel_id, {"code": code, "timeout": wait_seconds})

    async def history(self, kernel_id: str, **body: Any) -> Object:
        """Return the kernel's history_reply to what docs/api.md says it takes."""
        return await self._ask("history", kernel_id, body)

    async def kernel_info(self, kernel_id: str, *, wait_seconds: float | None = None) -> Object:
        """Return the kernel's kernel_info_reply; 504 when it is busy for `wait_seconds` (10)."""
        return await self._ask("kernel_info", kernel_id, {"timeout": wait_seconds})

    async def comm_info(
        self,
        kernel_id: str,
        target_name: str | None = None,
        *,
        wait_seconds: float | None = None,
    ) -> Object:
        """Return the kernel's comm_info_reply; 504 when it is busy for `wait_seconds` (10)."""
        body = {"target_name": target_name, "timeout": wait_seconds}
        return await self._ask("comm_info", kernel_id, body)

    async def debug(self, kernel_id: str, command: str, **body: Any) -> Object:
        """Send a request of the Debug Adapter Protocol; return its reply."""
        return await self._ask("debug", kernel_id, {"command": command, **body})

    async def _ask(self, request: str, kernel_id: str, body: Object) -> Object:
        answer = await self._http.call(
            f"POST /api/kernels/{{kernel_id}}/{request}",
            kernel_id=kernel_id,
            body={name: value for name, value in body.items() if value is not None},
            timeout_seconds=660,
        )
        return cast("Object", answer)


class Sessions(_Actions):
    """Paths and the kernels that serve them."""

    async def list(self) -> _SessionList:
        """Return the sessions."""
        return cast("_SessionList", await self._http.call("GET /api/sessions"))

    async def get(self, session: str) -> shapes.Session:
        """Return one."""
        answer = await self._http.call("GET /api/sessions/{session}", session=session)
        return cast("shapes.Session", answer)

    async def start(
        self, path: str, /, *, kernel_name: str | None = None, **body: Unpack[shapes.SessionBody]
    ) -> shapes.Session:
        """Return the path's session, which is started if there is none."""
        kernel = body.get("kernel") or ({"name": kernel_name} if kernel_name else {})
        wanted: Object = {"type": "notebook", "name": "", **body, "path": path, "kernel": kernel}
        return cast("shapes.Session", await self._http.call("POST /api/sessions", body=wanted))

    async def update(self, session: str, **body: Unpack[shapes.SessionBody]) -> shapes.Session:
        """Change a session's path, name, type or kernel."""
        answer = await self._http.call("PATCH /api/sessions/{session}", session=session, body=body)
        return cast("shapes.Session", answer)

    async def end(self, session: str) -> None:
        """End a session and its kernel."""
        await self._http.call("DELETE /api/sessions/{session}", session=session)

    async def refresh(self) -> _SessionList:
        """Look which sessions still have their kernel."""
        return cast("_SessionList", await self._http.call("POST /api/sessions/refresh"))

    async def run(self, session: str, cells: _Cells = "all", **options: Any) -> _ExecutionList:
        """Ask for the notebook's cells to run in order; return their executions at once."""
        answer = await self._http.call(
            "POST /api/sessions/{session}/run", session=session, body={"cells": cells, **options}
        )
        return cast("_ExecutionList", answer["executions"])


class Executions(_Actions):
    """Runs of code."""

    async def execute(
        self, kernel_id: str, code: str | None = None, /, **body: Unpack[shapes.Execute]
    ) -> shapes.Execution:
        """Ask for code, or a cell, to run; return the execution at once.

        It has an idempotency key, so that it is asked for again, for at most a minute, when there
        is no answer.
        """
        wanted: Object = {"idempotency_key": uuid.uuid4().hex, **body}
        if code is not None:
            wanted["code"] = code
        answer = await self._http.call_surely(
            "POST /api/kernels/{kernel_id}/execute",
            kernel_id=kernel_id,
            body=wanted,
            within_seconds=60,
        )
        return cast("shapes.Execution", answer)

    async def run(
        self, kernel_id: str, code: str | None = None, /, **body: Unpack[shapes.Execute]
    ) -> shapes.Execution:
        """Run code, or a cell, and return the finished execution with its outputs."""
        return await self.wait((await self.execute(kernel_id, code, **body))["id"])

    async def list(self, **filters: Any) -> shapes.Executions:
        """Return executions, newest first, by `kernel_id`, `path`, `status` and so on."""
        return cast(
            "shapes.Executions", await self._http.call("GET /api/executions", query=filters)
        )

    async def get(self, execution_id: str, wait_seconds: float = 0) -> shapes.Execution:
        """Return an execution with its outputs, as soon as it has finished or time is up."""
        answer = await self._http.call(
            "GET /api/executions/{execution_id}",
            execution_id=execution_id,
            query={"wait": wait_seconds},
            timeout_seconds=60 + wait_seconds,
        )
        return cast("shapes.Execution", answer)

    async def wait(self, execution_id: str) -> shapes.Execution:
        """Return the finished execution with its outputs, also when the server is away meanwhile.

        Limit it with `asyncio.timeout`.
        """
        while True:
            answer = await self._http.call_surely(
                "GET /api/executions/{execution_id}",
                execution_id=execution_id,
                query={"wait": _WAIT_SECONDS},
                timeout_seconds=60 + _WAIT_SECONDS,
            )
            if answer["finished_at"] is not None:
                return cast("shapes.Execution", answer)

    async def outputs(self, execution_id: str) -> AsyncIterator[Object]:
        """Yield the output pieces as they are recorded, until the execution has finished."""
        cursor: str | None = None
        while True:
            answer = await self._http.call_surely(
                "GET /api/executions/{execution_id}/outputs",
                execution_id=execution_id,
                query={"cursor": cursor, "wait": _WAIT_SECONDS},
                timeout_seconds=60 + _WAIT_SECONDS,
            )
            for piece in answer["outputs"]:
                yield piece
            if answer["execution"]["finished_at"] is not None and not answer["outputs"]:
                return
            cursor = answer["cursor"]

    async def cancel(self, execution_id: str) -> None:
        """Cancel a queued execution, interrupt a running one."""
        await self._http.call("DELETE /api/executions/{execution_id}", execution_id=execution_id)

    async def input(
        self, execution_id: str, value: str, input_request_id: str | None = None
    ) -> None:
        """Answer what the code asks; the first answer counts (409)."""
        body = {"value": value}
        if input_request_id is not None:
            body["input_request_id"] = input_request_id
        await self._http.call(
            "POST /api/executions/{execution_id}/input", execution_id=execution_id, body=body
        )


class Comms(_Actions):
    """Comms of kernels; messages come in the live table `comm_messages`."""

    async def list(self, kernel_id: str, **filters: str) -> _CommList:
        """Return a kernel's comms by `state` (`open`), `target_name`, `comm_id`."""
        answer = await self._http.call(
            "GET /api/kernels/{kernel_id}/comms", kernel_id=kernel_id, query=filters
        )
        return cast("_CommList", answer)

    async def open(
        self, kernel_id: str, target_name: str, **body: Unpack[shapes.CommData]
    ) -> shapes.Comm:
        """Open a comm to what the kernel registered as `target_name`."""
        answer = await self._http.call(
            "POST /api/kernels/{kernel_id}/comms",
            kernel_id=kernel_id,
            body={"target_name": target_name, **body},
        )
        return cast("shapes.Comm", answer)

    async def get(self, comm_id: str) -> shapes.Comm:
        """Return a comm (by its record's `id`) with its state as it is now."""
        return cast(
            "shapes.Comm", await self._http.call("GET /api/comms/{comm_id}", comm_id=comm_id)
        )

    async def messages(self, comm_id: str, after: int = 0, limit: int = 100) -> shapes.CommMessages:
        """Return the messages recorded after one, in the kernel's order."""
        answer = await self._http.call(
            "GET /api/comms/{comm_id}/messages",
            comm_id=comm_id,
            query={"after": after, "limit": limit},
        )
        return cast("shapes.CommMessages", answer)

    async def send(self, comm_id: str, **body: Unpack[shapes.CommData]) -> shapes.SentCommMessage:
        """Send a message; it is recorded when the kernel takes it up."""
        answer = await self._http.call(
            "POST /api/comms/{comm_id}/messages", comm_id=comm_id, body=body
        )
        return cast("shapes.SentCommMessage", answer)

    async def close(self, comm_id: str, **body: Unpack[shapes.CommData]) -> None:
        """Close a comm, also at the kernel."""
        await self._http.call("DELETE /api/comms/{comm_id}", comm_id=comm_id, body=body)


class Documents(_Actions):
    """Open notebooks and files: cells one by one, the asker's undo, history and versions."""

    async def cells(self, document_id: str) -> shapes.DocumentCells:
        """Return a notebook's cells in order, with their versions."""
        answer = await self._http.call(
            "GET /api/documents/{document_id}/cells", document_id=document_id
        )
        return cast("shapes.DocumentCells", answer)

    async def insert_cell(
        self, document_id: str, source: str = "", /, **body: Unpack[shapes.InsertCell]
    ) -> shapes.EditedCell:
        """Insert a cell (of code) at `index`, `before` or `after` another, or at the end."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/cells",
            document_id=document_id,
            body={"source": source, **body},
        )
        return cast("shapes.EditedCell", answer)

    async def change_cell(
        self, document_id: str, cell_id: str, /, **body: Unpack[shapes.ChangeCell]
    ) -> shapes.EditedCell:
        """Change a cell's text, metadata, attachments or type, or clear its outputs.

        With `base`, the text that was started from, what others wrote since stays. With `version`,
        another one is ApiError 409.
        """
        answer = await self._http.call(
            "PATCH /api/documents/{document_id}/cells/{cell_id}",
            document_id=document_id,
            cell_id=cell_id,
            body=body,
        )
        return cast("shapes.EditedCell", answer)

    async def move_cell(
        self, document_id: str, cell_id: str, /, **place: Unpack[shapes.CellPlace]
    ) -> shapes.EditedCell:
        """Move a cell to `index` (counted without it), or `before` or `after` another one."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/cells/{cell_id}/move",
            document_id=document_id,
            cell_id=cell_id,
            body=place,
        )
        return cast("shapes.EditedCell", answer)

    async def delete_cell(self, document_id: str, cell_id: str) -> None:
        """Delete a cell; its executions stay."""
        await self._http.call(
            "DELETE /api/documents/{document_id}/cells/{cell_id}",
            document_id=document_id,
            cell_id=cell_id,
        )

    async def undo_steps(self, document_id: str) -> shapes.UndoSteps:
        """Return how many steps the asker can undo and redo."""
        answer = await self._http.call(
            "GET /api/documents/{document_id}/undo", document_id=document_id
        )
        return cast("shapes.UndoSteps", answer)

    async def undo(self, document_id: str, steps: int = 1) -> shapes.TakenBack:
        """Take back the asker's last steps; what others did stays."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/undo", document_id=document_id, body={"steps": steps}
        )
        return cast("shapes.TakenBack", answer)

    async def redo(self, document_id: str, steps: int = 1) -> shapes.TakenBack:
        """Do again the asker's last steps undone."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/redo", document_id=document_id, body={"steps": steps}
        )
        return cast("shapes.TakenBack", answer)

    async def history(
        self, document_id: str, *, before: int | None = None, limit: int | None = None
    ) -> shapes.DocumentHistory:
        """Return who changed what and when, the latest first; what is older than `before`."""
        answer = await self._http.call(
            "GET /api/documents/{document_id}/history",
            document_id=document_id,
            query={"before": before, "limit": limit},
        )
        return cast("shapes.DocumentHistory", answer)

    async def content(
        self, document_id: str, /, **moment: Unpack[shapes.Restore]
    ) -> shapes.DocumentContent:
        """Return a document as it was at one of `version`, `at` and `name`; as it is without."""
        answer = await self._http.call(
            "GET /api/documents/{document_id}/content", document_id=document_id, query=moment
        )
        return cast("shapes.DocumentContent", answer)

    async def versions(self, document_id: str) -> shapes.NamedVersions:
        """Return the named versions, the latest first."""
        answer = await self._http.call(
            "GET /api/documents/{document_id}/versions", document_id=document_id
        )
        return cast("shapes.NamedVersions", answer)

    async def name_version(
        self, document_id: str, /, **body: Unpack[shapes.NameVersion]
    ) -> shapes.VersionName:
        """Name a version: that of `version`, of the time `at`, or else the present one."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/versions", document_id=document_id, body=body
        )
        return cast("shapes.VersionName", answer)

    async def forget_version(self, document_id: str, name: str) -> None:
        """Take a version's name away."""
        await self._http.call(
            "DELETE /api/documents/{document_id}/versions/{name}",
            document_id=document_id,
            name=name,
        )

    async def restore(
        self, document_id: str, /, **moment: Unpack[shapes.Restore]
    ) -> shapes.Restored:
        """Make a document what it was at one of `version`, `at` and `name`, as a new edit."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/restore", document_id=document_id, body=moment
        )
        return cast("shapes.Restored", answer)

    async def overwrite(self, document_id: str) -> shapes.Overwritten:
        """Save a document over a file that another program made unreadable; `kept` is its copy."""
        answer = await self._http.call(
            "POST /api/documents/{document_id}/overwrite", document_id=document_id
        )
        return cast("shapes.Overwritten", answer)


class Contents(_Actions):
    """Files, notebooks and folders below the server's root, by path."""

    async def get(
        self,
        path: str = "",
        *,
        content: bool = True,
        kind: str | None = None,
        content_format: str | None = None,
    ) -> shapes.Contents:
        """Return a file or folder, with its content unless told otherwise."""
        query = {"content": int(content), "type": kind, "format": content_format}
        answer = await self._http.call("GET /api/contents/{path}", path=path, query=query)
        return cast("shapes.Contents", answer)

    async def save(self, path: str, /, **model: Unpack[shapes.SaveContents]) -> shapes.Contents:
        """Save a file, notebook or folder."""
        answer = await self._http.call("PUT /api/contents/{path}", path=path, body=model)
        return cast("shapes.Contents", answer)

    async def create(
        self, folder: str = "", **body: Unpack[shapes.CreateContents]
    ) -> shapes.Contents:
        """Make an untitled file, notebook or folder, or a copy, in a folder."""
        answer = await self._http.call("POST /api/contents/{path}", path=folder, body=body)
        return cast("shapes.Contents", answer)

    async def rename(self, path: str, new_path: str) -> shapes.Contents:
        """Rename or move."""
        answer = await self._http.call(
            "PATCH /api/contents/{path}", path=path, body={"path": new_path}
        )
        return cast("shapes.Contents", answer)

    async def delete(self, path: str) -> None:
        """Delete a file or folder."""
        await self._http.call("DELETE /api/contents/{path}", path=path)

    async def refresh(self, path: str = "") -> Object:
        """Bring what other programs changed into the tables."""
        answer = await self._http.call("POST /api/contents/refresh", body={"path": path})
        return cast("Object", answer)

    async def trust(self, path: str) -> None:
        """Trust a notebook's outputs."""
        await self._http.call("POST /api/contents/{path}/trust", path=path)

    async def checkpoints(self, path: str) -> _CheckpointList:
        """Return a file's checkpoints."""
        answer = await self._http.call("GET /api/contents/{path}/checkpoints", path=path)
        return cast("_CheckpointList", answer)

    async def create_checkpoint(self, path: str) -> shapes.Checkpoints:
        """Make a checkpoint."""
        answer = await self._http.call("POST /api/contents/{path}/checkpoints", path=path)
        return cast("shapes.Checkpoints", answer)

    async def restore_checkpoint(self, path: str, checkpoint_id: str) -> None:
        """Put a checkpoint in the file's place."""
        await self._http.call(
            "POST /api/contents/{path}/checkpoints/{checkpoint_id}",
            path=path,
            checkpoint_id=checkpoint_id,
        )

    async def delete_checkpoint(self, path: str, checkpoint_id: str) -> None:
        """Delete a checkpoint."""
        await self._http.call(
            "DELETE /api/contents/{path}/checkpoints/{checkpoint_id}",
            path=path,
            checkpoint_id=checkpoint_id,
        )

    async def download(self, path: str) -> bytes:
        """Return a file's bytes."""
        return (await self._http.send("GET /files/{path}", path=path)).content

    async def upload(self, path: str, content: bytes) -> shapes.Contents:
        """Save a file's bytes."""
        encoded = (await asyncio.to_thread(base64.b64encode, content)).decode("ascii")
        return await self.save(path, type="file", format="base64", content=encoded)

    async def convert(self, path: str, to: str) -> bytes:
        """Return a notebook as nbconvert writes it (`html`, `script`, ...)."""
        answer = await self._http.send(
            "GET /nbconvert/{format}/{path}", format=to, path=path, timeout_seconds=300
        )
        return answer.content

    async def convert_notebook(self, notebook: Object, to: str, name: str = "notebook") -> bytes:
        """Return a notebook that is sent along as nbconvert writes it."""
        answer = await self._http.send(
            "POST /nbconvert/{format}",
            format=to,
            body={"name": name, "content": notebook},
            timeout_seconds=300,
        )
        return answer.content

    async def conversions(self) -> dict[str, shapes.Exporter]:
        """Return what notebooks can be converted to."""
        return cast("dict[str, shapes.Exporter]", await self._http.call("GET /api/nbconvert"))


class Terminals(_Actions):
    """Shells on the server."""

    async def list(self) -> _TerminalList:
        """Return the living terminals."""
        return cast("_TerminalList", await self._http.call("GET /api/terminals"))

    async def start(self, **body: Unpack[shapes.StartTerminal]) -> shapes.Terminal:
        """Start a terminal."""
        return cast("shapes.Terminal", await self._http.call("POST /api/terminals", body=body))

    async def get(self, name: str) -> shapes.Terminal:
        """Return one."""
        answer = await self._http.call("GET /api/terminals/{terminal_id}", terminal_id=name)
        return cast("shapes.Terminal", answer)

    async def end(self, name: str) -> None:
        """End a terminal and what runs in it."""
        await self._http.call("DELETE /api/terminals/{terminal_id}", terminal_id=name)


class Config(_Actions):
    """The user's settings of front ends, by section."""

    async def get(self, section: str) -> Object:
        """Return a section."""
        return cast(
            "Object", await self._http.call("GET /api/config/{section_name}", section_name=section)
        )

    async def update(self, section: str, changes: Object) -> Object:
        """Change parts of a section; None deletes."""
        answer = await self._http.call(
            "PATCH /api/config/{section_name}", section_name=section, body=changes
        )
        return cast("Object", answer)

    async def replace(self, section: str, data: Object) -> None:
        """Replace a section."""
        await self._http.call("PUT /api/config/{section_name}", section_name=section, body=data)


class People(_Actions):
    """Users, groups, tokens, permissions, share links, and who changed them."""

    async def users(self) -> list[shapes.User]:
        """Return the users that the asker may see."""
        return cast("list[shapes.User]", await self._http.call("GET /api/users"))

    async def create_user(self, **body: Unpack[shapes.CreateUser]) -> shapes.User:
        """Make a user."""
        return cast("shapes.User", await self._http.call("POST /api/users", body=body))

    async def update_user(self, user_id: str, /, **body: Unpack[shapes.ChangeUser]) -> shapes.User:
        """Change a user."""
        answer = await self._http.call("PATCH /api/users/{user_id}", user_id=user_id, body=body)
        return cast("shapes.User", answer)

    async def set_password(self, **body: Unpack[shapes.ChangePassword]) -> None:
        """Set the asker's password."""
        await self._http.call("POST /api/me/password", body=body)

    async def groups(self) -> list[shapes.Group]:
        """Return the groups that the asker may see."""
        return cast("list[shapes.Group]", await self._http.call("GET /api/groups"))

    async def create_group(self, **body: Unpack[shapes.NameGroup]) -> shapes.Group:
        """Make a group."""
        return cast("shapes.Group", await self._http.call("POST /api/groups", body=body))

    async def update_group(
        self, group_id: str, /, **body: Unpack[shapes.NameGroup]
    ) -> shapes.GroupName:
        """Change a group."""
        answer = await self._http.call("PATCH /api/groups/{group_id}", group_id=group_id, body=body)
        return cast("shapes.GroupName", answer)

    async def delete_group(self, group_id: str) -> None:
        """Delete a group."""
        await self._http.call("DELETE /api/groups/{group_id}", group_id=group_id)

    async def add_member(self, group_id: str, user_id: str) -> None:
        """Put a user into a group."""
        await self._http.call(
            "PUT /api/groups/{group_id}/members/{user_id}", group_id=group_id, user_id=user_id
        )

    async def remove_member(self, group_id: str, user_id: str) -> None:
        """Take a user out of a group."""
        await self._http.call(
            "DELETE /api/groups/{group_id}/members/{user_id}", group_id=group_id, user_id=user_id
        )

    async def tokens(self) -> list[shapes.Token]:
        """Return the asker's tokens, without their secrets."""
        return cast("list[shapes.Token]", await self._http.call("GET /api/tokens"))

    async def create_token(self, **body: Unpack[shapes.CreateToken]) -> shapes.MadeToken:
        """Make a token; its secret is in this answer alone."""
        return cast("shapes.MadeToken", await self._http.call("POST /api/tokens", body=body))

    async def revoke_token(self, token_id: str) -> None:
        """End a token."""
        await self._http.call("DELETE /api/tokens/{token_id}", token_id=token_id)

    async def permissions(self, **of: str) -> shapes.Permissions:
        """Return who may do what, of a `path`, of a `kernel_id` or of the server."""
        return cast("shapes.Permissions", await self._http.call("GET /api/permissions", query=of))

    async def grant(self, **body: Unpack[shapes.Grant]) -> shapes.Permission:
        """Give a permission."""
        return cast("shapes.Permission", await self._http.call("POST /api/permissions", body=body))

    async def revoke(self, permission_id: str) -> None:
        """Take a permission back."""
        await self._http.call(
            "DELETE /api/permissions/{permission_id}", permission_id=permission_id
        )

    async def share_links(self) -> list[shapes.ShareLink]:
        """Return the asker's links, without their codes."""
        return cast("list[shapes.ShareLink]", await self._http.call("GET /api/share-links"))

    async def create_share_link(self, **body: Unpack[shapes.ShareTarget]) -> shapes.MadeShareLink:
        """Make a link to a path or kernel; its code is in this answer alone."""
        answer = await self._http.call("POST /api/share-links", body=body)
        return cast("shapes.MadeShareLink", answer)

    async def accept_share_link(self, code: str) -> shapes.Permission:
        """Take what a link gives."""
        answer = await self._http.call("POST /api/share-links/accept", body={"code": code})
        return cast("shapes.Permission", answer)

    async def revoke_share_link(self, link_id: str) -> None:
        """End a link, and what it gave."""
        await self._http.call("DELETE /api/share-links/{link_id}", link_id=link_id)

    async def audit(self, **query: Any) -> list[shapes.AuditEntry]:
        """Return what was done, newest first."""
        return cast("list[shapes.AuditEntry]", await self._http.call("GET /api/audit", query=query))


class Server(_Actions):
    """The server itself, and who asks."""

    async def version(self) -> str:
        """Return the server's version."""
        return cast("str", (await self._http.call("GET /api"))["version"])

    async def status(self) -> shapes.APIStatus:
        """Return the server's activity."""
        return cast("shapes.APIStatus", await self._http.call("GET /api/status"))

    async def refresh(self) -> shapes.APIStatus:
        """Settle what servers that died left behind."""
        return cast("shapes.APIStatus", await self._http.call("POST /api/status/refresh"))

    async def me(self) -> shapes.Me:
        """Return who this client is for the server."""
        return cast("shapes.Me", await self._http.call("GET /api/me"))

    async def update_me(self, **fields: str | None) -> shapes.UpdatedMe:
        """Change how others are shown this user."""
        return cast("shapes.UpdatedMe", await self._http.call("PATCH /api/me", body=fields))

    async def resolve_path(self, path: str, kernel: str | None = None) -> shapes.ResolvedPath:
        """Return what a path stands for."""
        query = {"path": path, "kernel": kernel}
        answer = await self._http.call("GET /api/resolvePath", query=query)
        return cast("shapes.ResolvedPath", answer)

    async def emit_event(self, **event: Unpack[shapes.Event]) -> None:
        """Emit an event of a schema that the server knows."""
        await self._http.call("POST /api/events", body=event)

    async def shut_down(self) -> None:
        """Stop the server."""
        await self._http.call("POST /api/shutdown")
