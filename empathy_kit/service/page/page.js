/* What is typed -> one request per pause and draft -> feedback. Nothing outlives this page: no storage, no cookie. */

import { Feedback } from "./feedback.js";
import { Problem, call } from "./server.js";
import { OTHER_LEVELS, SAYS, mechanism } from "./words.js";

const PAUSE = 40; // milliseconds after a keystroke, before the server is asked
const SLOW = 600; // milliseconds, after which the page says that it waits
const SETTLED = 1200; // milliseconds after the last keystroke and answer, before a screen reader is told
const NO_REASON = "no reason was given";
const RETRIES = [1, 2, 4, 8, 15]; // seconds between tries of a server that does not answer

const find = (id) => document.getElementById(id);
const seeker = find("seeker");
const notice = find("notice");
const access = find("access");
const tokenField = find("token");
const announcer = find("announcer");
const compare = find("compare");
const origin = find("origin");
const OWN_LEVELS = origin.textContent; // EPITOME's, as the page has them

let model = null;
let token = "";
let announcing = 0;

const ask = (path, options) => call(path, { token, ...options });

class Draft {
  constructor(number) {
    const root = find("draft").content.cloneNode(true).firstElementChild;
    this.number = number;
    this.root = root;
    this.box = root.querySelector("textarea");
    this.label = root.querySelector("label");
    this.status = root.querySelector(".status");
    this.box.id = `draft-${number}`;
    this.label.htmlFor = this.box.id;
    this.status.id = `status-${number}`;
    this.box.setAttribute("aria-describedby", this.status.id);
    this.feedback = new Feedback(root.querySelector(".feedback"), number);
    this.feedback.root.hidden = true;
    this.version = 0;
    this.box.addEventListener("input", () => this.changed());
    find("desk").append(root);
  }

  get shown() {
    return !this.root.hidden;
  }

  name(text) {
    this.label.textContent = text;
    this.feedback.name(text.toLowerCase());
  }

  say(text) {
    this.status.textContent = text;
  }

  setModel() {
    this.feedback.setModel(model);
    this.feedback.root.hidden = false;
    this.changed();
  }

  /* The text, the post or the model is another one: what was asked before is nobody's question any more. */
  changed() {
    this.version += 1;
    this.failures = 0;
    this.stop();
    tell("");
    if (!this.shown) return;
    if (model === null) return this.say(access.hidden ? SAYS.connecting : SAYS.locked);
    const obstacle = this.obstacle();
    if (obstacle !== null) return this.nothing(obstacle);
    this.feedback.setOld(true); // at once: its marks belong to another text
    compareLevels(); // and so do its levels
    this.busy = true;
    this.askAfter(PAUSE);
  }

  nothing(why) {
    this.feedback.clear();
    compareLevels();
    this.say(why);
    announceLater();
  }

  stop() {
    this.busy = false;
    clearTimeout(this.timer);
    clearTimeout(this.slow);
    this.request?.abort();
  }

  /* Why there is nothing to ask, or null. */
  obstacle() {
    const most = model.limits.characters;
    if (this.box.value === "") return SAYS.empty;
    if (this.box.value.trim() === "") return SAYS.blank;
    if (model.reads_seekers && seeker.value.trim() === "") return SAYS.seekerMissing;
    if (longer(this.box.value, most)) return SAYS.tooLong("Your answer", most);
    if (model.reads_seekers && longer(seeker.value, most)) return SAYS.tooLong("The post you are answering", most);
    return null;
  }

  askAfter(wait) {
    this.timer = setTimeout(() => this.ask(), wait);
  }

  async ask() {
    const { version } = this;
    const text = this.box.value;
    const pair = { seeker_post: model.reads_seekers ? whole(seeker.value) : "", response_post: whole(text) };
    this.request = new AbortController();
    this.slow = setTimeout(() => this.say(SAYS.reading), SLOW);
    try {
      const reply = await ask("v1/predict", { body: { pairs: [pair] }, signal: this.request.signal });
      if (version === this.version) this.show(reply, text);
    } catch (error) {
      if (version === this.version) this.fail(asProblem(error));
    }
  }

  show(reply, text) {
    if (![model.digest, this.otherDigest].includes(reply.digest)) {
      this.otherDigest = reply.digest; // the server has another model by now: learn which, once, and ask again
      return connect();
    }
    this.stop();
    this.failures = 0;
    try {
      this.feedback.show(reply.predictions[0], text);
      compareLevels();
    } catch {
      return this.nothing(SAYS.unreadable); // something of the answer is missing
    }
    this.say("");
    announceLater();
  }

  fail(error) {
    this.stop();
    const { kind, wait } = error;
    const words = inWords(error);
    if (kind === "locked") openAccess();
    if (kind !== "busy" && kind !== "gone") return this.nothing(words); // until the next keystroke: nothing old stays
    this.askAfter(1000 * (kind === "busy" ? wait : retryAfter(this.failures++)));
    this.say(words);
    announceLater();
  }

  /* What a screen reader is told once the draft has settled. */
  get summary() {
    return this.status.textContent || this.feedback.summary;
  }
}

/* A fault of the page, or of a browser that lacks what it needs, is shown too: silence would look like waiting. */
function asProblem(error) {
  if (error instanceof Problem) return error;
  console.error(error);
  return new Problem("broken");
}

function inWords({ kind, message, code, field, wait }) {
  if (kind === "busy") return SAYS.busy(wait);
  if (kind !== "refused") return SAYS[kind];
  const ofSeeker = field === "seeker_post";
  const what = ofSeeker ? "The post you are answering" : "Your answer";
  if (code === "empty_post") return ofSeeker ? SAYS.seekerMissing : SAYS.blank;
  if (code === "invalid_text") return SAYS.noText(what);
  if (code === "too_long") return SAYS.tooLong(what, model.limits.characters);
  return SAYS.refused(message || NO_REASON);
}

function retryAfter(failures) {
  return RETRIES[Math.min(failures, RETRIES.length - 1)];
}

/* Whether a text has more than `most` characters; an emoji is one character to the server, and two or more units here. */
function longer(text, most) {
  return text.length > most && (text.length > 2 * most || [...text].length > most);
}

/* Half a character, as a deletion can leave it behind, is no text, and neither is NUL. One unit replaces it: no mark moves. */
function whole(text) {
  return text.replace(/[\0\p{Surrogate}]/gu, "\ufffd");
}

const drafts = [new Draft(1), new Draft(2)];

function announceLater() {
  clearTimeout(announcing);
  announcing = setTimeout(announce, SETTLED);
}

/* A region that is emptied is silent, so that the next message is read even where it is the same. */
function tell(text) {
  if (announcer.textContent !== text) announcer.textContent = text;
}

/* One message per pause in typing. */
function announce() {
  const open = drafts.filter((draft) => draft.shown);
  if (open.some((draft) => draft.busy)) return; // the answer announces itself
  const parts = open.map((draft) => (open.length > 1 ? `Draft ${draft.number}: ${draft.summary}` : draft.summary));
  tell(parts.join(". "));
}

/* Each card names the other draft's level too: on a phone they are far apart. */
function compareLevels() {
  const [first, second] = drafts;
  first.feedback.showOther(second.shown ? second : null);
  second.feedback.showOther(second.shown ? first : null);
}

function changedAll() {
  for (const draft of drafts) draft.changed();
}

/* The notice at the top of the page, which a screen reader reads out at once. */
function inform(text) {
  notice.textContent = text;
  notice.hidden = text === "";
  tell(text);
}

function openAccess() {
  access.hidden = false;
  if (document.activeElement === document.body) tokenField.focus();
}

function refuseToken() {
  tokenField.setAttribute("aria-invalid", "true");
  inform(SAYS.refusedToken);
}

let connecting = null; // the AbortController of the latest try
let reconnecting = 0;
let attempts = 0;

/* Learns what the model is; tries until the server answers, or asks for a token. */
async function connect() {
  clearTimeout(reconnecting);
  connecting?.abort();
  const mine = (connecting = new AbortController());
  try {
    const found = await ask("v1/model", { signal: mine.signal });
    if (mine !== connecting) return;
    if (!isModel(found)) throw new Problem("unreadable");
    attempts = 0;
    use(found);
  } catch (error) {
    if (mine === connecting) disconnected(asProblem(error));
  }
}

function isModel(found) {
  const tasks = found.schema?.tasks;
  return Array.isArray(tasks) && tasks.length > 0 && tasks.every((task) => task?.title && Array.isArray(task.labels));
}

function disconnected(error) {
  if (error.kind === "locked") {
    openAccess();
    if (model === null) changedAll(); // the drafts wait for the token too
    if (token) return refuseToken();
    inform("");
    return tell(SAYS.locked);
  }
  const wait = error.kind === "busy" ? error.wait : retryAfter(attempts++);
  if (error.kind === "refused") inform(SAYS.noModel(error.message || NO_REASON));
  else inform(error.kind === "unreadable" ? SAYS.unreadableModel : inWords(error));
  reconnecting = setTimeout(connect, 1000 * wait);
}

function use(found) {
  model = found;
  if (access.contains(document.activeElement)) seeker.focus(); // which would be lost with the form
  access.hidden = true;
  find("seeker-hint").textContent = model.reads_seekers ? SAYS.seekerUsed : SAYS.seekerUnused;
  origin.textContent = model.schema.tasks.every((task) => mechanism(task)) ? OWN_LEVELS : OTHER_LEVELS;
  for (const draft of drafts) draft.setModel();
  inform(model.changed_since_start ? SAYS.changed : "");
}

function toggleSecond() {
  const [first, second] = drafts;
  const open = !second.shown;
  second.root.hidden = !open;
  find("desk").classList.toggle("two", open);
  compare.textContent = open ? "Hide the second draft" : "Compare with a second draft";
  first.name(open ? "Draft 1" : "Your answer");
  if (open && second.box.value === "") second.box.value = first.box.value; // a copy, to change
  second.changed();
  compareLevels();
  if (open) second.box.focus();
}

drafts[0].name("Your answer");
drafts[1].name("Draft 2");
drafts[1].root.hidden = true;
seeker.addEventListener("input", changedAll);
compare.addEventListener("click", toggleSecond);
tokenField.addEventListener("input", () => {
  tokenField.removeAttribute("aria-invalid");
  tell(""); // so that a second refusal is read too
});
access.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = tokenField.value.trim();
  tokenField.value = "";
  if (/[^\x21-\x7e]/.test(given)) return refuseToken(); // no header may hold it
  token = given;
  connect();
});
changedAll();
connect();
