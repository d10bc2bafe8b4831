/** Where the modules under test and the shared vectors are, and people for the tests. */

import { readFile, readdir } from "node:fs/promises";

import * as keys from "../../flask_e2emsg/static/keys.js";

const VECTORS = new URL("../vectors/", import.meta.url);

/** Every shared vector file whose name begins so, parsed. */
export async function vectors(name) {
  const names = (await readdir(VECTORS)).filter((file) => file.startsWith(name));
  return Promise.all(
    names.map(async (file) => JSON.parse(await readFile(new URL(file, VECTORS), "utf8"))),
  );
}

/** A user with a fresh identity key. */
export async function person(userId) {
  return { userId, ...(await keys.create()).identity };
}

/** The known keys of these people, as `open` takes them. */
export function known(...people) {
  return new Map(people.map(({ kid, publicKey }) => [kid, publicKey]));
}

/** Bytes of hexadecimal digits. */
export function fromHex(digits) {
  return new Uint8Array(Buffer.from(digits, "hex"));
}

/** The key pair of a private key in hexadecimal digits, as an ephemeral one. */
export async function pairOf(digits) {
  const { privateKey, publicKey } = await keys.fromPrivateBytes(fromHex(digits));
  return { privateKey, publicKey: await keys.importPublic(publicKey) };
}
