/**
 * The socket's twin for networks without WebSocket: long polls of `/sync`, sends by POST.
 *
 * It makes the same frames in the same order as a socket, `hello` and `caught_up` included.
 */

import { E2EError, Refused } from "./errors.js";
import { query } from "./rest.js";

/** @typedef {import("./rest.js").Rest} Rest */
/** @typedef {import("./socket.js").Accepted} Accepted */
/** @typedef {import("./socket.js").End} End */
/** @typedef {import("./socket.js").Frame} Frame */
/** @typedef {import("./socket.js").Send} Send */
/** @typedef {import("./store.js").Cursor} Cursor */

const LIMIT = 100;
const WAIT_SECONDS = 25;
const SHORTEST_MS = 1000; // a worker that is about to stop answers at once, again and again
const LOST = 1006;
const DONE = 1000;
const UNAUTHORIZED = 4401;

export class PollingLink {
  transport = "polling";
  #aborter = new AbortController();
  #wasLive = false;

  /**
   * @param {Rest} rest
   * @param {(frame: Frame) => void} onFrame
   * @param {number} forSeconds after which it ends, so that a socket is tried again
   */
  constructor(rest, onFrame, forSeconds) {
    this.rest = rest;
    this.onFrame = onFrame;
    this.forSeconds = forSeconds;
  }

  /**
   * @param {Cursor | null} cursor
   * @returns {Promise<End>}
   */
  async run(cursor) {
    const until = Date.now() + this.forSeconds * 1000;
    try {
      for (let at = cursor; !this.#aborter.signal.aborted && Date.now() < until; ) {
        const startedAt = Date.now();
        const next = await this.#poll(at);
        if (at?.seq === next.seq) await this.#pause(startedAt + SHORTEST_MS - Date.now());
        at = next;
      }
      return { code: DONE, wasLive: true };
    } catch (error) {
      const code = error instanceof Refused && error.status === 401 ? UNAUTHORIZED : LOST;
      const retryAfter = error instanceof Refused ? (error.retryAfter ?? undefined) : undefined;
      return { code, wasLive: this.#wasLive, retryAfter };
    }
  }

  close() {
    this.#aborter.abort();
  }

  /**
   * @param {Send} message
   * @returns {Promise<Accepted>}
   */
  async send(message) {
    const { created_at } = await this.rest.post("messages", message);
    return { seq: 0, created_at };
  }

  /** @param {number} seq */
  ack(seq) {
    this.rest.post("sync/ack", { seq }).catch(ignoreRefusals); // the next ack says it again
  }

  /** What is ephemeral needs a socket. */
  write() {
    return false;
  }

  /**
   * @param {Cursor | null} cursor
   * @returns {Promise<Cursor>}
   */
  async #poll(cursor) {
    const isFirst = !this.#wasLive;
    const text = cursor && `${cursor.epoch}:${cursor.seq}`;
    const wait = isFirst ? 0 : WAIT_SECONDS;
    const path = `sync${query({ cursor: text, limit: LIMIT, wait })}`;
    const { signal } = this.#aborter;
    const { epoch, head, reset, entries } = await this.rest.call("GET", path, { signal });
    const isAtHead = entries.length < LIMIT;
    if (isFirst || reset) this.#hello({ epoch, head, reset, entries }, cursor);
    for (const entry of entries) this.onFrame(entry);
    if (isAtHead) this.onFrame({ type: "caught_up", head });
    return { epoch, seq: isAtHead ? head : entries.at(-1).seq };
  }

  /** @param {number} milliseconds */
  #pause(milliseconds) {
    return new Promise((resolve) => {
      setTimeout(resolve, milliseconds);
      this.#aborter.signal.addEventListener("abort", resolve, { once: true });
    });
  }

  /**
   * @param {{epoch: string, head: number, reset: boolean, entries: Frame[]}} page
   * @param {Cursor | null} cursor
   */
  #hello({ epoch, head, reset, entries }, cursor) {
    this.#wasLive = true;
    const start = entries.length ? entries[0].seq - 1 : head;
    const after = cursor && !reset ? cursor.seq : start;
    this.onFrame({ type: "hello", epoch, head, reset, after });
  }
}

/** @param {unknown} error */
function ignoreRefusals(error) {
  if (!(error instanceof E2EError)) throw error;
}
