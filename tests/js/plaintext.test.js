import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, encode, pad, unpad } from "../../flask_e2emsg/static/plaintext.js";

const WORDS = { type: "text", body: "words", sent_at: 0, n: 1, prev: null };
const BUCKETS = Array.from({ length: 9 }, (_, at) => 256 << at);

function decodeValue(value) {
  return decode(pad(new TextEncoder().encode(JSON.stringify(value))));
}

test("padding fills the smallest bucket and comes off again", () => {
  for (const bucket of BUCKETS) {
    for (const size of [bucket - 1, bucket / 2]) {
      const content = new Uint8Array(size).fill(7);
      assert.equal(pad(content).length, bucket);
      assert.deepEqual(unpad(pad(content)), content);
    }
  }
});

test("what the largest bucket does not hold cannot be sent", () => {
  assert.throws(() => pad(new Uint8Array(65536)), { code: "too_long" });
  assert.throws(() => encode({ ...WORDS, body: "x".repeat(65536) }), { code: "too_long" });
});

test("other padding is refused", () => {
  const good = pad(new Uint8Array(10).fill(7));
  const sizes = [0, 256, 65537].map((size) => new Uint8Array(size));
  for (const bad of [good.slice(1), ...sizes]) {
    assert.throws(() => unpad(bad), { code: "padding" });
  }
  good[200] = 1;
  assert.throws(() => unpad(good), { code: "padding" });
});

test("members that lack or are of another kind are refused", () => {
  for (const bad of [
    null,
    [],
    "text",
    { ...WORDS, type: 1 },
    { ...WORDS, body: undefined },
    { ...WORDS, type: "edit" },
    { ...WORDS, type: "delete" },
    { ...WORDS, sent_at: "now" },
    { ...WORDS, n: 0 },
    { ...WORDS, n: 1.5 },
    { ...WORDS, prev: "AAAA" },
  ]) {
    assert.throws(() => decodeValue(bad), { code: "plaintext" });
  }
});

test("unknown members and types are left to the reader", () => {
  const future = { ...WORDS, type: "poll", body: undefined, options: ["a"] };
  assert.equal(decodeValue(future).type, "poll");
});

test("bytes that are not UTF-8 are refused", () => {
  assert.throws(() => decode(pad(Uint8Array.of(0x22, 0xff, 0x22))), { code: "plaintext" });
});
