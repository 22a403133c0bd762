// How long to wait before trying again.

/** Pauses that grow from 0.2 to 10 seconds, each with some chance in it. */
export class Backoff {
  #next = 0.2;

  /** How many milliseconds to wait now. */
  pause(): number {
    const pause = this.#next;
    this.#next = Math.min(10, pause * 2);
    return pause * (500 + Math.random() * 500);
  }

  /** Begin with short pauses again. */
  reset(): void {
    this.#next = 0.2;
  }
}
