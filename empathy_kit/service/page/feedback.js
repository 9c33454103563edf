/* A prediction -> what the page shows of it. Texts enter the page as text only, never as HTML. */

import { SAYS, levelWord, mechanism, percent, title } from "./words.js";

export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/* Classes of the mark of a task: three colours and three patterns, and other pairs of both from the fourth task on. */
function mark(task) {
  return `mark hue${task % 3} line${(task + Math.floor(task / 3)) % 3}`;
}

/* A text cut wherever evidence starts or ends: [{text, tasks}], in order. `spans` are {task, start, end} in UTF-16 units. */
export function cut(text, spans) {
  const edges = new Set([0, text.length]);
  for (const { start, end } of spans) edges.add(start).add(end);
  const sorted = [...edges].sort((one, other) => one - other);
  return sorted.slice(1).map((end, at) => ({
    text: text.slice(sorted[at], end),
    tasks: [...new Set(spans.filter((span) => span.start <= sorted[at] && end <= span.end).map((span) => span.task))],
  }));
}

function marked({ text, tasks }) {
  return tasks.reduceRight((inner, task) => {
    const outer = element("mark", mark(task));
    outer.append(inner);
    return outer;
  }, document.createTextNode(text));
}

/* One task of one draft: its level, how sure the model is, the evidence, and what the next level would need. */
class Card {
  constructor(task, index, draft) {
    this.task = task;
    this.words = mechanism(task);
    this.root = element("article", `card hue${index % 3}`);
    const heading = element("h3");
    heading.id = `title-${draft}-${index}`;
    heading.append(element("span", mark(index), title(task)));
    this.root.append(heading);
    this.root.setAttribute("aria-labelledby", heading.id);
    if (this.words) this.root.append(element("p", "what", this.words.what));
    this.reading = element("div", "reading");
    this.verdict = element("p", "verdict");
    this.meter = element("div", "meter");
    this.meter.append(element("span", "fill"));
    this.meter.style.setProperty("--steps", task.labels.length - 1);
    const about = { role: "meter", "aria-labelledby": heading.id, "aria-valuemin": 0, "aria-valuemax": task.labels.length - 1 };
    for (const [name, value] of Object.entries(about)) this.meter.setAttribute(name, value);
    this.other = element("p", "other");
    this.rest = element("div");
    this.reading.append(this.verdict, this.meter, this.other, this.rest);
    this.root.append(this.reading);
    this.clear();
  }

  clear() {
    this.reading.hidden = true;
    this.level = null;
  }

  show(answer, text) {
    const { level, uncertain } = answer;
    const sure = percent(answer.probabilities[answer.label]);
    this.level = levelWord(this.task, level);
    this.summary = `${this.task.title} ${this.level}, ${uncertain ? "uncertain" : `${sure} sure`}`;
    this.verdict.replaceChildren(element("strong", "level", this.level), " ");
    if (uncertain) this.verdict.append(element("span", "uncertain", "Uncertain"), " ");
    this.verdict.append(element("span", "sure", `${sure} sure`));
    this.meter.setAttribute("aria-valuenow", level);
    this.meter.setAttribute("aria-valuetext", `${this.level}, ${sure} sure${uncertain ? ", uncertain" : ""}`);
    this.meter.classList.toggle("unsure", uncertain);
    this.meter.style.setProperty("--share", level / (this.task.labels.length - 1));
    this.rest.replaceChildren(...this.doubt(answer), ...this.evidence(answer, text), ...this.advice(level));
    this.reading.hidden = false;
  }

  /* Between which two labels an uncertain model wavers. */
  doubt({ uncertain, probabilities }) {
    if (!uncertain) return [];
    const { labels } = this.task;
    const likely = labels.map((_, level) => level);
    likely.sort((one, other) => probabilities[labels[other]] - probabilities[labels[one]]);
    const [first, second] = likely.slice(0, 2).map((level) => levelWord(this.task, level));
    return [element("p", "doubt", `The model wavers between ${first} and ${second}.`)];
  }

  /* The evidence as text too, for those who do not see the marks. */
  evidence({ evidence }, text) {
    if (!evidence?.length) return [];
    const quotes = element("ul", "quotes");
    quotes.setAttribute("role", "list"); // without bullets, Safari would call it no list
    for (const { utf16_start: start, utf16_end: end } of evidence) {
      const quote = element("q", "", text.slice(start, end));
      quote.dir = "auto";
      quotes.append(element("li"));
      quotes.lastChild.append(quote);
    }
    return [element("h4", "", "Evidence"), quotes];
  }

  advice(level) {
    if (!this.words) return [];
    const next = this.words.next[level];
    if (!next) return [element("p", "top", `This is the highest level. ${this.words.top}`)];
    const example = element("p", "example", "For example: ");
    example.append(element("q", "", next.example));
    return [element("h4", "", `To reach “${levelWord(this.task, level + 1)}”`), element("p", "", next.needs), example];
  }
}

/* All that one draft's column shows under its text box. */
export class Feedback {
  constructor(root, draft) {
    this.root = root;
    this.draft = draft;
    this.heading = root.querySelector("h2");
    this.heading.id = `heading-${draft}`;
    root.setAttribute("aria-labelledby", this.heading.id);
    this.notes = root.querySelector(".notes");
    this.marked = root.querySelector(".marked");
    this.cards = [];
    this.name("your answer");
  }

  name(draft) {
    this.heading.textContent = `Feedback on ${draft}`;
    this.marked.setAttribute("aria-label", `Evidence marked in ${draft}`);
  }

  setModel(model) {
    this.model = model;
    this.cards = model.schema.tasks.map((task, index) => new Card(task, index, this.draft));
    this.root.querySelector(".cards").replaceChildren(...this.cards.map((card) => card.root));
    this.clear();
  }

  clear() {
    this.setOld(false);
    this.marked.replaceChildren();
    this.marked.hidden = true;
    this.notes.replaceChildren();
    this.summary = "";
    for (const card of this.cards) card.clear();
  }

  /* Old feedback is grey, marks and all, and next to the old text: what it is about has changed. */
  setOld(old) {
    this.old = old;
    this.root.classList.toggle("old", old);
    this.root.setAttribute("aria-busy", old);
  }

  /* The levels of the other draft, or none where there is none or they are of an older text or post. */
  showOther(other) {
    const cards = !other || other.feedback.old ? [] : other.feedback.cards;
    this.cards.forEach((card, index) => {
      const level = cards[index]?.level;
      card.other.textContent = level ? `Draft ${other.number}: ${level}` : "";
    });
  }

  show(prediction, text) {
    const answers = this.model.schema.tasks.map((task) => prediction.tasks[task.name]);
    this.cards.forEach((card, index) => card.show(answers[index], text));
    const spans = answers.flatMap(({ evidence }, task) =>
      (evidence ?? []).map(({ utf16_start: start, utf16_end: end }) => ({ task, start, end })),
    );
    this.marked.hidden = !this.model.marks_evidence;
    this.marked.replaceChildren(...(this.model.marks_evidence ? cut(text, spans).map(marked) : []));
    const notes = this.notesOn(prediction);
    this.notes.replaceChildren(...notes.map((note) => element("li", "", note)));
    this.summary = [...this.cards.map((card) => card.summary), ...notes].join("; ");
    this.setOld(false);
  }

  notesOn(prediction) {
    return [
      prediction.response_truncated && SAYS.truncated("Your answer", this.model),
      prediction.seeker_truncated && SAYS.truncated("The post you are answering", this.model),
      !this.model.marks_evidence && SAYS.noEvidence,
    ].filter(Boolean);
  }
}
