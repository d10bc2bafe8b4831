/**
 * The chains of this device, looked up in the server's history where this device has no count.
 */

import { chainAtStart } from "./chain.js";
import { hashOf, read } from "./envelope.js";
import { sealedOf } from "./opening.js";
import { query, segment } from "./rest.js";

/** @typedef {import("./chain.js").Chain} Chain */
/** @typedef {import("./opening.js").Opening} Opening */
/** @typedef {import("./store.js").OwnKey} OwnKey */

const PAGE = 100;

export class Chains {
  /**
   * @param {string} me
   * @param {Opening} opening
   */
  constructor(me, opening) {
    this.me = me;
    this.opening = opening;
    this.store = opening.store;
    this.rest = opening.contacts.rest;
  }

  /**
   * The chain of my own envelopes to a contact. A key that was restored was used elsewhere: its
   * chain goes on after its newest message in the history.
   *
   * @param {string} contact
   * @param {OwnKey} key
   * @returns {Promise<Chain>}
   */
  async outgoing(contact, key) {
    /** @type {Chain["name"]} */
    const name = [this.me, contact, key.kid];
    const known = await this.store.chain(name);
    if (known) return known;
    if (!key.isRestored) return chainAtStart(name);
    return this.#fromHistory(name, contact, null);
  }

  /**
   * The chain to which an envelope at a position belongs.
   *
   * @param {Chain["name"]} name
   * @param {number} before
   * @returns {Promise<Chain>}
   */
  async incoming(name, before) {
    const [sender, recipient] = name;
    const known = await this.store.chain(name);
    if (known) return known;
    try {
      return await this.#fromHistory(name, sender === this.me ? recipient : sender, before || null);
    } catch {
      return chainAtStart(name);
    }
  }

  /**
   * @param {Chain["name"]} name
   * @param {string} contact
   * @param {number | null} before
   */
  async #fromHistory(name, contact, before) {
    for (let at = before, hasMore = true; hasMore; ) {
      const path = `messages/${segment(contact)}${query({ before: at, limit: PAGE })}`;
      const page = await this.rest.get(path);
      const found = page.messages.find((/** @type {any} */ message) => belongsTo(message, name));
      if (found) return this.#after(name, found);
      [at, hasMore] = [page.next, page.has_more];
    }
    return chainAtStart(name);
  }

  /**
   * @param {Chain["name"]} name
   * @param {any} message
   * @returns {Promise<Chain>}
   */
  async #after(name, message) {
    const sealed = sealedOf(message);
    const { plaintext } = await this.opening.tryOpen(sealed);
    if (!plaintext) return { name, n: null, hash: null };
    return { name, n: plaintext.n, hash: await hashOf(sealed.content) };
  }
}

/**
 * @param {any} message of a page of history
 * @param {Chain["name"]} name
 */
function belongsTo(message, [sender, recipient, kid]) {
  if (message.sender !== sender || message.recipient !== recipient) return false;
  try {
    return read(sealedOf(message).content).senderKid === kid;
  } catch {
    return false;
  }
}
