import assert from "node:assert/strict";
import { test } from "node:test";

import { Aes256Gcm, CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";

import { ephemeralPair, openAuth, sealAuth } from "../../flask_e2emsg/static/hpke.js";
import { create, fromPrivateBytes } from "../../flask_e2emsg/static/keys.js";
import { fromHex, pairOf, person, vectors } from "./sources.js";

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
  const { enc, ciphertext } = await sealAuth(
    await ephemeralPair(),
    alice,
    bob.identity.publicKey,
    info,
    aad,
    words,
  );
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

test("the vector of RFC 9180 comes out, and opens", async () => {
  const [rfc] = await vectors("hpke");
  const [ephemeral, sender] = [await pairOf(rfc.skEm), await fromPrivateBytes(fromHex(rfc.skSm))];
  const reader = await fromPrivateBytes(fromHex(rfc.skRm));
  assert.deepEqual(reader.publicKey, fromHex(rfc.pkRm));
  const [{ aad, ct, pt }] = rfc.encryptions;
  const inputs = [rfc.info, aad].map(fromHex);
  const sealed = await sealAuth(ephemeral, sender, reader.publicKey, ...inputs, fromHex(pt));
  assert.deepEqual(sealed, { enc: fromHex(rfc.enc), ciphertext: fromHex(ct) });
  const opened = await openAuth(reader, sender.publicKey, ...inputs, sealed.enc, fromHex(ct));
  assert.deepEqual(opened, fromHex(pt));
});
