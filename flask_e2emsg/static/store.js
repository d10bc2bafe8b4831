/**
 * What this browser keeps, in IndexedDB: the identity key, pins, chains, what was seen, envelopes
 * that came in and that wait to go out, and the cursor.
 *
 * Guarantees: every method is one transaction, durable when it resolves. There is never cleartext
 * in here, and private keys are non-extractable.
 */

import { advanced } from "./chain.js";
import { got, openDatabase, transact } from "./database.js";

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

/**
 * @typedef {object} Outgoing
 * @property {number} [order]
 * @property {string} id
 * @property {string} to
 * @property {string | null} conversation_id
 * @property {number | null} expires_in seconds
 * @property {Bytes} content the envelope
 * @property {string} kid of the key that it is sealed with
 * @property {number} n
 * @property {string} hash of the envelope
 * @property {boolean} isAttempted whether the server may have it
 */

/** @typedef {{kind: string, ids: string[], at: string}} Receipt */

export class Store {
  #database;

  /** @param {IDBDatabase} database */
  constructor(database) {
    this.#database = database;
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
    return this.#write(["state", "seen", "inbox"], async (tx) => {
      const fresh = [];
      for (const message of messages) {
        if (await isFresh(tx, message)) fresh.push(message);
      }
      for (const receipt of receipts) await mark(tx.objectStore("inbox"), receipt);
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
   * @param {string} id
   * @param {Stored["status"]} status
   */
  setStatus(id, status) {
    return this.#write(["inbox"], (tx) => changeStatus(tx.objectStore("inbox"), id, status));
  }

  /**
   * Note that a message was opened, and how far its chain is.
   *
   * @param {string} id
   * @param {Chain} chain as it was before
   * @param {number} n
   * @param {string} hash
   */
  opened(id, chain, n, hash) {
    return this.#write(["inbox", "chains"], async (tx) => {
      await changeStatus(tx.objectStore("inbox"), id, "opened");
      await advance(tx, chain, n, hash);
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

  /** @param {Outgoing} message new, or changed */
  enqueue(message) {
    return this.#write(["outbox"], (tx) => got(tx.objectStore("outbox").put(message)));
  }

  /**
   * @param {string} contact
   * @returns {Promise<Outgoing[]>} oldest first
   */
  outboxOf(contact) {
    const range = IDBKeyRange.bound([contact], [contact, []]);
    return this.#read(["outbox"], (tx) => got(tx.objectStore("outbox").index("to").getAll(range)));
  }

  /** @returns {Promise<Outgoing[]>} oldest first */
  outbox() {
    return this.#read(["outbox"], (tx) => got(tx.objectStore("outbox").getAll()));
  }

  /**
   * @param {string} id
   * @returns {Promise<boolean>} whether it was in the outbox
   */
  dropOutgoing(id) {
    return this.#write(["outbox"], (tx) => drop(tx.objectStore("outbox"), id));
  }

  /**
   * The server has it: it moves from the outbox to the inbox, and its chain goes on.
   *
   * @param {Outgoing} message
   * @param {Chain} chain for when none is stored yet
   * @param {Stored} kept
   * @returns {Promise<boolean>} whether that was news
   */
  accepted(message, chain, kept) {
    return this.#write(["outbox", "chains", "seen", "inbox"], async (tx) => {
      if (!(await drop(tx.objectStore("outbox"), message.id))) return false;
      await advance(tx, chain, message.n, message.hash);
      tx.objectStore("seen").put({ id: kept.id });
      tx.objectStore("inbox").put(kept);
      return true;
    });
  }

  /**
   * @template Value
   * @param {string[]} stores
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #read(stores, work) {
    return transact(this.#database, stores, "readonly", work);
  }

  /**
   * @template Value
   * @param {string[]} stores
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #write(stores, work) {
    return transact(this.#database, stores, "readwrite", work);
  }
}

/**
 * @param {IDBTransaction} tx
 * @param {Chain} chain for when none is stored yet
 * @param {number} n
 * @param {string} hash
 */
async function advance(tx, chain, n, hash) {
  const chains = tx.objectStore("chains");
  chains.put(advanced((await got(chains.get(chain.name))) ?? chain, n, hash));
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
 * @param {IDBObjectStore} outbox
 * @param {string} id
 */
async function drop(outbox, id) {
  const order = await got(outbox.index("id").getKey(id));
  if (order !== undefined) outbox.delete(order);
  return order !== undefined;
}

/**
 * @param {IDBObjectStore} inbox
 * @param {string} id
 * @param {Stored["status"]} status
 */
async function changeStatus(inbox, id, status) {
  const message = await got(inbox.get(id));
  if (message) inbox.put({ ...message, status });
}

/**
 * @param {IDBObjectStore} inbox
 * @param {Receipt} receipt
 */
async function mark(inbox, { kind, ids, at }) {
  const member = kind === "read" ? "read_at" : "delivered_at";
  for (const id of ids) {
    const message = await got(inbox.get(id));
    if (message) inbox.put({ ...message, [member]: message[member] ?? at });
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
