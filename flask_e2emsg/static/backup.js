/**
 * The recovery code, and the backup of the identity key that it opens (docs/crypto.md 6).
 */

import { concat, fromBase64url, fromUtf8, label, lp, toBase64url, utf8 } from "./bytes.js";
import { BadCode } from "./errors.js";
import { KEY_BYTES } from "./keys.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */

const CODE_LABEL = label("flask-e2emsg recovery code v1");
const BACKUP_LABEL = label("flask-e2emsg backup v1");
const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_BYTES = 16;
const CODE_LETTERS = 28;
const VERSION = Uint8Array.of(1);
const NONCE_BYTES = 12;
const NO_SALT = new Uint8Array(0);

/** @returns {Bytes} 128 random bits */
export function newSecret() {
  return crypto.getRandomValues(new Uint8Array(CODE_BYTES));
}

/**
 * The recovery code as it is shown: seven groups of four.
 *
 * @param {Bytes} secret
 * @returns {Promise<string>}
 */
export async function codeOf(secret) {
  const bits = toBits(concat(secret, await checksumOf(secret))).slice(0, 5 * CODE_LETTERS);
  const letters = /** @type {string[]} */ (bits.match(/.{5}/g)).map(
    (group) => ALPHABET[parseInt(group, 2)],
  );
  return /** @type {string[]} */ (letters.join("").match(/.{4}/g)).join("-");
}

/**
 * The secret of a code as somebody has typed it.
 *
 * @param {string} code
 * @returns {Promise<Bytes>}
 */
export async function readCode(code) {
  const letters = code.replace(/[-\s]/g, "").replace(/[IL]/gi, "1").replace(/O/gi, "0");
  const values = [...letters].map((letter) => ALPHABET.indexOf(letter.toUpperCase()));
  if (values.length !== CODE_LETTERS || values.includes(-1)) {
    throw new BadCode("A recovery code has 28 letters and digits.");
  }
  const bits = values.map((value) => value.toString(2).padStart(5, "0")).join("");
  const secret = Uint8Array.from({ length: CODE_BYTES }, (_, at) =>
    parseInt(bits.slice(8 * at, 8 * at + 8), 2),
  );
  const checksum = toBits(await checksumOf(secret)).slice(0, bits.length - 8 * CODE_BYTES);
  if (bits.slice(8 * CODE_BYTES) !== checksum) {
    throw new BadCode("The recovery code has a mistake in it. Compare it with what you noted.");
  }
  return secret;
}

/**
 * @param {Bytes} secret
 * @param {string} userId
 * @param {Bytes} privateKey 32 bytes
 * @param {number} createdAt milliseconds since 1970
 * @returns {Promise<Bytes>}
 */
export async function sealBackup(secret, userId, privateKey, createdAt) {
  const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
  const plaintext = utf8(
    JSON.stringify({ private_key: toBase64url(privateKey), created_at: createdAt }),
  );
  const gcm = { name: "AES-GCM", iv: nonce, additionalData: additionalData(userId) };
  const sealed = await crypto.subtle.encrypt(gcm, await keyOf(secret, "encrypt"), plaintext);
  plaintext.fill(0);
  return concat(VERSION, nonce, new Uint8Array(sealed));
}

/**
 * @param {Bytes} secret
 * @param {string} userId
 * @param {Bytes} backup
 * @returns {Promise<{privateKey: Bytes, createdAt: number}>}
 */
export async function openBackup(secret, userId, backup) {
  if (backup[0] !== VERSION[0]) {
    throw new BadCode("The backup is of another version than this client can read.");
  }
  const iv = backup.slice(1, 1 + NONCE_BYTES);
  const gcm = { name: "AES-GCM", iv, additionalData: additionalData(userId) };
  let value;
  try {
    const key = await keyOf(secret, "decrypt");
    const plaintext = await crypto.subtle.decrypt(gcm, key, backup.slice(1 + NONCE_BYTES));
    value = JSON.parse(fromUtf8(new Uint8Array(plaintext)));
  } catch {
    throw new BadCode("This recovery code does not open the backup.");
  }
  const privateKey = fromBase64url(value.private_key);
  if (privateKey.length !== KEY_BYTES) throw new BadCode("The backup has no key in it.");
  return { privateKey, createdAt: value.created_at };
}

/**
 * @param {Bytes} secret
 * @param {"encrypt" | "decrypt"} usage
 */
async function keyOf(secret, usage) {
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: NO_SALT, info: BACKUP_LABEL };
  const source = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey"]);
  return crypto.subtle.deriveKey(hkdf, source, { name: "AES-GCM", length: 256 }, false, [usage]);
}

/** @param {string} userId */
function additionalData(userId) {
  return concat(BACKUP_LABEL, VERSION, lp(userId));
}

/** @param {Bytes} secret */
async function checksumOf(secret) {
  const digest = await crypto.subtle.digest("SHA-256", concat(CODE_LABEL, secret));
  return new Uint8Array(digest).slice(0, 2);
}

/** @param {Bytes} bytes */
function toBits(bytes) {
  return Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
}
