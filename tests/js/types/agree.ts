/** The published types fit what the modules' own types say, and a page can be written with them. */

import * as actual from "../build/e2emsg.js";
import * as published from "../../../flask_e2emsg/static/e2emsg.js";

type Methods<Of> = { [Name in keyof Of as Of[Name] extends Function ? Name : never]: Of[Name] };
type Own<Of> = Omit<Methods<Of>, keyof EventTarget>;

type Same<One, Other> = [One] extends [Other] ? ([Other] extends [One] ? true : false) : false;

const names: Same<keyof Own<actual.E2EClient>, keyof Own<published.E2EClient>> = true;
const exports_: Same<keyof typeof actual, keyof typeof published> = true;
void [names, exports_];

export function promised(client: actual.E2EClient): Own<published.E2EClient> {
  return client;
}

export async function page(token: () => Promise<string>): Promise<string> {
  const client = await published.E2EClient.open({ url: "/api", userId: "7", token });
  client.addEventListener("message", ({ detail }) => detail.body?.trim());
  client.addEventListener("keychanged", ({ detail }) => void client.acceptKey(detail.contact));
  // @ts-expect-error: a typing contact has said nothing
  client.addEventListener("typing", ({ detail }) => detail.body);
  const { next } = await client.history("42", { limit: 10 });
  await client.markRead("42", next ?? 0);
  return client.send("42", "Hello!", { type: "text" });
}
