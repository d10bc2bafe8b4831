/**
 * From stored envelopes to what an application shows.
 */

import { fromBase64url } from "./bytes.js";
import { open, read } from "./envelope.js";
import { Unreadable } from "./errors.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./contacts.js").Contacts} Contacts */
/** @typedef {import("./envelope.js").Address} Address */
/** @typedef {import("./plaintext.js").Plaintext} Plaintext */
/** @typedef {import("./store.js").OwnKey} OwnKey */

/**
 * @typedef {Address & {content: Bytes, seq?: number, created_at?: string,
 *   expires_at?: string | null, delivered_at?: string | null, read_at?: string | null}} Sealed
 */

/**
 * @typedef {object} Opened
 * @property {Plaintext | null} plaintext
 * @property {string | null} reason why there is none
 * @property {string | null} kid of the sender
 */

/**
 * @typedef {object} Message
 * @property {string} id
 * @property {string} contact the other party; I myself, for what I wrote to myself
 * @property {string} sender
 * @property {string} recipient
 * @property {boolean} isMine
 * @property {string | null} conversationId
 * @property {number | null} position in my mailbox; null while it is not known
 * @property {string | null} createdAt when the server stored it
 * @property {string | null} expiresAt
 * @property {string | null} deliveredAt
 * @property {string | null} readAt
 * @property {string | null} kid of the sender's key
 * @property {string | null} unreadable why it does not open; else null
 * @property {string | null} type
 * @property {string | null} body
 * @property {string | null} target
 * @property {number | null} sentAt milliseconds since 1970, by the sender's clock
 */

/** These may open later, with another key: of the sender, or of mine. */
const FOR_ANOTHER_KEY = ["unknown_key", "not_for_me"];

export class Opening {
  /** @param {Contacts} contacts */
  constructor(contacts) {
    this.contacts = contacts;
    this.store = contacts.store;
    this.me = contacts.me;
  }

  /**
   * @param {Sealed} sealed
   * @returns {Promise<Opened>}
   */
  async tryOpen(sealed) {
    return (await this.tryAll([sealed]))[0];
  }

  /**
   * @param {Sealed[]} all
   * @returns {Promise<Opened[]>} in the same order
   */
  async tryAll(all) {
    const mine = await this.store.ownKeys();
    const senders = [...new Set(all.map((sealed) => sealed.sender))];
    const keys = await Promise.all(senders.map((sender) => this.contacts.keysOf(sender)));
    return Promise.all(
      all.map((sealed) => tryOne(sealed, mine, keys[senders.indexOf(sealed.sender)])),
    );
  }

  /**
   * @param {Sealed} sealed
   * @param {Opened} opened
   * @returns {Message}
   */
  shown(sealed, { plaintext, reason, kid }) {
    const { id, sender, recipient } = sealed;
    const isMine = sender === this.me;
    return {
      id,
      contact: isMine ? recipient : sender,
      sender,
      recipient,
      isMine,
      conversationId: sealed.conversation_id ?? null,
      position: sealed.seq || null,
      createdAt: sealed.created_at ?? null,
      expiresAt: sealed.expires_at ?? null,
      deliveredAt: sealed.delivered_at ?? null,
      readAt: sealed.read_at ?? null,
      kid,
      unreadable: reason,
      type: plaintext?.type ?? null,
      body: plaintext?.body ?? null,
      target: plaintext?.target ?? null,
      sentAt: plaintext?.sent_at ?? null,
    };
  }

  /**
   * @param {Sealed[]} all
   * @returns {Promise<Message[]>}
   */
  async show(all) {
    const opened = await this.tryAll(all);
    return all.map((sealed, at) => this.shown(sealed, opened[at]));
  }
}

/**
 * @param {Sealed} sealed
 * @param {OwnKey[]} mine
 * @param {Map<string, Bytes>} known
 * @returns {Promise<Opened>}
 */
async function tryOne(sealed, mine, known) {
  const kid = kidIn(sealed.content);
  try {
    return { plaintext: await open(sealed.content, sealed, mine, known), reason: null, kid };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { plaintext: null, reason: error.code, kid };
  }
}

/** @param {Opened} opened */
export function mayOpenLater({ reason }) {
  return reason !== null && FOR_ANOTHER_KEY.includes(reason);
}

/**
 * A message of the wire with its envelope's bytes: none, which do not open, for what is no text of
 * bytes.
 *
 * @param {any} message
 * @returns {Sealed}
 */
export function sealedOf(message) {
  try {
    return { ...message, content: fromBase64url(message.encrypted_content) };
  } catch {
    return { ...message, content: new Uint8Array(0) };
  }
}

/**
 * @param {Bytes} content
 * @returns {string | null}
 */
function kidIn(content) {
  try {
    return read(content).senderKid;
  } catch {
    return null;
  }
}
