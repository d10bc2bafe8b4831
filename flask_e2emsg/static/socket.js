/**
 * One live connection over a WebSocket (docs/protocol.md 2 to 5).
 *
 * It knows frames, not what they mean: what comes in goes to `onFrame`, in order. `run()` resolves
 * with how it ended; it never throws.
 */

import { Offline, Refused } from "./errors.js";

/** @typedef {import("./rest.js").Rest} Rest */
/** @typedef {import("./store.js").Cursor} Cursor */
/** @typedef {{type: string, [member: string]: any}} Frame */

/**
 * @typedef {object} End
 * @property {number} code of the close frame; 1006 without one
 * @property {boolean} wasLive whether there was a `hello`
 * @property {number} [retryAfter] seconds
 */

/**
 * @typedef {object} Send
 * @property {string} id
 * @property {string} to
 * @property {string} encrypted_content
 * @property {string} [conversation_id]
 * @property {number} [expires_in]
 */

/** @typedef {{seq: number, created_at: string}} Accepted `seq` is 0 when it is not known */

const SUBPROTOCOL = "e2emsg.v1";
const LOST = 1006;
const OPEN_SECONDS = 20;

export class SocketLink {
  transport = "socket";
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, {resolve: (value: Accepted) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();
  /** @type {(end: End) => void} */
  #end = () => {};
  #wasLive = false;
  #hasEnded = false;
  #heardAt = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch;

  /**
   * @param {Rest} rest
   * @param {(frame: Frame) => void} onFrame
   */
  constructor(rest, onFrame) {
    this.rest = rest;
    this.onFrame = onFrame;
  }

  /**
   * @param {Cursor | null} cursor
   * @returns {Promise<End>}
   */
  async run(cursor) {
    /** @type {Promise<End>} */
    const ended = new Promise((resolve) => (this.#end = resolve));
    const timer = setTimeout(() => this.#wasLive || this.close(), OPEN_SECONDS * 1000);
    try {
      this.#open(...(await this.#address(cursor)));
    } catch {
      this.#end({ code: LOST, wasLive: false });
    }
    const end = await ended;
    clearTimeout(timer);
    this.#forgetSocket();
    for (const { reject } of this.#waiting.values()) reject(new Offline());
    this.#waiting.clear();
    return end;
  }

  /** End the connection now, whether the server answers or not. */
  close() {
    this.#hasEnded = true;
    this.#end({ code: LOST, wasLive: this.#wasLive });
  }

  /**
   * @param {Send} message
   * @returns {Promise<Accepted>}
   */
  send(message) {
    return new Promise((resolve, reject) => {
      this.#waiting.set(message.id, { resolve, reject });
      if (!this.write({ type: "send", ...message })) reject(new Offline());
    });
  }

  /** @param {number} seq */
  ack(seq) {
    this.write({ type: "ack", seq });
  }

  /**
   * @param {Frame} frame
   * @returns {boolean} whether there is a socket to write to
   */
  write(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /**
   * @param {Cursor | null} cursor
   * @returns {Promise<[URL, string[]]>}
   */
  async #address(cursor) {
    const url = new URL("ws", this.rest.base);
    url.protocol = url.protocol.replace("http", "ws");
    if (cursor) url.searchParams.set("cursor", `${cursor.epoch}:${cursor.seq}`);
    const token = await this.rest.token();
    if (token !== null) return [url, [SUBPROTOCOL, `bearer.${token}`]];
    const { ticket } = await this.rest.post("ws-ticket");
    url.searchParams.set("ticket", ticket);
    return [url, [SUBPROTOCOL]];
  }

  /**
   * @param {URL} url
   * @param {string[]} protocols
   */
  #open(url, protocols) {
    if (this.#hasEnded) return;
    this.#socket = new WebSocket(url, protocols);
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = (event) => this.#end({ code: event.code, wasLive: this.#wasLive });
  }

  #forgetSocket() {
    clearInterval(this.#watch);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  /** @param {string} text */
  #receive(text) {
    this.#heardAt = Date.now();
    const frame = JSON.parse(text);
    if (frame.type === "hello") this.#live(frame.heartbeat);
    if (frame.type === "expiring") void this.#refresh();
    if (!this.#settle(frame)) this.onFrame(frame);
  }

  /**
   * A page cannot see the server's pings, so it sends its own to notice a dead connection.
   *
   * @param {number} heartbeatSeconds
   */
  #live(heartbeatSeconds) {
    this.#wasLive = true;
    const period = heartbeatSeconds * 1000;
    this.#watch = setInterval(() => {
      if (Date.now() - this.#heardAt > 2 * period) this.close();
      else this.write({ type: "ping" });
    }, period);
  }

  /**
   * Whether the frame answers a `send`.
   *
   * @param {Frame} frame
   */
  #settle(frame) {
    const id = frame.type === "accepted" ? frame.id : frame.type === "error" ? frame.ref : null;
    const waiting = this.#waiting.get(id);
    if (!waiting) return false;
    this.#waiting.delete(id);
    if (frame.type === "accepted") {
      waiting.resolve({ seq: frame.seq ?? 0, created_at: frame.created_at });
    } else {
      waiting.reject(new Refused(/** @type {any} */ (frame)));
    }
    return true;
  }

  async #refresh() {
    this.rest.forgetToken();
    try {
      const token = await this.rest.token();
      if (token !== null) this.write({ type: "refresh", token });
    } catch {
      // The host's page has none to give: the server will say 4401, and we try again then.
    }
  }
}
