import assert from "node:assert/strict";
import { test } from "node:test";

import {
  codeOf,
  newSecret,
  openBackup,
  readCode,
  sealBackup,
} from "../../flask_e2emsg/static/backup.js";
import { create, fromPrivateBytes } from "../../flask_e2emsg/static/keys.js";

test("a code is read as people type it", async () => {
  const secret = newSecret();
  const code = await codeOf(secret);
  assert.match(code, /^([0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}$/);
  const mistaken = code.toLowerCase().replaceAll("0", "o").replaceAll("1", "l");
  const typed = ` ${mistaken.replaceAll("-", " ")}`;
  assert.deepEqual(await readCode(typed), secret);
});

test("a code with any one letter mistaken is refused", async () => {
  // A fixed one: the checksum lets one mistake in 4,096 through.
  const code = await codeOf(Uint8Array.from({ length: 16 }, (_, at) => at));
  for (let at = 0; at < code.length; at++) {
    if (code[at] === "-") continue;
    const other = code[at] === "7" ? "8" : "7";
    const mistaken = code.slice(0, at) + other + code.slice(at + 1);
    await assert.rejects(readCode(mistaken), { code: "bad_code" });
  }
  await assert.rejects(readCode(code.slice(1)), { code: "bad_code" });
  await assert.rejects(readCode(`${code}U`), { code: "bad_code" });
});

test("a backup gives the same identity back, to this user and this code only", async () => {
  const { identity, privateBytes } = await create();
  const secret = newSecret();
  const blob = await sealBackup(secret, "alice", privateBytes, 5);
  const { privateKey, createdAt } = await openBackup(secret, "alice", blob);
  assert.deepEqual((await fromPrivateBytes(privateKey)).publicKey, identity.publicKey);
  assert.equal(createdAt, 5);
  await assert.rejects(openBackup(newSecret(), "alice", blob), { code: "bad_code" });
  await assert.rejects(openBackup(secret, "bob", blob), { code: "bad_code" });
  for (let at = 0; at < blob.length; at++) {
    const broken = blob.slice();
    broken[at] ^= 1;
    await assert.rejects(openBackup(secret, "alice", broken), { code: "bad_code" });
  }
});
