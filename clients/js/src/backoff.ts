// How long to wait before the next attempt: exponential with full jitter, so that a cluster that
// comes back is not met by all its clients in the same second.

/** Seconds, as goim's node list gives them. */
export interface BackoffRule {
  max_delay: number;
  base_delay: number;
  factor: number;
  jitter: number;
}

/** What a client does while no node list has said otherwise. */
export const DEFAULT_RULE: BackoffRule = { max_delay: 30, base_delay: 1, factor: 1.8, jitter: 0.3 };

/** A session that lasted this long (milliseconds) clears the count of failures. */
export const STABLE_MS = 10_000;

export class Backoff {
  rule: BackoffRule = DEFAULT_RULE;
  #failures = 0;
  readonly #random: () => number;

  /** `random` answers in [0, 1). */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** Failed attempts since the last session that lasted. */
  get failures(): number {
    return this.#failures;
  }

  reset(): void {
    this.#failures = 0;
  }

  /**
   * Milliseconds to wait, and one more failure counted: anywhere between 0 and the longest wait
   * goim's rule allows. `retryAfterMs` from the server is a floor under that, not a replacement.
   */
  next(retryAfterMs = 0): number {
    const { max_delay, base_delay, factor, jitter } = this.rule;
    const ceiling = Math.min(max_delay, base_delay * factor ** this.#failures * (1 + jitter));
    this.#failures += 1;
    return Math.round(retryAfterMs + this.#random() * ceiling * 1000);
  }
}

/** Takes what a node list offers, field by field; anything that is no positive number stays default. */
export function backoffRule(offered: unknown): BackoffRule {
  const given = (offered ?? {}) as Partial<Record<keyof BackoffRule, unknown>>;
  const pick = (name: keyof BackoffRule, least: number): number => {
    const value = given[name];
    return typeof value === "number" && Number.isFinite(value) && value >= least ? value : DEFAULT_RULE[name];
  };
  return {
    max_delay: pick("max_delay", 0.001),
    base_delay: pick("base_delay", 0.001),
    factor: pick("factor", 1),
    jitter: pick("jitter", 0),
  };
}
