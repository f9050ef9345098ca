// What arrives: read and counted at once, then listed and sent across the stage a frame at a time,
// however many messages a frame brings.

import { $, element, hueOf, milliseconds, number } from "./dom.js";
import { fly } from "./stage.js";

const LIST_MAX = 200; // items in the DOM
const PACE_MS = 100; // between two draws of the list
const RECEIVED_MAX = 5000; // texts kept for the console
const TEXT_MAX = 2000; // characters of one message in the list

const utf8 = new TextDecoder("utf-8", { fatal: true });
/** The texts, most recent last. */
export const received = [];
const counts = { received: 0, gaps: 0, second: 0 };
const latencies = new Float64Array(2000); // the most recent, round and round
let measured = 0;
let waiting = []; // for the next frame
let framed = false;
let drawn = 0;

/** A body as people read it: our JSON, else text, else hex. */
function readable(body) {
  let text;
  try {
    text = utf8.decode(body);
  } catch {
    text = undefined;
  }
  if (text === undefined || /[\0-\x08\x0e-\x1f]/.test(text)) {
    const hex = Array.from(body.subarray(0, 64), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    return { text: body.length > 64 ? `${hex} … ${number.format(body.length)} bytes` : hex, hex: true };
  }
  if (text.startsWith("{")) {
    try {
      const { text: said, from, sentMs } = JSON.parse(text);
      if (typeof said === "string") {
        return { text: said, from: typeof from === "string" ? from : "", sentMs: Number.isFinite(sentMs) ? sentMs : undefined };
      }
    } catch {
      // Not JSON after all: text like any other.
    }
  }
  return { text };
}

/** Counts a message now and shows it with the next frame. */
export function arrived(message) {
  const now = Date.now();
  const entry = { ...readable(message.body), room: message.room ?? "", op: message.op };
  if (entry.sentMs !== undefined && entry.sentMs <= now) {
    entry.latency = now - entry.sentMs; // a sender whose clock runs ahead tells us nothing
    latencies[measured % latencies.length] = entry.latency;
    measured += 1;
  }
  counts.received += 1;
  counts.second += 1;
  received.push(entry.text);
  if (received.length > RECEIVED_MAX) received.shift();
  waiting.push(entry);
  if (waiting.length >= 2 * LIST_MAX) waiting = waiting.slice(-LIST_MAX); // a hidden tab draws no frames
  if (framed) return;
  framed = true;
  // A lone message is drawn with the next frame; in a flood frames further apart leave the page its time.
  const early = drawn + PACE_MS - performance.now();
  if (early > 0) setTimeout(() => requestAnimationFrame(draw), early);
  else requestAnimationFrame(draw);
}

let stick = true; // the list follows its end until someone scrolls up
const list = $("messages");

let isMine = () => false;

/** Says which messages are the reader's own: they stand out on the stage. */
export function mark(own) {
  isMine = own;
}

function draw() {
  framed = false;
  drawn = performance.now();
  const entries = waiting.slice(-LIST_MAX);
  waiting = [];
  list.append(...entries.map(listItem));
  while (list.children.length > LIST_MAX) list.firstElementChild.remove();
  if (stick) list.scrollTop = list.scrollHeight;
  else $("latest").hidden = false;
  $("list-empty").hidden = true;
  $("quiet").hidden = true;
  $("received-count").textContent = number.format(counts.received);
  fly(entries, isMine);
}

function listItem({ room, op, text, from, hex, latency }) {
  const item = document.createElement("li");
  const shown = text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
  item.dataset.room = room;
  item.dataset.op = op;
  item.dataset.text = shown;
  const line = element("span", hex ? "text hex" : "text");
  if (from) line.append(element("span", "who", from.slice(0, 40)));
  line.append(shown);
  const where = element("span", "where");
  const tag = element("span", room ? "tag" : "tag direct", room || "member or all");
  if (room) tag.style.setProperty("--hue", hueOf(room));
  where.append(tag);
  const delay = element("span", latency > 250 ? "latency slow" : "latency", latency === undefined ? "" : milliseconds(latency));
  item.append(line, delay, where, element("span", "op", `op ${op}`));
  return item;
}

list.addEventListener("scroll", () => {
  stick = list.scrollHeight - list.scrollTop - list.clientHeight < 48;
  if (stick) $("latest").hidden = true;
});
$("latest").addEventListener("click", () => {
  stick = true;
  list.scrollTop = list.scrollHeight;
  list.focus({ preventScroll: true });
});

/** Writes a figure with its unit small behind it. */
function figure(node, text) {
  const at = text.lastIndexOf(" ");
  node.replaceChildren(text.slice(0, at), element("small", "", text.slice(at)));
}

let ranked = 0;
setInterval(() => {
  if (measured === ranked) return;
  ranked = measured;
  const sorted = latencies.slice(0, Math.min(measured, latencies.length)).sort();
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
  figure($("latency-p50"), milliseconds(at(0.5)));
  figure($("latency-p99"), milliseconds(at(0.99)));
}, 250);

setInterval(() => {
  $("rate").textContent = `${number.format(counts.second)} /s`;
  counts.second = 0;
}, 1000);

/** Counts pushes the server says we were not given. */
export function missed({ dropped, reason }) {
  counts.gaps += Math.max(1, dropped);
  $("gap-count").textContent = number.format(counts.gaps);
  $("gap-note").textContent = reason || "a gap";
  $("gap-note").closest(".tile").classList.add("bad");
}
