/**
 * Keeps one link to the server alive: a socket, or long polls where sockets are blocked.
 *
 * After a loss it waits a random time up to a bound that doubles (full jitter), so that a
 * restarted server is not met by everybody at once. Close codes are obeyed as docs/protocol.md 5
 * says.
 */

import { Refused } from "./errors.js";
import { PollingLink } from "./polling.js";
import { SocketLink } from "./socket.js";

/** @typedef {import("./rest.js").Rest} Rest */
/** @typedef {import("./socket.js").End} End */
/** @typedef {import("./socket.js").Frame} Frame */
/** @typedef {import("./store.js").Cursor} Cursor */
/** @typedef {SocketLink | PollingLink} Link */

/**
 * Who is told, on this connection's behalf.
 *
 * @typedef {object} Listener
 * @property {() => Promise<Cursor | null>} cursor where the next link starts
 * @property {(frame: Frame, link: Link) => void} frame
 * @property {(end: {code: number, isFinal: boolean}) => void} down
 */

const FORBIDDEN = 4403;
const UNAUTHORIZED = 4401;
const FIRST_DELAY_SECONDS = 1;
const LONGEST_DELAY_SECONDS = 30;
const STEADY_SECONDS = 10; // a link that lived so long has ended the series of failures
const BLOCKED_AFTER = 2; // sockets that failed while REST answers
const POLL_SECONDS = 300; // then a socket is tried again

export class Connection {
  /** @type {Link | null} */
  #link = null;
  #isClosed = false;
  #failures = 0;
  #blockedSockets = 0;
  #wake = () => {};

  /**
   * @param {Rest} rest
   * @param {Listener} listener
   */
  constructor(rest, listener) {
    this.rest = rest;
    this.listener = listener;
    this.wake = this.wake.bind(this);
  }

  get link() {
    return this.#link;
  }

  /** The network is back: do not wait any longer. */
  wake() {
    this.#wake();
  }

  /** Stay connected until `close()`, or until the server forbids it. */
  async run() {
    globalThis.addEventListener?.("online", this.wake);
    try {
      while (!this.#isClosed && (await this.#serve()));
    } finally {
      globalThis.removeEventListener?.("online", this.wake);
    }
  }

  close() {
    this.#isClosed = true;
    this.#link?.close();
    this.#wake();
  }

  /** @returns {Promise<boolean>} whether to go on */
  async #serve() {
    const startedAt = Date.now();
    const link = (this.#link = this.#nextLink());
    const end = await link.run(await this.listener.cursor());
    const isFinal = end.code === FORBIDDEN;
    if (end.wasLive) this.listener.down({ code: end.code, isFinal });
    if (isFinal || this.#isClosed) return false;
    if (end.code === UNAUTHORIZED) this.rest.forgetToken();
    if (link instanceof SocketLink) await this.#learnFrom(end);
    const isSteady = end.wasLive && Date.now() - startedAt > STEADY_SECONDS * 1000;
    this.#failures = isSteady ? 0 : this.#failures + 1;
    await this.#pause(end.retryAfter ?? 0);
    return true;
  }

  /** @returns {Link} */
  #nextLink() {
    /** @type {(frame: Frame) => void} */
    const onFrame = (frame) => this.listener.frame(frame, link);
    const isBlocked = this.#blockedSockets >= BLOCKED_AFTER;
    // When this link ends, one more socket is tried before the next series of polls.
    if (isBlocked) this.#blockedSockets = BLOCKED_AFTER - 1;
    /** @type {Link} */
    const link = isBlocked
      ? new PollingLink(this.rest, onFrame, POLL_SECONDS)
      : new SocketLink(this.rest, onFrame);
    return link;
  }

  /**
   * A page cannot read why a handshake failed: ask over REST whether it was the token, or only
   * the socket.
   *
   * @param {End} end
   */
  async #learnFrom(end) {
    if (end.wasLive) {
      this.#blockedSockets = 0;
      return;
    }
    try {
      await this.rest.get("session");
      this.#blockedSockets += 1;
    } catch (error) {
      if (error instanceof Refused && error.status === 401) this.rest.forgetToken();
    }
  }

  /** @param {number} atLeastSeconds */
  async #pause(atLeastSeconds) {
    const bound = FIRST_DELAY_SECONDS * 2 ** Math.min(this.#failures, 10);
    const seconds = atLeastSeconds + Math.random() * Math.min(bound, LONGEST_DELAY_SECONDS);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, seconds * 1000);
      this.#wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }
}
