/**
 * What goes out: sealed, durably stored, then sent, one unanswered message per recipient.
 *
 * Guarantees: no cleartext is stored; what may have reached the server is sent again as the same
 * bytes under the same id; what is refused for good has not used its `n`, and what follows it is
 * sealed again (docs/crypto.md 3 and 7).
 */

import { fromBase64url, newMessageId, toBase64url } from "./bytes.js";
import { hashOf, seal } from "./envelope.js";
import { Offline, Refused } from "./errors.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./chain.js").Chain} Chain */
/** @typedef {import("./chains.js").Chains} Chains */
/** @typedef {import("./connection.js").Link} Link */
/** @typedef {import("./contacts.js").Contacts} Contacts */
/** @typedef {import("./errors.js").DirectoryKey} DirectoryKey */
/** @typedef {import("./identity.js").Identity} Identity */
/** @typedef {import("./plaintext.js").Plaintext} Plaintext */
/** @typedef {import("./socket.js").Accepted} Accepted */
/** @typedef {import("./store.js").Cursor} Cursor */
/** @typedef {import("./outbox-store.js").Outgoing} Outgoing */
/** @typedef {import("./store.js").Stored} Stored */
/** @typedef {<Value>(contact: string, work: () => Promise<Value>) => Promise<Value>} Exclusively */

/**
 * @typedef {object} SendOptions
 * @property {string} [type] `text` by default
 * @property {string} [target] the message that a reply, edit, deletion or reaction is about
 * @property {string} [conversationId]
 * @property {number} [expiresIn] seconds
 */

const TRY_AGAIN = new Set(
  "rate_limited quota_exceeded unavailable draining overloaded internal unauthorized".split(" "),
);
const LATER_SECONDS = 5;
const STALE_LIMIT = 3; // the server and the directory disagree: do not go round for ever

export class Outbox {
  /** @type {Link | null} */
  #link = null;
  /** @type {Set<string>} */
  #busy = new Set();
  /** @type {Set<string>} */
  #asked = new Set();
  /** @type {Map<string, number>} */
  #stale = new Map(); // how often each message was refused for a key

  /**
   * @param {Contacts} contacts
   * @param {Identity} identity
   * @param {Chains} chains
   * @param {Exclusively} exclusively one tab at a time for a contact
   * @param {(work: Promise<unknown>) => void} inBackground
   */
  constructor(contacts, identity, chains, exclusively, inBackground) {
    this.contacts = contacts;
    this.identity = identity;
    this.chains = chains;
    this.exclusively = exclusively;
    this.inBackground = inBackground;
    this.store = contacts.store;
    this.me = contacts.me;
    this.emit = contacts.emit;
  }

  /**
   * Seal a message and store it. It is not sent yet: that is `flush()`, of the leading tab.
   *
   * @param {string} to
   * @param {string} body
   * @param {SendOptions} options
   * @returns {Promise<string>} the message id
   */
  async enqueue(to, body, { type = "text", target, conversationId, expiresIn } = {}) {
    await this.identity.key();
    if (to !== this.me) await this.contacts.meetAgain(to);
    const content = type === "delete" ? { type, target } : { type, body, target };
    return this.exclusively(to, async () => {
      const message = {
        id: newMessageId(),
        to,
        conversation_id: conversationId ?? null,
        expires_in: expiresIn ?? null,
        isAttempted: false,
      };
      const last = await this.store.outbox.lastTo(to);
      const plaintext = { ...content, sent_at: Date.now() };
      await this.store.outbox.add(await this.#sealed(message, plaintext, last));
      this.emit("outbox", { id: message.id, contact: to, state: "queued" });
      return message.id;
    });
  }

  /**
   * There is a connection, and its backlog has arrived.
   *
   * @param {Link} link
   */
  start(link) {
    this.#link = link;
    this.inBackground(this.flush());
  }

  stop() {
    this.#link = null;
  }

  /** Send what waits, as far as there is a connection and keys are in order. */
  async flush() {
    const link = this.#link;
    if (!link || (await this.identity.state()) !== "ready") return;
    for (const contact of await this.store.outbox.contacts()) {
      this.inBackground(this.#sendAll(contact, link));
    }
  }

  /**
   * Seal anew what the server cannot have: after a refusal, a new key, or another device's message.
   *
   * @param {string} contact
   */
  sealAgain(contact) {
    return this.exclusively(contact, () => this.#sealQueue(contact));
  }

  /** Seal everything anew, for a new key of mine. */
  async sealAllAgain() {
    for (const contact of await this.store.outbox.contacts()) await this.sealAgain(contact);
  }

  /**
   * The server has a message: its answer came, or its `sent` entry.
   *
   * @param {Outgoing} message
   * @param {Accepted & {epoch: string}} answer
   */
  async accept(message, { seq, created_at, epoch }) {
    const { id, to, kid, n, hash, conversation_id, content } = message;
    /** @type {Stored} */
    const kept = {
      id,
      epoch,
      seq,
      contact: to,
      sender: this.me,
      recipient: to,
      conversation_id,
      content,
      created_at,
      expires_at: expiryOf(message, created_at),
      delivered_at: null,
      read_at: null,
      status: "opened",
    };
    /** @type {Chain} */
    const chain = { name: [this.me, to, kid], n, hash };
    const marked = await this.store.outbox.accepted(id, chain, kept);
    if (!marked) return;
    this.#stale.delete(id);
    this.emit("outbox", { id, contact: to, state: "accepted" });
    const [shown] = await this.chains.opening.show([marked]);
    this.emit("message", shown);
  }

  /**
   * @param {string} contact
   * @param {Link} link
   */
  async #sendAll(contact, link) {
    this.#asked.add(contact);
    if (this.#busy.has(contact)) return;
    this.#busy.add(contact);
    try {
      while (this.#asked.delete(contact)) {
        while (this.#link === link && (await this.#sendFirst(contact, link)));
      }
    } finally {
      this.#busy.delete(contact);
    }
    // Somebody asked on behalf of a newer connection while the old one was failing.
    if (this.#link && this.#link !== link) await this.#sendAll(contact, this.#link);
  }

  /**
   * @param {string} contact
   * @param {Link} link
   * @returns {Promise<boolean>} whether to go on with the next one
   */
  async #sendFirst(contact, link) {
    const message = await this.#attempt(contact);
    if (!message) return false;
    try {
      const answer = await link.send(frameOf(message));
      const { epoch } = /** @type {Cursor} */ (await this.store.get("cursor"));
      await this.accept(message, { ...answer, epoch });
      return true;
    } catch (error) {
      if (error instanceof Offline) return false;
      if (!(error instanceof Refused)) throw error;
      return this.#refused(message, error);
    }
  }

  /**
   * The first message to a contact, marked as one that the server may have.
   *
   * @param {string} contact
   */
  #attempt(contact) {
    return this.exclusively(contact, async () => {
      let message = await this.store.outbox.firstTo(contact);
      if (!message || (await this.#isHeld(message))) return null;
      // A key may have been accepted since: what is sealed for another one helps nobody.
      if (!(await this.#fits(message))) await this.#sealQueue(contact);
      message = await this.store.outbox.firstTo(contact);
      if (message) await this.store.outbox.attempted(message, true);
      return message;
    });
  }

  /** @param {string} contact */
  async #sealQueue(contact) {
    /** @type {Outgoing | undefined} */
    let before;
    for (const message of await this.store.outbox.allTo(contact)) {
      if (message.isAttempted && (await this.#fits(message))) {
        before = message;
      } else {
        before = await this.#sealedAgain(message, before);
        await this.store.outbox.replace(before);
      }
    }
  }

  /**
   * Whether a message is sealed with my key and for the contact's pinned one.
   *
   * @param {Outgoing} message
   */
  async #fits({ to, kid, readerKid }) {
    const key = await this.identity.key();
    const reader = to === this.me ? key : (await this.contacts.meet(to)).current;
    return kid === key.kid && readerKid === reader.kid;
  }

  /** @param {Outgoing} message */
  async #isHeld({ id, to }) {
    if ((await this.identity.state()) !== "ready") return true;
    const pin = to === this.me ? undefined : await this.store.pin(to);
    if (pin?.pending) this.emit("outbox", { id, contact: to, state: "held" });
    return Boolean(pin?.pending);
  }

  /**
   * @param {Outgoing} message
   * @param {Refused} error
   * @returns {Promise<boolean>} whether to go on with the next one
   */
  async #refused(message, error) {
    const { id, to } = message;
    if (error.code === "stale_key") return this.#sealStale(message, error);
    if (TRY_AGAIN.has(error.code)) {
      const seconds = error.retryAfter ?? LATER_SECONDS;
      setTimeout(() => this.inBackground(this.flush()), seconds * 1000);
      this.emit("outbox", { id, contact: to, state: "waiting", code: error.code });
      return false;
    }
    await this.store.outbox.drop(id);
    await this.sealAgain(to);
    this.emit("refused", { id, contact: to, code: error.code });
    return true;
  }

  /**
   * The server did not take it, for a key that has changed: mine or the contact's.
   *
   * @param {Outgoing} message
   * @param {Refused} error
   */
  async #sealStale(message, { body: { key } }) {
    await this.store.outbox.attempted(message, false);
    const { id, to } = message;
    const count = (this.#stale.get(id) ?? 0) + 1;
    this.#stale.set(id, count);
    if (count > STALE_LIMIT || !(await this.#isKeyInOrder(to, key))) {
      this.emit("outbox", { id, contact: to, state: "waiting", code: "stale_key" });
      return false;
    }
    await this.sealAgain(to);
    return true;
  }

  /**
   * @param {string} contact
   * @param {DirectoryKey | undefined} key which counts, as the server says
   */
  async #isKeyInOrder(contact, key) {
    if (!key || key.user_id === this.me) return (await this.identity.check()) === "ready";
    if (key.public_key === null) return false;
    return !(await this.contacts.shown(contact, fromBase64url(key.public_key))).pending;
  }

  /**
   * @param {Outgoing} message
   * @param {Outgoing | undefined} before
   */
  async #sealedAgain(message, before) {
    const { id, to, conversation_id, content } = message;
    const address = { id, sender: this.me, recipient: to, conversation_id };
    const { plaintext } = await this.chains.opening.tryOpen({ ...address, content });
    if (!plaintext) throw new TypeError("An envelope of my own does not open.");
    return this.#sealed({ ...message, isAttempted: false }, plaintext, before);
  }

  /**
   * @param {Omit<Outgoing, "content" | "kid" | "readerKid" | "n" | "hash">} message
   * @param {Omit<Plaintext, "n" | "prev">} plaintext
   * @param {Outgoing | undefined} before in the outbox
   * @returns {Promise<Outgoing>}
   */
  async #sealed(message, plaintext, before) {
    const key = await this.identity.key();
    const { n, hash: prev } = before?.kid === key.kid ? before : await this.#tail(message.to);
    const address = { ...message, sender: this.me, recipient: message.to };
    const reader = message.to === this.me ? key : (await this.contacts.meet(message.to)).current;
    const next = { ...plaintext, n: (n ?? 0) + 1, prev };
    const content = await seal(key, reader.publicKey, address, next);
    const kids = { kid: key.kid, readerKid: reader.kid };
    return { ...message, ...kids, content, n: next.n, hash: await hashOf(content) };
  }

  /** @param {string} contact */
  async #tail(contact) {
    return this.chains.outgoing(contact, await this.identity.key());
  }
}

/**
 * @param {Outgoing} message
 * @param {string} createdAt
 */
function expiryOf({ expires_in }, createdAt) {
  if (expires_in === null) return null;
  return new Date(Date.parse(createdAt) + 1000 * expires_in).toISOString();
}

/**
 * @param {Outgoing} message
 * @returns {import("./socket.js").Send}
 */
function frameOf({ id, to, content, conversation_id, expires_in }) {
  const frame = { id, to, encrypted_content: toBase64url(content) };
  const conversation = conversation_id === null ? {} : { conversation_id };
  return { ...frame, ...conversation, ...(expires_in === null ? {} : { expires_in }) };
}
