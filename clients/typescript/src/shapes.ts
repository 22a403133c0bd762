// Made by `jupyter-datastore typescript --of api` from the API's OpenAPI document.

/** The server's activity. */
export interface APIStatus {
  started: string;
  last_activity: string;
  connections: number;
  kernels: number;
}

/** A link's code. */
export interface AcceptLink {
  code: string;
}

/** The answer to an input request. */
export interface Answer {
  value: string;
  input_request_id?: string;
}

/** Something that was done about access, or attempted. */
export interface AuditEntry {
  id: number;
  at: string;
  event: string;
  actor_id: string | null;
  actor: string | null;
  detail: Record<string, unknown>;
}

/** A place among the cells: `index`, or `before` or `after` another cell; one of them. */
export interface CellPlace {
  index?: number;
  before?: string;
  after?: string;
}

/** What to change of a cell; a text is compared with `base`, or refused unless at `version`. */
export interface ChangeCell {
  source?: string;
  splices?: Splice[];
  base?: string;
  version?: number;
  type?: "code" | "markdown" | "raw";
  metadata?: Record<string, unknown>;
  attachments?: Record<string, unknown> | null;
  outputs?: Record<string, unknown>[];
}

/** A new password, and the one until now. */
export interface ChangePassword {
  password: string;
  current?: string;
}

/** What to change of a user. */
export interface ChangeUser {
  name?: string;
  disabled?: boolean;
  admin?: boolean;
  password?: string;
}

/** A kept state of a file. */
export interface Checkpoints {
  id: string;
  last_modified: string;
}

/** A comm, with what a comm_open sent now would carry; buffers are base64. */
export interface Comm {
  id: string;
  kernel_id: string;
  comm_id: string;
  target_name: string;
  target_module: string | null;
  state: "open" | "closed";
  reason: string | null;
  incarnation: number;
  execution_id: string | null;
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
  buffers: string[];
  last_message_id: number;
  dropped_through: number;
  opened_at: string;
  closed_at: string | null;
}

/** What a comm message carries; buffers are base64. */
export interface CommData {
  data?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  buffers?: string[];
}

/** A recorded message of a comm. */
export interface CommMessage {
  id: number;
  msg_id: string | null;
  msg_type: "comm_open" | "comm_msg" | "comm_close";
  direction: "kernel" | "client";
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
  buffers: string[];
  created_at: string;
}

/** A page of a comm's messages in the kernel's order; `next` is what `after` takes. */
export interface CommMessages {
  messages: CommMessage[];
  next: number | null;
  state: "open" | "closed";
  last_message_id: number;
  dropped_through: number;
}

/** A file, notebook or folder; `content` and `format` are null where it was not asked for. */
export interface Contents {
  name: string;
  path: string;
  type: "directory" | "file" | "notebook";
  writable: boolean;
  created: string;
  last_modified: string;
  size?: number | null;
  mimetype: string | null;
  content: unknown;
  format: "text" | "base64" | "json" | null;
  hash?: string | null;
  hash_algorithm?: string | null;
  message?: string;
}

/** A notebook to convert. */
export interface ConvertNotebook {
  name?: string;
  content: Record<string, unknown>;
}

/** What to create: an untitled thing, or a copy. */
export interface CreateContents {
  copy_from?: string;
  ext?: string;
  type?: string;
}

/** A token to make: for oneself, by an administrator for any user. */
export interface CreateToken {
  name?: string;
  scopes?: string[];
  user?: string;
  expires_at?: string;
}

/** A user to make; with a password they can log in by name. */
export interface CreateUser {
  name: string;
  display_name?: string;
  admin?: boolean;
  password?: string;
}

/** A cell of a notebook, with the version of its source. */
export interface DocumentCell {
  id: string;
  type: "code" | "markdown" | "raw";
  source: string;
  version: number;
  metadata: Record<string, unknown>;
  execution_count: number | null;
  execution_state: string;
  execution_id: string | null;
}

/** A notebook's cells in its order. */
export interface DocumentCells {
  document_id: string;
  path: string | null;
  version: number;
  cells: DocumentCell[];
}

/** A change of a document: who, when, and what it did to which cell. */
export interface DocumentChange {
  version: number;
  at: string;
  user: string | null;
  origin: string;
  edits: number;
  undoes: number[] | null;
  size_bytes: number;
  cells: Record<string, string[]>;
}

/** A document as it was at a version: a notebook, or a text. */
export interface DocumentContent {
  document_id: string;
  version: number;
  content: Record<string, unknown> | string;
}

/** A document's changes, the latest first. */
export interface DocumentHistory {
  document_id: string;
  version: number;
  compacted_version: number;
  changes: DocumentChange[];
}

/** A cell after an edit, with its place and the document's version. */
export interface EditedCell {
  id: string;
  type: "code" | "markdown" | "raw";
  source: string;
  version: number;
  metadata: Record<string, unknown>;
  execution_count: number | null;
  execution_state: string;
  execution_id: string | null;
  document_id: string;
  document_version: number;
  position: number;
}

/** Why a request failed: `message` for a person, `reason` if there is more to say. */
export interface Error {
  message: string;
  reason: unknown;
}

/** An event of a registered schema; `timestamp` is a time with offset and Z. */
export interface Event {
  schema_id: string;
  version: string | number;
  data: Record<string, unknown>;
  timestamp?: string;
}

/** What to run: `code`, or `cell_id` with `path` or `document_id`. */
export interface Execute {
  code?: string;
  cell_id?: string;
  path?: string;
  document_id?: string;
  cell_version?: number;
  silent?: boolean;
  store_history?: boolean;
  stop_on_error?: boolean;
  allow_stdin?: boolean;
  user_expressions?: Record<string, unknown>;
  idempotency_key?: string;
}

/** One run of one piece of code. */
export interface Execution {
  id: string;
  seq: number;
  kernel_id: string;
  incarnation: number;
  session_id: string | null;
  document_id: string | null;
  path: string | null;
  cell_id: string | null;
  cell_version: number | null;
  actor: string | null;
  run_as: string;
  client: string;
  msg_id: string;
  idempotency_key: string | null;
  code: string;
  source_hash: string;
  silent: boolean;
  store_history: boolean;
  stop_on_error: boolean;
  allow_stdin: boolean;
  user_expressions: Record<string, unknown>;
  status: "queued" | "running" | "ok" | "error" | "aborted" | "cancelled" | "interrupted";
  reason: string | null;
  execution_count: number | null;
  queued_at: string;
  started_at: string | null;
  finished_at: string | null;
  ename: string | null;
  evalue: string | null;
  traceback: string[] | null;
  reply: Record<string, unknown> | null;
  output_bytes: number;
  input_request: InputRequest | null;
  outputs?: Record<string, unknown>[];
}

/** Executions, newest first, and the cursor of the next page. */
export interface Executions {
  executions: Execution[];
  next: string | null;
}

/** A format of nbconvert. */
export interface Exporter {
  output_mimetype: string;
}

/** A page of a table's records; `next` is for `after`, `cursor` what a feed resumes at. */
export interface FeedPage {
  table: string;
  next: string | null;
  cursor: string;
  records: Record<string, unknown>[];
}

/** A table that can be followed: its id's columns, what is sent and told of, its filters. */
export interface FeedTable {
  table: string;
  id: string[];
  columns: string[];
  announced: string[];
  filters: string[];
}

/** The tables that can be followed. */
export interface FeedTables {
  tables: FeedTable[];
}

/** A permission to give, to one of `user`, `group` and `everyone`. */
export interface Grant {
  path?: string;
  kernel_id?: string;
  role?: "viewer" | "runner" | "editor" | "owner";
  actions?: ("read" | "write" | "execute" | "share")[];
  expires_at?: string;
  resource?: "server";
  user?: string;
  group?: string;
  everyone?: boolean;
}

/** A group, with the names of the members that the asker may know. */
export interface Group {
  id: string;
  name: string;
  members: string[];
}

/** A group's name. */
export interface GroupName {
  id: string;
  name: string;
}

/** An entry of the help menu. */
export interface HelpLink {
  text: string;
  url: string;
}

/** A person, as other people are shown them. */
export interface IdentityModel {
  username: string;
  name: string;
  display_name: string;
  initials: string | null;
  avatar_url: string | null;
  color: string | null;
}

/** A question that running code waits for. */
export interface InputRequest {
  id: string;
  prompt: string;
  password: boolean;
  created_at: string;
}

/** A cell to insert, at the end unless a place is given. */
export interface InsertCell {
  index?: number;
  before?: string;
  after?: string;
  id?: string;
  type?: "code" | "markdown" | "raw";
  source?: string;
  metadata?: Record<string, unknown>;
  attachments?: Record<string, unknown>;
}

/** A kernel; `reason` says why it is dead or was restarted. */
export interface Kernel {
  id: string;
  name: string;
  last_activity: string;
  execution_state: string;
  connections: number;
  reason?: string;
}

/** A kernel that can be started. */
export interface KernelSpec {
  name: string;
  spec: KernelSpecFile;
  resources: Record<string, string>;
}

/** A kernel.json. */
export interface KernelSpecFile {
  argv: string[];
  display_name: string;
  language: string;
  interrupt_mode?: string;
  codemirror_mode?: string | Record<string, unknown>;
  env?: Record<string, string>;
  help_links?: HelpLink[];
  metadata?: Record<string, unknown>;
}

/** All kernels that can be started. */
export interface KernelSpecs {
  default: string;
  kernelspecs: Record<string, KernelSpec>;
}

/** A new link with its code, which is shown this once. */
export interface MadeShareLink {
  id: string;
  prefix: string;
  resource: "contents" | "kernels" | "server";
  path: string | null;
  kernel_id: string | null;
  actions: ("read" | "write" | "execute" | "share")[];
  role: "viewer" | "runner" | "editor" | "owner" | null;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
  code: string;
}

/** A new token with its secret, which is shown this once. */
export interface MadeToken {
  id: string;
  user: string;
  kind: string;
  name: string;
  prefix: string;
  scopes: string[] | null;
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
  token: string;
}

/** The asker, and what they may do of what they asked about. */
export interface Me {
  identity: IdentityModel;
  permissions: Record<string, string[]>;
}

/** A name for a group. */
export interface NameGroup {
  name: string;
}

/** A name for a version: that of `version`, of the time `at`, or else the present one. */
export interface NameVersion {
  name: string;
  version?: number;
  at?: string;
}

/** A version of a document that somebody named. */
export interface NamedVersion {
  name: string;
  version: number;
  user: string | null;
  at: string;
}

/** A document's named versions, the latest first. */
export interface NamedVersions {
  versions: NamedVersion[];
}

/** A comm to open from the client's side. */
export interface OpenComm {
  data?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  buffers?: string[];
  target_name: string;
  comm_id?: string;
  target_module?: string;
}

/** What is new of an execution's outputs. */
export interface OutputPieces {
  outputs: Record<string, unknown>[];
  cursor: string;
  execution: Execution;
}

/** Where what a file had is kept, null when nothing had to be overwritten. */
export interface Overwritten {
  kept: string | null;
}

/** What a user, a group or everyone may do to contents, a kernel or the server. */
export interface Permission {
  id: string;
  subject: string;
  user: string | null;
  group: string | null;
  resource: "contents" | "kernels" | "server";
  path: string | null;
  kernel_id: string | null;
  actions: ("read" | "write" | "execute" | "share")[];
  role: "viewer" | "runner" | "editor" | "owner" | null;
  granted_by: string | null;
  share_link_id: string | null;
  created_at: string;
  expires_at: string | null;
}

/** The permissions that hold on a target, with its owner; without one, the asker's. */
export interface Permissions {
  permissions: Permission[];
  owner?: string | null;
  admin?: boolean;
  home?: string | null;
}

/** The new path. */
export interface RenameContents {
  path: string;
}

/** A path as one scope has it. */
export interface Resolved {
  scope: string;
  path: string;
}

/** What a path stands for. */
export interface ResolvedPath {
  resolved: Resolved[];
  unresolved?: Unresolved[];
}

/** Which version to restore: one of its number, a time and its name. */
export interface Restore {
  version?: number;
  at?: string;
  name?: string;
}

/** The version that was restored, and the version that it is now. */
export interface Restored {
  restored: number;
  version: number;
}

/** Which cells of the session's notebook to run. */
export interface RunCells {
  cells: "all" | string[];
  stop_on_error?: boolean;
  allow_stdin?: boolean;
  silent?: boolean;
  store_history?: boolean;
  user_expressions?: Record<string, unknown>;
}

/** What to save; `chunk` numbers the parts of an upload, the last being -1. */
export interface SaveContents {
  type: "directory" | "file" | "notebook";
  format?: "text" | "base64" | "json" | null;
  content?: unknown;
  chunk?: number;
  name?: string;
  path?: string;
}

/** A message that was sent on a comm. */
export interface SentCommMessage {
  msg_id: string;
  comm: string;
}

/** A path and the kernel that serves it. */
export interface Session {
  id: string;
  path: string;
  name: string;
  type: string;
  kernel: Kernel;
  notebook?: SessionNotebook;
}

/** What a session is, or is to become; a new one needs `path` and `type`. */
export interface SessionBody {
  path?: string;
  name?: string;
  type?: string;
  kernel?: WantedKernel;
}

/** The notebook of a session. */
export interface SessionNotebook {
  path: string;
  name: string;
}

/** A link that gives whoever accepts it a permission, without its code. */
export interface ShareLink {
  id: string;
  prefix: string;
  resource: "contents" | "kernels" | "server";
  path: string | null;
  kernel_id: string | null;
  actions: ("read" | "write" | "execute" | "share")[];
  role: "viewer" | "runner" | "editor" | "owner" | null;
  created_at: string;
  expires_at: string | null;
  revoked_at: string | null;
}

/** What is shared (`path` or `kernel_id`), and as which role or for which actions. */
export interface ShareTarget {
  path?: string;
  kernel_id?: string;
  role?: "viewer" | "runner" | "editor" | "owner";
  actions?: ("read" | "write" | "execute" | "share")[];
  expires_at?: string;
}

/** A change of a text, in characters: at `offset` so many deleted, a text inserted. */
export interface Splice {
  offset: number;
  delete?: number;
  insert?: string;
}

/** What to start: the kernelspec's name, and the folder to run in. */
export interface StartKernel {
  name?: string | null;
  path?: string | null;
  env?: Record<string, string>;
}

/** A terminal to start. */
export interface StartTerminal {
  name?: string | null;
  cwd?: string | null;
}

/** Executions in the order in which they will run. */
export interface StartedExecutions {
  executions: Execution[];
}

/** How many steps to undo or redo (1). */
export interface TakeBack {
  steps?: number;
}

/** What an undo or redo did (`done`: 0 or 1), and what is possible after it. */
export interface TakenBack {
  undo: number;
  redo: number;
  done: number;
  version: number;
}

/** A terminal. */
export interface Terminal {
  name: string;
  last_activity: string;
}

/** A token or a log-in, without its secret; no scopes are all that its user may. */
export interface Token {
  id: string;
  user: string;
  kind: string;
  name: string;
  prefix: string;
  scopes: string[] | null;
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
}

/** How many steps the asker can undo and redo. */
export interface UndoSteps {
  undo: number;
  redo: number;
}

/** Why one scope could not be asked. */
export interface Unresolved {
  scope: string;
  reason: string;
}

/** The asker after a change. */
export interface UpdatedMe {
  status: "success";
  identity: IdentityModel;
}

/** A user; all but the names is for administrators only. */
export interface User {
  id: string;
  name: string;
  display_name: string;
  admin?: boolean;
  home?: string | null;
  created_at?: string;
  disabled_at?: string | null;
  hub_name?: string | null;
}

/** The server's version. */
export interface Version {
  version: string;
}

/** A version's name. */
export interface VersionName {
  name: string;
  version: number;
}

/** A running kernel by `id`, or one to be started by its kernelspec's `name`. */
export interface WantedKernel {
  id?: string | null;
  name?: string | null;
}
