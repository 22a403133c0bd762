// A change as listeners see it: what a record was and is, and which of its fields differ.

/** A record as the feed sends it. */
export type JsonRecord = Record<string, unknown>;

/**
 * One record's change; records must not be modified.
 *
 * `changed` are the fields of an update whose values differ, and announced columns, whose values
 * are not sent.
 */
export type Change<R> =
  | { readonly op: "insert"; readonly id: string; readonly record: R; readonly previous: null }
  | { readonly op: "delete"; readonly id: string; readonly record: null; readonly previous: R }
  | {
      readonly op: "update";
      readonly id: string;
      readonly record: R;
      readonly previous: R;
      readonly changed: ReadonlySet<string>;
    };

/** Whether two JSON values are the same. */
export function same(one: unknown, other: unknown): boolean {
  if (one === other) {
    return true;
  }
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) {
    return false;
  }
  if (Array.isArray(one) || Array.isArray(other)) {
    return (
      Array.isArray(one) &&
      Array.isArray(other) &&
      one.length === other.length &&
      one.every((item, index) => same(item, other[index]))
    );
  }
  const [left, right] = [one as JsonRecord, other as JsonRecord];
  const names = Object.keys(left);
  return (
    names.length === Object.keys(right).length &&
    names.every((name) => Object.hasOwn(right, name) && same(left[name], right[name]))
  );
}

/** The change from one state of a record to another; null when nothing differs. */
export function difference(
  id: string,
  previous: JsonRecord | null,
  record: JsonRecord | null,
  announced: ReadonlySet<string> | undefined,
): Change<JsonRecord> | null {
  if (record === null) {
    return previous === null ? null : { op: "delete", id, record, previous };
  }
  if (previous === null) {
    return { op: "insert", id, record, previous };
  }
  const changed = new Set(announced);
  for (const name of new Set([...Object.keys(previous), ...Object.keys(record)])) {
    if (
      !Object.hasOwn(previous, name) ||
      !Object.hasOwn(record, name) ||
      !same(previous[name], record[name])
    ) {
      changed.add(name);
    }
  }
  return changed.size === 0 ? null : { op: "update", id, record, previous, changed };
}

interface Pending {
  before: JsonRecord | null;
  after: JsonRecord | null;
  announced: Set<string>;
}

/** The changes of one table that are shown at once; several of one record become one. */
export class Batch {
  readonly #pending = new Map<string, Pending>();

  /** Note that a record was `before` and is now `after`. */
  add(
    id: string,
    before: JsonRecord | null,
    after: JsonRecord | null,
    announced: Iterable<string> = [],
  ): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) {
      this.#pending.set(id, { before, after, announced: new Set(announced) });
      return;
    }
    pending.after = after;
    for (const name of announced) {
      pending.announced.add(name);
    }
  }

  /** Remove and return the first change; null when there is none. */
  shift(): Change<JsonRecord> | null {
    for (const [id, { before, after, announced }] of this.#pending) {
      this.#pending.delete(id);
      const change = difference(id, before, after, announced);
      if (change !== null) {
        return change;
      }
    }
    return null;
  }

  /** Remove and return all changes, in the order in which records first changed. */
  take(): Change<JsonRecord>[] {
    const taken: Change<JsonRecord>[] = [];
    for (let change = this.shift(); change !== null; change = this.shift()) {
      taken.push(change);
    }
    return taken;
  }
}

/** A record's id, of the columns that make it up. */
export function idOf(record: JsonRecord, key: readonly string[]): string {
  return key.map((name) => String(record[name])).join("/");
}
