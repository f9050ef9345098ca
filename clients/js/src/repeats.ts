// Tells a push that was already delivered from a new one. A push may come twice when a server dies
// between writing it and saying so; ids arrive in any order, so a high-water mark would lose messages.

import type { MessageId } from "./packet.js";

/** Remembers at least the last `capacity / 2` and at most the last `capacity` ids. */
export class RepeatFilter {
  #young = new Set<string>();
  #old = new Set<string>();
  readonly #generation: number;

  constructor(capacity = 16_384) {
    this.#generation = Math.max(1, capacity >> 1);
  }

  /** True when `id` was seen before. A push without an id (epoch 0) is never a repeat. */
  seen(id: MessageId): boolean {
    if (id.epoch === 0) return false;
    const name = `${id.epoch}/${id.partition}/${id.offset}`;
    if (this.#young.has(name) || this.#old.has(name)) return true;
    if (this.#young.size >= this.#generation) {
      this.#old = this.#young;
      this.#young = new Set();
    }
    this.#young.add(name);
    return false;
  }
}
