// What goes wrong, as the client's user sees it.

/** The base of this package's errors. */
export class DatastoreError extends Error {
  override name = "DatastoreError";
}

/** The server refused a request: its HTTP status, message and reason. */
export class ApiError extends DatastoreError {
  override name = "ApiError";

  constructor(
    readonly status: number,
    readonly detail: string,
    readonly reason: unknown = null,
  ) {
    super(`${status}: ${detail}`);
  }
}

/** The feed refused a subscription (`reason` as docs/feed.md has it), or cannot be reached. */
export class FeedError extends DatastoreError {
  override name = "FeedError";

  constructor(
    message: string,
    readonly reason: string | null = null,
  ) {
    super(message);
  }
}

/** The feed does not take this token or login (any more). */
export class NotAllowedError extends FeedError {
  override name = "NotAllowedError";
}

/** The store or the live table was closed. */
export class ClosedError extends DatastoreError {
  override name = "ClosedError";
}
