// Which servers to try: fixed WebSocket addresses, or goim's node list, asked anew before every attempt.

import { type BackoffRule, backoffRule } from "./backoff.js";
import { ClientError, asClientError } from "./error.js";

/** What `GET /goim/nodes/weighted` answers in `data`. Zero values are left out. */
export interface NodeList {
  domain?: string;
  ws_port?: number;
  wss_port?: number;
  /** Seconds between heartbeats. */
  heartbeat?: number;
  nodes?: string[] | null;
  backoff?: Partial<BackoffRule>;
}

export interface Route {
  urls: string[];
  /** Absent for fixed addresses. */
  backoff?: BackoffRule;
  /** Milliseconds. */
  heartbeatMs?: number;
}

const LOCAL = new Set(["", "localhost", "127.0.0.1"]);

/**
 * Turns a node list into WebSocket addresses. A node that is empty or names this machine stands for
 * the host the list came from. A list had over https gives wss addresses: on `wss_port`, or on the
 * list's own host when there is none.
 */
export function nodeUrls(list: NodeList, endpoint: URL): string[] {
  const secure = endpoint.protocol === "https:";
  const port = secure ? list.wss_port : list.ws_port;
  const scheme = secure ? "wss" : "ws";
  if (!port) return [`${scheme}://${endpoint.host}/sub`];
  const nodes = list.nodes?.length ? list.nodes : [list.domain ?? ""];
  const urls = nodes.map((node) => {
    if (/^wss?:\/\//.test(node)) return node;
    const host = LOCAL.has(node) ? endpoint.hostname : node;
    if (/^[^:]+:\d+$/.test(host) || /^\[.*\]:\d+$/.test(host)) return `${scheme}://${host}/sub`;
    const bracketed = host.includes(":") && !host.startsWith("[") ? `[${host}]` : host;
    return `${scheme}://${bracketed}:${port}/sub`;
  });
  return [...new Set(urls)];
}

/** Asks an endpoint for its node list. `deadlineMs` bounds the whole request. */
async function fetchRoute(endpoint: URL, deadlineMs: number): Promise<Route> {
  try {
    const response = await fetch(endpoint, { signal: AbortSignal.timeout(deadlineMs) });
    if (!response.ok) throw new Error(`answered HTTP ${response.status}`);
    const envelope = (await response.json()) as { code?: number; message?: string; data?: NodeList } | null;
    if (envelope?.code !== 0 || !envelope.data) {
      throw new Error(`answered code ${envelope?.code} ${envelope?.message ?? ""}`);
    }
    const seconds = envelope.data.heartbeat;
    return {
      urls: nodeUrls(envelope.data, endpoint),
      backoff: backoffRule(envelope.data.backoff),
      ...(typeof seconds === "number" && seconds > 0 ? { heartbeatMs: seconds * 1000 } : {}),
    };
  } catch (error) {
    throw new ClientError("nodes", `${endpoint}: ${asClientError(error, "nodes").reason}`);
  }
}

/** Hands out the address of each attempt, in turn. */
export class Router {
  readonly #fixed: string[];
  readonly #endpoint: URL | undefined;
  #last: Route | undefined;
  #turn = 0;

  /** `server`: ws(s) addresses, or one http(s) node list; a relative address is the page's own host. */
  constructor(server: string | readonly string[]) {
    const base = (globalThis as { location?: { href?: string } }).location?.href;
    const urls = (typeof server === "string" ? [server] : [...server]).map((text) => new URL(text, base));
    const lists = urls.filter((url) => /^https?:$/.test(url.protocol));
    if (urls.length === 0 || lists.length > 1 || (lists.length === 1 && urls.length > 1)) {
      throw new TypeError("server must be one or more ws:// or wss:// addresses, or one http(s) node list");
    }
    const other = urls.find((url) => !/^(wss?|https?):$/.test(url.protocol));
    if (other) throw new TypeError(`server ${other} must begin with ws://, wss://, http:// or https://`);
    this.#endpoint = lists[0];
    this.#fixed = urls.map(String);
  }

  /**
   * The address for the next attempt and what the node list said beside it. When the list cannot be
   * had, the last one known is used: servers may well live while the one who lists them does not.
   */
  async next(deadlineMs: number): Promise<Route & { url: string }> {
    let route: Route = { urls: this.#fixed };
    if (this.#endpoint) {
      try {
        route = await fetchRoute(this.#endpoint, deadlineMs);
        this.#last = route;
      } catch (error) {
        if (!this.#last) throw error;
        route = this.#last;
      }
    }
    const url = route.urls[this.#turn % route.urls.length] as string;
    return { ...route, url };
  }

  /** The address handed out last did not work: the next attempt takes the one after it. */
  failed(): void {
    this.#turn += 1;
  }

  /** It did work: a node list, best first, is read from its head again; a fixed address is kept. */
  worked(): void {
    if (this.#endpoint) this.#turn = 0;
  }
}
