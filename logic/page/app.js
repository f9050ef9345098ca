// The demo page: who you are, the rooms you are in, the connection, and how many others are there.
// feed.js shows what arrives, push.js is the form, stage.js the bullets, client.js the published client.

import { Client } from "./client.js";
import { $, element, hueOf, keep, kept, number } from "./dom.js";
import { arrived, mark, missed, received } from "./feed.js";
import { showCurl, splitRoom, where } from "./push.js";

const ACCEPTS = [1000, 1001, 1002];
const NODES = "/goim/nodes/weighted?platform=web";

const query = new URLSearchParams(location.search);

const ADJECTIVES = ["Amber", "Brave", "Calm", "Clever", "Coral", "Gentle", "Golden", "Jolly", "Lunar", "Mellow", "Quick", "Silver"];
const ANIMALS = ["Badger", "Crane", "Dolphin", "Falcon", "Fox", "Heron", "Lynx", "Marten", "Otter", "Panda", "Raven", "Tiger"];
const any = (list) => list[Math.floor(Math.random() * list.length)];
const isMid = (text) => /^[1-9][0-9]{0,14}$/.test(text ?? "");

const me = {
  name: query.get("name") || kept(localStorage, "name") || `${any(ADJECTIVES)} ${any(ANIMALS)}`,
  mid: Number([query.get("mid"), kept(localStorage, "mid")].find(isMid) ?? 100_000 + Math.floor(Math.random() * 900_000)),
};

/** `live://1000`, or just `1000`, as a room key; nothing when it is neither. */
function roomKey(text) {
  const [, type = "live", id] = /^(?:([^:/?#\s]+):\/\/)?(\S.*)$/.exec(text.trim()) ?? [];
  return id ? `${type}://${id.trim()}` : undefined;
}

function firstRooms() {
  const asked = query.getAll("room").map(roomKey).filter(Boolean);
  if (asked.length > 0) return asked;
  try {
    const saved = JSON.parse(kept(localStorage, "rooms")).map(roomKey).filter(Boolean);
    if (saved.length > 0) return saved;
  } catch {
    // Nothing saved yet.
  }
  return ["live://1000"];
}

/** room -> { joined, count } */
const rooms = new Map(firstRooms().map((room) => [room, { joined: false }]));
let current = rooms.keys().next().value;

function showMe() {
  $("me-name").textContent = me.name;
  $("me-face").textContent = me.name.split(/\s+/).map((word) => [...word][0]).slice(0, 2).join("").toUpperCase();
  $("me-face").style.setProperty("--hue", hueOf(me.name));
  $("me").querySelector("summary").title = `mid ${me.mid}`;
  $("me").querySelector("summary").setAttribute("aria-label", `You are ${me.name}, mid ${me.mid}. Change`);
  $("name-input").value = me.name;
  $("mid-input").value = me.mid;
  $("push-mid").value ||= me.mid;
  keep(localStorage, "name", me.name);
  keep(localStorage, "mid", me.mid);
}

$("me-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("push-mid").value === String(me.mid)) $("push-mid").value = "";
  me.name = $("name-input").value.trim() || me.name;
  me.mid = Number($("mid-input").value);
  $("me").open = false;
  $("me").querySelector("summary").focus();
  showMe();
  connect();
});
document.addEventListener("click", (event) => {
  if (!$("me").contains(event.target)) $("me").open = false;
});
$("me").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  $("me").open = false;
  $("me").querySelector("summary").focus();
});

// ---- Rooms

function showRooms() {
  const focused = document.activeElement?.closest?.(".room-chip")?.dataset.room;
  $("rooms").replaceChildren(
    ...[...rooms].map(([room, { joined }]) => {
      const chip = element("div", "room-chip");
      chip.dataset.room = room;
      chip.dataset.state = joined ? "joined" : "joining";
      chip.toggleAttribute("data-current", room === current);
      chip.style.setProperty("--hue", hueOf(room));
      const pick = element("button", "pick");
      pick.type = "button";
      pick.setAttribute("aria-pressed", room === current);
      pick.append(element("span", "label", room), element("span", "n", countOf(room) ?? ""));
      pick.addEventListener("click", () => choose(room));
      const drop = element("button", "drop", "×");
      drop.type = "button";
      drop.setAttribute("aria-label", `Leave ${room}`);
      drop.addEventListener("click", () => leave(room));
      chip.append(pick, drop);
      return chip;
    }),
  );
  if (focused) [...$("rooms").children].find((chip) => chip.dataset.room === focused)?.querySelector(".pick").focus();
  const room = current ?? "no room";
  where.room = current;
  where.name = me.name;
  $("watermark").textContent = current ?? "";
  $("online-room").textContent = room;
  $("push-target").options[0].textContent = `Room ${room}`;
  $("push-text").placeholder = `Message as ${me.name}`;
  showCount();
  showCurl();
}

/** What is known of a room: counts are some seconds old, but whoever is in a room is not nobody. */
function countOf(room) {
  const { joined, count } = rooms.get(room) ?? {};
  if (count === undefined) return undefined;
  return number.format(joined ? Math.max(1, count) : count);
}

function showCount() {
  $("online-count").textContent = countOf(current) ?? "–";
  for (const chip of $("rooms").children) {
    chip.querySelector(".n").textContent = countOf(chip.dataset.room) ?? "";
  }
}

function saveRooms() {
  keep(localStorage, "rooms", JSON.stringify([...rooms.keys()]));
}

function choose(room) {
  current = room;
  showRooms();
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function join(room) {
  notice("");
  current = room;
  if (!rooms.has(room)) rooms.set(room, { joined: false });
  saveRooms();
  showRooms();
  pollOnline();
  // A refusal comes as an error event and is shown there.
  client.join(room).then(settleRooms, () => {});
}

function leave(room) {
  rooms.delete(room);
  if (current === room) current = rooms.keys().next().value;
  saveRooms();
  showRooms();
  void client.leave(room);
}

/** Takes over what the client says: a plain goim comet, for one, holds a single room. */
function settleRooms() {
  const inside = new Set(client.rooms);
  for (const [room, entry] of rooms) {
    if (inside.has(room)) entry.joined = client.state === "online";
    else rooms.delete(room);
  }
  if (!rooms.has(current)) current = rooms.keys().next().value;
  saveRooms();
  showRooms();
}

$("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const room = roomKey($("room-input").value);
  if (!room) {
    $("room-input").focus();
    return;
  }
  $("room-input").value = "";
  join(room);
});

// ---- Online counts

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(2500) });
  const { code, data } = await response.json();
  if (code !== 0) throw new Error(`code ${code}`);
  return data ?? {};
}

/** Counts of all our rooms, one request per type, and the totals. What fails keeps its last value. */
async function pollOnline() {
  const types = new Map();
  for (const room of rooms.keys()) {
    const { type, id } = splitRoom(room);
    types.set(type, [...(types.get(type) ?? []), id]);
  }
  const byType = [...types].map(async ([type, ids]) => {
    const parameters = new URLSearchParams([["type", type], ...ids.map((id) => ["rooms", id])]);
    for (const [id, count] of Object.entries(await ask(`/goim/online/room?${parameters}`))) {
      const entry = rooms.get(`${type}://${id}`);
      if (entry) entry.count = count;
    }
    showCount();
  });
  const totals = ask("/goim/online/total").then(({ conn_count = 0, ip_count = 0 }) => {
    const ours = client.state === "online" ? 1 : 0;
    const several = (count, one, many) => `${number.format(Math.max(ours, count))} ${Math.max(ours, count) === 1 ? one : many}`;
    $("totals").textContent = `${several(conn_count, "connection", "connections")} from ${several(ip_count, "address", "addresses")} in the cluster`;
  });
  await Promise.allSettled([...byType, totals]);
}
setInterval(() => {
  if (!document.hidden) void pollOnline();
}, 3000);

// ---- The connection

let client;
let countdown;

function showState(change) {
  clearInterval(countdown);
  const state = change.state === "closed" ? "offline" : change.state;
  $("status").dataset.state = state;
  $("status").title = change.error ? change.error.reason : (change.url ?? "");
  $("retry").hidden = change.state !== "offline";
  for (const entry of rooms.values()) entry.joined = state === "online";
  if (state === "online") {
    $("status-text").textContent = `Online · ${change.server ?? new URL(change.url).host}`;
    settleRooms();
    void pollOnline();
    return;
  }
  showRooms();
  if (change.state === "connecting") $("status-text").textContent = "Connecting";
  if (change.state === "closed") $("status-text").textContent = `Closed: ${change.error.reason}`;
  if (change.state !== "offline") return;
  const due = Date.now() + change.retryInMs;
  const tick = () => {
    $("status-text").textContent = `Reconnecting in ${Math.max(0, Math.ceil((due - Date.now()) / 1000))} s`;
  };
  tick();
  countdown = setInterval(tick, 250);
}

function connect() {
  client?.close();
  const main = current; // heartbeats bring the count of the room we authenticate with
  const mine = new Client({
    server: query.get("comet") ?? NODES,
    mid: me.mid,
    accepts: ACCEPTS,
    ...(main ? { room: main } : {}),
  });
  client = mine;
  for (const room of rooms.keys()) void mine.join(room);
  mine.on("message", arrived);
  mine.on("gap", missed);
  mine.on("count", (count) => {
    const entry = rooms.get(main);
    if (entry && mine.rooms.includes(main)) entry.count = count;
    showCount();
  });
  mine.on("error", (error) => {
    if (!error.room) return;
    notice(`Not in ${error.room}: ${error.reason} (${error.code}).`);
    settleRooms();
  });
  mine.on("state", (change) => {
    if (client === mine) showState(change);
  });
  void mine.connect();
}

$("retry").addEventListener("click", () => client.retryNow());

/** For tests and the curious. */
window.imcluster = {
  received,
  get client() {
    return client;
  },
};

mark(({ from }) => from === me.name);
showMe();
connect();
showRooms();
