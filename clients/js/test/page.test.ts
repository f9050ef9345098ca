import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

test("the client beside the demo page is a fresh build of this one", async () => {
  // A path in a variable: the script is plain JavaScript and has no types to check.
  const script = "../scripts/page.mjs";
  const { PAGE, bundle } = (await import(script)) as { PAGE: string; bundle(): Promise<string> };
  assert.equal(readFileSync(PAGE, "utf8"), await bundle(), "run `npm run page` in clients/js");
});
