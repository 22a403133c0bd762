// A program that follows a real server with the client, in node; tests/clients runs it.
//
// It says "ready" when everything is followed. The server is then killed and started again, and the
// program goes on: what it was told must add up to what a fresh read says.

import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { ApiError, type Change, Datastore, FeedError, NotAllowedError } from "../../src/index.js";
import type { LiveTable } from "../../src/table.js";

const url = process.env.DATASTORE_URL ?? "";
const token = process.env.DATASTORE_TOKEN ?? "";

/** What someone knows who has only the first records and then each change. */
class Copy<R extends object> {
  readonly records: Map<string, R>;
  told = 0;

  constructor(readonly live: LiveTable<R>) {
    this.records = new Map(live);
    live.listen((changes) => this.take(changes));
  }

  take(changes: readonly Change<R>[]): void {
    for (const change of changes) {
      this.told += 1;
      assert.deepEqual(this.records.get(change.id) ?? null, change.previous);
      if (change.op === "delete") {
        this.records.delete(change.id);
      } else {
        assert.equal(change.op === "insert", !this.records.has(change.id));
        this.records.set(change.id, change.record);
      }
    }
  }

  /** Hold it against a fresh read, once everything committed before has come. */
  async assertTrue(fresh: readonly R[]): Promise<void> {
    const expected = new Map(
      fresh.map((record) => [String((record as { id: unknown }).id), record]),
    );
    await this.live.waitFor((live) => {
      try {
        assert.deepEqual(new Map(live), expected);
        return true;
      } catch {
        return false;
      }
    });
    assert.deepEqual(this.records, expected);
  }
}

const store = new Datastore(url, { token, WebSocket, name: "node" });
const statuses: string[] = [];
store.listenStatus((status) => statuses.push(status));

const kernels = new Copy(await store.table("kernels").live());
const executions = new Copy(await store.table("executions").live());
const kernel = await store.kernels.start();
await kernels.live.waitFor((live) => live.get(kernel.id));
const outputs = new Copy(await store.table("outputs").where({ kernel_id: kernel.id }).live());

// Live tables show a run as it goes.
const fields: string[] = [];
executions.live.listen((changes) => fields.push(...changes.map((change) => change.op)), {
  field: "status",
});
const done = await store.executions.run(kernel.id, "print('from node')\n6*7");
assert.equal(done.status, "ok");
await outputs.live.waitFor((live) => live.size === 2);
const [said, result] = [...outputs.live.records].sort((one, other) => one.seq - other.seq);
assert.equal(said?.text, "from node\n");
assert.deepEqual(result?.data, { "text/plain": "42" });
await executions.live.waitFor((live) => live.get(done.id)?.status === "ok");
assert.equal(fields[0], "insert");
assert.ok(fields.includes("update"));

// What is refused says why.
await assert.rejects(store.table("secrets").live(), { reason: "unknown_table" });
await assert.rejects(
  store
    .table("kernels" as string)
    .where({ connection_info: null })
    .live(),
  (error) => error instanceof FeedError && error.reason === "unknown_filter",
);
await assert.rejects(
  store.executions.execute("no-such-kernel", "1"),
  (error) => error instanceof ApiError && error.status === 404,
);
const stranger = new Datastore(url, { token: "wrong", WebSocket });
await assert.rejects(stranger.table("kernels").live(), (error) => error instanceof NotAllowedError);
stranger.close();

// The contents of a folder, over its path; iteration and columns.
await store.contents.save("node folder", { type: "directory" });
const folder = await store.table("contents").where({ path_prefix: "node folder" }).live();
const changes = folder.changes();
await store.contents.save("node folder/ä?#.txt", { type: "file", format: "text", content: "x" });
for await (const change of changes) {
  if (change.op === "insert" && change.record.path === "node folder/ä?#.txt") {
    break;
  }
}
assert.equal((await store.contents.get("node folder/ä?#.txt")).content, "x");
folder.close();
const names = await store.table("kernels").where({ id: kernel.id }).columns("name").live();
assert.deepEqual(names.get(kernel.id), { id: kernel.id, name: kernel.name });
names.close();

store.sayPresence({ path: "node folder", state: "active" });
const presence = await store.table("presence").live();
await presence.waitFor((live) => live.get(store.presenceId ?? "")?.data?.state === "active");

// Endless code, during which the server is killed.
const endless = await store.executions.execute(
  kernel.id,
  "import time\nfor i in range(10**6):\n print(i, flush=True)\n time.sleep(.01)",
);
await outputs.live.waitFor((live) => live.size > 10);
const waiting = store.executions.wait(endless.id);
console.log("ready");
const ended = await waiting;
assert.equal(ended.status, "interrupted");
await kernels.live.waitFor((live) => live.get(kernel.id)?.execution_state === "dead");
assert.ok(statuses.includes("waiting"), String(statuses));
assert.equal(store.status, "live");
await kernels.assertTrue(await store.table("kernels").read());
await executions.assertTrue(await store.table("executions").read(3));
await outputs.assertTrue(await store.table("outputs").where({ kernel_id: kernel.id }).read());
await presence.waitFor((live) => live.get(store.presenceId ?? "")?.data?.state === "active");

const open = kernels.live.waitFor(() => false);
store.close();
await assert.rejects(open, { name: "ClosedError" });
assert.equal(store.status, "closed");
console.log("done");
