// The state machine, by the scenarios that both clients must pass.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { Change, JsonRecord } from "../src/changes.js";
import type { DatastoreError, FeedError } from "../src/errors.js";
import { Feed, type Sink, type Subscription } from "../src/feed.js";
import type { ClientMessage, FilterValue, ServerMessage } from "../src/messages.js";
import { ID_COLUMNS } from "../src/records.js";

interface Step {
  subscribe?: string;
  table?: string;
  where?: Record<string, FilterValue>;
  columns?: string[];
  unsubscribe?: string;
  presence?: JsonRecord;
  server?: ServerMessage;
  lost?: true;
  sent?: ClientMessage[];
  complete?: string;
  incomplete?: string;
  records?: string;
  are?: Record<string, JsonRecord>;
  told?: string;
  changes?: [string, string, string[]][];
  cursor?: string;
  is?: string | null;
  failed?: string;
  reason?: string;
}

const SCENARIOS = JSON.parse(
  readFileSync(new URL("../../../scenarios.json", import.meta.url), "utf-8"),
) as { name: string; steps: Step[] }[];

/** Remembers what a live table would be told. */
class Told implements Sink {
  changes: [string, string, string[]][] = [];
  error: DatastoreError | null = null;
  completions = 0;

  constructor(readonly subscription: Subscription) {
    subscription.sinks.add(this);
  }

  completed(): void {
    this.completions += 1;
  }

  changed(changes: readonly Change<JsonRecord>[]): void {
    for (const change of changes) {
      const names = change.op === "update" ? [...change.changed].sort() : [];
      this.changes.push([change.op, change.id, names]);
    }
  }

  failed(error: DatastoreError): void {
    this.error = error;
  }
}

class Player {
  sent: ClientMessage[] = [];
  readonly feed = new Feed((message) => this.sent.push(message));
  readonly all = new Map<string, Told>();

  told(name: string): Told {
    const found = this.all.get(name);
    assert.ok(found, name);
    return found;
  }

  play(step: Step): void {
    if (step.subscribe !== undefined) {
      const table = step.table ?? "";
      const key = ID_COLUMNS[table] ?? ["id"];
      const made = this.feed.subscribe(table, step.where ?? {}, step.columns ?? null, key);
      this.all.set(step.subscribe, new Told(made));
    } else if (step.unsubscribe !== undefined) {
      this.feed.unsubscribe(this.told(step.unsubscribe).subscription);
    } else if (step.presence !== undefined) {
      this.feed.sayPresence(step.presence);
    } else if (step.server !== undefined) {
      this.feed.received(step.server);
    } else if (step.lost !== undefined) {
      this.feed.lost();
    } else {
      this.check(step);
    }
  }

  check(step: Step): void {
    if (step.sent !== undefined) {
      assert.deepEqual(this.sent, step.sent);
      this.sent = [];
    } else if (step.complete !== undefined) {
      assert.equal(this.told(step.complete).completions, 1);
      assert.ok(this.told(step.complete).subscription.complete);
    } else if (step.incomplete !== undefined) {
      assert.equal(this.told(step.incomplete).completions, 0);
      assert.ok(!this.told(step.incomplete).subscription.complete);
    } else if (step.records !== undefined) {
      const { records } = this.told(step.records).subscription;
      assert.deepEqual(Object.fromEntries(records), step.are);
    } else if (step.told !== undefined) {
      const told = this.told(step.told);
      assert.deepEqual(told.changes, step.changes);
      told.changes = [];
    } else if (step.cursor !== undefined) {
      assert.equal(this.told(step.cursor).subscription.cursor, step.is);
    } else if (step.failed !== undefined) {
      assert.equal((this.told(step.failed).error as FeedError).reason, step.reason);
    } else {
      assert.fail(`a step that is not known: ${JSON.stringify(step)}`);
    }
  }
}

for (const { name, steps } of SCENARIOS) {
  test(name, () => {
    const player = new Player();
    for (const step of steps) {
      player.play(step);
    }
    for (const told of player.all.values()) {
      assert.deepEqual(told.changes, []);
    }
  });
}
