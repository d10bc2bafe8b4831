/**
 * What is inside an envelope: one JSON object, padded up to a bucket (docs/crypto.md 3).
 */

import { fromBase64url, fromUtf8, utf8 } from "./bytes.js";
import { E2EError, Unreadable } from "./errors.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */

/**
 * @typedef {object} Plaintext
 * @property {string} type `text`, `reply`, `edit`, `delete`, `reaction`, or one from the future
 * @property {string} [body] not in a `delete`
 * @property {string} [target] the message that a reply, edit, deletion or reaction is about
 * @property {number} sent_at milliseconds since 1970, by the sender's clock
 * @property {number} n
 * @property {string | null} prev
 */

const SMALLEST_BUCKET = 256;
const LARGEST_BUCKET = 65536;
const END = 0x80;
const HASH_BYTES = 32;
const WITH_BODY = ["text", "reply", "edit", "reaction"];
const WITH_TARGET = ["reply", "edit", "delete", "reaction"];

/**
 * @param {Plaintext} plaintext
 * @returns {Bytes} of a bucket's length
 */
export function encode(plaintext) {
  return pad(utf8(JSON.stringify(plaintext)));
}

/**
 * @param {Bytes} padded
 * @returns {Plaintext}
 */
export function decode(padded) {
  const json = unpad(padded);
  let value;
  try {
    value = JSON.parse(fromUtf8(json));
  } catch {
    throw new Unreadable("plaintext");
  }
  if (!isPlaintext(value)) throw new Unreadable("plaintext");
  return value;
}

/**
 * @param {Bytes} content
 * @returns {Bytes}
 */
export function pad(content) {
  let bucket = SMALLEST_BUCKET;
  while (bucket <= content.length) bucket *= 2;
  if (bucket > LARGEST_BUCKET) {
    throw new E2EError("too_long", "The message is too long. Send it in parts.");
  }
  const padded = new Uint8Array(bucket);
  padded.set(content);
  padded[content.length] = END;
  return padded;
}

/**
 * @param {Bytes} padded
 * @returns {Bytes}
 */
export function unpad(padded) {
  let end = padded.length - 1;
  while (end >= 0 && padded[end] === 0) end--;
  if (!isBucket(padded.length) || padded[end] !== END) throw new Unreadable("padding");
  return padded.slice(0, end);
}

/** @param {number} size */
function isBucket(size) {
  return size >= SMALLEST_BUCKET && size <= LARGEST_BUCKET && (size & (size - 1)) === 0;
}

/**
 * @param {any} value
 * @returns {value is Plaintext}
 */
function isPlaintext(value) {
  if (typeof value !== "object" || value === null || typeof value.type !== "string") return false;
  if (WITH_BODY.includes(value.type) && typeof value.body !== "string") return false;
  if (WITH_TARGET.includes(value.type) && typeof value.target !== "string") return false;
  if (!Number.isSafeInteger(value.sent_at) || value.sent_at < 0) return false;
  return Number.isSafeInteger(value.n) && value.n >= 1 && isHash(value.prev);
}

/** @param {any} prev */
function isHash(prev) {
  if (prev === null) return true;
  try {
    return typeof prev === "string" && fromBase64url(prev).length === HASH_BYTES;
  } catch {
    return false;
  }
}
