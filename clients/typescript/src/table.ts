// Tables to follow, and live ones: records by id that stay equal to the table.

import { Batch, type Change, type JsonRecord } from "./changes.js";
import { ClosedError, type DatastoreError } from "./errors.js";
import type { Sink, Subscription } from "./feed.js";
import type { FilterValue } from "./messages.js";

/** A page of a plain read. */
export interface Page<R> {
  table: string;
  records: R[];
  next: string | null;
  cursor: string;
}

/** What a table needs of the store. */
export interface Source {
  /** The subscription of a table, shared with others that follow the same. */
  subscription(
    table: string,
    where: Readonly<Record<string, FilterValue>>,
    columns: readonly string[] | null,
  ): Promise<Subscription>;
  /** A live table no longer follows a subscription. */
  left(subscription: Subscription): void;
  /** A page of a plain read. */
  page<R>(
    table: string,
    where: Readonly<Record<string, FilterValue>>,
    columns: readonly string[] | null,
    limit: number,
    after: string | null,
  ): Promise<Page<R>>;
  /** What a listener threw. */
  report(error: unknown): void;
}

/**
 * A table of the server, or a part of it; nothing is asked for yet.
 *
 * The names are those of docs/feed.md; the server refuses what it does not know when the table is
 * opened.
 */
export class Table<R, Filter extends string = string> {
  constructor(
    private readonly source: Source,
    readonly name: string,
    private readonly filters: Readonly<Record<string, FilterValue>> = {},
    private readonly wanted: readonly string[] | null = null,
  ) {}

  /** The part whose columns equal these values (or that is below `path_prefix`). */
  where(filters: Partial<Readonly<Record<Filter, FilterValue>>>): Table<R, Filter> {
    const all = { ...this.filters, ...(filters as Record<string, FilterValue>) };
    return new Table(this.source, this.name, all, this.wanted);
  }

  /** The table with only these columns (and those of the id), some of which may be announced. */
  columns<C extends keyof R & string>(...names: C[]): Table<Pick<Required<R>, C>, Filter> {
    return new Table(this.source, this.name, this.filters, names);
  }

  /** Follow the table. */
  async live(): Promise<LiveTable<R>> {
    const subscription = await this.source.subscription(this.name, this.filters, this.wanted);
    const table = new LiveTable<R>(this.source, subscription);
    try {
      await table.waitFor(() => subscription.complete);
    } catch (error) {
      table.close();
      throw error;
    }
    return table;
  }

  /** The records as they are now, by a plain request for each `limit` of them. */
  async read(limit = 1000): Promise<R[]> {
    const records: R[] = [];
    for await (const record of this.scan(limit)) {
      records.push(record);
    }
    return records;
  }

  /** The records in the order of their ids, read a page at a time. */
  async *scan(limit = 1000): AsyncGenerator<R, void, undefined> {
    let after: string | null = null;
    do {
      const page: Page<R> = await this.source.page<R>(
        this.name,
        this.filters,
        this.wanted,
        limit,
        after,
      );
      yield* page.records;
      after = page.next;
    } while (after !== null);
  }
}

/** Called with changes that were committed, once all tables show the new state. */
export type Listener<R> = (changes: readonly Change<R>[]) => void;

/** Of which changes: one record's, and those in which a field changed or the record came or went. */
export interface Narrowing<R> {
  id?: string;
  field?: keyof R & string;
}

/**
 * The records by id, as the table has them, kept so over reconnections.
 *
 * Records must not be modified; a change brings a new one. What happened while the connection was
 * away comes as the difference to what was there before.
 */
export class LiveTable<R> {
  readonly #listeners = new Set<Listener<R>>();
  readonly #wakes = new Set<() => void>();
  readonly #sink: Sink;
  #error: DatastoreError | null = null;
  #version = 0;
  #records: { version: number; all: readonly R[] } | null = null;

  constructor(
    private readonly source: Source,
    private readonly subscription: Subscription,
  ) {
    this.#sink = {
      completed: () => this.#moved([]),
      changed: (changes) => this.#moved(changes as unknown as readonly Change<R>[]),
      failed: (error) => {
        this.#error = error;
        this.#wakeAll();
      },
    };
    subscription.sinks.add(this.#sink);
  }

  /** The table's name. */
  get name(): string {
    return this.subscription.table;
  }

  /** Why no more changes will come; null while they may. */
  get error(): DatastoreError | null {
    return this.#error;
  }

  /** Rises with each change: what to compare in order to know whether anything has changed. */
  get version(): number {
    return this.#version;
  }

  get size(): number {
    return this.subscription.records.size;
  }

  has(id: string): boolean {
    return this.subscription.records.has(id);
  }

  get(id: string): R | undefined {
    return this.subscription.records.get(id) as R | undefined;
  }

  /** The ids, in no particular order. */
  ids(): IterableIterator<string> {
    return this.subscription.records.keys();
  }

  /** The records, in no particular order; the same array until something changes. */
  get records(): readonly R[] {
    if (this.#records?.version !== this.#version) {
      const all = [...this.subscription.records.values()] as R[];
      this.#records = { version: this.#version, all };
    }
    return this.#records.all;
  }

  [Symbol.iterator](): IterableIterator<[string, R]> {
    return this.subscription.records.entries() as IterableIterator<[string, R]>;
  }

  /** Call `listener` with changes, and return what ends that. What it throws is reported. */
  listen(listener: Listener<R>, { id, field }: Narrowing<R> = {}): () => void {
    const narrowed: Listener<R> = (changes) => {
      const wanted = changes.filter(
        (change) =>
          (id === undefined || change.id === id) &&
          (field === undefined || change.op !== "update" || change.changed.has(field)),
      );
      if (wanted.length > 0) {
        listener(wanted);
      }
    };
    this.#listeners.add(narrowed);
    return () => this.#listeners.delete(narrowed);
  }

  /**
   * Iterate over changes from now on; throws `error` when no more will come.
   *
   * Changes of one record that were not yet taken are merged into one, so that a slow reader needs
   * no more memory than the table.
   */
  changes(narrowing: Narrowing<R> = {}): AsyncIterableIterator<Change<R>> {
    const waiting = new Batch();
    const wakes: { next: (() => void) | null } = { next: null };
    const wake = () => wakes.next?.();
    const stop = this.listen((changes) => {
      for (const change of changes) {
        const record = change.record as JsonRecord | null;
        const names = change.op === "update" ? [...change.changed] : [];
        const announced = names.filter((name) => record !== null && !Object.hasOwn(record, name));
        waiting.add(change.id, change.previous as JsonRecord | null, record, announced);
      }
    }, narrowing);
    this.#wakes.add(wake);
    let ended = false;
    const end = () => {
      ended = true;
      stop();
      this.#wakes.delete(wake);
      wake();
    };
    return {
      [Symbol.asyncIterator]() {
        return this;
      },
      next: async (): Promise<IteratorResult<Change<R>>> => {
        while (!ended) {
          const change = waiting.shift() as Change<R> | null;
          if (change !== null) {
            return { done: false, value: change };
          }
          if (this.#error !== null) {
            end();
            throw this.#error;
          }
          await new Promise<void>((resolve) => {
            wakes.next = resolve;
          });
        }
        return { done: true, value: undefined };
      },
      return: async (): Promise<IteratorResult<Change<R>>> => {
        end();
        return { done: true, value: undefined };
      },
    };
  }

  /** What `condition` returns of this table, as soon as that is truthy; looks after each change. */
  async waitFor<T>(
    condition: (table: LiveTable<R>) => T,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<T> {
    let next: (() => void) | null = null;
    const wake = () => next?.();
    this.#wakes.add(wake);
    signal?.addEventListener("abort", wake);
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (this.#error !== null) {
          throw this.#error;
        }
        const found = condition(this);
        if (found) {
          return found;
        }
        await new Promise<void>((resolve) => {
          next = resolve;
        });
      }
    } finally {
      this.#wakes.delete(wake);
      signal?.removeEventListener("abort", wake);
    }
  }

  /** Stop following; iterations end with ClosedError. */
  close(): void {
    if (this.#error === null) {
      this.#error = new ClosedError(`The live table ${this.name} was closed`);
      this.#wakeAll();
    }
    if (this.subscription.sinks.delete(this.#sink)) {
      this.source.left(this.subscription);
    }
  }

  #moved(changes: readonly Change<R>[]): void {
    this.#version += 1;
    for (const listener of changes.length > 0 ? [...this.#listeners] : []) {
      try {
        listener(changes);
      } catch (error) {
        this.source.report(error);
      }
    }
    this.#wakeAll();
  }

  #wakeAll(): void {
    for (const wake of [...this.#wakes]) {
      wake();
    }
  }
}
