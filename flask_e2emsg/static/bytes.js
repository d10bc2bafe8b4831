/**
 * Bytes and their texts: joining, UTF-8, base64url, UUIDs, and the field forms of docs/crypto.md.
 *
 * What is read is read strictly: a text that has another canonical form is refused.
 */

/** @typedef {Uint8Array<ArrayBuffer>} Bytes */

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const VALUES = new Map([...ALPHABET].map((letter, value) => [letter, value]));
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const MAX_LP_BYTES = 0xffff;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * @param {...Uint8Array} parts
 * @returns {Bytes}
 */
export function concat(...parts) {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/**
 * @param {string} text without lone surrogates, which have no UTF-8
 * @returns {Bytes}
 */
export function utf8(text) {
  const bytes = encoder.encode(text);
  if (decoder.decode(bytes) !== text) throw new TypeError("The text has no UTF-8.");
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function fromUtf8(bytes) {
  return decoder.decode(bytes);
}

/**
 * @param {number} value
 * @param {number} size in bytes, at most 4
 * @returns {Bytes} big-endian
 */
export function integer(value, size) {
  const bytes = new Uint8Array(size);
  for (let i = size - 1, rest = value; i >= 0; i--, rest = Math.floor(rest / 256)) {
    bytes[i] = rest % 256;
  }
  return bytes;
}

/**
 * @param {string} name
 * @returns {Bytes} the ASCII text and one zero byte
 */
export function label(name) {
  return concat(utf8(name), new Uint8Array(1));
}

/**
 * @param {string} text
 * @returns {Bytes} the length in two bytes, then the UTF-8 bytes
 */
export function lp(text) {
  const bytes = utf8(text);
  if (bytes.length > MAX_LP_BYTES) throw new RangeError("The text is too long.");
  return concat(integer(bytes.length, 2), bytes);
}

/**
 * Whether two values are the same. Not in constant time: never for secrets.
 *
 * @param {Uint8Array} one
 * @param {Uint8Array} other
 */
export function same(one, other) {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

/**
 * @param {Uint8Array} bytes
 * @returns {string} without padding
 */
export function toBase64url(bytes) {
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = ((held << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      text += ALPHABET[(held >> bits) & 63];
    }
  }
  return bits ? text + ALPHABET[(held << (6 - bits)) & 63] : text;
}

/**
 * @param {string} text canonical: no padding, the unused bits of the last character zero
 * @returns {Bytes}
 */
export function fromBase64url(text) {
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let at = 0;
  let bits = 0;
  let held = 0;
  for (const letter of text) {
    const value = VALUES.get(letter);
    if (value === undefined) throw new TypeError("Not base64url.");
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at++] = (held >> bits) & 255;
    }
  }
  if (bits >= 6 || held & ((1 << bits) - 1)) throw new TypeError("Not canonical base64url.");
  return bytes;
}

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {string} text canonical, in small letters
 * @returns {Bytes} 16 bytes
 */
export function uuidBytes(text) {
  if (!UUID.test(text)) throw new TypeError("Not a canonical UUID.");
  const digits = text.replaceAll("-", "");
  return Uint8Array.from({ length: 16 }, (_, at) => parseInt(digits.slice(2 * at, 2 * at + 2), 16));
}

/**
 * A fresh message id. It is a UUIDv7, so ids of one clock sort by time.
 *
 * @param {number} [now] milliseconds since 1970
 * @returns {string}
 */
export function newMessageId(now = Date.now()) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes.set(integer(Math.floor(now / 0x10000), 4), 0);
  bytes.set(integer(now % 0x10000, 2), 4);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return toHex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
