// The client: a server's tables, and its actions.

import {
  Comms,
  Config,
  Contents,
  Documents,
  Executions,
  Kernels,
  Kernelspecs,
  People,
  Server,
  Sessions,
  Terminals,
} from "./actions.js";
import type { JsonRecord } from "./changes.js";
import { Connection, type SocketClass, type Status } from "./connection.js";
import { ApiError, ClosedError } from "./errors.js";
import type { Subscription } from "./feed.js";
import { Http, type RequestOptions } from "./http.js";
import type { FilterValue } from "./messages.js";
import { ID_COLUMNS, type Tables } from "./records.js";
import { type Page, type Source, Table } from "./table.js";

/** How to reach a server, and with what. */
export interface DatastoreOptions {
  /** Its token; without one a browser's login (cookie) counts. */
  token?: string;
  /** What others see of this client in the table `presence`. */
  name?: string;
  /** The websocket's class where there is no global one (node 20): that of the package `ws`. */
  WebSocket?: SocketClass;
  fetch?: typeof fetch;
  /** Called with what a listener threw; the console's error by default. */
  onError?: (error: unknown) => void;
}

type PathFilter<F> = F extends "path" ? "path_prefix" : never;

/** A Jupyter Datastore server. */
export class Datastore {
  readonly kernelspecs: Kernelspecs;
  readonly kernels: Kernels;
  readonly sessions: Sessions;
  readonly executions: Executions;
  readonly comms: Comms;
  readonly documents: Documents;
  readonly contents: Contents;
  readonly terminals: Terminals;
  readonly config: Config;
  readonly people: People;
  readonly server: Server;
  readonly #http: Http;
  readonly #connection: Connection;
  readonly #shared = new Map<string, Subscription>();
  readonly #keys = new Map<string, readonly string[]>(Object.entries(ID_COLUMNS));
  readonly #statusListeners = new Set<(status: Status) => void>();
  readonly #source: Source;
  #closed = false;

  /** The server at `url` (with its base URL), `location.origin` for instance. */
  constructor(url: string, options: DatastoreOptions = {}) {
    const base = url.replace(/\/+$/, "");
    const token = options.token ?? null;
    const http = new Http(base, token, options.fetch ?? globalThis.fetch.bind(globalThis));
    const report = options.onError ?? ((error: unknown) => console.error(error));
    this.#http = http;
    this.#connection = new Connection(
      feedAddress(base, token, options.name),
      () => options.WebSocket ?? globalWebSocket(),
      () => statusOf(http),
      (status) => {
        for (const listener of [...this.#statusListeners]) {
          listener(status);
        }
      },
    );
    this.#source = {
      subscription: (table, where, columns) => this.#subscription(table, where, columns),
      left: (subscription) => this.#left(subscription),
      page: (table, where, columns, limit, after) =>
        this.#page(table, where, columns, limit, after),
      report,
    };
    this.kernelspecs = new Kernelspecs(http);
    this.kernels = new Kernels(http);
    this.sessions = new Sessions(http);
    this.executions = new Executions(http);
    this.comms = new Comms(http);
    this.documents = new Documents(http);
    this.contents = new Contents(http);
    this.terminals = new Terminals(http);
    this.config = new Config(http);
    this.people = new People(http);
    this.server = new Server(http);
  }

  /** A table to follow or to read; tables that this package does not know are untyped. */
  table<N extends keyof Tables>(
    name: N,
  ): Table<Tables[N]["record"], Tables[N]["filter"] | PathFilter<Tables[N]["filter"]>>;
  table(name: string): Table<JsonRecord>;
  table(name: string): Table<JsonRecord> {
    return new Table<JsonRecord>(this.#source, name);
  }

  /** Call what has no method here: `request("POST /api/x/{id}", { names: { id }, body })`. */
  request<T = unknown>(operation: string, options: RequestOptions = {}): Promise<T> {
    return this.#http.call<T>(operation, options);
  }

  /** How it stands with the feed's connection. */
  get status(): Status {
    return this.#connection.status;
  }

  /** Call `listener` with each new status; return what ends that. */
  listenStatus(listener: (status: Status) => void): () => void {
    this.#statusListeners.add(listener);
    return () => this.#statusListeners.delete(listener);
  }

  /** Say what this client looks at (`path`, `cell_id`, `kernel_id`, `state`). */
  sayPresence(data: JsonRecord): void {
    this.#connection.feed.sayPresence(data);
    this.#follow();
  }

  /** The id of this client's record in the table `presence`, while it is connected. */
  get presenceId(): string | null {
    return this.#connection.feed.connection;
  }

  /** End the feed's connection and all live tables. */
  close(): void {
    this.#closed = true;
    this.#shared.clear();
    this.#connection.stop(new ClosedError("The store was closed"));
  }

  #follow(): void {
    if (this.#closed) {
      throw new ClosedError("The store was closed");
    }
    this.#connection.start();
  }

  async #subscription(
    table: string,
    where: Readonly<Record<string, FilterValue>>,
    columns: readonly string[] | null,
  ): Promise<Subscription> {
    if (!this.#keys.has(table)) {
      const described = await this.#http.call<{ tables: { table: string; id: string[] }[] }>(
        "GET /api/datastore/tables",
      );
      for (const known of described.tables) {
        this.#keys.set(known.table, known.id);
      }
    }
    this.#follow();
    const same = sharingKey(table, where, columns);
    const feed = this.#connection.feed;
    const found = this.#shared.get(same);
    if (found !== undefined && feed.subscriptions.has(found.id)) {
      return found;
    }
    const made = feed.subscribe(table, where, columns, this.#keys.get(table) ?? ["id"]);
    this.#shared.set(same, made);
    return made;
  }

  #left(subscription: Subscription): void {
    if (subscription.sinks.size === 0) {
      const { table, where, columns } = subscription;
      this.#shared.delete(sharingKey(table, where, columns));
      this.#connection.feed.unsubscribe(subscription);
    }
  }

  #page<R>(
    table: string,
    where: Readonly<Record<string, FilterValue>>,
    columns: readonly string[] | null,
    limit: number,
    after: string | null,
  ): Promise<Page<R>> {
    const filters = Object.entries(where).map(([name, value]) => [name, String(value)]);
    return this.#http.call<Page<R>>("GET /api/datastore/tables/{table}", {
      names: { table },
      query: { ...Object.fromEntries(filters), limit, after, columns: columns?.join(",") },
    });
  }
}

function feedAddress(base: string, token: string | null, name: string | undefined): string {
  const query = new URLSearchParams();
  if (token !== null) {
    query.set("token", token); // browsers' websockets have no headers
  }
  if (name !== undefined) {
    query.set("client", name);
  }
  const search = query.size > 0 ? `?${query}` : "";
  return `${base.replace(/^http/, "ws")}/api/datastore/feed${search}`;
}

function globalWebSocket(): SocketClass {
  const found = globalThis.WebSocket;
  if (found === undefined) {
    throw new TypeError("There is no WebSocket here: give the option WebSocket (package ws)");
  }
  return found;
}

async function statusOf(http: Http): Promise<number | null> {
  try {
    return (await http.send("GET /api/datastore/tables")).status;
  } catch (error) {
    return error instanceof ApiError ? error.status : null;
  }
}

function sharingKey(
  table: string,
  where: Readonly<Record<string, FilterValue>>,
  columns: readonly string[] | null,
): string {
  const filters = Object.entries(where).sort(([one], [other]) => (one < other ? -1 : 1));
  return JSON.stringify([table, filters, columns]);
}
