/** The examples that all clients share. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { codeOf, openBackup, readCode } from "../../flask_e2emsg/static/backup.js";
import { fromBase64url, toBase64url, utf8 } from "../../flask_e2emsg/static/bytes.js";
import { advanced, judge } from "../../flask_e2emsg/static/chain.js";
import { contextOf, hashOf, open, sealWith } from "../../flask_e2emsg/static/envelope.js";
import { fromPrivateBytes, kidOf } from "../../flask_e2emsg/static/keys.js";
import { pad, unpad } from "../../flask_e2emsg/static/plaintext.js";
import { grouped, qrText, safetyNumber } from "../../flask_e2emsg/static/safety.js";
import { fromHex, known, pairOf, vectors } from "./sources.js";

const [backup] = await vectors("backup");
const [chain] = await vectors("chain");
const [envelope] = await vectors("envelope");
const [kid] = await vectors("kid");
const [padding] = await vectors("padding");
const [safety] = await vectors("safety");

function addressOf({ message_id, sender, recipient, conversation_id }) {
  return { id: message_id, sender, recipient, conversation_id };
}

test("kids", async () => {
  for (const one of kid.keys) {
    const identity = await fromPrivateBytes(fromHex(one.private_key));
    assert.deepEqual(identity.publicKey, fromHex(one.public_key));
    assert.equal(await kidOf(identity.publicKey), one.kid);
  }
});

for (const one of [...envelope.envelopes, ...chain.messages]) {
  test(`envelope: ${one.name}`, async () => {
    const [sender, recipient] = await Promise.all(
      [one.sender_private_key, one.recipient_private_key].map(fromHex).map(fromPrivateBytes),
    );
    const address = addressOf(one);
    assert.deepEqual(contextOf(address, sender.kid), fromHex(one.context));
    const random = {
      contentKey: fromHex(one.content_key),
      nonce: fromHex(one.nonce),
      ephemerals: await Promise.all(one.ephemeral_private_keys.map(pairOf)),
    };
    const padded = pad(utf8(one.plaintext));
    const sealed = await sealWith(random, sender, recipient.publicKey, address, padded);
    assert.equal(toBase64url(sealed), one.envelope);
    for (const reader of [sender, recipient]) {
      const opened = await open(sealed, address, [reader], known(sender));
      assert.deepEqual(opened, JSON.parse(one.plaintext));
    }
    if (one.hash) assert.equal(await hashOf(sealed), one.hash);
  });
}

for (const { order, verdicts } of chain.orders) {
  test(`chain: ${order}`, () => {
    const seen = new Set();
    let state = { n: 0, hash: null };
    const told = order.map((at) => {
      const { plaintext, hash } = chain.messages[at];
      if (seen.has(at)) return "replay";
      seen.add(at);
      const { n, prev } = JSON.parse(plaintext);
      const verdict = judge(state, { n, prev });
      state = advanced(state, n, hash);
      return verdict;
    });
    assert.deepEqual(told, verdicts);
  });
}

test("padding", () => {
  for (const { length, padded_length } of padding.buckets) {
    assert.equal(pad(new Uint8Array(length)).length, padded_length);
  }
  assert.throws(() => pad(new Uint8Array(padding.too_long)), { code: "too_long" });
  for (const { text, padded } of padding.padded.map(hexes)) {
    assert.deepEqual(pad(text), padded);
    assert.deepEqual(unpad(padded), text);
  }
  for (const bad of Object.values(padding.refused)) {
    assert.throws(() => unpad(fromHex(bad)), { code: "padding" });
  }
});

for (const { sides, digits, groups, qr_text } of safety.numbers) {
  test(`safety number: ${sides.map((side) => side.user_id)}`, async () => {
    const [one, other] = sides.map(({ user_id, public_key }) => ({
      userId: user_id,
      publicKey: fromHex(public_key),
    }));
    assert.equal(await safetyNumber(one, other), digits);
    assert.equal(grouped(digits), groups);
    assert.equal(qrText(digits), qr_text);
  });
}

test("recovery codes", async () => {
  for (const { secret, code } of backup.codes) assert.equal(await codeOf(fromHex(secret)), code);
  for (const { typed, secret } of backup.typed) {
    assert.deepEqual(await readCode(typed), fromHex(secret));
  }
  for (const mistyped of backup.mistyped) {
    await assert.rejects(readCode(mistyped), { code: "bad_code" });
  }
});

test("backups", async () => {
  for (const { user_id, code, private_key, created_at, blob } of backup.backups) {
    const opened = await openBackup(await readCode(code), user_id, fromBase64url(blob));
    assert.deepEqual(opened, { privateKey: fromHex(private_key), createdAt: created_at });
  }
});

function hexes(members) {
  return Object.fromEntries(Object.entries(members).map(([name, text]) => [name, fromHex(text)]));
}
