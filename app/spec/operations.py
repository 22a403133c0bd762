"""What each operation takes and answers, by its path below the base URL and its method.

Descriptions and parameters come from the routes; here is what routes do not tell FastAPI: bodies
(which are read whatever their content type) and the shapes of answers.
"""

from dataclasses import dataclass, field
from typing import Any

from app.spec import document_schemas, people_schemas, schemas


@dataclass(frozen=True)
class Operation:
    """An operation's answers by status (None: no body; a str: a media type) and its body."""

    answers: dict[int, Any]
    body: Any = None
    located: bool = False
    errors: tuple[int, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    public: bool = False


_S = schemas
_D = document_schemas
_P = people_schemas
_OBJECT = dict[str, Any]
_DOCUMENT = "/api/documents/{document_id}"

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("get", "/api"): Operation({200: _S.Version}, public=True),
    ("get", "/api/status"): Operation({200: _S.APIStatus}),
    ("post", "/api/status/refresh"): Operation({200: _S.APIStatus}),
    ("post", "/api/shutdown"): Operation({200: None}, errors=(501,)),
    ("get", "/api/spec.yaml"): Operation({200: "text/x-yaml"}),
    ("get", "/api/me"): Operation({200: _S.Me}, errors=(400,)),
    ("patch", "/api/me"): Operation({200: _S.UpdatedMe}, dict[str, str | None], errors=(400,)),
    ("get", "/api/resolvePath"): Operation({200: _S.ResolvedPath}, errors=(400,)),
    # kernelspecs
    ("get", "/api/kernelspecs"): Operation({200: _S.KernelSpecs}),
    ("post", "/api/kernelspecs/refresh"): Operation({200: _S.KernelSpecs}),
    ("get", "/api/kernelspecs/{name}"): Operation({200: _S.KernelSpec}, errors=(404,)),
    ("get", "/kernelspecs/{name}/{path}"): Operation({200: "*/*", 304: None}, errors=(404,)),
    ("head", "/kernelspecs/{name}/{path}"): Operation({200: None, 304: None}, errors=(404,)),
    # kernels
    ("get", "/api/kernels"): Operation({200: list[_S.Kernel]}),
    ("post", "/api/kernels"): Operation(
        {201: _S.Kernel}, _S.StartKernel, located=True, errors=(400, 500)
    ),
    ("post", "/api/kernels/refresh"): Operation({200: list[_S.Kernel]}),
    ("get", "/api/kernels/{kernel_id}"): Operation({200: _S.Kernel}, errors=(404,)),
    ("delete", "/api/kernels/{kernel_id}"): Operation({204: None}, errors=(404,)),
    ("post", "/api/kernels/{kernel_id}/interrupt"): Operation({204: None}, errors=(404, 409)),
    ("post", "/api/kernels/{kernel_id}/restart"): Operation(
        {200: _S.Kernel}, located=True, errors=(404, 409)
    ),
    ("post", "/api/kernels/{kernel_id}/execute"): Operation(
        {202: _S.Execution}, _S.Execute, located=True, errors=(400, 404, 409, 422)
    ),
    # sessions
    ("get", "/api/sessions"): Operation({200: list[_S.Session]}),
    ("post", "/api/sessions"): Operation(
        {201: _S.Session}, _S.SessionBody, located=True, errors=(400, 404, 501)
    ),
    ("post", "/api/sessions/refresh"): Operation({200: list[_S.Session]}),
    ("get", "/api/sessions/{session_id}"): Operation(
        {200: _S.Session}, errors=(404,), names={"session_id": "session"}
    ),
    ("patch", "/api/sessions/{session_id}"): Operation(
        {200: _S.Session}, _S.SessionBody, errors=(400, 404), names={"session_id": "session"}
    ),
    ("delete", "/api/sessions/{session_id}"): Operation(
        {204: None}, errors=(404, 410), names={"session_id": "session"}
    ),
    ("post", "/api/sessions/{session_id}/run"): Operation(
        {202: _S.StartedExecutions},
        _S.RunCells,
        errors=(400, 404, 409),
        names={"session_id": "session"},
    ),
    # executions and documents
    ("get", "/api/executions"): Operation({200: _S.Executions}, errors=(400,)),
    ("get", "/api/executions/{execution_id}"): Operation({200: _S.Execution}, errors=(400, 404)),
    ("delete", "/api/executions/{execution_id}"): Operation({204: None}, errors=(404, 409)),
    ("get", "/api/executions/{execution_id}/outputs"): Operation(
        {200: _S.OutputPieces}, errors=(400, 404)
    ),
    ("post", "/api/executions/{execution_id}/input"): Operation(
        {201: Any}, _S.Answer, errors=(400, 404, 409)
    ),
    ("get", f"{_DOCUMENT}/cells"): Operation({200: _D.DocumentCells}, errors=(404,)),
    ("post", f"{_DOCUMENT}/cells"): Operation(
        {201: _D.EditedCell}, _D.InsertCell, errors=(400, 404, 409)
    ),
    ("patch", f"{_DOCUMENT}/cells/{{cell_id}}"): Operation(
        {200: _D.EditedCell}, _D.ChangeCell, errors=(400, 404, 409)
    ),
    ("post", f"{_DOCUMENT}/cells/{{cell_id}}/move"): Operation(
        {200: _D.EditedCell}, _D.CellPlace, errors=(400, 404)
    ),
    ("delete", f"{_DOCUMENT}/cells/{{cell_id}}"): Operation({204: None}, errors=(404,)),
    ("get", f"{_DOCUMENT}/undo"): Operation({200: _D.UndoSteps}, errors=(404,)),
    ("post", f"{_DOCUMENT}/undo"): Operation({200: _D.TakenBack}, _D.TakeBack, errors=(400, 404)),
    ("post", f"{_DOCUMENT}/redo"): Operation({200: _D.TakenBack}, _D.TakeBack, errors=(400, 404)),
    ("get", f"{_DOCUMENT}/history"): Operation({200: _D.DocumentHistory}, errors=(400, 404)),
    ("get", f"{_DOCUMENT}/content"): Operation({200: _D.DocumentContent}, errors=(400, 404)),
    ("get", f"{_DOCUMENT}/versions"): Operation({200: _D.NamedVersions}, errors=(404,)),
    ("post", f"{_DOCUMENT}/versions"): Operation(
        {201: _D.VersionName}, _D.NameVersion, errors=(400, 404, 409)
    ),
    ("delete", f"{_DOCUMENT}/versions/{{name}}"): Operation({204: None}, errors=(404,)),
    ("post", f"{_DOCUMENT}/overwrite"): Operation({200: _D.Overwritten}, errors=(400, 404)),
    ("post", f"{_DOCUMENT}/restore"): Operation({200: _D.Restored}, _D.Restore, errors=(400, 404)),
    # people
    ("get", "/api/users"): Operation({200: list[_P.User]}),
    ("post", "/api/users"): Operation({201: _P.User}, _P.CreateUser, errors=(400, 409)),
    ("patch", "/api/users/{user_id}"): Operation(
        {200: _P.User}, _P.ChangeUser, errors=(400, 404, 409)
    ),
    ("post", "/api/me/password"): Operation({204: None}, _P.ChangePassword, errors=(400,)),
    ("get", "/api/groups"): Operation({200: list[_P.Group]}),
    ("post", "/api/groups"): Operation({201: _P.Group}, _P.NameGroup, errors=(400, 409)),
    ("patch", "/api/groups/{group_id}"): Operation(
        {200: _P.GroupName}, _P.NameGroup, errors=(400, 404, 409)
    ),
    ("delete", "/api/groups/{group_id}"): Operation({204: None}, errors=(404,)),
    ("put", "/api/groups/{group_id}/members/{user_id}"): Operation({204: None}, errors=(404,)),
    ("delete", "/api/groups/{group_id}/members/{user_id}"): Operation({204: None}, errors=(404,)),
    ("get", "/api/tokens"): Operation({200: list[_P.Token]}),
    ("post", "/api/tokens"): Operation({201: _P.MadeToken}, _P.CreateToken, errors=(400, 404)),
    ("delete", "/api/tokens/{token_id}"): Operation({204: None}, errors=(400, 404)),
    ("get", "/api/permissions"): Operation({200: _P.Permissions}, errors=(404,)),
    ("post", "/api/permissions"): Operation({201: _P.Permission}, _P.Grant, errors=(400, 404)),
    ("delete", "/api/permissions/{permission_id}"): Operation({204: None}, errors=(400, 404)),
    ("get", "/api/share-links"): Operation({200: list[_P.ShareLink]}),
    ("post", "/api/share-links"): Operation(
        {201: _P.MadeShareLink}, _P.ShareTarget, errors=(400, 404)
    ),
    ("post", "/api/share-links/accept"): Operation(
        {200: _P.Permission}, _P.AcceptLink, errors=(400, 404)
    ),
    ("delete", "/api/share-links/{link_id}"): Operation({204: None}, errors=(400, 404)),
    ("get", "/api/audit"): Operation({200: list[_P.AuditEntry]}, errors=(400,)),
    # the change feed
    ("get", "/api/datastore/tables"): Operation({200: _S.FeedTables}),
    ("get", "/api/datastore/tables/{table}"): Operation({200: _S.FeedPage}, errors=(400, 404)),
    ("get", "/api/datastore/events"): Operation({200: "text/event-stream"}, errors=(400, 404)),
    # comms
    ("get", "/api/kernels/{kernel_id}/comms"): Operation({200: list[_S.Comm]}, errors=(400, 404)),
    ("post", "/api/kernels/{kernel_id}/comms"): Operation(
        {201: _S.Comm}, _S.OpenComm, located=True, errors=(400, 404, 409)
    ),
    ("get", "/api/comms/{comm_id}"): Operation({200: _S.Comm}, errors=(404,)),
    ("delete", "/api/comms/{comm_id}"): Operation({204: None}, _S.CommData, errors=(400, 404, 409)),
    ("get", "/api/comms/{comm_id}/messages"): Operation({200: _S.CommMessages}, errors=(400, 404)),
    ("post", "/api/comms/{comm_id}/messages"): Operation(
        {202: _S.SentCommMessage}, _S.CommData, errors=(400, 404, 409)
    ),
    # contents
    ("get", "/api/contents"): Operation({200: _S.Contents}, errors=(400, 404)),
    ("post", "/api/contents"): Operation(
        {201: _S.Contents}, _S.CreateContents, located=True, errors=(400, 404)
    ),
    ("put", "/api/contents"): Operation({200: _S.Contents}, _S.SaveContents, errors=(400,)),
    ("patch", "/api/contents"): Operation({200: _S.Contents}, _S.RenameContents, errors=(400,)),
    ("delete", "/api/contents"): Operation({204: None}, errors=(400,)),
    ("get", "/api/contents/checkpoints"): Operation({200: list[_S.Checkpoints]}, errors=(400, 404)),
    ("post", "/api/contents/refresh"): Operation({200: Any}, _OBJECT, errors=(400, 404)),
    ("get", "/files/{path}"): Operation({200: "*/*", 206: "*/*", 304: None}, errors=(404, 416)),
    ("get", "/view/{path}"): Operation({200: "text/html"}, errors=(404,)),
    ("get", "/api/contents/{path}"): Operation({200: _S.Contents}, errors=(400, 404)),
    ("post", "/api/contents/{path}"): Operation(
        {201: _S.Contents}, _S.CreateContents, located=True, errors=(400, 404)
    ),
    ("put", "/api/contents/{path}"): Operation(
        {200: _S.Contents, 201: _S.Contents}, _S.SaveContents, located=True, errors=(400, 404)
    ),
    ("patch", "/api/contents/{path}"): Operation(
        {200: _S.Contents}, _S.RenameContents, located=True, errors=(400, 404, 409)
    ),
    ("delete", "/api/contents/{path}"): Operation({204: None}, errors=(400, 404)),
    ("get", "/api/contents/{path}/checkpoints"): Operation(
        {200: list[_S.Checkpoints]}, errors=(400, 404)
    ),
    ("post", "/api/contents/{path}/checkpoints"): Operation(
        {201: _S.Checkpoints}, located=True, errors=(400, 404)
    ),
    ("post", "/api/contents/{path}/checkpoints/{checkpoint_id}"): Operation(
        {204: None}, errors=(400, 404)
    ),
    ("delete", "/api/contents/{path}/checkpoints/{checkpoint_id}"): Operation(
        {204: None}, errors=(404,)
    ),
    ("post", "/api/contents/{path}/trust"): Operation({201: None}, errors=(404,)),
    # config
    ("get", "/api/config/{section_name}"): Operation({200: _OBJECT}, errors=(404,)),
    ("put", "/api/config/{section_name}"): Operation({204: None}, _OBJECT, errors=(400, 404)),
    ("patch", "/api/config/{section_name}"): Operation({200: _OBJECT}, _OBJECT, errors=(400, 404)),
    # terminals
    ("get", "/api/terminals"): Operation({200: list[_S.Terminal]}, errors=(404,)),
    ("post", "/api/terminals"): Operation(
        {200: _S.Terminal}, _S.StartTerminal, errors=(400, 404, 409)
    ),
    ("get", "/api/terminals/{terminal_id}"): Operation({200: _S.Terminal}, errors=(404,)),
    ("delete", "/api/terminals/{terminal_id}"): Operation({204: None}, errors=(404,)),
    # nbconvert, events, metrics
    ("get", "/api/nbconvert"): Operation({200: dict[str, _S.Exporter]}),
    ("get", "/nbconvert/{format}/{path}"): Operation(
        {200: "*/*", 302: None}, errors=(400, 404, 501)
    ),
    ("post", "/nbconvert/{format}"): Operation(
        {200: "*/*"}, _S.ConvertNotebook, errors=(400, 404, 501)
    ),
    ("post", "/api/events"): Operation({204: None}, _S.Event, errors=(400,)),
    ("get", "/metrics"): Operation({200: "text/plain"}),
}
