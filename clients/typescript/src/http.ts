// Requests to the server: addresses, errors, and what is tried again.

import { Backoff } from "./backoff.js";
import { ApiError } from "./errors.js";

/** What a request may have, beside the names in its path. */
export interface RequestOptions {
  names?: Readonly<Record<string, string>>;
  query?: Readonly<Record<string, string | number | boolean | null | undefined>>;
  body?: unknown;
  signal?: AbortSignal | undefined;
}

const SAFE = new Set(["GET", "HEAD"]);
const PASSING = new Set([502, 503, 504]);

/** The address of an operation: only `path` may contain slashes, the others are one segment. */
export function pathOf(template: string, names: Readonly<Record<string, string>> = {}): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = names[name];
    if (value === undefined) {
      throw new TypeError(`${template} needs ${name}`);
    }
    const parts = name === "path" ? value.split("/") : [value];
    return parts.map(encodeURIComponent).join("/");
  });
}

/** Sends requests; throws ApiError for what the server refuses. */
export class Http {
  constructor(
    private readonly base: string,
    private readonly token: string | null,
    private readonly fetcher: typeof fetch,
  ) {}

  /** Send what `operation` (`"GET /api/kernels/{kernel_id}"`) says; return the answer. */
  async send(operation: string, options: RequestOptions = {}): Promise<Response> {
    const [method = "GET", template = ""] = operation.split(" ");
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(options.query ?? {})) {
      if (value !== null && value !== undefined) {
        query.set(name, String(value));
      }
    }
    const search = query.size > 0 ? `?${query}` : "";
    const response = await this.fetcher(
      `${this.base}${pathOf(template, options.names)}${search}`,
      this.#init(method, options),
    );
    if (!response.ok) {
      throw await apiError(response);
    }
    return response;
  }

  #init(method: string, { body, signal }: RequestOptions): RequestInit {
    const headers: Record<string, string> = {};
    if (this.token !== null) {
      headers.Authorization = `token ${this.token}`;
    } else if (!SAFE.has(method)) {
      // A browser that is logged in by a cookie proves with another that the page is the server's.
      const xsrf = cookie("_xsrf");
      if (xsrf !== null) {
        headers["X-XSRFToken"] = xsrf;
      }
    }
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
    }
    return {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    };
  }

  /** Send a request; return what its answer's JSON says, null when there is none. */
  async call<T>(operation: string, options: RequestOptions = {}): Promise<T> {
    const text = await (await this.send(operation, options)).text();
    return (text === "" ? null : JSON.parse(text)) as T;
  }

  /**
   * Send a request that may be repeated until there is an answer that is not a failure.
   *
   * Tried again: no connection, and 502 to 504 (the server or its database is coming back). After
   * `within` milliseconds the failure is thrown.
   */
  async callSurely<T>(
    operation: string,
    options: RequestOptions = {},
    within: number = Number.POSITIVE_INFINITY,
  ): Promise<T> {
    const backoff = new Backoff();
    const deadline = Date.now() + within;
    for (;;) {
      try {
        return await this.call<T>(operation, options);
      } catch (error) {
        options.signal?.throwIfAborted();
        // `fetch` throws a TypeError when there is no answer.
        const passes =
          error instanceof ApiError ? PASSING.has(error.status) : error instanceof TypeError;
        if (!passes || Date.now() >= deadline) {
          throw error;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, backoff.pause()));
    }
  }
}

function cookie(name: string): string | null {
  const all = globalThis.document?.cookie ?? "";
  const found = all.split("; ").find((part) => part.startsWith(`${name}=`));
  return found === undefined ? null : decodeURIComponent(found.slice(name.length + 1));
}

async function apiError(response: Response): Promise<ApiError> {
  try {
    const body = (await response.json()) as { message: string; reason?: unknown };
    return new ApiError(response.status, String(body.message), body.reason ?? null);
  } catch {
    return new ApiError(response.status, response.statusText);
  }
}
