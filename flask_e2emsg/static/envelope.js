/**
 * Envelopes, the bytes of `encrypted_content`: sealing, looking at, and opening them
 * (docs/crypto.md 2).
 *
 * Guarantees: what opens was sealed by the holder of the sender's key, for these readers, under
 * this message id, sender, recipient and conversation. Everything else throws `Unreadable`, whose
 * `code` is the check that failed.
 */

import { concat, integer, label, lp, same, toBase64url, toHex, uuidBytes } from "./bytes.js";
import { Unreadable } from "./errors.js";
import { ENC_BYTES, TAG_BYTES, ephemeralPair, openAuth, sealAuth } from "./hpke.js";
import { KEY_BYTES, KID_BYTES, kidOf } from "./keys.js";
import { decode, encode } from "./plaintext.js";

/** @typedef {import("./bytes.js").Bytes} Bytes */
/** @typedef {import("./keys.js").Identity} Identity */
/** @typedef {import("./plaintext.js").Plaintext} Plaintext */

/**
 * What the frame says about an envelope.
 *
 * @typedef {object} Address
 * @property {string} id
 * @property {string} sender
 * @property {string} recipient
 * @property {string | null} [conversation_id]
 */

/**
 * @typedef {object} Wrap
 * @property {string} kid
 * @property {Bytes} enc
 * @property {Bytes} sealedKey
 */

/**
 * @typedef {object} Layout
 * @property {number} version
 * @property {number} suite
 * @property {Bytes} messageId
 * @property {string} senderKid
 * @property {Wrap[]} wraps
 * @property {Bytes} nonce
 * @property {Bytes} ciphertext
 */

const VERSION = 1;
const SUITE = 1;
const ID_BYTES = 16;
const HEAD_BYTES = 2 + ID_BYTES + KID_BYTES + 1;
const SEALED_KEY_BYTES = KEY_BYTES + TAG_BYTES;
const WRAP_BYTES = KID_BYTES + ENC_BYTES + SEALED_KEY_BYTES;
const NONCE_BYTES = 12;

/**
 * What must be fresh and random for every envelope.
 *
 * @typedef {object} Randomness
 * @property {Bytes} contentKey
 * @property {Bytes} nonce
 * @property {CryptoKeyPair[]} ephemerals one for each wrap
 */

/**
 * Seal for the recipient and for the sender, who reads it in the history.
 *
 * @param {Identity} sender
 * @param {Bytes} recipientKey
 * @param {Address} address
 * @param {Plaintext} plaintext
 * @returns {Promise<Bytes>}
 */
export async function seal(sender, recipientKey, address, plaintext) {
  const random = {
    contentKey: crypto.getRandomValues(new Uint8Array(KEY_BYTES)),
    nonce: crypto.getRandomValues(new Uint8Array(NONCE_BYTES)),
    ephemerals: await Promise.all([ephemeralPair(), ephemeralPair()]),
  };
  return sealWith(random, sender, recipientKey, address, encode(plaintext));
}

/**
 * `seal` for given randomness and padded bytes, for known answers.
 *
 * @param {Randomness} random
 * @param {Identity} sender
 * @param {Bytes} recipientKey
 * @param {Address} address
 * @param {Bytes} padded
 * @returns {Promise<Bytes>}
 */
export async function sealWith(random, sender, recipientKey, address, padded) {
  const { contentKey, nonce, ephemerals } = random;
  const context = contextOf(address, sender.kid);
  const key = await importContentKey(contentKey, "encrypt");
  const gcm = { name: "AES-GCM", iv: nonce, additionalData: context };
  const body = concat(nonce, new Uint8Array(await crypto.subtle.encrypt(gcm, key, padded)));
  const aad = await sha256(body);
  const isForMyself = same(recipientKey, sender.publicKey);
  const readers = isForMyself ? [recipientKey] : [recipientKey, sender.publicKey];
  const wraps = await Promise.all(
    readers.map(async (reader, at) => {
      const sealed = await sealAuth(ephemerals[at], sender, reader, context, aad, contentKey);
      const kid = reader === sender.publicKey ? sender.kid : await kidOf(reader);
      return concat(fromHex(kid), sealed.enc, sealed.ciphertext);
    }),
  );
  contentKey.fill(0);
  const suite = Uint8Array.of(VERSION, SUITE);
  const head = concat(suite, uuidBytes(address.id), fromHex(sender.kid));
  return concat(head, integer(wraps.length, 1), ...wraps, body);
}

/**
 * Open an envelope, with one of my keys and one of the sender's known ones.
 *
 * @param {Bytes} envelope
 * @param {Address} address of the frame
 * @param {Identity[]} mine all keys of mine
 * @param {Map<string, Bytes>} senderKeys public keys by kid: the pinned one and earlier ones
 * @returns {Promise<Plaintext>}
 */
export async function open(envelope, address, mine, senderKeys) {
  const layout = read(envelope);
  if (!same(layout.messageId, idOf(address))) throw new Unreadable("message_id");
  const [wrap, reader] = myWrap(layout, mine);
  const sender = senderKeys.get(layout.senderKid);
  if (!sender) throw new Unreadable("unknown_key");
  const context = contextOf(address, layout.senderKid);
  const contentKey = await unwrap(layout, wrap, reader, sender, context);
  return decode(await openPayload(layout, contentKey, context));
}

/**
 * The fields of an envelope whose lengths, numbers, version and suite are right.
 *
 * @param {Bytes} envelope
 * @returns {Layout}
 */
export function read(envelope) {
  const count = envelope[HEAD_BYTES - 1] ?? 0;
  const wrapsEnd = HEAD_BYTES + count * WRAP_BYTES;
  if (count === 0 || envelope.length < wrapsEnd + NONCE_BYTES + TAG_BYTES) {
    throw new Unreadable("malformed");
  }
  const wraps = Array.from({ length: count }, (_, at) => readWrap(envelope, at));
  if (new Set(wraps.map((wrap) => wrap.kid)).size < count) throw new Unreadable("malformed");
  const [version, suite] = envelope;
  if (version !== VERSION || suite !== SUITE) throw new Unreadable("suite");
  const messageId = envelope.slice(2, 2 + ID_BYTES);
  const senderKid = toHex(envelope.slice(2 + ID_BYTES, HEAD_BYTES - 1));
  const nonce = envelope.slice(wrapsEnd, wrapsEnd + NONCE_BYTES);
  const ciphertext = envelope.slice(wrapsEnd + NONCE_BYTES);
  return { version, suite, messageId, senderKid, wraps, nonce, ciphertext };
}

/**
 * The hash by which the next envelope's `prev` names this one.
 *
 * @param {Bytes} envelope
 * @returns {Promise<string>}
 */
export async function hashOf(envelope) {
  return toBase64url(await sha256(envelope));
}

/**
 * @param {Address} address
 * @param {string} senderKid
 * @returns {Bytes}
 */
export function contextOf(address, senderKid) {
  return concat(
    label("flask-e2emsg envelope v1"),
    Uint8Array.of(VERSION, SUITE),
    uuidBytes(address.id),
    fromHex(senderKid),
    lp(address.sender),
    lp(address.recipient),
    lp(address.conversation_id ?? ""),
  );
}

/**
 * @param {Layout} layout
 * @param {Wrap} wrap
 * @param {Identity} reader
 * @param {Bytes} sender
 * @param {Bytes} context
 */
async function unwrap(layout, wrap, reader, sender, context) {
  const aad = await sha256(concat(layout.nonce, layout.ciphertext));
  try {
    return await openAuth(reader, sender, context, aad, wrap.enc, wrap.sealedKey);
  } catch {
    throw new Unreadable("wrap");
  }
}

/**
 * @param {Layout} layout
 * @param {Bytes} contentKey
 * @param {Bytes} context
 */
async function openPayload(layout, contentKey, context) {
  const key = await importContentKey(contentKey, "decrypt");
  const gcm = { name: "AES-GCM", iv: layout.nonce, additionalData: context };
  try {
    return new Uint8Array(await crypto.subtle.decrypt(gcm, key, layout.ciphertext));
  } catch {
    throw new Unreadable("payload");
  }
}

/**
 * @param {Layout} layout
 * @param {Identity[]} mine
 * @returns {[Wrap, Identity]}
 */
function myWrap(layout, mine) {
  for (const wrap of layout.wraps) {
    const reader = mine.find((identity) => identity.kid === wrap.kid);
    if (reader) return [wrap, reader];
  }
  throw new Unreadable("not_for_me");
}

/**
 * @param {Bytes} envelope
 * @param {number} at
 * @returns {Wrap}
 */
function readWrap(envelope, at) {
  const bytes = envelope.slice(HEAD_BYTES + at * WRAP_BYTES, HEAD_BYTES + (at + 1) * WRAP_BYTES);
  return {
    kid: toHex(bytes.slice(0, KID_BYTES)),
    enc: bytes.slice(KID_BYTES, KID_BYTES + ENC_BYTES),
    sealedKey: bytes.slice(KID_BYTES + ENC_BYTES),
  };
}

/** @param {Address} address */
function idOf(address) {
  try {
    return uuidBytes(address.id);
  } catch {
    throw new Unreadable("message_id");
  }
}

/** @param {string} digits */
function fromHex(digits) {
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) =>
    parseInt(digits.slice(2 * at, 2 * at + 2), 16),
  );
}

/**
 * @param {Bytes} bytes
 * @param {"encrypt" | "decrypt"} usage
 */
function importContentKey(bytes, usage) {
  return crypto.subtle.importKey("raw", bytes, "AES-GCM", false, [usage]);
}

/**
 * @param {Bytes} bytes
 * @returns {Promise<Bytes>}
 */
async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
