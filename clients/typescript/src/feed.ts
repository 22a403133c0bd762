// The feed's protocol (docs/feed.md) as a state machine, without any network.

import { Batch, type Change, idOf, type JsonRecord } from "./changes.js";
import { type DatastoreError, FeedError } from "./errors.js";
import type { ClientMessage, FilterValue, ServerMessage, WireChange } from "./messages.js";

/** Who is told of a subscription's records. */
export interface Sink {
  /** The records are whole. */
  completed(): void;
  /** The records have changed. */
  changed(changes: readonly Change<JsonRecord>[]): void;
  /** No more changes will come. */
  failed(error: DatastoreError): void;
}

/** What is followed of one table, and its records as they are now. */
export class Subscription {
  readonly records = new Map<string, JsonRecord>();
  readonly sinks = new Set<Sink>();
  /** Where to resume; null until a whole snapshot is there. */
  cursor: string | null = null;
  /** A snapshot that comes in pages; the records stay what they were until it is whole. */
  staged: Map<string, JsonRecord> | null = null;
  /** Whether the server has taken it on this connection: until then, positions are not its own. */
  accepted = false;
  /** Whether the records have been whole once. */
  complete = false;

  constructor(
    readonly id: string,
    readonly table: string,
    readonly where: Readonly<Record<string, FilterValue>>,
    readonly columns: readonly string[] | null,
    readonly key: readonly string[],
  ) {}

  /** The message that subscribes, or resumes. */
  message(): ClientMessage {
    return {
      type: "subscribe",
      id: this.id,
      table: this.table,
      where: this.where,
      ...(this.columns === null ? {} : { columns: this.columns }),
      ...(this.cursor === null ? {} : { cursor: this.cursor }),
    };
  }

  /** Forget the position: a snapshot must come. */
  void(): void {
    this.cursor = null;
    this.staged = null;
  }

  /** Take one change over, and note it in `batch` if listeners are to see it. */
  apply(change: WireChange, batch: Batch): void {
    const record = change.op === "upsert" ? (change.record ?? null) : null;
    if (this.staged !== null) {
      put(this.staged, change.id, record);
    } else if (this.cursor !== null) {
      const announced =
        record === null || this.columns !== null
          ? []
          : (change.changed ?? []).filter((name) => !Object.hasOwn(record, name));
      batch.add(change.id, this.records.get(change.id) ?? null, record, announced);
      put(this.records, change.id, record);
    }
    // Without a cursor the first page of a snapshot is still to come, and has this change.
  }

  /** Put the snapshot in the records' place; return what differs. */
  finish(cursor: string | null): Change<JsonRecord>[] {
    const fresh = this.staged ?? new Map<string, JsonRecord>();
    this.staged = null;
    const batch = new Batch();
    for (const [id, record] of this.records) {
      if (!fresh.has(id)) {
        batch.add(id, record, null);
      }
    }
    for (const [id, record] of fresh) {
      batch.add(id, this.records.get(id) ?? null, record);
    }
    // The same map: live tables are views of it.
    this.records.clear();
    for (const [id, record] of fresh) {
      this.records.set(id, record);
    }
    this.cursor = cursor;
    return batch.take();
  }
}

function put(records: Map<string, JsonRecord>, id: string, record: JsonRecord | null): void {
  if (record === null) {
    records.delete(id);
  } else {
    records.set(id, record);
  }
}

/** All subscriptions of one client, over any number of connections. */
export class Feed {
  readonly subscriptions = new Map<string, Subscription>();
  /** The server's, null while not connected. */
  heartbeatSeconds: number | null = null;
  /** The id of this connection's presence record, null while not connected. */
  connection: string | null = null;
  /** False when the server says that it cannot reach its database. */
  reachable = true;
  #count = 0;
  #presence: JsonRecord | null = null;
  #changes: WireChange[] = [];

  /** `send` is called with what is to be said, only while connected. */
  constructor(readonly send: (message: ClientMessage) => void) {}

  // --- what the client wants

  /** A new subscription; it is asked for now, or with the next connection. */
  subscribe(
    table: string,
    where: Readonly<Record<string, FilterValue>>,
    columns: readonly string[] | null,
    key: readonly string[],
  ): Subscription {
    this.#count += 1;
    const made = new Subscription(`s${this.#count}`, table, where, columns, key);
    this.subscriptions.set(made.id, made);
    this.#say(made.message());
    return made;
  }

  /** Forget a subscription; what still comes of it is ignored. */
  unsubscribe(subscription: Subscription): void {
    if (this.subscriptions.delete(subscription.id)) {
      this.#say({ type: "unsubscribe", id: subscription.id });
    }
  }

  /** Say what this client looks at, now and after each connection. */
  sayPresence(data: JsonRecord): void {
    this.#presence = data;
    this.#say({ type: "presence", data });
  }

  #say(message: ClientMessage): void {
    if (this.connection !== null) {
      this.send(message);
    }
  }

  // --- what happens

  /** The connection has ended. */
  lost(): void {
    this.connection = null;
    this.heartbeatSeconds = null;
    this.#changes = [];
    for (const subscription of this.subscriptions.values()) {
      subscription.staged = null;
      subscription.accepted = false;
    }
  }

  /** End all subscriptions. */
  fail(error: DatastoreError): void {
    this.lost();
    const failed = [...this.subscriptions.values()];
    this.subscriptions.clear();
    for (const subscription of failed) {
      for (const sink of [...subscription.sinks]) {
        sink.failed(error);
      }
    }
  }

  /** Take a message of the server over; types that are not known are ignored. */
  received(message: ServerMessage): void {
    switch (message.type) {
      case "hello":
        this.connection = message.connection;
        this.heartbeatSeconds = message.heartbeat_seconds;
        this.reachable = true;
        if (this.#presence !== null) {
          this.#say({ type: "presence", data: this.#presence });
        }
        for (const subscription of this.subscriptions.values()) {
          this.#say(subscription.message());
        }
        break;
      case "subscribed": {
        const subscription = this.subscriptions.get(message.id);
        if (subscription !== undefined) {
          subscription.accepted = true;
          if (!message.resumed) {
            subscription.void();
          }
        }
        break;
      }
      case "must_refetch":
        this.subscriptions.get(message.id)?.void();
        break;
      case "snapshot":
        this.#snapshot(message);
        break;
      case "changes":
        this.#take(message);
        break;
      case "heartbeat":
        this.reachable = message.live;
        this.#moveOn(message.cursor ?? null);
        break;
      case "error":
        this.#refused(message);
        break;
      default:
        break;
    }
  }

  #snapshot(message: ServerMessage & { type: "snapshot" }): void {
    const subscription = this.subscriptions.get(message.id);
    if (subscription === undefined) {
      return;
    }
    if (message.first) {
      subscription.void();
      subscription.staged = new Map();
    }
    if (subscription.staged === null) {
      return;
    }
    for (const record of message.records) {
      subscription.staged.set(idOf(record, subscription.key), record);
    }
    if (message.more) {
      return;
    }
    const changes = subscription.finish(message.cursor);
    if (subscription.complete) {
      tellChanged(subscription, changes);
      return;
    }
    subscription.complete = true;
    for (const sink of [...subscription.sinks]) {
      sink.completed();
    }
  }

  #take(message: ServerMessage & { type: "changes" }): void {
    this.#changes.push(...message.transactions.flatMap((transaction) => transaction.changes));
    if (message.more) {
      return;
    }
    const changes = this.#changes;
    this.#changes = [];
    const batches = new Map<Subscription, Batch>();
    for (const change of changes) {
      for (const id of change.subs) {
        const subscription = this.subscriptions.get(id);
        if (subscription !== undefined) {
          const batch = batches.get(subscription) ?? new Batch();
          batches.set(subscription, batch);
          subscription.apply(change, batch);
        }
      }
    }
    this.#moveOn(message.cursor);
    // Listeners are told once all records are what they are to be.
    const told = [...batches].map(([subscription, batch]) => [subscription, batch.take()] as const);
    for (const [subscription, changed] of told) {
      tellChanged(subscription, changed);
    }
  }

  /** Note a position for all subscriptions that are complete. */
  #moveOn(cursor: string | null): void {
    if (cursor === null) {
      return;
    }
    for (const subscription of this.subscriptions.values()) {
      if (subscription.cursor !== null && subscription.accepted) {
        subscription.cursor = cursor;
      }
    }
  }

  #refused(message: ServerMessage & { type: "error" }): void {
    const subscription = this.subscriptions.get(message.id ?? "");
    if (subscription === undefined) {
      return;
    }
    this.subscriptions.delete(subscription.id);
    const error = new FeedError(message.message, message.reason);
    for (const sink of [...subscription.sinks]) {
      sink.failed(error);
    }
  }
}

function tellChanged(subscription: Subscription, changes: readonly Change<JsonRecord>[]): void {
  if (changes.length > 0) {
    for (const sink of [...subscription.sinks]) {
      sink.changed(changes);
    }
  }
}
