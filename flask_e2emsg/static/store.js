/**
 * What this browser keeps, in IndexedDB: the identity key, pins, chains, what was seen, envelopes
 * that came in and that wait to go out, and the cursor.
 *
 * Guarantees: every method is one transaction. What the server or the user is promised is on the
 * disk when it resolves; what would only be done again, as opening a message, survives the
 * browser's end. There is never cleartext in here, and private keys are non-extractable.
 */

import { advance, got, openDatabase, transact } from "./database.js";
import { OutboxStore, markOutgoing } from "./outbox-store.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./chain.js").Chain} Chain */
/** @typedef {import("./keys.js").Identity} Identity */
/** @typedef {{epoch: string, seq: number}} Cursor */
/** @typedef {{kid: string, publicKey: Bytes}} KnownKey */

/**
 * A contact's keys: `current` is sealed for, `earlier` ones are for history, and `pending` is what
 * the directory shows and the user has not accepted.
 *
 * @typedef {object} Pin
 * @property {string} userId
 * @property {KnownKey} current
 * @property {KnownKey[]} earlier
 * @property {KnownKey | null} pending
 * @property {number} checkedAt milliseconds since 1970
 */

/**
 * @typedef {Identity & {isRestored: boolean}} OwnKey
 * `isRestored`: it was used elsewhere before, so its chains may be longer than this device knows.
 */

/**
 * @typedef {object} Stored
 * @property {string} id
 * @property {string} epoch
 * @property {number} seq the position; 0 while it is not known
 * @property {string} contact the other party; I myself, for what I wrote to myself
 * @property {string} sender
 * @property {string} recipient
 * @property {string | null} conversation_id
 * @property {Bytes} content the envelope
 * @property {string} created_at
 * @property {string | null} expires_at
 * @property {string | null} delivered_at
 * @property {string | null} read_at
 * @property {"new" | "opened" | "waiting" | "unreadable"} status
 */

/** @typedef {{kind: string, ids: string[], at: string}} Receipt */

export class Store {
  #database;

  /** @param {IDBDatabase} database */
  constructor(database) {
    this.#database = database;
    this.outbox = new OutboxStore(database);
  }

  /** @param {string} name */
  static async open(name) {
    return new Store(await openDatabase(name));
  }

  close() {
    this.#database.close();
  }

  /**
   * @param {string} name
   * @returns {Promise<any>}
   */
  get(name) {
    return this.#read(["state"], (tx) => got(tx.objectStore("state").get(name)));
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  set(name, value) {
    return this.#write(["state"], (tx) => got(tx.objectStore("state").put(value, name)));
  }

  /**
   * My keys, the one in use first.
   *
   * @returns {Promise<OwnKey[]>}
   */
  ownKeys() {
    return this.#read(["state", "keys"], async (tx) => {
      const [kid, keys] = await Promise.all([
        got(tx.objectStore("state").get("kid")),
        got(tx.objectStore("keys").getAll()),
      ]);
      return keys.sort((one, other) => Number(other.kid === kid) - Number(one.kid === kid));
    });
  }

  /** @param {OwnKey} key which from now on is the one in use */
  useKey(key) {
    return this.#write(["state", "keys"], async (tx) => {
      tx.objectStore("keys").put(key);
      tx.objectStore("state").put(key.kid, "kid");
    });
  }

  /**
   * @param {string} userId
   * @returns {Promise<Pin | undefined>}
   */
  pin(userId) {
    return this.#read(["pins"], (tx) => got(tx.objectStore("pins").get(userId)));
  }

  /**
   * Change a pin, or make it, in one step, so that two tabs cannot undo each other's change.
   *
   * @param {string} userId
   * @param {(pin: Pin | undefined) => Pin} change
   * @returns {Promise<Pin>}
   */
  changePin(userId, change) {
    return this.#write(["pins"], async (tx) => {
      const pins = tx.objectStore("pins");
      const pin = change(await got(pins.get(userId)));
      pins.put(pin);
      return pin;
    });
  }

  /**
   * @param {Chain["name"]} name
   * @returns {Promise<Chain | undefined>}
   */
  chain(name) {
    return this.#read(["chains"], (tx) => got(tx.objectStore("chains").get(name)));
  }

  /** @param {Chain} chain */
  saveChain(chain) {
    return this.#write(["chains"], (tx) => got(tx.objectStore("chains").put(chain)));
  }

  /**
   * Keep what is new, with the marks of receipts, and move the cursor.
   *
   * @param {Stored[]} messages
   * @param {Receipt[]} receipts
   * @param {Cursor} cursor
   * @returns {Promise<Stored[]>} those that were never seen before
   */
  receive(messages, receipts, cursor) {
    return this.#write(["state", "seen", "inbox", "outbox"], async (tx) => {
      const fresh = [];
      for (const message of messages) {
        if (await isFresh(tx, message)) fresh.push(message);
      }
      for (const receipt of receipts) await mark(tx, receipt);
      tx.objectStore("state").put(cursor, "cursor");
      return fresh;
    });
  }

  /**
   * @param {Stored["status"]} status
   * @returns {Promise<Stored[]>} oldest first
   */
  async withStatus(status) {
    const found = await this.#read(["inbox"], (tx) =>
      got(tx.objectStore("inbox").index("status").getAll(status)),
    );
    return /** @type {Stored[]} */ (found).sort((one, other) => one.seq - other.seq);
  }

  /**
   * Note what has become of messages, and how far chains are by them.
   *
   * @param {{id: string, status: Stored["status"]}[]} outcomes
   * @param {Chain[]} chains
   */
  settle(outcomes, chains) {
    return this.#note(["inbox", "chains"], async (tx) => {
      const inbox = tx.objectStore("inbox");
      for (const { id, status } of outcomes) {
        const message = await got(inbox.get(id));
        if (message) inbox.put({ ...message, status });
      }
      for (const chain of chains) await advance(tx, chain);
    });
  }

  /**
   * @param {string[]} ids
   * @returns {Promise<Set<string>>} those that were seen
   */
  seenOf(ids) {
    return this.#read(["seen"], async (tx) => {
      const seen = tx.objectStore("seen");
      const found = await Promise.all(ids.map((id) => got(seen.getKey(id))));
      return new Set(ids.filter((_, at) => found[at] !== undefined));
    });
  }

  /**
   * What this browser has of the history with a contact, newest first.
   *
   * @param {string} contact
   * @param {number | null} before position
   * @param {number} limit
   * @returns {Promise<Stored[]>}
   */
  history(contact, before, limit) {
    return this.#read(["state", "inbox"], async (tx) => {
      const epoch = (await got(tx.objectStore("state").get("cursor")))?.epoch ?? "";
      const top = [contact, epoch, before ?? Infinity];
      const range = IDBKeyRange.bound([contact, epoch], top, false, true);
      return page(tx.objectStore("inbox").index("contact"), range, limit);
    });
  }

  /** Forget the messages that have expired. */
  forgetExpired() {
    return this.#write(["inbox"], async (tx) => {
      const inbox = tx.objectStore("inbox");
      const past = IDBKeyRange.upperBound(new Date().toISOString());
      for (const id of await got(inbox.index("expiry").getAllKeys(past))) inbox.delete(id);
    });
  }

  /**
   * @template Value
   * @param {string[]} stores
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #read(stores, work) {
    return transact(this.#database, stores, "readonly", "relaxed", work);
  }

  /**
   * @template Value
   * @param {string[]} stores
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #write(stores, work) {
    return transact(this.#database, stores, "readwrite", "strict", work);
  }

  /**
   * @template Value
   * @param {string[]} stores
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #note(stores, work) {
    return transact(this.#database, stores, "readwrite", "relaxed", work);
  }
}

/**
 * Whether a message was never seen before; one that REST has accepted gets its position here.
 *
 * @param {IDBTransaction} tx
 * @param {Stored} message
 */
async function isFresh(tx, message) {
  const [seen, inbox] = [tx.objectStore("seen"), tx.objectStore("inbox")];
  if (!(await got(seen.getKey(message.id)))) {
    seen.put({ id: message.id });
    inbox.put(message);
    return true;
  }
  const known = await got(inbox.get(message.id));
  if (known?.seq === 0) inbox.put({ ...known, epoch: message.epoch, seq: message.seq });
  return false;
}

/**
 * A receipt may overtake the answer: then its message is still in the outbox.
 *
 * @param {IDBTransaction} tx
 * @param {Receipt} receipt
 */
async function mark(tx, { kind, ids, at }) {
  const inbox = tx.objectStore("inbox");
  const member = kind === "read" ? "read_at" : "delivered_at";
  for (const id of ids) {
    const message = await got(inbox.get(id));
    if (message) inbox.put({ ...message, [member]: message[member] ?? at });
    else await markOutgoing(tx.objectStore("outbox"), id, { [member]: at });
  }
}

/**
 * @param {IDBIndex} index
 * @param {IDBKeyRange} range
 * @param {number} limit
 * @returns {Promise<Stored[]>}
 */
function page(index, range, limit) {
  return new Promise((resolve, reject) => {
    /** @type {Stored[]} */
    const found = [];
    const request = index.openCursor(range, "prev");
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const at = request.result;
      if (!at || found.length >= limit) return resolve(found);
      found.push(at.value);
      at.continue();
    };
  });
}
