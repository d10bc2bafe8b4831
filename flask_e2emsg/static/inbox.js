/**
 * What comes in: stored durably, then acknowledged, then opened and told to the application.
 *
 * Guarantees: the cursor never passes an entry that is not on the disk; a message id that was seen
 * before is dropped; what was stored and not told of when the page ended is told of by the next.
 */

import { advanced, judge } from "./chain.js";
import { hashOf } from "./envelope.js";
import { mayOpenLater, sealedOf } from "./opening.js";
import { query, segment } from "./rest.js";

/** @typedef {import("./chain.js").Chain} Chain */
/** @typedef {import("./chain.js").Verdict} Verdict */
/** @typedef {import("./chains.js").Chains} Chains */
/** @typedef {import("./connection.js").Link} Link */
/** @typedef {import("./opening.js").Opened} Opened */
/** @typedef {import("./outbox.js").Outbox} Outbox */
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
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve();

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
    await this.#inTurn(async () => {
      this.#lookedUp.clear();
      const fresh = await this.store.withStatus("new");
      await this.#openAll([...fresh, ...(await this.#waiting())]);
    });
  }

  /**
   * Messages are judged one after the other, by what those before have left.
   *
   * @param {() => Promise<void>} work
   */
  #inTurn(work) {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {}); // whoever asked for it hears of it
    return done;
  }

  /** Those of the waiting messages that open now. */
  async #waiting() {
    const waiting = await this.store.withStatus("waiting");
    const opened = await this.opening.tryAll(waiting);
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
    await this.#inTurn(() => this.#openAll(fresh));
  }

  /**
   * `sent` entries of what is in the outbox are the answers to it.
   *
   * @param {Stored[]} messages
   */
  async #settleAnswers(messages) {
    const mine = new Map(
      messages.filter(({ sender }) => sender === this.me).map((message) => [message.id, message]),
    );
    for (const outgoing of await this.store.outbox.among([...mine.keys()])) {
      const { seq, epoch, created_at } = /** @type {Stored} */ (mine.get(outgoing.id));
      await this.outbox.accept(outgoing, { seq, epoch, created_at });
    }
  }

  /** @param {Stored[]} messages */
  async #openAll(messages) {
    const opened = await this.opening.tryAll(messages);
    /** @type {Map<string, Chain>} */
    const chains = new Map();
    const told = [];
    for (const [at, message] of messages.entries()) {
      const known = await this.#lookUp(message, opened[at]);
      told.push({ message, opened: known, verdict: await this.#judged(message, known, chains) });
    }
    const outcomes = told.map(({ message, opened }) => ({ id: message.id, status: fate(opened) }));
    await this.store.settle(outcomes, [...chains.values()]);
    for (const one of told) await this.#tell(one.message, one.opened, one.verdict);
  }

  /**
   * How a message follows those before it, its chain going on in `chains`.
   *
   * @param {Stored} message
   * @param {Opened} opened
   * @param {Map<string, Chain>} chains
   * @returns {Promise<Verdict | null>}
   */
  async #judged({ sender, recipient, seq, content }, { plaintext, kid }, chains) {
    if (!plaintext || !kid) return null;
    /** @type {Chain["name"]} */
    const name = [sender, recipient, kid];
    const text = JSON.stringify(name);
    const chain = chains.get(text) ?? (await this.chains.incoming(name, seq));
    chains.set(text, advanced(chain, plaintext.n, await hashOf(content)));
    return judge(chain, plaintext);
  }

  /**
   * @param {Stored} message
   * @param {Opened} opened
   * @param {Verdict | null} verdict
   */
  async #tell(message, opened, verdict) {
    const shown = this.opening.shown(message, opened);
    if (!opened.plaintext) return this.emit("unreadable", shown);
    const { id, contact, isMine } = shown;
    if (verdict === "gap" || verdict === "fork") {
      this.emit(verdict, { id, contact, isMine, n: opened.plaintext.n });
    }
    // Another device of mine has taken an `n` that messages here may have been sealed with.
    if (isMine && (await this.store.outbox.firstTo(contact))) await this.outbox.sealAgain(contact);
    this.emit("message", shown);
  }

  /**
   * An envelope under a key that is not known: the directory may show it.
   *
   * @param {Stored} message
   * @param {Opened} opened
   */
  async #lookUp(message, opened) {
    if (opened.reason !== "unknown_key" || message.sender === this.me) return opened;
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
    const fresh = await this.store.receive(stored, [], this.#cursor);
    await this.#inTurn(() => this.#openAll(fresh));
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

/**
 * @param {Opened} opened
 * @returns {Stored["status"]}
 */
function fate(opened) {
  if (opened.plaintext) return "opened";
  return mayOpenLater(opened) ? "waiting" : "unreadable";
}
