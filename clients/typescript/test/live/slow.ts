// A program that follows users while what passes between it and the server stops for a while;
// tests/clients runs it. What it was told must fit what it knew, and in the end all is known.

import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { Datastore } from "../../src/index.js";

const store = new Datastore(process.env.DATASTORE_URL ?? "", {
  token: process.env.DATASTORE_TOKEN ?? "",
  WebSocket,
});
const users = await store.table("users").live();
const known = new Map(users);
users.listen((changes) => {
  for (const change of changes) {
    assert.deepEqual(known.get(change.id) ?? null, change.previous);
    if (change.op === "delete") {
      known.delete(change.id);
    } else {
      known.set(change.id, change.record);
    }
  }
});

for (const [last, count] of [
  ["0", 5],
  ["slow5", 4],
  ["slow4", 3],
] as const) {
  await users.waitFor((live) => live.records.filter((r) => r.full_name === last).length === count);
  assert.deepEqual(known, new Map(users));
  console.log(last);
}
const fresh = await store.table("users").read();
assert.deepEqual(known, new Map(fresh.map((user) => [user.id, user])));
store.close();
