// Made by `jupyter-datastore typescript --of records` from the models' published columns.

/** A cell of a notebook, as its document says. */
export interface CellRecord {
  id: string;
  notebook_id: string;
  cell_id: string;
  position: number;
  cell_type: "code" | "markdown" | "raw";
  source: string;
  version: number;
  metadata: Record<string, unknown>;
  extra: Record<string, unknown>;
  execution_count: number | null;
  execution_state: string;
  execution_id: string | null;
  attachments?: Record<string, unknown> | null;
}

/** A copy of a file that the contents manager keeps, as it was last listed or made here. */
export interface CheckpointRecord {
  id: string;
  content_id: string;
  checkpoint_id: string;
  last_modified: string;
}

/** A message on a comm, in the kernel's order; kept while the comm is open. */
export interface CommMessageRecord {
  id: number;
  comm_id: string;
  execution_id: string | null;
  direction: "kernel" | "client";
  actor_id: string | null;
  msg_id: string | null;
  msg_type: "comm_open" | "comm_msg" | "comm_close";
  data: Record<string, unknown>;
  metadata: Record<string, unknown>;
  size_bytes: number;
  created_at: string;
  buffers?: string[];
}

/** A comm (the channel behind a widget) between a kernel and its clients. */
export interface CommRecord {
  id: string;
  kernel_id: string;
  incarnation: number;
  comm_id: string;
  target_name: string;
  target_module: string | null;
  state: "open" | "closed";
  reason: string | null;
  execution_id: string | null;
  last_message_id: number;
  dropped_through: number;
  opened_at: string;
  closed_at: string | null;
  data?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  buffers?: string[];
}

/** One section of a user's frontend settings, as `/api/config/{name}` changes it. */
export interface ConfigSectionRecord {
  user_id: string;
  name: string;
  data: Record<string, unknown>;
  updated_at: string;
}

/** A file under the root directory, as it was last seen on disk. */
export interface ContentRecord {
  id: string;
  parent_id: string | null;
  path: string;
  name: string;
  type: "notebook" | "file" | "directory";
  format: string | null;
  mimetype: string | null;
  writable: boolean;
  size: number | null;
  created: string | null;
  last_modified: string | null;
  hash: string | null;
  hash_algorithm: string | null;
  missing_since: string | null;
}

/** A fork of a document, as jupyter-collaboration has them: edited apart, merged or dropped. */
export interface DocumentForkRecord {
  id: string;
  document_id: string;
  title: string;
  description: string;
  synchronize: boolean;
  actor_id: string | null;
  created_at: string;
}

/** A version of a document that somebody gave a name; `state` is its whole Yjs state. */
export interface DocumentVersionRecord {
  id: string;
  document_id: string;
  version: number;
  name: string;
  actor_id: string | null;
  created_at: string;
}

/** An open notebook or text file: its merge state's version and what is on disk. */
export interface DocumentRecord {
  id: string;
  content_id: string;
  type: "notebook" | "file";
  format: string;
  version: number;
  saved_version: number;
  saved_at: string | null;
  save_error: string | null;
  created_at: string;
}

/** One run of one piece of code on one incarnation of one kernel. */
export interface ExecutionRecord {
  id: string;
  seq: number;
  kernel_id: string;
  incarnation: number;
  session_id: string | null;
  document_id: string | null;
  path: string | null;
  cell_id: string | null;
  cell_version: number | null;
  actor_id: string | null;
  run_as_id: string;
  client: string;
  msg_id: string;
  code: string;
  source_hash: string;
  silent: boolean;
  store_history: boolean;
  stop_on_error: boolean;
  allow_stdin: boolean;
  status: "queued" | "running" | "ok" | "error" | "aborted" | "cancelled" | "interrupted";
  reason: string | null;
  execution_count: number | null;
  queued_at: string;
  started_at: string | null;
  finished_at: string | null;
  ename: string | null;
  evalue: string | null;
  traceback: string[] | null;
  output_bytes: number;
  user_expressions?: Record<string, unknown>;
  reply?: Record<string, unknown> | null;
}

/** That a user is in a group. */
export interface GroupMemberRecord {
  group_id: string;
  user_id: string;
  created_at: string;
}

/** Users who are given permissions together; who is in one with a `hub_name` says the hub. */
export interface GroupRecord {
  id: string;
  name: string;
  created_at: string;
}

/** A question that running code asks (`input()`, `getpass()`); anyone allowed may answer, once. */
export interface InputRequestRecord {
  id: string;
  execution_id: string;
  kernel_id: string;
  msg_id: string;
  prompt: string;
  password: boolean;
  status: "pending" | "answered" | "cancelled";
  answered_by_id: string | null;
  created_at: string;
  answered_at: string | null;
}

/** A kernel, living or ended; history refers to ended ones, so rows stay. */
export interface KernelRecord {
  id: string;
  name: string;
  path: string;
  execution_state:
    | "unknown"
    | "starting"
    | "idle"
    | "busy"
    | "terminating"
    | "restarting"
    | "autorestarting"
    | "dead";
  reason: string | null;
  incarnation: number;
  connections: number;
  owner_id: string;
  server_id: string | null;
  kernel_info: Record<string, unknown> | null;
  created_at: string;
  last_activity: string;
  ended_at: string | null;
}

/** A kernel that can be started, as Jupyter found it when it was last listed. */
export interface KernelspecRecord {
  id: string;
  name: string;
  is_default: boolean;
  spec: Record<string, unknown>;
  resources: Record<string, unknown>;
}

/** A person's settings of one plugin of JupyterLab. */
export interface LabSettingRecord {
  user_id: string;
  schema_id: string;
  raw: string;
  settings: Record<string, unknown>;
  created_at: string;
  last_modified: string;
}

/** A person's layout of one JupyterLab workspace: what is open, where, and how. */
export interface LabWorkspaceRecord {
  user_id: string;
  name: string;
  created_at: string;
  last_modified: string;
  data?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
}

/** A notebook's own fields; `extra` are top-level keys that nbformat does not define. */
export interface NotebookRecord {
  id: string;
  nbformat: number;
  nbformat_minor: number;
  metadata: Record<string, unknown>;
  extra: Record<string, unknown>;
}

/** One output message of an execution, or an output that a file brought with it. */
export interface OutputRecord {
  id: number;
  execution_id: string | null;
  seq: number;
  kernel_id: string | null;
  cell_id: string | null;
  output_type: "stream" | "display_data" | "execute_result" | "error" | "unknown";
  name: string | null;
  text: string | null;
  data: Record<string, unknown> | null;
  metadata: Record<string, unknown> | null;
  execution_count: number | null;
  ename: string | null;
  evalue: string | null;
  traceback: string[] | null;
  extra: Record<string, unknown> | null;
  display_id: string | null;
  comm_id: string | null;
  size_bytes: number;
  created_at: string;
  updated_at: string | null;
  cleared_at: string | null;
}

/** A connection to the feed: who it is, and what it said it looks at. */
export interface PresenceRecord {
  id: string;
  user_id: string;
  server_id: string;
  client: string | null;
  data: Record<string, unknown> | null;
  connected_at: string;
  updated_at: string;
}

/** One run of the server; a kernel's host. */
export interface ServerProcessRecord {
  id: string;
  hostname: string;
  version: string;
  started_at: string;
  stopped_at: string | null;
}

/** A path (notebook, console or file) and the kernel that serves it. */
export interface SessionRecord {
  id: string;
  path: string;
  name: string;
  type: string;
  kernel_id: string;
  document_id: string | null;
  owner_id: string;
  created_at: string;
  ended_at: string | null;
}

/** A shell on a pseudo-terminal of one server process, living or ended. */
export interface TerminalRecord {
  id: string;
  name: string;
  owner_id: string;
  server_id: string | null;
  created_at: string;
  last_activity: string;
  ended_at: string | null;
}

/** The text of an open text file, as its document says, with line feeds as line ends. */
export interface TextContentRecord {
  id: string;
  text?: string;
}

/** A person or service that acts; `name` is what Jupyter calls the username. */
export interface UserRecord {
  id: string;
  name: string;
  full_name: string | null;
  display_name: string | null;
  initials: string | null;
  avatar_url: string | null;
  color: string | null;
  admin: boolean;
  created_at: string;
  disabled_at: string | null;
}

/** The tables that can be followed: their records and filters. */
export interface Tables {
  cells: {
    record: CellRecord;
    filter: "id" | "notebook_id" | "cell_id" | "execution_id";
  };
  checkpoints: {
    record: CheckpointRecord;
    filter: "id" | "content_id";
  };
  comm_messages: {
    record: CommMessageRecord;
    filter: "id" | "comm_id" | "execution_id";
  };
  comms: {
    record: CommRecord;
    filter: "id" | "kernel_id" | "comm_id" | "target_name" | "state" | "execution_id";
  };
  config_sections: {
    record: ConfigSectionRecord;
    filter: "user_id" | "name";
  };
  contents: {
    record: ContentRecord;
    filter: "id" | "parent_id" | "path" | "type";
  };
  document_forks: {
    record: DocumentForkRecord;
    filter: "id" | "document_id";
  };
  document_versions: {
    record: DocumentVersionRecord;
    filter: "id" | "document_id";
  };
  documents: {
    record: DocumentRecord;
    filter: "id" | "content_id";
  };
  executions: {
    record: ExecutionRecord;
    filter:
      | "id"
      | "kernel_id"
      | "session_id"
      | "document_id"
      | "path"
      | "cell_id"
      | "actor_id"
      | "status";
  };
  group_members: {
    record: GroupMemberRecord;
    filter: "group_id" | "user_id";
  };
  groups: {
    record: GroupRecord;
    filter: "id" | "name";
  };
  input_requests: {
    record: InputRequestRecord;
    filter: "id" | "execution_id" | "kernel_id" | "status";
  };
  kernels: {
    record: KernelRecord;
    filter: "id" | "name" | "path" | "owner_id" | "server_id";
  };
  kernelspecs: {
    record: KernelspecRecord;
    filter: "id" | "name";
  };
  lab_settings: {
    record: LabSettingRecord;
    filter: "user_id" | "schema_id";
  };
  lab_workspaces: {
    record: LabWorkspaceRecord;
    filter: "user_id" | "name";
  };
  notebooks: {
    record: NotebookRecord;
    filter: "id";
  };
  outputs: {
    record: OutputRecord;
    filter: "id" | "execution_id" | "kernel_id" | "cell_id" | "comm_id";
  };
  presence: {
    record: PresenceRecord;
    filter: "id" | "user_id" | "server_id";
  };
  server_status: {
    record: ServerProcessRecord;
    filter: "id";
  };
  sessions: {
    record: SessionRecord;
    filter: "id" | "path" | "type" | "kernel_id" | "document_id" | "owner_id";
  };
  terminals: {
    record: TerminalRecord;
    filter: "id" | "name" | "owner_id" | "server_id";
  };
  text_contents: {
    record: TextContentRecord;
    filter: "id";
  };
  users: {
    record: UserRecord;
    filter: "id" | "name";
  };
}

/** The columns that make up a record's id. */
export const ID_COLUMNS: { readonly [table: string]: readonly string[] } = {
  cells: ["id"],
  checkpoints: ["id"],
  comm_messages: ["id"],
  comms: ["id"],
  config_sections: ["user_id", "name"],
  contents: ["id"],
  document_forks: ["id"],
  document_versions: ["id"],
  documents: ["id"],
  executions: ["id"],
  group_members: ["group_id", "user_id"],
  groups: ["id"],
  input_requests: ["id"],
  kernels: ["id"],
  kernelspecs: ["id"],
  lab_settings: ["user_id", "schema_id"],
  lab_workspaces: ["user_id", "name"],
  notebooks: ["id"],
  outputs: ["id"],
  presence: ["id"],
  server_status: ["id"],
  sessions: ["id"],
  terminals: ["id"],
  text_contents: ["id"],
  users: ["id"],
};
