/**
 * IndexedDB with promises: opening the database, and transactions.
 */

import { Unsupported } from "./errors.js";

const VERSION = 1;

/**
 * @param {string} name
 * @returns {Promise<IDBDatabase>}
 */
export async function openDatabase(name) {
  if (!globalThis.indexedDB) throw new Unsupported("There is no IndexedDB here to keep keys in.");
  const request = indexedDB.open(name, VERSION);
  request.onupgradeneeded = () => create(request.result);
  const database = await got(request);
  database.onversionchange = () => database.close();
  return database;
}

/**
 * Run `work` in one transaction; resolve with its value once that is done: with `strict`, once
 * everything is on the disk; else once it survives the browser's end, but not the machine's.
 *
 * `work` may only wait for requests of this transaction: it commits when it has nothing to do.
 *
 * @template Value
 * @param {IDBDatabase} database
 * @param {string[]} stores
 * @param {IDBTransactionMode} mode
 * @param {"strict" | "relaxed"} durability
 * @param {(transaction: IDBTransaction) => Promise<Value>} work
 * @returns {Promise<Value>}
 */
export async function transact(database, stores, mode, durability, work) {
  const transaction = database.transaction(stores, mode, { durability });
  const done = new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(undefined);
    transaction.onabort = () => reject(transaction.error);
  });
  done.catch(() => {}); // Whoever awaits below hears of it; nobody does when `work` fails first.
  let value;
  try {
    value = await work(transaction);
  } catch (error) {
    abort(transaction);
    throw error;
  }
  await done;
  return value;
}

/**
 * @template Value
 * @param {IDBRequest<Value>} request
 * @returns {Promise<Value>}
 */
export function got(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {IDBTransaction} transaction */
function abort(transaction) {
  try {
    transaction.abort();
  } catch {
    // It has ended already.
  }
}

/**
 * Keep how far a chain is, unless it is further already.
 *
 * @param {IDBTransaction} tx
 * @param {import("./chain.js").Chain} chain
 */
export async function advance(tx, chain) {
  const chains = tx.objectStore("chains");
  const known = await got(chains.get(chain.name));
  if (!known || (known.n ?? 0) < (chain.n ?? 0)) chains.put(chain);
}

/** @param {IDBDatabase} database */
function create(database) {
  database.createObjectStore("state");
  database.createObjectStore("keys", { keyPath: "kid" });
  database.createObjectStore("pins", { keyPath: "userId" });
  database.createObjectStore("chains", { keyPath: "name" });
  database.createObjectStore("seen", { keyPath: "id" });
  const inbox = database.createObjectStore("inbox", { keyPath: "id" });
  inbox.createIndex("contact", ["contact", "epoch", "seq"]);
  inbox.createIndex("status", "status");
  inbox.createIndex("expiry", "expires_at"); // those without one are not in it
  const outbox = database.createObjectStore("outbox", { keyPath: "order", autoIncrement: true });
  outbox.createIndex("id", "id", { unique: true });
  outbox.createIndex("contact", "to");
  outbox.createIndex("to", ["to", "order"]);
}
