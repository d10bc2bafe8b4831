import assert from "node:assert/strict";
import { before, test } from "node:test";

import { newMessageId } from "../../flask_e2emsg/static/bytes.js";
import { open, read, seal } from "../../flask_e2emsg/static/envelope.js";
import { known, person } from "./sources.js";

const WORDS = { type: "text", body: "grüß dich 👋", sent_at: 1760000000000, n: 1, prev: null };

let alice, bob, carol, address, envelope;

before(async () => {
  [alice, bob, carol] = await Promise.all(["alice", "bob", "carol"].map(person));
  address = { id: newMessageId(), sender: "alice", recipient: "bob", conversation_id: "c" };
  envelope = await seal(alice, bob.publicKey, address, WORDS);
});

function refused(promise, ...codes) {
  return assert.rejects(promise, (error) => {
    assert.equal(error.name, "Unreadable");
    assert.ok(codes.length === 0 || codes.includes(error.code), error.code);
    return true;
  });
}

test("recipient and sender read what was sealed", async () => {
  for (const reader of [alice, bob]) {
    assert.deepEqual(await open(envelope, address, [reader], known(alice)), WORDS);
  }
});

test("a message to oneself has one wrap", async () => {
  const own = { ...address, recipient: "alice" };
  const sealed = await seal(alice, alice.publicKey, own, WORDS);
  assert.equal(read(sealed).wraps.length, 1);
  assert.deepEqual(await open(sealed, own, [alice], known(alice)), WORDS);
});

test("every flipped byte is refused", async () => {
  // The sender's own wrap is not looked at by the recipient but for its kid.
  const otherWrap = { from: 27 + 88 + 8, to: 27 + 2 * 88 };
  for (let at = 0; at < envelope.length; at++) {
    const broken = envelope.slice();
    broken[at] ^= 1;
    if (at >= otherWrap.from - 8 && at < otherWrap.to) {
      await refused(open(broken, address, [alice], known(alice)));
    } else {
      await refused(open(broken, address, [bob], known(alice)));
    }
  }
});

test("every shortened and lengthened envelope is refused", async () => {
  for (let size = 0; size < envelope.length; size++) {
    await refused(open(envelope.slice(0, size), address, [bob], known(alice)));
  }
  const longer = new Uint8Array(envelope.length + 1);
  longer.set(envelope);
  await refused(open(longer, address, [bob], known(alice)));
});

test("every other address is refused", async () => {
  for (const [name, value] of [
    ["id", newMessageId()],
    ["sender", "carol"],
    ["recipient", "carol"],
    ["conversation_id", "d"],
    ["conversation_id", null],
  ]) {
    await refused(open(envelope, { ...address, [name]: value }, [bob], known(alice)));
  }
  const swapped = { ...address, sender: "bob", recipient: "alice" };
  await refused(open(envelope, swapped, [bob], known(alice)), "wrap");
});

test("ids are told apart by their lengths", async () => {
  const moved = { ...address, sender: "aliceb", recipient: "ob" };
  await refused(open(envelope, moved, [bob], known(alice)), "wrap");
});

test("checks fail in the order of the specification", async () => {
  await refused(open(envelope, address, [carol], known(alice)), "not_for_me");
  await refused(open(envelope, address, [bob], known(carol)), "unknown_key");
  const forged = new Map([[alice.kid, carol.publicKey]]);
  await refused(open(envelope, address, [bob], forged), "wrap");
  const other = { ...address, id: newMessageId() };
  await refused(open(envelope, other, [carol], known(carol)), "message_id");
  const version = envelope.slice();
  version[0] = 2;
  await refused(open(version, other, [carol], known(carol)), "suite");
});

test("a reader of a message cannot forge another under its content key", async () => {
  const sealed = read(await seal(alice, bob.publicKey, address, WORDS));
  const forged = envelope.slice();
  forged.set(sealed.nonce, 27 + 2 * 88);
  forged.set(sealed.ciphertext, 27 + 2 * 88 + 12);
  await refused(open(forged, address, [bob], known(alice)), "wrap");
});

test("two wraps for one kid are refused", async () => {
  const twice = envelope.slice();
  twice.copyWithin(27 + 88, 27, 27 + 8);
  await refused(open(twice, address, [bob], known(alice)), "malformed");
});

test("a key of low order is refused on both sides", async () => {
  const zero = new Uint8Array(32);
  await assert.rejects(seal(alice, zero, address, WORDS));
  await refused(open(envelope, address, [bob], new Map([[alice.kid, zero]])), "wrap");
});

test("an earlier key of mine still opens", async () => {
  assert.deepEqual(await open(envelope, address, [carol, bob], known(alice, carol)), WORDS);
});
