
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const poll = JSON.parse($("poll").textContent);
  const KEY = `b2bench-vote:${poll.id}`;
  const GAP = 5; // comparisons at least between one and its repeat

  // -- what is drawn, the same whenever a rater opens the page --------------------------------------

  function generator(text) { // sfc32, seeded by FNV-1a of the text: integers below n
    const seed = (salt) => {
      let hash = 0x811c9dc5 ^ salt;
      for (const character of text) hash = Math.imul(hash ^ character.codePointAt(0), 0x01000193);
      return hash >>> 0;
    };
    let [a, b, c, d] = [seed(1), seed(2), seed(3), 1];
    const next = () => {
      const t = (((a + b) | 0) + d) | 0;
      d = (d + 1) | 0; a = b ^ (b >>> 9); b = (c + (c << 3)) | 0; c = ((c << 21) | (c >>> 11)) + t | 0;
      return t >>> 0;
    };
    for (let i = 0; i < 20; i++) next();
    return (n) => Math.floor(next() / 4294967296 * n);
  }

  function shuffled(items, below) {
    const found = [...items];
    for (let i = found.length - 1; i > 0; i--) {
      const j = below(i + 1);
      [found[i], found[j]] = [found[j], found[i]];
    }
    return found;
  }

  function orderOf(rater) { // [{id, prompt, shown: image ids from the left}]
    const below = generator(`${poll.seed}:${rater}`);
    const again = shuffled(poll.comparisons.filter((one) => one.repeat_of), below);
    const line = shuffled(poll.comparisons.filter((one) => !one.repeat_of), below);
    const repeated = new Set(again.map((one) => one.repeat_of));
    const early = Math.max(0, line.length - GAP);
    for (let at = early; at < line.length; at++) { // what is repeated does not come last
      if (!repeated.has(line[at].id)) continue;
      const start = below(Math.max(1, early));
      for (let i = 0; i < early; i++) {
        const other = (start + i) % early;
        if (repeated.has(line[other].id)) continue;
        [line[at], line[other]] = [line[other], line[at]];
        break;
      }
    }
    const shown = new Map(line.map((one) => [one.id, shuffled(one.images, below)]));
    for (const one of again) {
      const first = Math.min(line.length, line.findIndex((other) => other.id === one.repeat_of) + 1 + GAP);
      line.splice(first + below(line.length - first + 1), 0, one);
      const [left, ...rest] = shown.get(one.repeat_of);
      shown.set(one.id, [...rest, left]); // no image stands where it stood
    }
    return line.map((one) => ({ id: one.id, prompt: poll.prompts[one.prompt], shown: shown.get(one.id) }));
  }

  // -- what is kept -----------------------------------------------------------------------------------

  function newRater() {
    const bytes = crypto.getRandomValues(new Uint8Array(12));
    return { rater: [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(""), votes: {} };
  }

  let kept = true; // whether this browser keeps what is stored
  function load() {
    let text = null;
    try { text = localStorage.getItem(KEY); } catch { kept = false; }
    if (text === null) return null;
    try {
      const found = JSON.parse(text);
      if (Array.isArray(found.raters) && found.raters.length && found.raters.every((one) => one.rater && one.votes)) return found;
    } catch { /* damaged: put aside below */ }
    try { localStorage.setItem(`${KEY}:damaged`, text); } catch { kept = false; }
    return null;
  }
  function save() {
    try { localStorage.setItem(KEY, JSON.stringify(state)); kept = true; } catch { kept = false; }
    warn();
  }
  function warn() {
    $("warning").hidden = kept;
    if (!kept) $("warning").textContent = "This browser does not keep answers when the page is closed. Leave the page open, and download the answers before you close it.";
  }

  function joined(stored, mine) { // all answers of both: what is stored is older if nothing can be stored any more
    const found = new Map();
    for (const one of [...(stored ? stored.raters : []), ...mine.raters]) {
      const before = found.get(one.rater);
      found.set(one.rater, { rater: one.rater, votes: { ...(before ? before.votes : {}), ...one.votes } });
    }
    return { raters: [...found.values()] };
  }

  let state = load() || { raters: [newRater()] };
  const me = () => state.raters[state.raters.length - 1];
  let order = orderOf(me().rater), cursor = 0, ready = false, since = 0, downloaded = true;

  const answered = () => order.filter((one) => me().votes[one.id]).length;
  const unanswered = () => order.findIndex((one) => !me().votes[one.id]);

  function results() {
    const raters = state.raters.map((one) => ({
      rater: one.rater,
      votes: orderOf(one.rater).flatMap((shown, position) => {
        const vote = one.votes[shown.id];
        return vote ? [{ comparison: shown.id, position, shown: shown.shown, place: vote.place, milliseconds: vote.milliseconds }] : [];
      }),
    })).filter((one) => one.votes.length);
    return JSON.stringify({ format: "b2bench votes", version: 1, poll: poll.id, raters });
  }

  // -- what is shown ----------------------------------------------------------------------------------

  function only(section) {
    for (const name of ["start", "vote", "end"]) $(name).hidden = name !== section;
    window.scrollTo(0, 0);
  }

  function showStart() {
    const minutes = Math.max(1, Math.round(order.length * 6 / 60));
    const done = answered();
    $("length").textContent = `There are ${order.length} comparisons, which take about ${minutes} minute${minutes === 1 ? "" : "s"}.`;
    $("begin").textContent = done ? `Continue (${done} of ${order.length} answered)` : "Start";
    only("start");
    $("begin").focus({ preventScroll: true });
  }

  const PLACES = poll.size === 2 ? ["left", "right"] : ["first", "second", "third"];

  async function showComparison(at) {
    cursor = at; ready = false;
    const one = order[at], vote = me().votes[one.id], group = $("images");
    only("vote");
    delete group.dataset.ready;
    $("progress").max = order.length;
    $("progress").value = answered();
    $("count").textContent = `${at + 1} of ${order.length}`;
    $("prompt").textContent = `“${one.prompt}”`;
    const buttons = one.shown.map((id, place) => {
      const button = document.createElement("button"), img = document.createElement("img"), key = document.createElement("span");
      button.type = "button"; button.className = "image"; button.dataset.image = id;
      button.setAttribute("aria-label", `Prefer image ${place + 1}, ${PLACES[place]}`);
      button.setAttribute("aria-pressed", String(Boolean(vote) && vote.place === place));
      img.alt = ""; img.draggable = false; img.src = poll.images[id];
      key.className = "key"; key.setAttribute("aria-hidden", "true"); key.textContent = String(place + 1);
      button.append(img, key);
      button.addEventListener("click", (event) => { if (event.detail < 2) answer(place); }); // no second of a double click
      return [button, img];
    });
    group.replaceChildren(...buttons.map(([button]) => button));
    $("tie").setAttribute("aria-pressed", String(Boolean(vote) && vote.place === null));
    $("back").disabled = at === 0;
    $("live").textContent = `Comparison ${at + 1} of ${order.length}${vote ? ", answered before" : ""}`;
    $("prompt").focus({ preventScroll: true });
    await Promise.all(buttons.map(([, img]) => img.decode().catch(() => {})));
    if (cursor !== at || $("vote").hidden) return;
    for (const [, img] of buttons) img.classList.toggle("small", img.naturalWidth <= 128);
    ready = true; since = performance.now();
    group.dataset.ready = String(at);
  }

  function answer(place) {
    if (!ready || $("vote").hidden) return;
    ready = false;
    const milliseconds = Math.round(performance.now() - since);
    state = joined(load(), state); // another tab may have gone on
    const [here] = state.raters.filter((one) => one.rater === raterShown);
    here.votes[order[cursor].id] = { place, milliseconds };
    downloaded = false;
    save();
    go();
  }

  let raterShown = me().rater;
  function go() {
    raterShown = me().rater;
    order = orderOf(raterShown);
    const next = unanswered();
    if (next < 0) showEnd(); else showComparison(next);
  }

  function showEnd() {
    const done = answered(), all = done === order.length;
    const name = `votes-${poll.id}-${me().rater.slice(0, 8)}.json`, text = results();
    $("end-title").textContent = all ? "Thank you, that was all" : done ? "Stopped for now" : "No answers yet";
    const others = state.raters.length - 1;
    $("summary").textContent = `${done} of ${order.length} comparisons are answered.`
      + (others ? ` The file also holds the answers of ${others} other${others === 1 ? " person" : " people"} who voted in this browser.` : "");
    $("file").textContent = name;
    if ($("download").href.startsWith("blob:")) URL.revokeObjectURL($("download").href);
    $("download").href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    $("download").download = name;
    $("answers").value = text;
    $("resume").hidden = all;
    $("another").hidden = done === 0;
    $("live").textContent = "";
    only("end");
    $("end-title").focus({ preventScroll: true });
  }

  // -- what a person does -----------------------------------------------------------------------------

  $("begin").addEventListener("click", go);
  $("tie").addEventListener("click", (event) => { if (event.detail < 2) answer(null); });
  $("back").addEventListener("click", () => { if (cursor > 0) showComparison(cursor - 1); });
  $("stop").addEventListener("click", showEnd);
  $("resume").addEventListener("click", go);
  $("download").addEventListener("click", () => { downloaded = true; });
  $("another").addEventListener("click", () => {
    state = joined(load(), state);
    state.raters.push(newRater());
    raterShown = me().rater; order = orderOf(raterShown);
    save();
    showStart();
  });
  $("copy").addEventListener("click", async () => {
    $("answers").focus(); $("answers").select();
    try { await navigator.clipboard.writeText($("answers").value); } catch { document.execCommand("copy"); }
    downloaded = true;
    $("live").textContent = "Copied";
    $("copy").textContent = "Copied";
  });

  document.addEventListener("keydown", (event) => {
    if ($("vote").hidden || !$("shortcuts").checked || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const places = { 1: 0, 2: 1, 3: 2, ...(poll.size === 2 ? { ArrowLeft: 0, ArrowRight: 1 } : {}) };
    if (event.key === "0") answer(null);
    else if (event.key in places && places[event.key] < poll.size) answer(places[event.key]);
    else if (event.key === "Backspace" && cursor > 0) showComparison(cursor - 1);
    else return;
    event.preventDefault();
  });

  window.addEventListener("storage", (event) => { // another tab of this page
    if (event.key !== KEY || event.newValue === null) return;
    const stored = load();
    if (stored) state = joined(state, stored);
    if (!$("vote").hidden) go(); else if (!$("start").hidden) { raterShown = me().rater; order = orderOf(raterShown); showStart(); } else showEnd();
  });
  window.addEventListener("beforeunload", (event) => { if (!kept && !downloaded) event.preventDefault(); });

  save();
  showStart();
})();
