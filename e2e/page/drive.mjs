// Drives Chromium for e2e/tests/page.rs: one JSON command a line in, one JSON answer a line out, in order.
// {"do":"open",…} → {"value":…} or {"error":"…"}. Ends, and Chromium with it, when its input does.

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const PATIENCE_MS = 20_000;

// Root has no sandbox, containers no /dev/shm to speak of.
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
});
let page;
/** What a person would find in the console, and every request that left the page's own host. */
let problems = [];

const commands = {
  /** A fresh profile and one tab. `mobile` brings touch and a sharp, narrow screen. */
  async open({ url, width, height, mobile = false, dark = false }) {
    await page?.context().close();
    const context = await browser.newContext({
      viewport: { width, height },
      isMobile: mobile,
      hasTouch: mobile,
      deviceScaleFactor: mobile ? 2 : 1,
      colorScheme: dark ? "dark" : "light",
    });
    page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    problems = [];
    page.on("pageerror", (error) => problems.push(`uncaught: ${error.message}`));
    page.on("console", (message) => message.type() === "error" && problems.push(`console: ${message.text()}`));
    const { origin } = new URL(url);
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== origin) problems.push(`fetched ${request.url()}`);
    });
    await page.goto(url);
  },
  evaluate: ({ script }) => page.evaluate(script),
  click: ({ selector }) => page.click(selector),
  fill: ({ selector, text }) => page.fill(selector, text),
  select: ({ selector, value }) => page.selectOption(selector, value),
  async screenshot({ path }) {
    await page.screenshot({ path });
  },
  problems: () => problems,
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const { do: name, ...rest } = JSON.parse(line);
    answer = { value: (await commands[name](rest)) ?? null };
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
