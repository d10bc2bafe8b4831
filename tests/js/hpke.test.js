import assert from "node:assert/strict";
import { test } from "node:test";

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";

import { openAuth, sealAuth } from "../../flask_e2emsg/static/hpke.js";
import { create } from "../../flask_e2emsg/static/keys.js";
import { person } from "./sources.js";

const suite = new CipherSuite({
  kem: new DhkemX25519HkdfSha256(),
  kdf: new HkdfSha256(),
  aead: new Aes256Gcm(),
});
const [info, aad, words] = ["info", "aad", "words"].map((text) => new TextEncoder().encode(text));

/** A person whose keys the other implementation can use. */
async function theirs() {
  const { identity, privateBytes } = await create();
  const privateKey = await suite.kem.importKey("raw", privateBytes.buffer, false);
  const publicKey = await suite.kem.importKey("raw", identity.publicKey.buffer, true);
  return { identity, pair: { privateKey, publicKey } };
}

test("@hpke/core opens what we seal", async () => {
  const [alice, bob] = [await person("alice"), await theirs()];
  const { enc, ciphertext } = await sealAuth(alice, bob.identity.publicKey, info, aad, words);
  const senderPublicKey = await suite.kem.importKey("raw", alice.publicKey.buffer, true);
  const recipientKey = bob.pair.privateKey;
  const opened = await suite.open({ recipientKey, senderPublicKey, enc, info }, ciphertext, aad);
  assert.deepEqual(new Uint8Array(opened), words);
});

test("we open what @hpke/core seals", async () => {
  const [alice, bob] = [await theirs(), await person("bob")];
  const recipientPublicKey = await suite.kem.importKey("raw", bob.publicKey.buffer, true);
  const sealed = await suite.seal(
    { recipientPublicKey, senderKey: alice.pair, info },
    words,
    aad,
  );
  const [enc, ciphertext] = [sealed.enc, sealed.ct].map((part) => new Uint8Array(part));
  const sender = alice.identity.publicKey;
  assert.deepEqual(await openAuth(bob, sender, info, aad, enc, ciphertext), words);
});

test("a private key in use cannot be exported", async () => {
  const { privateKey } = await person("alice");
  assert.equal(privateKey.extractable, false);
  await assert.rejects(crypto.subtle.exportKey("pkcs8", privateKey));
});
