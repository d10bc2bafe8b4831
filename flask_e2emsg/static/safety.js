/**
 * Safety numbers: 60 digits that two people compare over another channel (docs/crypto.md 5).
 */

import { concat, integer, utf8 } from "./bytes.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */

/**
 * @typedef {object} Party
 * @property {string} userId
 * @property {Bytes} publicKey
 */

const ROUNDS = 5200;
const ROUNDS_AT_ONCE = 100;
const VERSION = integer(1, 2);
const NUMBERS = 6;
const NUMBER_BYTES = 5;

/**
 * It takes some hundred milliseconds, in which the page stays alive.
 *
 * @param {Party} one
 * @param {Party} other
 * @returns {Promise<string>} 60 digits, the same whoever is first
 */
export async function safetyNumber(one, other) {
  const halves = [await halfOf(one), await halfOf(other)];
  return halves.sort().join("");
}

/**
 * @param {string} digits
 * @returns {string} in groups of five
 */
export function grouped(digits) {
  return /** @type {string[]} */ (digits.match(/.{5}/g)).join(" ");
}

/**
 * @param {string} digits
 * @returns {string} what a QR code says
 */
export function qrText(digits) {
  return `e2emsg-safety:1:${digits}`;
}

/**
 * @param {Party} party
 * @returns {Promise<string>} 30 digits
 */
async function halfOf({ userId, publicKey }) {
  let digest = concat(VERSION, publicKey, utf8(userId));
  for (let round = 0; round < ROUNDS; round++) {
    if (round % ROUNDS_AT_ONCE === 0) await breath();
    const hashed = await crypto.subtle.digest("SHA-512", concat(digest, publicKey));
    digest = new Uint8Array(hashed);
  }
  return Array.from({ length: NUMBERS }, (_, at) => fiveDigits(digest, at * NUMBER_BYTES)).join("");
}

/**
 * Let the page do something else: browsers hash little at once, without leaving the task. A timer
 * would be slowed down in a page that is not seen.
 */
function breath() {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve(undefined);
    };
    port2.postMessage(null);
  });
}

/**
 * @param {Bytes} digest
 * @param {number} at
 */
function fiveDigits(digest, at) {
  // 40 bits are exact in a number.
  const value = digest.slice(at, at + NUMBER_BYTES).reduce((sum, byte) => sum * 256 + byte, 0);
  return String(value % 100000).padStart(5, "0");
}
