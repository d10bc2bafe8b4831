import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import "fake-indexeddb/auto";

import { fromBase64url, toBase64url } from "../../flask_e2emsg/static/bytes.js";
import { Chains } from "../../flask_e2emsg/static/chains.js";
import { Contacts } from "../../flask_e2emsg/static/contacts.js";
import { hashOf, open } from "../../flask_e2emsg/static/envelope.js";
import { Offline, Refused } from "../../flask_e2emsg/static/errors.js";
import { Identity } from "../../flask_e2emsg/static/identity.js";
import { Inbox } from "../../flask_e2emsg/static/inbox.js";
import { Opening } from "../../flask_e2emsg/static/opening.js";
import { Outbox } from "../../flask_e2emsg/static/outbox.js";
import { Store } from "../../flask_e2emsg/static/store.js";
import { known, person } from "./sources.js";

let store, me, bob, directory, told, failures, outbox, inbox, link;
let number = 0;

beforeEach(async () => {
  store = await Store.open(`outbox ${number++}`);
  [me, bob] = await Promise.all(["me", "bob"].map(person));
  const { privateKey, publicKey, kid } = me;
  await store.useKey({ privateKey, publicKey, kid, isRestored: false });
  await store.set("cursor", { epoch: "e", seq: 0 });
  directory = { me: publicKey, bob: bob.publicKey };
  [told, failures, link] = [[], [], new FakeLink()];
  begin();
});

afterEach(() => {
  assert.deepEqual(failures, []);
  outbox.stop();
  store.close();
});

/** What a page makes when it opens the client. */
function begin() {
  const contacts = new Contacts("me", store, new FakeRest(), (name, detail) =>
    told.push({ name, ...detail }),
  );
  const chains = new Chains("me", new Opening(contacts));
  const fail = (error) => failures.push(error);
  outbox = new Outbox(
    contacts,
    new Identity(contacts),
    chains,
    (_, work) => work(),
    (work) => work.catch(fail),
  );
  inbox = new Inbox(chains, outbox, fail);
}

class FakeRest {
  async get(path) {
    const key = directory[path.replace("keys/", "")];
    if (path.startsWith("keys/") && key) return { public_key: toBase64url(key) };
    if (path.startsWith("messages/")) return { messages: [], next: null, has_more: false };
    throw new Refused({ code: "not_found" }, 404);
  }
}

/** A link whose sends the test answers. */
class FakeLink {
  sends = [];
  acks = [];

  send(message) {
    return new Promise((resolve, reject) => this.sends.push({ message, resolve, reject }));
  }

  ack(seq) {
    this.acks.push(seq);
  }

  close() {}

  async next(count) {
    await until(() => this.sends.length >= count);
    return this.sends[count - 1];
  }
}

async function until(condition) {
  const deadline = Date.now() + 5000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, condition.toString());
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function accepted(seq) {
  return { seq, created_at: "2026-03-01T12:00:00.000Z" };
}

/** What bob reads in a message that was sent. */
function read({ id, to, encrypted_content }) {
  const address = { id, sender: "me", recipient: to };
  return open(fromBase64url(encrypted_content), address, [bob], known(me));
}

test("one message at a time goes to a recipient, and the chain holds", async () => {
  for (const text of ["one", "two"]) await outbox.enqueue("bob", text, {});
  outbox.start(link);
  const first = await link.next(1);
  await outbox.flush();
  assert.equal(link.sends.length, 1);
  first.resolve(accepted(1));
  const second = await link.next(2);
  const [one, two] = [await read(first.message), await read(second.message)];
  assert.deepEqual([one.body, one.n, one.prev], ["one", 1, null]);
  const hash = await hashOf(fromBase64url(first.message.encrypted_content));
  assert.deepEqual([two.body, two.n, two.prev], ["two", 2, hash]);
});

test("without an answer the same bytes go out again, also after a reload", async () => {
  await outbox.enqueue("bob", "once", {});
  outbox.start(link);
  const lost = await link.next(1);
  lost.reject(new Offline());
  outbox.stop();
  begin();
  const next = new FakeLink();
  outbox.start(next);
  assert.deepEqual((await next.next(1)).message, lost.message);
});

test("a final refusal uses no number: what follows is sealed again", async () => {
  for (const text of ["refused", "two"]) await outbox.enqueue("bob", text, {});
  outbox.start(link);
  const refused = await link.next(1);
  refused.reject(new Refused({ code: "too_large" }));
  const next = await link.next(2);
  const { body, n, prev } = await read(next.message);
  assert.deepEqual([body, n, prev], ["two", 1, null]);
  await until(() => told.some(({ name, code }) => name === "refused" && code === "too_large"));
});

test("what may succeed later is sent again, unchanged", async () => {
  await outbox.enqueue("bob", "later", {});
  outbox.start(link);
  const first = await link.next(1);
  first.reject(new Refused({ code: "quota_exceeded", retry_after: 0.01 }));
  assert.deepEqual((await link.next(2)).message, first.message);
});

test("a server that always says stale is not asked for ever", async () => {
  await outbox.enqueue("bob", "stale", {});
  outbox.start(link);
  const key = { user_id: "bob", public_key: toBase64url(bob.publicKey) };
  for (let count = 1; count <= 4; count++) {
    (await link.next(count)).reject(new Refused({ code: "stale_key", key }));
  }
  await until(() => told.some(({ state, code }) => state === "waiting" && code === "stale_key"));
  assert.equal(link.sends.length, 4);
});

test("another key holds the contact's messages until it is accepted", async () => {
  await outbox.enqueue("bob", "held", {});
  outbox.start(link);
  const stale = await link.next(1);
  bob = await person("bob");
  const key = { user_id: "bob", public_key: toBase64url(bob.publicKey) };
  stale.reject(new Refused({ code: "stale_key", key }));
  await until(() => told.some(({ name }) => name === "keychanged"));
  await outbox.flush();
  assert.equal(link.sends.length, 1);
  await outbox.contacts.accept("bob");
  await outbox.sealAgain("bob");
  await outbox.flush();
  assert.equal((await read((await link.next(2)).message)).body, "held");
});

test("an answer that was lost comes back as an entry, and nothing is sent twice", async () => {
  const id = await outbox.enqueue("bob", "sent", {});
  outbox.start(link);
  const lost = await link.next(1);
  lost.reject(new Offline());
  outbox.stop();
  const { encrypted_content } = lost.message;
  const entry = { type: "message", id, seq: 1, sender: "me", recipient: "bob", encrypted_content };
  const hello = { type: "hello", epoch: "e", head: 1, after: 0, reset: false };
  const next = new FakeLink();
  inbox.push(hello, next);
  inbox.push({ ...entry, ...accepted(1), conversation_id: null, expires_at: null }, next);
  inbox.push({ type: "caught_up", head: 1 }, next);
  await until(async () => (await store.get("cursor")).seq === 1);
  await until(async () => (await store.outbox.contacts()).length === 0);
  assert.deepEqual([next.sends, next.acks], [[], [1]]);
  assert.equal(told.filter(({ name }) => name === "message").length, 1);
});

test("what was stored and not told of is told of by the next page", async () => {
  const id = await outbox.enqueue("me", "note", {});
  outbox.start(link);
  const { message } = await link.next(1);
  const content = fromBase64url(message.encrypted_content);
  const frame = { id, seq: 1, epoch: "e", sender: "me", recipient: "me", contact: "me", content };
  const stored = { ...frame, ...accepted(1), conversation_id: null, status: "new" };
  await store.receive([stored], [], { epoch: "e", seq: 1 });
  begin();
  await inbox.reopen();
  await inbox.reopen();
  const messages = told.filter(({ name }) => name === "message");
  assert.deepEqual(
    messages.map(({ body }) => body),
    ["note"],
  );
});

test("no cleartext is stored", async () => {
  await outbox.enqueue("bob", "SECRET", {});
  const [{ content, ...rest }] = await store.outbox.allTo("bob");
  assert.ok(!new TextDecoder("latin1").decode(content).includes("SECRET"));
  assert.ok(!JSON.stringify(rest).includes("SECRET"));
});

test("a receipt that overtakes the answer is not lost", async () => {
  const id = await outbox.enqueue("bob", "one", {});
  outbox.start(link);
  const sent = await link.next(1);
  const at = "2026-03-01T12:00:01.000Z";
  inbox.push({ type: "hello", epoch: "e", after: 0, reset: false }, link);
  inbox.push({ type: "receipt", seq: 2, kind: "delivered", by: "bob", ids: [id], at }, link);
  await until(() => link.acks.includes(2));
  sent.resolve(accepted(1));
  await until(() => told.some(({ name }) => name === "message"));
  const shown = told.find(({ name }) => name === "message");
  assert.equal(shown.deliveredAt, at);
  assert.equal(shown.readAt, null);
  const [kept] = await store.withStatus("opened");
  assert.equal(kept.delivered_at, at);
});
