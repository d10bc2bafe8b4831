/**
 * What comes in: stored durably, then acknowledged, then opened and told to the application.
 *
 * Guarantees: the cursor never passes an entry that is not on the disk; a message id that was seen
 * before is dropped; what was stored and not told of when the page ended is told of by the next.
 */

import { judge } from "./chain.js";
import { hashOf } from "./envelope.js";
import { mayOpenLater, sealedOf } from "./opening.js";
import { query, segment } from "./rest.js";

/** @typedef {import("./chains.js").Chains} Chains */
/** @typedef {import("./connection.js").Link} Link */
/** @typedef {import("./opening.js").Opened} Opened */
/** @typedef {import("./outbox.js").Outbox} Outbox */
/** @typedef {import("./plaintext.js").Plaintext} Plaintext */
/** @typedef {import("./socket.js").Frame} Frame */
/** @typedef {import("./store.js").Cursor} Cursor */
/** @typedef {import("./store.js").Stored} Stored */

const BATCH = 64;
const PAGE = 100;

export class Inbox {
  /** @type {{frame: Frame, link: Link}[]} */
  #queue = [];
  #isDraining = false;
  #hasLostTrack = false;
  /** @type {Cursor} */
  #cursor = { epoch: "", seq: 0 };
  /** @type {Set<string>} */
  #lookedUp = new Set();

  /**
   * @param {Chains} chains
   * @param {Outbox} outbox
   * @param {(error: unknown) => void} failed
   */
  constructor(chains, outbox, failed) {
    this.failed = failed;
    this.chains = chains;
    this.outbox = outbox;
    this.opening = chains.opening;
    this.contacts = chains.opening.contacts;
    this.store = chains.store;
    this.rest = chains.rest;
    this.me = chains.me;
    this.emit = this.contacts.emit;
  }

  /** @returns {Promise<Cursor | null>} */
  async cursor() {
    return (await this.store.get("cursor")) ?? null;
  }

  /**
   * Take a frame in. It is dealt with after those before it.
   *
   * @param {Frame} frame
   * @param {Link} link
   */
  push(frame, link) {
    this.#queue.push({ frame, link });
    if (!this.#isDraining) void this.#drain();
  }

  /** Open again what waits for a key, or was not told of yet. */
  async reopen() {
    this.#lookedUp.clear();
    const [fresh, waiting] = [await this.store.withStatus("new"), await this.#waiting()];
    await this.#openAll([...fresh, ...waiting]);
  }

  /** Those of the waiting messages that open now. */
  async #waiting() {
    const waiting = await this.store.withStatus("waiting");
    const opened = await Promise.all(waiting.map((message) => this.opening.tryOpen(message)));
    return waiting.filter((_, at) => opened[at].plaintext);
  }

  async #drain() {
    this.#isDraining = true;
    while (this.#queue.length) {
      const batch = this.#queue.splice(0, BATCH);
      try {
        await this.#take(batch);
      } catch (error) {
        // It was not stored, so it is not acknowledged, and comes again with the next link.
        this.#queue = [];
        for (const { link } of batch) link.close();
        this.failed(error);
      }
    }
    this.#isDraining = false;
  }

  /** @param {{frame: Frame, link: Link}[]} batch */
  async #take(batch) {
    const entries = [];
    for (const { frame, link } of batch) {
      if (frame.type === "message" || frame.type === "receipt") {
        entries.push(frame);
        continue;
      }
      await this.#takeEntries(entries.splice(0), link);
      if (frame.type === "hello") await this.#start(frame);
      if (frame.type === "caught_up") await this.#caughtUp(frame.head, link);
    }
    await this.#takeEntries(entries, batch[batch.length - 1].link);
  }

  /** @param {Frame} hello */
  async #start({ epoch, after, reset }) {
    const before = await this.cursor();
    this.#hasLostTrack = Boolean(before) && reset;
    this.#cursor = before && !reset ? before : { epoch, seq: after };
    await this.store.set("cursor", this.#cursor);
    this.#lookedUp.clear();
  }

  /**
   * @param {number} head
   * @param {Link} link
   */
  async #caughtUp(head, link) {
    if (this.#hasLostTrack) await this.#readHistory();
    this.#hasLostTrack = false;
    this.#cursor = { ...this.#cursor, seq: Math.max(head, this.#cursor.seq) };
    await this.store.set("cursor", this.#cursor);
    // Not before: a message of mine whose answer was lost has come back as an entry by now.
    this.outbox.start(link);
  }

  /**
   * @param {Frame[]} entries
   * @param {Link} link
   */
  async #takeEntries(entries, link) {
    if (!entries.length) return;
    const { epoch } = this.#cursor;
    const seq = Math.max(this.#cursor.seq, ...entries.map((entry) => entry.seq));
    const receipts = entries.filter((entry) => entry.type === "receipt");
    const messages = entries.filter((entry) => entry.type === "message");
    const stored = messages.map((message) => this.#stored(message, epoch));
    await this.#settleAnswers(stored);
    const marks = receipts.map(({ kind, ids, at }) => ({ kind, ids, at }));
    const fresh = await this.store.receive(stored, marks, { epoch, seq });
    this.#cursor = { epoch, seq };
    link.ack(seq);
    for (const { kind, by, ids, at } of receipts) this.emit("receipt", { kind, by, ids, at });
    await this.#openAll(fresh);
  }

  /**
   * `sent` entries of what is in the outbox are the answers to it.
   *
   * @param {Stored[]} messages
   */
  async #settleAnswers(messages) {
    const mine = messages.filter((message) => message.sender === this.me);
    if (!mine.length) return;
    const waiting = new Map((await this.store.outbox()).map((message) => [message.id, message]));
    for (const { id, seq, epoch, created_at } of mine) {
      const outgoing = waiting.get(id);
      if (outgoing) await this.outbox.accept(outgoing, { seq, epoch, created_at });
    }
  }

  /** @param {Stored[]} messages */
  async #openAll(messages) {
    const opened = await Promise.all(messages.map((message) => this.opening.tryOpen(message)));
    for (const [at, message] of messages.entries()) await this.#settle(message, opened[at]);
  }

  /**
   * @param {Stored} message
   * @param {Opened} opened
   */
  async #settle(message, opened) {
    if (!opened.plaintext && opened.reason === "unknown_key" && message.sender !== this.me) {
      opened = await this.#lookUp(message, opened);
    }
    const { plaintext, kid } = opened;
    if (plaintext && kid) return this.#tell(message, opened, plaintext, kid);
    await this.store.setStatus(message.id, mayOpenLater(opened) ? "waiting" : "unreadable");
    this.emit("unreadable", this.opening.shown(message, opened));
  }

  /**
   * @param {Stored} message
   * @param {Opened} opened
   * @param {Plaintext} plaintext
   * @param {string} kid
   */
  async #tell(message, opened, plaintext, kid) {
    const { id, sender, recipient, contact, seq, content } = message;
    const chain = await this.chains.incoming([sender, recipient, kid], seq);
    const verdict = judge(chain, plaintext);
    await this.store.opened(id, chain, plaintext.n, await hashOf(content));
    const isMine = sender === this.me;
    if (verdict !== "next") this.emit(verdict, { id, contact, isMine, n: plaintext.n });
    // Another device of mine has taken an `n` that messages here may have been sealed with.
    if (isMine && (await this.store.outboxOf(contact)).length) await this.outbox.sealAgain(contact);
    this.emit("message", this.opening.shown(message, opened));
  }

  /**
   * An envelope under a key that is not known: the directory may show it.
   *
   * @param {Stored} message
   * @param {Opened} opened
   */
  async #lookUp(message, opened) {
    const name = `${opened.kid} ${message.sender}`;
    if (this.#lookedUp.has(name)) return this.opening.tryOpen(message);
    this.#lookedUp.add(name);
    try {
      await this.contacts.refresh(message.sender);
    } catch {
      this.#lookedUp.delete(name);
    }
    return this.opening.tryOpen(message);
  }

  /** The log was made anew, or it forgot what this device missed: read what the history has. */
  async #readHistory() {
    for (let before = null, isEnd = false; !isEnd; ) {
      const path = `conversations${query({ before, limit: PAGE })}`;
      const conversations = await this.rest.get(path);
      for (const conversation of conversations) await this.#readConversation(conversation);
      isEnd = conversations.length < PAGE;
      before = conversations.at(-1)?.last.position;
    }
  }

  /** @param {{contact_id: string, conversation_id: string | null}} conversation */
  async #readConversation({ contact_id, conversation_id }) {
    const path =
      conversation_id === null
        ? `messages/${segment(contact_id)}`
        : `conversations/${segment(conversation_id)}/messages`;
    const missed = [];
    for (let before = null, hasMore = true; hasMore; ) {
      const page = await this.rest.get(`${path}${query({ before, limit: PAGE })}`);
      const ids = page.messages.map((/** @type {Frame} */ message) => message.id);
      const seen = await this.store.seenOf(ids);
      missed.push(...page.messages.filter((/** @type {Frame} */ one) => !seen.has(one.id)));
      hasMore = page.has_more && seen.size === 0;
      before = page.next;
    }
    const { epoch } = this.#cursor;
    const stored = missed.reverse().map((message) => this.#stored(message, epoch));
    await this.#openAll(await this.store.receive(stored, [], this.#cursor));
  }

  /**
   * @param {Frame} frame
   * @param {string} epoch
   * @returns {Stored}
   */
  #stored(frame, epoch) {
    const { id, seq, sender, recipient, conversation_id, created_at, expires_at } = frame;
    const { delivered_at = null, read_at = null } = frame;
    return {
      id,
      epoch,
      seq,
      contact: sender === this.me ? recipient : sender,
      sender,
      recipient,
      conversation_id,
      content: sealedOf(frame).content,
      created_at,
      expires_at,
      delivered_at,
      read_at,
      status: "new",
    };
  }
}
