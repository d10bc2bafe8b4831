/**
 * HPKE (RFC 9180) in mode_auth, single-shot, on WebCrypto:
 * DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
 *
 * An all-zero shared secret, which a public key of low order gives, is refused (RFC 9180, 7.1.4).
 */

import { concat, integer, utf8 } from "./bytes.js";
import { KEY_BYTES, importKnown, importPublic } from "./keys.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./keys.js").Identity} Identity */

export const ENC_BYTES = 32;
export const TAG_BYTES = 16;

const HASH_BYTES = 32;
const NONCE_BYTES = 12;
const MODE_AUTH = Uint8Array.of(2);
const NOTHING = new Uint8Array(0);
const VERSION = utf8("HPKE-v1");
const KEM_SUITE = concat(utf8("KEM"), integer(0x0020, 2));
const HPKE_SUITE = concat(utf8("HPKE"), integer(0x0020, 2), integer(0x0001, 2), integer(0x0002, 2));

// Extract takes an absent salt as a hash's length of zeros (RFC 5869, 2.2).
const NO_SALT = new Uint8Array(HASH_BYTES);

/**
 * A fresh key pair for one `sealAuth`. It must never be used for another.
 *
 * @returns {Promise<CryptoKeyPair>}
 */
export async function ephemeralPair() {
  const made = await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]);
  return /** @type {CryptoKeyPair} */ (made);
}

/**
 * Seal for a reader, as a sender whom the reader can tell.
 *
 * @param {CryptoKeyPair} ephemeral
 * @param {Identity} sender
 * @param {Bytes} reader public key
 * @param {Bytes} info
 * @param {Bytes} aad
 * @param {Bytes} plaintext
 * @returns {Promise<{enc: Bytes, ciphertext: Bytes}>} the tag is last in `ciphertext`
 */
export async function sealAuth(ephemeral, sender, reader, info, aad, plaintext) {
  const readerKey = await importKnown(reader);
  const [enc, fresh, lasting] = await Promise.all([
    crypto.subtle.exportKey("raw", ephemeral.publicKey).then((raw) => new Uint8Array(raw)),
    agree(ephemeral.privateKey, readerKey),
    agree(sender.privateKey, readerKey),
  ]);
  const secret = await sharedSecret(fresh, lasting, concat(enc, reader, sender.publicKey));
  const { key, iv } = await schedule(secret, info, "encrypt");
  const gcm = { name: "AES-GCM", iv, additionalData: aad };
  return { enc, ciphertext: new Uint8Array(await crypto.subtle.encrypt(gcm, key, plaintext)) };
}

/**
 * Open what `sender` has sealed for me. Rejects when anything is not as it was sealed.
 *
 * @param {Identity} reader
 * @param {Bytes} sender public key
 * @param {Bytes} info
 * @param {Bytes} aad
 * @param {Bytes} enc
 * @param {Bytes} ciphertext
 * @returns {Promise<Bytes>}
 */
export async function openAuth(reader, sender, info, aad, enc, ciphertext) {
  const [fresh, lasting] = await Promise.all([
    importPublic(enc).then((key) => agree(reader.privateKey, key)),
    importKnown(sender).then((key) => agree(reader.privateKey, key)),
  ]);
  const secret = await sharedSecret(fresh, lasting, concat(enc, reader.publicKey, sender));
  const { key, iv } = await schedule(secret, info, "decrypt");
  const gcm = { name: "AES-GCM", iv, additionalData: aad };
  return new Uint8Array(await crypto.subtle.decrypt(gcm, key, ciphertext));
}

/**
 * @param {CryptoKey} mine
 * @param {CryptoKey} theirs
 * @returns {Promise<Bytes>}
 */
async function agree(mine, theirs) {
  const bits = await crypto.subtle.deriveBits({ name: "X25519", public: theirs }, mine, 256);
  const secret = new Uint8Array(bits);
  // Not every WebCrypto refuses this itself.
  if (secret.every((byte) => byte === 0)) throw new TypeError("The public key is of low order.");
  return secret;
}

/**
 * ExtractAndExpand of the KEM (RFC 9180, 4.1). WebCrypto's HKDF does both in one call.
 *
 * @param {Bytes} fresh
 * @param {Bytes} lasting
 * @param {Bytes} context
 */
async function sharedSecret(fresh, lasting, context) {
  const ikm = concat(VERSION, KEM_SUITE, utf8("eae_prk"), fresh, lasting);
  const key = await crypto.subtle.importKey("raw", ikm, "HKDF", false, ["deriveBits"]);
  const info = expandInfo(KEM_SUITE, "shared_secret", context, KEY_BYTES);
  return new Uint8Array(await hkdf(key, NO_SALT, info, KEY_BYTES));
}

/**
 * KeySchedule (RFC 9180, 5.1), for the one message of sequence number 0: its nonce is base_nonce.
 *
 * @param {Bytes} secret
 * @param {Bytes} info
 * @param {"encrypt" | "decrypt"} usage
 */
async function schedule(secret, info, usage) {
  const { salt, source, pskIdHash } = await constants();
  const context = concat(MODE_AUTH, pskIdHash, await extract(salt, "info_hash", info));
  const [keyBytes, nonce] = await Promise.all([
    hkdf(source, secret, expandInfo(HPKE_SUITE, "key", context, KEY_BYTES), KEY_BYTES),
    hkdf(source, secret, expandInfo(HPKE_SUITE, "base_nonce", context, NONCE_BYTES), NONCE_BYTES),
  ]);
  const key = await crypto.subtle.importKey("raw", keyBytes, "AES-GCM", false, [usage]);
  return { key, iv: new Uint8Array(nonce) };
}

/** @typedef {{salt: CryptoKey, source: CryptoKey, pskIdHash: Bytes}} Constants */

/** @type {Promise<Constants> | undefined} */
let made;

/** What is the same for every message: without a pre-shared key only the salts and infos differ. */
function constants() {
  return (made ??= makeConstants());
}

/** @returns {Promise<Constants>} */
async function makeConstants() {
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const ikm = concat(VERSION, HPKE_SUITE, utf8("secret"));
  const [salt, source] = await Promise.all([
    crypto.subtle.importKey("raw", NO_SALT, hmac, false, ["sign"]),
    crypto.subtle.importKey("raw", ikm, "HKDF", false, ["deriveBits"]),
  ]);
  return { salt, source, pskIdHash: await extract(salt, "psk_id_hash", NOTHING) };
}

/**
 * LabeledExtract without a salt, which is `salt` as a key.
 *
 * @param {CryptoKey} salt
 * @param {string} name
 * @param {Bytes} ikm
 */
async function extract(salt, name, ikm) {
  const labeled = concat(VERSION, HPKE_SUITE, utf8(name), ikm);
  return new Uint8Array(await crypto.subtle.sign("HMAC", salt, labeled));
}

/**
 * @param {Bytes} suite
 * @param {string} name
 * @param {Bytes} info
 * @param {number} size
 */
function expandInfo(suite, name, info, size) {
  return concat(integer(size, 2), VERSION, suite, utf8(name), info);
}

/**
 * @param {CryptoKey} key
 * @param {Bytes} salt
 * @param {Bytes} info
 * @param {number} size
 */
function hkdf(key, salt, info, size) {
  return crypto.subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt, info }, key, 8 * size);
}
