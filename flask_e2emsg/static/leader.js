/**
 * What the leading tab does for all tabs: it holds the connection, and hands on what comes in.
 */

import { Connection } from "./connection.js";
import { E2EError } from "./errors.js";

/** @typedef {import("./connection.js").Link} Link */
/** @typedef {import("./contacts.js").Emit} Emit */
/** @typedef {import("./identity.js").Identity} Identity */
/** @typedef {import("./inbox.js").Inbox} Inbox */
/** @typedef {import("./outbox.js").Outbox} Outbox */
/** @typedef {import("./socket.js").Frame} Frame */

export class Leader {
  /** @type {Link | null} */
  #link = null;
  #isClosed = false;
  #connection;

  /**
   * @param {Identity} identity
   * @param {Inbox} inbox
   * @param {Outbox} outbox
   * @param {(work: Promise<unknown>) => void} inBackground
   */
  constructor(identity, inbox, outbox, inBackground) {
    this.identity = identity;
    this.inbox = inbox;
    this.outbox = outbox;
    this.inBackground = inBackground;
    this.store = identity.store;
    this.emit = identity.contacts.emit;
    this.#connection = new Connection(identity.rest, {
      cursor: () => this.inbox.cursor(),
      frame: (frame, link) => this.#receive(frame, link),
      down: (detail) => this.#down(detail),
    });
  }

  get isConnected() {
    return this.#link !== null;
  }

  /** Stay connected until `close()`. */
  async run() {
    await this.store.forgetExpired();
    await this.inbox.reopen();
    if (!this.#isClosed) await this.#connection.run();
  }

  close() {
    this.#isClosed = true;
    this.#connection.close();
    this.outbox.stop();
  }

  /**
   * Send a frame that nobody waits for, if there is a socket.
   *
   * @param {Frame} frame
   */
  write(frame) {
    this.#link?.write(frame);
  }

  /**
   * @param {Frame} frame
   * @param {Link} link
   */
  #receive(frame, link) {
    if (frame.type === "hello") this.#up(link);
    if (frame.type === "typing") {
      const { sender, conversation_id, active } = frame;
      const detail = { contact: sender, conversationId: conversation_id, isActive: active };
      this.emit("typing", detail);
    } else if (frame.type === "event") {
      this.emit("event", { name: frame.name, data: frame.data });
    } else {
      this.inbox.push(frame, link);
    }
  }

  /** @param {Link} link */
  #up(link) {
    this.#link = link;
    this.emit("connected", { transport: link.transport });
    this.inBackground(this.#checkKey());
  }

  /** Another device may have replaced my key meanwhile, or given it back. */
  async #checkKey() {
    try {
      await this.identity.check();
    } catch (error) {
      if (!(error instanceof E2EError)) throw error;
    }
    await this.outbox.flush();
  }

  /** @param {{code: number, isFinal: boolean}} detail */
  #down(detail) {
    this.#link = null;
    this.outbox.stop();
    this.emit("disconnected", detail);
  }
}
