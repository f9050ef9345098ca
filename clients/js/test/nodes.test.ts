import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Router, nodeUrls } from "../dist/nodes.js";

const http = new URL("http://logic.example:3111/goim/nodes/weighted?platform=web");
const https = new URL("https://logic.example/goim/nodes/weighted?platform=web");

test("a node becomes an address with the list's port", () => {
  assert.deepEqual(nodeUrls({ ws_port: 3102, nodes: ["c1.example", "10.0.0.7", "::1"] }, http), [
    "ws://c1.example:3102/sub",
    "ws://10.0.0.7:3102/sub",
    "ws://[::1]:3102/sub",
  ]);
});

test("a node that is empty or names this machine is the host the list came from", () => {
  assert.deepEqual(nodeUrls({ ws_port: 3102, nodes: ["", "localhost", "127.0.0.1"] }, http), [
    "ws://logic.example:3102/sub",
  ]);
});

test("without nodes the domain serves", () => {
  assert.deepEqual(nodeUrls({ ws_port: 3102, domain: "conn.example", nodes: [] }, http), ["ws://conn.example:3102/sub"]);
});

test("a list had over https gives wss, on its own port or on the list's host", () => {
  assert.deepEqual(nodeUrls({ ws_port: 3102, wss_port: 3103, nodes: ["c1.example"] }, https), [
    "wss://c1.example:3103/sub",
  ]);
  assert.deepEqual(nodeUrls({ ws_port: 3102, nodes: ["c1.example"] }, https), ["wss://logic.example/sub"]);
});

test("a node may bring its own port or be a whole address", () => {
  assert.deepEqual(nodeUrls({ ws_port: 3102, nodes: ["c1.example:443", "wss://c2.example/sub"] }, http), [
    "ws://c1.example:443/sub",
    "wss://c2.example/sub",
  ]);
});

test("addresses that cannot work are refused at once", () => {
  for (const server of [[], "ftp://x/", ["http://a/", "ws://b/"], ["http://a/", "http://b/"]]) {
    assert.throws(() => new Router(server), TypeError);
  }
});

test("fixed addresses are tried in turn", async () => {
  const router = new Router(["ws://a/sub", "ws://b/sub"]);
  const next = async () => (await router.next(1000)).url;
  assert.equal(await next(), "ws://a/sub");
  router.failed();
  assert.equal(await next(), "ws://b/sub");
  router.worked();
  assert.equal(await next(), "ws://b/sub");
  router.failed();
  assert.equal(await next(), "ws://a/sub");
});

test("the node list is asked anew each time; when it is away the last one serves", async () => {
  let answer: object = {};
  let status = 200;
  const server = createServer((_, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const router = new Router(`http://127.0.0.1:${(server.address() as AddressInfo).port}/goim/nodes/weighted`);
    answer = { code: -500, message: "no comet yet" };
    await assert.rejects(router.next(10_000), { code: "nodes", reason: /no comet yet/ });
    answer = {
      code: 0,
      message: "",
      data: { ws_port: 9, nodes: ["a", "b"], heartbeat: 240, backoff: { max_delay: 300, base_delay: 3, factor: 1.8, jitter: 0.3 } },
    };
    const first = await router.next(10_000);
    assert.equal(first.url, "ws://a:9/sub");
    assert.equal(first.heartbeatMs, 240_000);
    assert.equal(first.backoff?.max_delay, 300);
    router.failed();
    assert.equal((await router.next(10_000)).url, "ws://b:9/sub");
    answer = { code: 0, message: "", data: { ws_port: 9, nodes: ["c"] } };
    assert.equal((await router.next(10_000)).url, "ws://c:9/sub");
    status = 503;
    assert.equal((await router.next(10_000)).url, "ws://c:9/sub");
  } finally {
    server.close();
  }
});
