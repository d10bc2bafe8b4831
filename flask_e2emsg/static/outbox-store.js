/**
 * The part of the store for what waits to go out: envelopes, in the order of sending.
 */

import { advance, got, transact } from "./database.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./chain.js").Chain} Chain */
/** @typedef {import("./store.js").Stored} Stored */

/**
 * @typedef {object} Outgoing
 * @property {number} [order]
 * @property {string} id
 * @property {string} to
 * @property {string | null} conversation_id
 * @property {number | null} expires_in seconds
 * @property {Bytes} content the envelope
 * @property {string} kid of the key that it is sealed with
 * @property {string} readerKid of the key that it is sealed for
 * @property {number} n
 * @property {string} hash of the envelope
 * @property {boolean} isAttempted whether the server may have it
 * @property {string} [delivered_at] by a receipt that has overtaken the answer
 * @property {string} [read_at] likewise
 */

export class OutboxStore {
  #database;

  /** @param {IDBDatabase} database */
  constructor(database) {
    this.#database = database;
  }

  /** @param {Outgoing} message */
  add(message) {
    return this.#write("strict", (tx) => got(tx.objectStore("outbox").add(message)));
  }

  /** @param {Outgoing} message sealed again */
  replace(message) {
    return this.#write("strict", (tx) => change(tx.objectStore("outbox"), message));
  }

  /**
   * Note whether the server may have a message. If that is lost, it comes back as an entry.
   *
   * @param {Outgoing} message
   * @param {boolean} isAttempted
   */
  attempted(message, isAttempted) {
    return this.#write("relaxed", (tx) =>
      change(tx.objectStore("outbox"), { ...message, isAttempted }),
    );
  }

  /** @returns {Promise<string[]>} the contacts for whom something waits */
  contacts() {
    return this.#read((tx) => distinct(tx.objectStore("outbox").index("contact")));
  }

  /**
   * @param {string} contact
   * @returns {Promise<Outgoing | undefined>}
   */
  firstTo(contact) {
    return this.#read((tx) => got(tx.objectStore("outbox").index("to").get(to(contact))));
  }

  /**
   * @param {string} contact
   * @returns {Promise<Outgoing | undefined>}
   */
  lastTo(contact) {
    return this.#read(async (tx) => {
      const request = tx.objectStore("outbox").index("to").openCursor(to(contact), "prev");
      return (await got(request))?.value;
    });
  }

  /**
   * @param {string} contact
   * @returns {Promise<Outgoing[]>} oldest first
   */
  allTo(contact) {
    const range = to(contact);
    return this.#read((tx) => got(tx.objectStore("outbox").index("to").getAll(range)));
  }

  /**
   * @param {string[]} ids
   * @returns {Promise<Outgoing[]>} those that are in the outbox
   */
  among(ids) {
    return this.#read(async (tx) => {
      const index = tx.objectStore("outbox").index("id");
      const found = await Promise.all(ids.map((id) => got(index.get(id))));
      return found.filter((message) => message !== undefined);
    });
  }

  /**
   * @param {string} id
   * @returns {Promise<boolean>} whether it was in the outbox
   */
  drop(id) {
    return this.#write("strict", (tx) => drop(tx.objectStore("outbox"), id));
  }

  /**
   * The server has it: it moves from the outbox to the inbox, and its chain goes on.
   *
   * @param {string} id
   * @param {Chain} chain as it is with this message
   * @param {Stored} kept
   * @returns {Promise<Stored | null>} what is kept, with its marks; null if it was so before
   */
  accepted(id, chain, kept) {
    const stores = ["outbox", "chains", "seen", "inbox"];
    return transact(this.#database, stores, "readwrite", "relaxed", async (tx) => {
      const outbox = tx.objectStore("outbox");
      const { delivered_at = null, read_at = null } = (await got(outbox.index("id").get(id))) ?? {};
      if (!(await drop(outbox, id))) return null;
      const marked = { ...kept, delivered_at, read_at };
      await advance(tx, chain);
      tx.objectStore("seen").put({ id });
      tx.objectStore("inbox").put(marked);
      return marked;
    });
  }

  /**
   * @template Value
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #read(work) {
    return transact(this.#database, ["outbox"], "readonly", "relaxed", work);
  }

  /**
   * @template Value
   * @param {"strict" | "relaxed"} durability
   * @param {(tx: IDBTransaction) => Promise<Value>} work
   */
  #write(durability, work) {
    return transact(this.#database, ["outbox"], "readwrite", durability, work);
  }
}

/**
 * Change a message, unless its answer has come meanwhile: it must not come back to life.
 *
 * @param {IDBObjectStore} outbox
 * @param {Outgoing} message
 */
async function change(outbox, message) {
  const order = /** @type {number} */ (message.order);
  if (await got(outbox.getKey(order))) outbox.put(message);
}

/**
 * @param {IDBObjectStore} outbox
 * @param {string} id
 * @param {{delivered_at?: string, read_at?: string}} mark
 */
export async function markOutgoing(outbox, id, mark) {
  const message = await got(outbox.index("id").get(id));
  if (message) outbox.put({ ...mark, ...message });
}

/** @param {string} contact */
function to(contact) {
  return IDBKeyRange.bound([contact], [contact, []]);
}

/**
 * @param {IDBIndex} index
 * @returns {Promise<string[]>}
 */
function distinct(index) {
  return new Promise((resolve, reject) => {
    /** @type {string[]} */
    const found = [];
    const request = index.openKeyCursor(null, "nextunique");
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      if (!request.result) return resolve(found);
      found.push(/** @type {string} */ (request.result.key));
      request.result.continue();
    };
  });
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
