// Live tables and actions of a Jupyter Datastore server.

export type { Change, JsonRecord } from "./changes.js";
export type { Socket, SocketClass, Status } from "./connection.js";
export { ApiError, ClosedError, DatastoreError, FeedError, NotAllowedError } from "./errors.js";
export type { RequestOptions } from "./http.js";
export type { FilterValue } from "./messages.js";
export type * from "./records.js";
export type * as shapes from "./shapes.js";
export { Datastore, type DatastoreOptions } from "./store.js";
export { type Listener, LiveTable, type Narrowing, Table } from "./table.js";
