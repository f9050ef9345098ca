// What a client is told when it is made, and the token it presents because of it.

import { ClientError } from "./error.js";
import { MAX_BODY } from "./packet.js";
import type { WebSocketConstructor } from "./session.js";

export interface ClientOptions {
  /**
   * Where to connect: one or more `ws://` or `wss://` addresses, tried in turn, or one node list such as
   * `https://logic.example/goim/nodes/weighted?platform=web`. In a page it may be relative.
   */
  server: string | readonly string[];
  /** The member; absent or 0 is anonymous. */
  mid?: number | bigint;
  /** Names this connection. Without it the server makes one, and the client keeps it when it reconnects. */
  key?: string;
  /** A room (`type://id`) to be in from the first moment; its online count comes with each heartbeat. */
  room?: string;
  /** For the server's statistics. Default `web`. */
  platform?: string;
  /** Ops wanted of pushes to this key, this member and all. Pushes to a room come whatever their op. */
  accepts?: readonly number[];
  /** Announce ImCluster's extensions (many rooms, message ids, gaps). Default true; harmless towards goim. */
  capabilities?: boolean;
  /**
   * More fields for the auth JSON, such as `token`. A function is asked for them before every connection, so that a
   * token that has expired is followed by a newer one.
   */
  auth?: AuthFields | (() => AuthFields | Promise<AuthFields>);
  /** Default: the global one. Node before 22 has none: pass `WebSocket` of the package `ws`. */
  webSocket?: WebSocketConstructor;
  /** Connect again when the connection is lost. Default true. */
  reconnect?: boolean;
  /** At most this many milliseconds between heartbeats. Default 30 000; the server may ask for more often. */
  heartbeatMs?: number;
  /** For connecting and authenticating, for what `auth` answers, and for each reply, milliseconds. Default 10 000. */
  deadlineMs?: number;
  /** Answers in [0, 1); for tests. */
  random?: () => number;
}

/** Fields of the auth JSON. */
export type AuthFields = Readonly<Record<string, unknown>>;

/** goim's token plus `caps`. Throws when it is longer than a server takes. */
export function encodeToken(
  options: ClientOptions,
  now: {
    key: string | undefined;
    room: string | undefined;
    accepts: Iterable<number>;
    auth?: AuthFields | undefined;
    /** It is still connected to a server that asked it to move. */
    moving?: boolean;
  },
): Uint8Array {
  const { mid = 0, platform = "web", capabilities = true } = options;
  const fields = {
    ...now.auth,
    key: now.key ?? "",
    room_id: now.room ?? "",
    platform,
    accepts: [...now.accepts],
    ...(capabilities ? { caps: ["envelope", "rooms", "move"] } : {}),
    ...(now.moving ? { moving: true } : {}),
  };
  // JSON.stringify takes no bigint, and a mid may be any int64.
  const token = new TextEncoder().encode(`{"mid":${mid},${JSON.stringify(fields).slice(1)}`);
  if (token.length > MAX_BODY) {
    throw new ClientError("malformed", `the auth body takes ${token.length} bytes, the server ${MAX_BODY}`);
  }
  return token;
}

/** Fails early on what no server would take. */
export function checkOptions(options: ClientOptions): void {
  const { mid = 0, accepts = [] } = options;
  if (typeof mid === "number" && !Number.isSafeInteger(mid)) throw new TypeError(`mid ${mid} is no integer`);
  accepts.forEach(checkOp);
}

/** Throws unless `op` is a 32-bit integer. */
export function checkOp(op: number): void {
  if ((op | 0) !== op) throw new TypeError(`op ${op} is no 32-bit integer`);
}
