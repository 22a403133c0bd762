// The feed's websocket: kept open, opened again with growing pauses, given up when refused.

import { Backoff } from "./backoff.js";
import { type DatastoreError, FeedError, NotAllowedError } from "./errors.js";
import { Feed } from "./feed.js";
import type { ServerMessage } from "./messages.js";

/** What the client needs of a websocket: browsers' own, or that of the package `ws`. */
export interface Socket {
  // biome-ignore lint/suspicious/noExplicitAny: implementations differ in their events' types
  onopen: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onmessage: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onclose: ((event: any) => void) | null;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  onerror: ((event: any) => void) | null;
  send(data: string): void;
  close(): void;
}

/** A websocket's class. */
export type SocketClass = new (url: string) => Socket;

/**
 * How it stands with the feed: `live`; `stale` when the server cannot reach its database, so that
 * what is shown is right but may be old; `waiting` between attempts.
 */
export type Status = "idle" | "connecting" | "live" | "stale" | "waiting" | "closed";

const OPEN_SECONDS = 20;
const SILENCE_SECONDS = 45;

type Timer = ReturnType<typeof setTimeout>;

/** Feeds `feed` from the server, from `start` to `stop`. */
export class Connection {
  readonly feed = new Feed((message) => this.#socket?.send(JSON.stringify(message)));
  status: Status = "idle";
  #socket: Socket | null = null;
  #running = false;
  #silence: Timer | undefined;
  #next: Timer | undefined;
  readonly #backoff = new Backoff();
  readonly #online = () => this.#hurry();

  /**
   * `refused` tells whether the server would refuse the feed (browsers do not say why a websocket
   * was not opened): the HTTP status of a request for its tables, or null when there is no answer.
   */
  constructor(
    private readonly url: string,
    private readonly socketClass: () => SocketClass,
    private readonly answer: () => Promise<number | null>,
    private readonly say: (status: Status) => void,
  ) {}

  /** Connect, unless that has begun. */
  start(): void {
    if (!this.#running) {
      this.#running = true;
      globalThis.addEventListener?.("online", this.#online);
      this.#connect();
    }
  }

  /** End the connection and all subscriptions. */
  stop(error: DatastoreError): void {
    this.#running = false;
    globalThis.removeEventListener?.("online", this.#online);
    clearTimeout(this.#next);
    this.#drop();
    this.feed.fail(error);
    this.#show("closed");
  }

  #show(status: Status): void {
    if (status !== this.status) {
      this.status = status;
      this.say(status);
    }
  }

  #connect(): void {
    this.#next = undefined;
    this.#show("connecting");
    const SocketClass = this.socketClass();
    const socket = new SocketClass(this.url);
    let opened = false;
    this.#socket = socket;
    this.#watch(OPEN_SECONDS);
    socket.onopen = () => {
      opened = true;
      this.#watch(SILENCE_SECONDS);
    };
    socket.onmessage = (event: { data: unknown }) => this.#received(String(event.data));
    socket.onclose = (event: { code?: number; reason?: string }) => {
      this.#drop();
      if (event.code === 1008) {
        this.stop(new NotAllowedError(`The feed was closed: ${event.reason || "not allowed"}`));
      } else if (opened) {
        this.#wait();
      } else {
        void this.#ask();
      }
    };
    // What follows it is a close event, which has all there is to know.
    socket.onerror = () => {};
  }

  /** Find out why a websocket could not be opened, and give up or try again. */
  async #ask(): Promise<void> {
    const status = await this.answer();
    if (!this.#running) {
      return;
    }
    if (status === 401 || status === 403) {
      this.stop(new NotAllowedError(`The feed answered ${status}: no valid token or login`));
    } else if (status === 404) {
      this.stop(new FeedError("This server has no feed (404)"));
    } else {
      this.#wait();
    }
  }

  /** Connect again after a pause. */
  #wait(): void {
    this.#show("waiting");
    this.#next = setTimeout(() => this.#connect(), this.#backoff.pause());
  }

  /** Connect now instead of after the rest of a pause. */
  #hurry(): void {
    if (this.#next !== undefined) {
      clearTimeout(this.#next);
      this.#connect();
    }
  }

  /** Let go of the socket, whatever it still does. */
  #drop(): void {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    this.feed.lost();
  }

  /** Give the connection up when it stays silent for so long. */
  #watch(seconds: number): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#drop();
      this.#wait();
    }, seconds * 1000);
  }

  #received(text: string): void {
    const message = JSON.parse(text) as ServerMessage;
    this.feed.received(message);
    if (this.#socket === null) {
      return; // a listener closed the store
    }
    if (message.type === "hello") {
      this.#backoff.reset();
    }
    const heartbeat = this.feed.heartbeatSeconds;
    this.#watch(heartbeat === null ? SILENCE_SECONDS : 3 * heartbeat);
    if (this.feed.connection !== null) {
      this.#show(this.feed.reachable ? "live" : "stale");
    }
  }
}
