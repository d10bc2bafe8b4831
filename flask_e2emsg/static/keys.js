/**
 * Identity keys: X25519 on WebCrypto.
 *
 * A private key in use is a non-extractable `CryptoKey`: a script that was injected into the page
 * can misuse it while it runs, and cannot carry it away. Its bytes exist in `create()` and
 * `fromPrivateBytes()` only, for the backup that their caller makes.
 */

import { concat, fromBase64url, label, toHex } from "./bytes.js";
import { Unsupported } from "./errors.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */

/**
 * @typedef {object} Identity
 * @property {CryptoKey} privateKey
 * @property {Bytes} publicKey 32 bytes
 * @property {string} kid 16 hexadecimal digits
 */

export const KEY_BYTES = 32;
export const KID_BYTES = 8;

const MAX_IMPORTED = 256;

// What stands before the 32 bytes in PKCS #8 (RFC 8410, 7).
const PKCS8_PREFIX = fromBase64url("MC4CAQAwBQYDK2VuBCIEIA");

/**
 * The hint by which an envelope names a key.
 *
 * @param {Uint8Array} publicKey
 * @returns {Promise<string>} 16 hexadecimal digits
 */
export async function kidOf(publicKey) {
  const named = concat(label("flask-e2emsg kid v1"), publicKey);
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", named)).slice(0, KID_BYTES));
}

/**
 * A fresh key pair and, once, the bytes of its private half.
 *
 * @returns {Promise<{identity: Identity, privateBytes: Bytes}>}
 */
export async function create() {
  const made = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]);
  const pair = /** @type {CryptoKeyPair} */ (made);
  const pkcs8 = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey));
  const privateBytes = pkcs8.slice(-KEY_BYTES);
  pkcs8.fill(0);
  return { identity: await fromPrivateBytes(privateBytes), privateBytes };
}

/**
 * @param {Uint8Array} privateBytes 32 bytes
 * @returns {Promise<Identity>}
 */
export async function fromPrivateBytes(privateBytes) {
  if (privateBytes.length !== KEY_BYTES) throw new TypeError("A private key has 32 bytes.");
  const pkcs8 = concat(PKCS8_PREFIX, privateBytes);
  try {
    // WebCrypto tells the public half of a private key only by exporting it.
    const open = await importPrivate(pkcs8, true);
    const jwk = await crypto.subtle.exportKey("jwk", open);
    const publicKey = fromBase64url(/** @type {string} */ (jwk.x));
    const privateKey = await importPrivate(pkcs8, false);
    return { privateKey, publicKey, kid: await kidOf(publicKey) };
  } finally {
    pkcs8.fill(0);
  }
}

/**
 * @param {Bytes} publicKey 32 bytes
 * @returns {Promise<CryptoKey>}
 */
export async function importPublic(publicKey) {
  if (publicKey.length !== KEY_BYTES) throw new TypeError("A public key has 32 bytes.");
  return crypto.subtle.importKey("raw", publicKey, { name: "X25519" }, true, []);
}

/** @type {Map<string, Promise<CryptoKey>>} */
const imported = new Map();

/**
 * `importPublic` for a key that is used again and again: every call into WebCrypto costs a hop to
 * another thread.
 *
 * @param {Bytes} publicKey 32 bytes
 * @returns {Promise<CryptoKey>}
 */
export function importKnown(publicKey) {
  const name = toHex(publicKey);
  const known = imported.get(name) ?? importPublic(publicKey);
  if (imported.size >= MAX_IMPORTED) imported.clear();
  imported.set(name, known);
  return known;
}

/** Throw, in words, where this page cannot do the cryptography. */
export async function checkSupport() {
  if (globalThis.isSecureContext === false || !globalThis.crypto?.subtle) {
    throw new Unsupported(
      "This page is not a secure context, so the browser offers no cryptography. " +
        "Serve it over HTTPS, or from localhost.",
    );
  }
  try {
    await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
  } catch {
    throw new Unsupported(
      "This browser has no X25519 in WebCrypto. " +
        "Chrome 133, Firefox 130 and Safari 17, and later ones, have it.",
    );
  }
}

/**
 * @param {Bytes} pkcs8
 * @param {boolean} extractable
 */
function importPrivate(pkcs8, extractable) {
  return crypto.subtle.importKey("pkcs8", pkcs8, { name: "X25519" }, extractable, ["deriveBits"]);
}
