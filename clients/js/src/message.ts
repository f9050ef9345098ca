// One push as the application sees it.

import type { MessageId } from "./packet.js";

const utf8 = new TextDecoder();

export class Message {
  constructor(
    /** The pusher's operation. */
    readonly op: number,
    /** The body, untouched: a view into the received frame. Copy it to keep it long. */
    readonly body: Uint8Array,
    /** The room it was pushed to; undefined for a push to a key, a member or all, and from a plain goim server. */
    readonly room?: string,
    /** Its place in the cluster's log; undefined when the server gave none. */
    readonly id?: MessageId,
  ) {}

  /** The body as UTF-8; bytes that are not become U+FFFD. */
  text(): string {
    return utf8.decode(this.body);
  }

  /** The body as JSON. Throws SyntaxError when it is none. */
  json<T = unknown>(): T {
    return JSON.parse(this.text()) as T;
  }
}

/** Pushes this client was not given (op 23), and why. */
export interface Gap {
  reason: string;
  /** How many pushes, as far as the server knows. */
  dropped: number;
  ranges: { room?: string; partition: number; from: number; to: number }[];
}
