// Draws the views that the server sends, and sends commands. It decides nothing about locks.

const at = (id) => document.getElementById(id);
const KEPT = "lock-demo-instance";

let view = null; // the server's last view ..
let told = 0; // .. and when it came
let stream = null;
let instance = sessionStorage.getItem(KEPT);
let is_away = false; // whether the demo has stopped answering
let begins = false; // whether a new instance is being started

// --- writing, only what has changed: a screen reader would read the rest again ---

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function put_attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

function seconds(ms) {
  return `${(Math.max(ms, 0) / 1000).toFixed(1)} s`;
}

// In groups, because sixteen digits in a row are hard to compare by eye.
function token(text) {
  return text ? text.replace(/\B(?=(\d{3})+$)/g, "\u202f") : "–";
}

// Makes the digits from the first difference on stand out: those before are the same for an hour.
function put_token(place, text, other) {
  const shown = token(text);
  const compared = token(other);
  let alike = 0;
  while (alike < shown.length && shown[alike] === compared[alike]) alike += 1;
  if (!text || !other || alike === shown.length) alike = shown.length;
  const drawn = `${alike} ${shown}`;
  if (place.dataset.drawn === drawn) return;
  place.dataset.drawn = drawn;
  place.replaceChildren(shown.slice(0, alike));
  if (alike < shown.length) place.append(element("b", "different", shown.slice(alike)));
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Replaces the items of a list if they differ from those drawn last.
function put_all(list, items) {
  const wanted = items.map((item) => item.outerHTML).join("");
  if (list.dataset.drawn !== wanted) {
    list.dataset.drawn = wanted;
    list.replaceChildren(...items);
  }
}

function banner(text) {
  at("banner").hidden = !text;
  put(at("banner"), text);
}

// --- the connection to the server ---

async function post(path, body) {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
}

async function send(command) {
  try {
    const answer = await post(`/instances/${instance}/commands`, command);
    if (answer.status === 410) await begin_anew();
    else if (!is_away) banner("");
  } catch {
    away();
  }
}

function away() {
  is_away = true;
  banner("The demo does not answer: was it stopped? What you see is its last known state. This page keeps trying to reconnect.");
}

function back() {
  if (is_away) banner("");
  is_away = false;
}

async function begin_anew() {
  if (begins) return;
  begins = true;
  stream?.close();
  const before = instance;
  instance = null;
  while (!instance) {
    try {
      const answer = await post("/instances");
      if (answer.ok) instance = (await answer.json()).id;
      else banner(`The demo has no instance for this page: ${await answer.text()}. This page keeps trying.`);
    } catch {
      away();
    }
    if (!instance) await new Promise((passed) => setTimeout(passed, 1000));
  }
  begins = false;
  is_away = false;
  sessionStorage.setItem(KEPT, instance);
  listen();
  banner(
    before
      ? "The demo was started again, or this page was away for too long. Its instance is gone, and so is any lock that it held. This is a new one."
      : "",
  );
}

function listen() {
  stream?.close();
  const source = new EventSource(
    `/instances/${instance}/events?lock=${encodeURIComponent(at("id").value)}`,
  );
  stream = source;
  source.onmessage = (message) => {
    back();
    const first = view === null;
    view = JSON.parse(message.data);
    told = performance.now();
    draw();
    follow(view.me, first);
  };
  source.onerror = away;
  source.addEventListener("gone", () => {
    source.close();
    begin_anew();
  });
}

// A reloaded page has forgotten which lock it showed, and a duplicate may have chosen another.
function follow(me, first) {
  const field = at("id");
  const shown = field.value;
  if (me.lock && (first || ["waiting", "holding", "releasing"].includes(me.doing))) {
    field.value = me.lock;
  }
  if (field.value !== shown) listen();
}

// Resolves when this page may open its stream, for as long as the page is open. A browser has six
// connections to one server, and commands need one of them: with six streams, no button would work.
function place() {
  return new Promise((granted) => {
    if (!navigator.locks) return granted();
    const others = new AbortController();
    for (let number = 0; number < 5; number += 1) {
      const held = navigator.locks.request(
        `lock-demo-page-${number}`,
        { signal: others.signal },
        () => {
          if (others.signal.aborted) return undefined;
          others.abort();
          granted();
          return new Promise(() => {});
        },
      );
      held.catch(() => {}); // aborted: another number was granted
    }
  });
}

// --- drawing ---

const DOING = {
  nothing: () => "You hold nothing.",
  waiting: (me, lock) =>
    me.condition === "open" && lock.state !== "unknown"
      ? `You wait in line for ${me.lock}.`
      : `You ask for ${me.lock}, but the store does not answer.`,
  holding: (me) => `You hold ${me.lock}.`,
  releasing: (me) => `You release ${me.lock}; the store has not answered yet.`,
  lost: (me) => `You have lost ${me.lock}.`,
  killed: () => "This process is dead.",
};

function draw() {
  const { me, ledger, debounce } = view;
  const [about_lock, about_ledger, about_debounce] = ["lock", "ledger", "debounce"].map((topic) =>
    view.answers.filter((answer) => answer.about === topic),
  );
  put(at("name"), me.name);
  put(
    at("store"),
    view.store.startsWith("in ")
      ? `Process ${view.copy} runs it, and keeps the locks in memory.`
      : `Process ${view.copy} runs it. The store of the locks is ${view.store}.`,
  );
  document.title = `${me.name} · lock`;
  const failed = me.doing === "nothing" && about_lock[0]?.answer.startsWith("Err");
  const doing = failed ? "You hold nothing: the last call failed." : DOING[me.doing](me, view.lock);
  for (const [state, text] of [["state", "doing"], ["status", "status-doing"]]) {
    put_attribute(at(state), "data-doing", failed ? "failed" : me.doing);
    put(at(text), text === "doing" ? doing : `${me.name}: ${doing}`);
  }
  draw_guard(me);
  draw_buttons(me);
  draw_answers(about_lock);
  draw_line(view.lock, view.line);
  draw_servers(view.servers);

  const holds = me.doing === "holding";
  put(at("whose"), me.token && !holds ? "your last token, no longer held" : "your token");
  put_token(at("mine"), me.token, ledger.token);
  put_token(at("largest"), ledger.token, me.token);
  if (about_ledger[0]) put_all(at("wrote"), [answer_of(about_ledger[0])]);
  put(
    at("ledger"),
    ledger.accepted + ledger.refused === 0
      ? "Nobody has written yet."
      : `${ledger.accepted} accepted (last: ${ledger.by || "–"}), ${ledger.refused} refused as out of date.`,
  );
  draw_timeline(view.timeline);
  put_all(
    at("lines"),
    view.lines.map((line) => element("li", "", `${line.name} ${line.text}`)),
  );
  put(at("calls"), String(debounce.calls));
  put(at("runs"), String(debounce.runs));
  if (about_debounce[0]) put_all(at("called"), [answer_of(about_debounce[0])]);
  tick();
}

function draw_guard(me) {
  const { guard } = me;
  const held = at("is-held");
  put(held, guard ? String(guard.is_held) : "–");
  held.className = guard ? (guard.is_held ? "yes" : "no") : "";
  const lost = at("lost");
  put(lost, guard ? (guard.lost ? "lost" : "not lost") : "–");
  lost.className = guard?.lost ? "no" : "";
  put(at("token"), token(guard?.fencing_token));
  put(at("renewals"), guard ? (guard.renewals === 1 ? "once" : `${guard.renewals} times`) : "–");
}

function draw_buttons(me) {
  const alive = me.doing !== "killed";
  const holding = me.doing === "holding";
  const free = me.doing === "nothing" || me.doing === "lost";
  const open = {
    acquire: alive && free,
    try: alive && free,
    "stop-waiting": me.doing === "waiting",
    extend: holding,
    release: holding || me.doing === "lost",
    drop: holding || me.doing === "lost",
    silent: alive && me.breakable && me.condition !== "silent",
    cut: alive && me.breakable && me.condition !== "cut",
    repair: alive && me.condition !== "open",
    block: alive && me.blocked_ms === 0,
    force: true,
    kill: alive,
    restart: !alive,
    write: alive && Boolean(me.token),
    call: alive,
  };
  for (const [id, is_open] of Object.entries(open)) {
    // Not `disabled`: that would take the focus away from a button that was just pressed.
    put_attribute(at(id), "aria-disabled", String(!is_open));
  }
  at("id").readOnly = !free && alive;
  const conditions = {
    open: me.breakable || !alive ? "The network works." : "This page cannot cut connections under TLS or to several servers. Instead, stop a server, and see below what the library reports.",
    silent: "No message arrives.",
    cut: "There is no connection.",
  };
  put(at("condition"), conditions[me.condition]);
  const queued = me.queued > 0 ? ` Commands waiting: ${me.queued}.` : "";
  put(
    at("blocked"),
    me.blocked_ms > 0
      ? `Frozen for ${Math.ceil(me.blocked_ms / 1000)} more seconds.${queued}`
      : "Freezes the code of this instance for eight seconds.",
  );
}

function answer_of(answer) {
  const made = element("p", "answer");
  made.append(element("code", "", answer.call), " → ");
  made.append(element("code", answer.good ? "yes" : "no", answer.answer.replace(/\d{16,}/g, token)));
  if (answer.meaning) made.append(element("span", "meaning", answer.meaning));
  return made;
}

function draw_answers([latest, ...before]) {
  if (latest) put_all(at("answer"), [answer_of(latest)]);
  put_all(
    at("answers"),
    before.map((answer) => {
      const item = element("li");
      item.append(answer_of(answer));
      return item;
    }),
  );
}

// The name that its application gave to the holder; another library's client has none.
const holder_of = (lock) => lock.holder?.name ?? "a client without a name";

function draw_line(lock, line) {
  const whose = holder_of(lock);
  const { pid, host, asked_ms } = lock.holder ?? {};
  const where = pid ? ` (process ${pid} on ${host})` : "";
  const since = asked_ms == null ? "" : ` ${whose} asked for it ${Math.floor(asked_ms / 1000)} s ago.`;
  const waiting = ["nobody is waiting", "1 is waiting"][lock.waiters] ?? `${lock.waiters} are waiting`;
  const states = {
    asking: "Asking the store …",
    free: `The store says: ${lock.id} is free.`,
    held: `The store says: ${lock.id} is held by ${whose}${where}; ${waiting}.${since}`,
    unknown: `The store does not answer: ${lock.error}`,
    refused: `Asking the store failed: ${lock.error}`,
  };
  put(at("store-says"), states[lock.state]);
  let place = 0;
  const items = line.map((person) => {
    const holds = person.doing === "holding";
    const item = element("li", person.doing);
    item.append(
      element("span", "", holds ? "holds" : `${(place += 1)}.`),
      element("strong", "", `${person.name}${person.mine ? " (this page)" : ""}`),
      element("span", "", `for ${Math.floor(person.for_ms / 1000)} s`),
    );
    return item;
  });
  // Only the store knows of a holder that is dead, or that is not a page of this demo.
  if (lock.state === "held" && line[0]?.doing !== "holding") {
    const item = element("li", "dead");
    item.append(
      element("span", "", "held for"),
      element("strong", "", whose),
      element("span", "", `lease ends in ${Math.ceil(lock.remaining_ms / 1000)} s`),
    );
    items.unshift(item);
  }
  put_all(at("line"), items);
}

function draw_servers(servers) {
  at("servers-card").hidden = servers.length === 0;
  put_all(
    at("servers"),
    servers.map((server) => {
      const item = element("li", server.is_good ? "good" : "bad");
      item.append(
        element("strong", "", server.is_primary ? `${server.address} (the primary)` : server.address),
        element("span", "", server.text),
        element("span", "", `${Math.floor(server.ago_ms / 1000)} s ago`),
      );
      return item;
    }),
  );
}

function draw_timeline({ window_ms, lanes }) {
  const drawn = lanes.map((lane) => {
    const row = element("div", "lane");
    row.append(element("span", "", lane.mine ? `${lane.name} (you)` : lane.name));
    const track = element("div", "track");
    for (const span of lane.spans) {
      const from = Math.min(span.from_ms, window_ms);
      if (span.to_ms > window_ms) continue;
      const bad = ["lost", "killed", "gone"].includes(span.end);
      const bar = element(
        "div",
        `span ${span.holds ? "hold" : "wait"}${bad ? " bad" : ""}`,
        span.holds ? `${span.id} ${span.end}` : "",
      );
      bar.style.left = `${100 - (from / window_ms) * 100}%`;
      bar.style.width = `${Math.max(((from - span.to_ms) / window_ms) * 100, 0.4)}%`;
      track.append(bar);
    }
    row.append(track);
    return row;
  });
  at("timeline").replaceChildren(...drawn);
  const spans = lanes.flatMap((lane) =>
    lane.spans
      .filter((span) => span.to_ms === 0)
      .map((span) => `${lane.name} ${span.holds ? "holds" : "waits for"} ${span.id}`),
  );
  put_attribute(
    at("timeline"),
    "aria-label",
    spans.length ? `Now: ${spans.join(", ")}.` : "Nobody holds a lock or waits for one now.",
  );
}

// Draws what moves between two views: the countdowns.
function tick() {
  if (!view) return;
  const passed = performance.now() - told;
  const { me, lock, debounce } = view;
  const guard = me.guard;
  let left = 0;
  let text = "";
  let whole = me.lease_ms;
  if (guard) {
    left = guard.is_held ? Math.max(guard.remaining_ms - passed, 0) : 0;
    text = guard.is_held
      ? `valid for ${seconds(left)} unless renewed`
      : "no longer valid: stop any work that relied on it. Acquire again to go on.";
    put(at("remaining"), guard.is_held ? seconds(left) : "0.0 s");
  } else {
    put(at("remaining"), "–");
    const dead = me.doing === "killed" && lock.holder?.name === me.name;
    if (lock.state === "held" && (dead || me.doing === "waiting")) {
      left = Math.max(lock.remaining_ms - passed, 0);
      whole = Math.max(whole, left);
      const whose = dead ? "your" : lock.holder?.name ? `${lock.holder.name}’s` : "the holder’s";
      text = `${whose} lease runs for ${seconds(left)} more${dead ? "" : " unless renewed"}`;
    }
  }
  const share = whole > 0 ? Math.min((left / whole) * 100, 100) : 0;
  at("left").style.width = `${share}%`;
  at("bar").classList.toggle("low", share < 30);
  put_attribute(at("bar"), "aria-valuenow", String(Math.round(share / 10) * 10));
  put(at("countdown"), text);
  put(at("status-left"), guard || text ? seconds(left) : "");

  const open = debounce.open;
  const until = open ? Math.max(open.left_ms - passed, 0) : 0;
  at("window-left").style.width = `${Math.min(until / debounce.wait_ms, 1) * 100}%`;
  put_attribute(at("window"), "aria-valuenow", String(Math.round(Math.min(until / debounce.wait_ms, 1) * 10) * 10));
  const last = debounce.last;
  const calls = (number) => `${number} ${number === 1 ? "call" : "calls"}`;
  put(
    at("burst"),
    open?.late
      ? `${calls(open.calls)}, but no run in time: the process of the last call is dead, or the store does not answer.`
      : open
      ? `${calls(open.calls)} so far: one run in ${seconds(until)}, later if more calls come.`
      : last
        ? `The last burst: ${calls(last[0])}, one run, by ${last[1]}.`
        : "No calls are waiting.",
  );
}

// --- buttons and fields ---

function on(id, command) {
  at(id).addEventListener("click", () => {
    if (view && at(id).getAttribute("aria-disabled") !== "true") send(command());
  });
}

const lease = () => ({ id: at("id").value, lease_ms: Number(at("lease-for").value) });
on("acquire", () => ({ command: "acquire", ...lease() }));
on("try", () => ({ command: "try_acquire", ...lease() }));
on("stop-waiting", () => ({ command: "stop_waiting" }));
on("extend", () => ({ command: "extend", by_ms: 10_000 }));
on("release", () => ({ command: "release" }));
on("drop", () => ({ command: "drop" }));
on("silent", () => ({ command: "network", condition: "silent" }));
on("cut", () => ({ command: "network", condition: "cut" }));
on("repair", () => ({ command: "network", condition: "open" }));
on("block", () => ({ command: "block_runtime", for_ms: 8_000 }));
on("force", () => ({ command: "force", id: at("id").value }));
on("kill", () => ({ command: "kill" }));
on("restart", () => ({ command: "restart" }));
on("write", () => ({ command: "write" }));
on("call", () => ({ command: "call" }));
at("id").addEventListener("change", listen);
setInterval(tick, 100);

const full = setTimeout(
  () => banner("Five pages of this demo are open in this browser, the most that its connections allow. Close one of them, and this page continues."),
  500,
);
await place();
clearTimeout(full);
banner("");
if (instance) listen();
else begin_anew();
