// The feed's messages, as docs/feed.md has them.

import type { JsonRecord } from "./changes.js";

/** Values that a filter may compare with. */
export type FilterValue = string | number | boolean | null;

export type ClientMessage =
  | {
      type: "subscribe";
      id: string;
      table: string;
      where: Readonly<Record<string, FilterValue>>;
      columns?: readonly string[];
      cursor?: string;
    }
  | { type: "unsubscribe"; id: string }
  | { type: "presence"; data: JsonRecord };

export interface WireChange {
  op: "upsert" | "delete";
  table: string;
  id: string;
  subs: string[];
  changed?: string[] | null;
  record?: JsonRecord;
}

export interface WireTransaction {
  xid: string;
  changes: WireChange[];
}

export type ServerMessage =
  | {
      type: "hello";
      connection: string;
      user: unknown;
      heartbeat_seconds: number;
      server_id: string;
    }
  | { type: "subscribed"; id: string; resumed: boolean }
  | {
      type: "snapshot";
      id: string;
      table: string;
      records: JsonRecord[];
      first: boolean;
      more: boolean;
      cursor: string | null;
    }
  | { type: "changes"; cursor: string; transactions: WireTransaction[]; more: boolean }
  | { type: "must_refetch"; id: string; reason: string }
  | { type: "heartbeat"; cursor?: string | null; live: boolean }
  | { type: "error"; id: string | null; message: string; reason: string }
  | { type: "lagging"; skipped: number }
  | { type: "unsubscribed"; id: string }
  | { type: "pong"; value: unknown };
