// The API's actions, by subject. What they take and answer is in docs/api.md.
//
// Each method names its operation as the server's OpenAPI document does; a test compares them.

import type { JsonRecord } from "./changes.js";
import type { Http, RequestOptions } from "./http.js";
import type * as shapes from "./shapes.js";

const WAIT_SECONDS = 30;
const EXECUTE_MS = 60_000;

class Actions {
  constructor(protected readonly http: Http) {}
}

/** The kernels that can be started. */
export class Kernelspecs extends Actions {
  /** All of them, and the default's name. */
  list(): Promise<shapes.KernelSpecs> {
    return this.http.call("GET /api/kernelspecs");
  }

  get(name: string): Promise<shapes.KernelSpec> {
    return this.http.call("GET /api/kernelspecs/{name}", { names: { name } });
  }

  /** Look on the disk again. */
  refresh(): Promise<shapes.KernelSpecs> {
    return this.http.call("POST /api/kernelspecs/refresh");
  }
}

/** Code, where in it (the end), and for how many seconds to wait for the kernel's reply. */
export interface CodeAt {
  code: string;
  cursor_pos?: number;
  timeout?: number;
}

/** Running kernels, and requests that they answer at once. */
export class Kernels extends Actions {
  list(): Promise<shapes.Kernel[]> {
    return this.http.call("GET /api/kernels");
  }

  get(kernelId: string): Promise<shapes.Kernel> {
    return this.http.call("GET /api/kernels/{kernel_id}", of(kernelId));
  }

  /** Start a kernel: the default one, or the kernelspec `name`, in the folder `path`. */
  start(body: shapes.StartKernel = {}): Promise<shapes.Kernel> {
    return this.http.call("POST /api/kernels", { body });
  }

  /** Look which kernels still run. */
  refresh(): Promise<shapes.Kernel[]> {
    return this.http.call("POST /api/kernels/refresh");
  }

  shutDown(kernelId: string): Promise<void> {
    return this.http.call("DELETE /api/kernels/{kernel_id}", of(kernelId));
  }

  interrupt(kernelId: string): Promise<void> {
    return this.http.call("POST /api/kernels/{kernel_id}/interrupt", of(kernelId));
  }

  restart(kernelId: string): Promise<shapes.Kernel> {
    return this.http.call("POST /api/kernels/{kernel_id}/restart", of(kernelId));
  }

  /** The kernel's complete_reply; 504 when it is busy for `timeout` seconds (10). */
  complete(kernelId: string, body: CodeAt): Promise<JsonRecord> {
    return this.http.call("POST /api/kernels/{kernel_id}/complete", of(kernelId, { ...body }));
  }

  /** The kernel's inspect_reply. */
  inspect(kernelId: string, body: CodeAt & { detail_level?: 0 | 1 }): Promise<JsonRecord> {
    return this.http.call("POST /api/kernels/{kernel_id}/inspect", of(kernelId, { ...body }));
  }

  /** The kernel's is_complete_reply. */
  isComplete(kernelId: string, body: { code: string; timeout?: number }): Promise<JsonRecord> {
    return this.http.call("POST /api/kernels/{kernel_id}/is_complete", of(kernelId, { ...body }));
  }

  /** The kernel's history_reply. */
  history(kernelId: string, body: JsonRecord = {}): Promise<JsonRecord> {
    return this.http.call("POST /api/kernels/{kernel_id}/history", of(kernelId, body));
  }

  /** The kernel's kernel_info_reply. */
  kernelInfo(kernelId: string): Promise<JsonRecord> {
    return this.http.call("POST /api/kernels/{kernel_id}/kernel_info", of(kernelId, {}));
  }

  /** The kernel's comm_info_reply. */
  commInfo(kernelId: string, targetName?: string): Promise<JsonRecord> {
    const body = { target_name: targetName };
    return this.http.call("POST /api/kernels/{kernel_id}/comm_info", of(kernelId, body));
  }

  /** Send a request of the Debug Adapter Protocol. */
  debug(kernelId: string, command: string, more: JsonRecord = {}): Promise<JsonRecord> {
    const body = { command, ...more };
    return this.http.call("POST /api/kernels/{kernel_id}/debug", of(kernelId, body));
  }
}

function of(kernelId: string, body?: JsonRecord): RequestOptions {
  return { names: { kernel_id: kernelId }, ...(body === undefined ? {} : { body }) };
}

/** Paths and the kernels that serve them. */
export class Sessions extends Actions {
  list(): Promise<shapes.Session[]> {
    return this.http.call("GET /api/sessions");
  }

  get(session: string): Promise<shapes.Session> {
    return this.http.call("GET /api/sessions/{session}", { names: { session } });
  }

  /** The path's session, which is started if there is none. */
  start(path: string, more: shapes.SessionBody = {}): Promise<shapes.Session> {
    const body = { type: "notebook", name: "", kernel: {}, ...more, path };
    return this.http.call("POST /api/sessions", { body });
  }

  /** Change a session's path, name, type or kernel. */
  update(session: string, body: shapes.SessionBody): Promise<shapes.Session> {
    return this.http.call("PATCH /api/sessions/{session}", { names: { session }, body });
  }

  /** End a session and its kernel. */
  end(session: string): Promise<void> {
    return this.http.call("DELETE /api/sessions/{session}", { names: { session } });
  }

  /** Look which sessions still have their kernel. */
  refresh(): Promise<shapes.Session[]> {
    return this.http.call("POST /api/sessions/refresh");
  }

  /** Ask for the notebook's cells to run in order; answers with their executions at once. */
  async run(
    session: string,
    cells: "all" | string[] = "all",
    more: Partial<shapes.RunCells> = {},
  ): Promise<shapes.Execution[]> {
    const answer = await this.http.call<shapes.StartedExecutions>(
      "POST /api/sessions/{session}/run",
      { names: { session }, body: { ...more, cells } },
    );
    return answer.executions;
  }
}

/** Runs of code. */
export class Executions extends Actions {
  /**
   * Ask for code, or a cell, to run; answers with the execution at once.
   *
   * It has an idempotency key, so that it is asked for again, for at most a minute, when there is
   * no answer.
   */
  execute(kernelId: string, what: string | shapes.Execute): Promise<shapes.Execution> {
    const given = typeof what === "string" ? { code: what } : what;
    const body = { idempotency_key: newKey(), ...given };
    return this.http.callSurely(
      "POST /api/kernels/{kernel_id}/execute",
      { names: { kernel_id: kernelId }, body },
      EXECUTE_MS,
    );
  }

  /** Run code, or a cell; answers with the finished execution with its outputs. */
  async run(kernelId: string, what: string | shapes.Execute): Promise<shapes.Execution> {
    return await this.wait((await this.execute(kernelId, what)).id);
  }

  /** Executions, newest first, by `kernel_id`, `path`, `status` and so on. */
  list(query: Record<string, string | number> = {}): Promise<shapes.Executions> {
    return this.http.call("GET /api/executions", { query });
  }

  /** An execution with its outputs, as soon as it has finished or time is up. */
  get(executionId: string, waitSeconds = 0): Promise<shapes.Execution> {
    return this.http.call("GET /api/executions/{execution_id}", {
      names: { execution_id: executionId },
      query: { wait: waitSeconds },
    });
  }

  /** The finished execution with its outputs, also when the server is away meanwhile. */
  async wait(
    executionId: string,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<shapes.Execution> {
    for (;;) {
      const found = await this.http.callSurely<shapes.Execution>(
        "GET /api/executions/{execution_id}",
        { names: { execution_id: executionId }, query: { wait: WAIT_SECONDS }, signal },
      );
      if (found.finished_at !== null) {
        return found;
      }
    }
  }

  /** The output pieces as they are recorded, until the execution has finished. */
  async *outputs(executionId: string): AsyncGenerator<JsonRecord, void, undefined> {
    let cursor: string | null = null;
    for (;;) {
      const answer: shapes.OutputPieces = await this.http.callSurely<shapes.OutputPieces>(
        "GET /api/executions/{execution_id}/outputs",
        { names: { execution_id: executionId }, query: { cursor, wait: WAIT_SECONDS } },
      );
      yield* answer.outputs;
      if (answer.execution.finished_at !== null && answer.outputs.length === 0) {
        return;
      }
      cursor = answer.cursor;
    }
  }

  /** Cancel a queued execution, interrupt a running one. */
  cancel(executionId: string): Promise<void> {
    const names = { execution_id: executionId };
    return this.http.call("DELETE /api/executions/{execution_id}", { names });
  }

  /** Answer what the code asks; the first answer counts (409). */
  async input(executionId: string, value: string, inputRequestId?: string): Promise<void> {
    await this.http.call("POST /api/executions/{execution_id}/input", {
      names: { execution_id: executionId },
      body: { value, input_request_id: inputRequestId },
    });
  }
}

function newKey(): string {
  // `crypto.randomUUID` is there in secure contexts only.
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Comms of kernels; messages come in the live table `comm_messages`. */
export class Comms extends Actions {
  /** A kernel's comms by `state` (`open`), `target_name`, `comm_id`. */
  list(kernelId: string, query: Record<string, string> = {}): Promise<shapes.Comm[]> {
    return this.http.call("GET /api/kernels/{kernel_id}/comms", { ...of(kernelId), query });
  }

  /** Open a comm to what the kernel registered as the target. */
  open(kernelId: string, body: shapes.OpenComm): Promise<shapes.Comm> {
    return this.http.call("POST /api/kernels/{kernel_id}/comms", { ...of(kernelId), body });
  }

  /** A comm (by its record's `id`) with its state as it is now. */
  get(commId: string): Promise<shapes.Comm> {
    return this.http.call("GET /api/comms/{comm_id}", { names: { comm_id: commId } });
  }

  /** The messages recorded after one, in the kernel's order. */
  messages(commId: string, after = 0, limit = 100): Promise<shapes.CommMessages> {
    return this.http.call("GET /api/comms/{comm_id}/messages", {
      names: { comm_id: commId },
      query: { after, limit },
    });
  }

  /** Send a message; it is recorded when the kernel takes it up. */
  send(commId: string, body: shapes.CommData): Promise<shapes.SentCommMessage> {
    return this.http.call("POST /api/comms/{comm_id}/messages", {
      names: { comm_id: commId },
      body,
    });
  }

  /** Close a comm, also at the kernel. */
  close(commId: string, body: shapes.CommData = {}): Promise<void> {
    return this.http.call("DELETE /api/comms/{comm_id}", { names: { comm_id: commId }, body });
  }
}

/** Open notebooks and files: cells one by one, the asker's undo, history and versions. */
export class Documents extends Actions {
  /** A notebook's cells in order, with their versions. */
  cells(documentId: string): Promise<shapes.DocumentCells> {
    return this.http.call("GET /api/documents/{document_id}/cells", ofDocument(documentId));
  }

  /** Insert a cell (of code) at `index`, `before` or `after` another, or at the end. */
  insertCell(documentId: string, body: shapes.InsertCell = {}): Promise<shapes.EditedCell> {
    const options = { ...ofDocument(documentId), body };
    return this.http.call("POST /api/documents/{document_id}/cells", options);
  }

  /**
   * Change a cell's text, metadata, attachments or type, or clear its outputs.
   *
   * With `base`, the text that was started from, what others wrote since stays. With `version`,
   * another one is an ApiError 409.
   */
  changeCell(
    documentId: string,
    cellId: string,
    body: shapes.ChangeCell,
  ): Promise<shapes.EditedCell> {
    const options = { ...ofDocument(documentId, { cell_id: cellId }), body };
    return this.http.call("PATCH /api/documents/{document_id}/cells/{cell_id}", options);
  }

  /** Move a cell to `index` (counted without it), or `before` or `after` another one. */
  moveCell(
    documentId: string,
    cellId: string,
    place: shapes.CellPlace,
  ): Promise<shapes.EditedCell> {
    const options = { ...ofDocument(documentId, { cell_id: cellId }), body: place };
    return this.http.call("POST /api/documents/{document_id}/cells/{cell_id}/move", options);
  }

  /** Delete a cell; its executions stay. */
  deleteCell(documentId: string, cellId: string): Promise<void> {
    const options = ofDocument(documentId, { cell_id: cellId });
    return this.http.call("DELETE /api/documents/{document_id}/cells/{cell_id}", options);
  }

  /** How many steps the asker can undo and redo. */
  undoSteps(documentId: string): Promise<shapes.UndoSteps> {
    return this.http.call("GET /api/documents/{document_id}/undo", ofDocument(documentId));
  }

  /** Take back the asker's last steps; what others did stays. */
  undo(documentId: string, steps = 1): Promise<shapes.TakenBack> {
    const options = { ...ofDocument(documentId), body: { steps } };
    return this.http.call("POST /api/documents/{document_id}/undo", options);
  }

  /** Do again the asker's last steps undone. */
  redo(documentId: string, steps = 1): Promise<shapes.TakenBack> {
    const options = { ...ofDocument(documentId), body: { steps } };
    return this.http.call("POST /api/documents/{document_id}/redo", options);
  }

  /** Who changed what and when, the latest first; what is older than the version `before`. */
  history(
    documentId: string,
    query: { before?: number; limit?: number } = {},
  ): Promise<shapes.DocumentHistory> {
    const options = { ...ofDocument(documentId), query };
    return this.http.call("GET /api/documents/{document_id}/history", options);
  }

  /** A document as it was at a version, a time or a named version; as it is without. */
  content(documentId: string, moment: shapes.Restore = {}): Promise<shapes.DocumentContent> {
    const options = { ...ofDocument(documentId), query: { ...moment } };
    return this.http.call("GET /api/documents/{document_id}/content", options);
  }

  /** The named versions, the latest first. */
  versions(documentId: string): Promise<shapes.NamedVersions> {
    return this.http.call("GET /api/documents/{document_id}/versions", ofDocument(documentId));
  }

  /** Name a version: that of `version`, of the time `at`, or else the present one. */
  nameVersion(documentId: string, body: shapes.NameVersion): Promise<shapes.VersionName> {
    const options = { ...ofDocument(documentId), body };
    return this.http.call("POST /api/documents/{document_id}/versions", options);
  }

  /** Take a version's name away. */
  forgetVersion(documentId: string, name: string): Promise<void> {
    const options = ofDocument(documentId, { name });
    return this.http.call("DELETE /api/documents/{document_id}/versions/{name}", options);
  }

  /** Make a document what it was at a version, a time or a named version, as a new edit. */
  restore(documentId: string, moment: shapes.Restore): Promise<shapes.Restored> {
    const options = { ...ofDocument(documentId), body: moment };
    return this.http.call("POST /api/documents/{document_id}/restore", options);
  }

  /** Save a document over a file that another program made unreadable; `kept` is its copy. */
  overwrite(documentId: string): Promise<shapes.Overwritten> {
    return this.http.call("POST /api/documents/{document_id}/overwrite", ofDocument(documentId));
  }
}

function ofDocument(documentId: string, more: Record<string, string> = {}): RequestOptions {
  return { names: { document_id: documentId, ...more } };
}

/** How to read a file: with its content or without, as which type and format. */
export interface ReadOptions {
  content?: boolean;
  type?: string;
  format?: string;
}

/** Files, notebooks and folders below the server's root, by path. */
export class Contents extends Actions {
  get(path = "", options: ReadOptions = {}): Promise<shapes.Contents> {
    const query = { ...options, content: options.content === false ? 0 : 1 };
    return this.http.call("GET /api/contents/{path}", { names: { path }, query });
  }

  save(path: string, body: shapes.SaveContents): Promise<shapes.Contents> {
    return this.http.call("PUT /api/contents/{path}", { names: { path }, body });
  }

  /** Make an untitled file, notebook or folder, or a copy, in a folder. */
  create(folder = "", body: shapes.CreateContents = {}): Promise<shapes.Contents> {
    return this.http.call("POST /api/contents/{path}", { names: { path: folder }, body });
  }

  /** Rename or move. */
  rename(path: string, newPath: string): Promise<shapes.Contents> {
    const body = { path: newPath };
    return this.http.call("PATCH /api/contents/{path}", { names: { path }, body });
  }

  delete(path: string): Promise<void> {
    return this.http.call("DELETE /api/contents/{path}", { names: { path } });
  }

  /** Bring what other programs changed into the tables. */
  refresh(path = ""): Promise<JsonRecord> {
    return this.http.call("POST /api/contents/refresh", { body: { path } });
  }

  /** Trust a notebook's outputs. */
  trust(path: string): Promise<void> {
    return this.http.call("POST /api/contents/{path}/trust", { names: { path } });
  }

  checkpoints(path: string): Promise<shapes.Checkpoints[]> {
    return this.http.call("GET /api/contents/{path}/checkpoints", { names: { path } });
  }

  createCheckpoint(path: string): Promise<shapes.Checkpoints> {
    return this.http.call("POST /api/contents/{path}/checkpoints", { names: { path } });
  }

  /** Put a checkpoint in the file's place. */
  restoreCheckpoint(path: string, checkpointId: string): Promise<void> {
    const names = { path, checkpoint_id: checkpointId };
    return this.http.call("POST /api/contents/{path}/checkpoints/{checkpoint_id}", { names });
  }

  deleteCheckpoint(path: string, checkpointId: string): Promise<void> {
    const names = { path, checkpoint_id: checkpointId };
    return this.http.call("DELETE /api/contents/{path}/checkpoints/{checkpoint_id}", { names });
  }

  /** A file's bytes. */
  async download(path: string): Promise<Blob> {
    return await (await this.http.send("GET /files/{path}", { names: { path } })).blob();
  }

  /** A notebook as nbconvert writes it (`html`, `script`, ...). */
  async convert(path: string, to: string): Promise<Blob> {
    const names = { format: to, path };
    return await (await this.http.send("GET /nbconvert/{format}/{path}", { names })).blob();
  }

  /** A notebook that is sent along as nbconvert writes it. */
  async convertNotebook(body: shapes.ConvertNotebook, to: string): Promise<Blob> {
    const options = { names: { format: to }, body };
    return await (await this.http.send("POST /nbconvert/{format}", options)).blob();
  }

  /** What notebooks can be converted to. */
  conversions(): Promise<Record<string, shapes.Exporter>> {
    return this.http.call("GET /api/nbconvert");
  }
}

/** Shells on the server. */
export class Terminals extends Actions {
  list(): Promise<shapes.Terminal[]> {
    return this.http.call("GET /api/terminals");
  }

  start(body: shapes.StartTerminal = {}): Promise<shapes.Terminal> {
    return this.http.call("POST /api/terminals", { body });
  }

  get(name: string): Promise<shapes.Terminal> {
    return this.http.call("GET /api/terminals/{terminal_id}", { names: { terminal_id: name } });
  }

  /** End a terminal and what runs in it. */
  end(name: string): Promise<void> {
    return this.http.call("DELETE /api/terminals/{terminal_id}", { names: { terminal_id: name } });
  }
}

/** The user's settings of front ends, by section. */
export class Config extends Actions {
  get(section: string): Promise<JsonRecord> {
    return this.http.call("GET /api/config/{section_name}", { names: { section_name: section } });
  }

  /** Change parts of a section; null deletes. */
  update(section: string, body: JsonRecord): Promise<JsonRecord> {
    const names = { section_name: section };
    return this.http.call("PATCH /api/config/{section_name}", { names, body });
  }

  replace(section: string, body: JsonRecord): Promise<void> {
    const names = { section_name: section };
    return this.http.call("PUT /api/config/{section_name}", { names, body });
  }
}

/** Users, groups, tokens, permissions, share links, and who changed them. */
export class People extends Actions {
  /** The users that the asker may see. */
  users(): Promise<shapes.User[]> {
    return this.http.call("GET /api/users");
  }

  createUser(body: shapes.CreateUser): Promise<shapes.User> {
    return this.http.call("POST /api/users", { body });
  }

  updateUser(userId: string, body: shapes.ChangeUser): Promise<shapes.User> {
    return this.http.call("PATCH /api/users/{user_id}", { names: { user_id: userId }, body });
  }

  /** Set the asker's password. */
  setPassword(body: shapes.ChangePassword): Promise<void> {
    return this.http.call("POST /api/me/password", { body });
  }

  /** The groups that the asker may see. */
  groups(): Promise<shapes.Group[]> {
    return this.http.call("GET /api/groups");
  }

  createGroup(body: shapes.NameGroup): Promise<shapes.Group> {
    return this.http.call("POST /api/groups", { body });
  }

  updateGroup(groupId: string, body: shapes.NameGroup): Promise<shapes.GroupName> {
    return this.http.call("PATCH /api/groups/{group_id}", { names: { group_id: groupId }, body });
  }

  deleteGroup(groupId: string): Promise<void> {
    return this.http.call("DELETE /api/groups/{group_id}", { names: { group_id: groupId } });
  }

  addMember(groupId: string, userId: string): Promise<void> {
    const names = { group_id: groupId, user_id: userId };
    return this.http.call("PUT /api/groups/{group_id}/members/{user_id}", { names });
  }

  removeMember(groupId: string, userId: string): Promise<void> {
    const names = { group_id: groupId, user_id: userId };
    return this.http.call("DELETE /api/groups/{group_id}/members/{user_id}", { names });
  }

  /** The asker's tokens, without their secrets. */
  tokens(): Promise<shapes.Token[]> {
    return this.http.call("GET /api/tokens");
  }

  /** Make a token; its secret is in this answer alone. */
  createToken(body: shapes.CreateToken): Promise<shapes.MadeToken> {
    return this.http.call("POST /api/tokens", { body });
  }

  revokeToken(tokenId: string): Promise<void> {
    return this.http.call("DELETE /api/tokens/{token_id}", { names: { token_id: tokenId } });
  }

  /** Who may do what, of a path, of a kernel or of the server. */
  permissions(query: { path?: string; kernel_id?: string } = {}): Promise<shapes.Permissions> {
    return this.http.call("GET /api/permissions", { query });
  }

  /** Give a permission. */
  grant(body: shapes.Grant): Promise<shapes.Permission> {
    return this.http.call("POST /api/permissions", { body });
  }

  /** Take a permission back. */
  revoke(permissionId: string): Promise<void> {
    const names = { permission_id: permissionId };
    return this.http.call("DELETE /api/permissions/{permission_id}", { names });
  }

  /** The asker's links, without their codes. */
  shareLinks(): Promise<shapes.ShareLink[]> {
    return this.http.call("GET /api/share-links");
  }

  /** Make a link to a path or kernel; its code is in this answer alone. */
  createShareLink(body: shapes.ShareTarget): Promise<shapes.MadeShareLink> {
    return this.http.call("POST /api/share-links", { body });
  }

  /** Take what a link gives. */
  acceptShareLink(code: string): Promise<shapes.Permission> {
    return this.http.call("POST /api/share-links/accept", { body: { code } });
  }

  /** End a link, and what it gave. */
  revokeShareLink(linkId: string): Promise<void> {
    return this.http.call("DELETE /api/share-links/{link_id}", { names: { link_id: linkId } });
  }

  /** What was done, newest first. */
  audit(query: { before?: number; limit?: number } = {}): Promise<shapes.AuditEntry[]> {
    return this.http.call("GET /api/audit", { query });
  }
}

/** The server itself, and who asks. */
export class Server extends Actions {
  async version(): Promise<string> {
    return (await this.http.call<shapes.Version>("GET /api")).version;
  }

  /** The server's activity. */
  status(): Promise<shapes.APIStatus> {
    return this.http.call("GET /api/status");
  }

  /** Settle what servers that died left behind. */
  refresh(): Promise<shapes.APIStatus> {
    return this.http.call("POST /api/status/refresh");
  }

  /** Who this client is for the server. */
  me(): Promise<shapes.Me> {
    return this.http.call("GET /api/me");
  }

  /** Change how others are shown this user. */
  updateMe(body: Record<string, string | null>): Promise<shapes.UpdatedMe> {
    return this.http.call("PATCH /api/me", { body });
  }

  /** What a path stands for. */
  resolvePath(path: string, kernel?: string): Promise<shapes.ResolvedPath> {
    return this.http.call("GET /api/resolvePath", { query: { path, kernel } });
  }

  /** Emit an event of a schema that the server knows. */
  emitEvent(body: shapes.Event): Promise<void> {
    return this.http.call("POST /api/events", { body });
  }

  /** Stop the server. */
  shutDown(): Promise<void> {
    return this.http.call("POST /api/shutdown");
  }
}
