/**
 * The chain of one sender key's envelopes to one recipient: `n` and `prev` (docs/crypto.md 3).
 */

/** @typedef {import("./plaintext.js").Plaintext} Plaintext */

/**
 * How far a chain has come on this device.
 *
 * @typedef {object} Chain
 * @property {[sender: string, recipient: string, kid: string]} name
 * @property {number | null} n of the newest envelope, 0 before the first; null where there were
 *     some, sealed for a key that is not here, so that the next one cannot be judged
 * @property {string | null} hash of the newest envelope
 */

/** @typedef {"next" | "gap" | "fork"} Verdict */

/**
 * How an envelope that was never seen before follows those that were.
 *
 * @param {Chain} chain
 * @param {{n: number, prev: string | null}} plaintext
 * @returns {Verdict}
 */
export function judge(chain, { n, prev }) {
  if (chain.n === null) return "next";
  if (n > chain.n + 1) return "gap";
  return n === chain.n + 1 && prev === chain.hash ? "next" : "fork";
}

/**
 * @param {Chain["name"]} name
 * @returns {Chain} before its first envelope
 */
export function chainAtStart(name) {
  return { name, n: 0, hash: null };
}

/**
 * @param {Chain} chain
 * @param {number} n
 * @param {string} hash
 * @returns {Chain}
 */
export function advanced(chain, n, hash) {
  return n > (chain.n ?? 0) ? { ...chain, n, hash } : chain;
}
