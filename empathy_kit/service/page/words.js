/* What the page says, in the kit's own words. The examples are invented, and are nobody's post. */

/* EPITOME's mechanisms. `next[level]` is what the level above would need; the highest one has none. */
const MECHANISMS = {
  ER: {
    what: "Warmth: does the answer show that you care?",
    next: [
      {
        needs: "Show that you care. A few warm words are enough, before any advice.",
        example: "I’m glad you wrote this down. I hope tomorrow is gentler with you.",
      },
      {
        needs: "Name the feeling that their post leaves you with: sad, worried, touched, glad.",
        example: "It makes me sad to read how they spoke to you, and I’m worried about your nights.",
      },
    ],
    top: "You show warmth and name a feeling.",
  },
  EX: {
    what: "Asking: does the answer invite them to say more?",
    next: [
      {
        needs: "Ask something. Even a short, open question shows that you want to know more.",
        example: "Would you like to tell me more about that?",
      },
      {
        needs: "Ask about one particular thing in their post: a feeling, a moment or a person.",
        example: "When your brother hung up, were you more hurt or more angry?",
      },
    ],
    top: "You ask about something particular in their post.",
  },
  IP: {
    what: "Understanding: does the answer show what you understood?",
    next: [
      {
        needs: "Show that you can picture how it is for them.",
        example: "I can see why this weighs on you.",
      },
      {
        needs: "Say what you understood. Name the feeling you hear, or tell of a time when it was similar for you.",
        example: "Three weeks of waiting for that call must leave you frightened and worn out.",
      },
    ],
    top: "You put into words what you understood of their feeling or situation.",
  },
};
const LEVELS = ["none", "weak", "strong"];

/* The kit's words for a task of EPITOME's own; null for a task of another schema, of which the kit knows nothing. */
export function mechanism(task) {
  const own = Object.hasOwn(MECHANISMS, task.name) && task.labels.join() === "0,1,2";
  return own ? MECHANISMS[task.name] : null;
}

export function levelWord(task, level) {
  return mechanism(task) ? LEVELS[level] : task.labels[level];
}

export function percent(share) {
  return share > 0.99 ? "over 99\u00a0%" : `${Math.round(share * 100)}\u00a0%`;
}

export function title(task) {
  return task.title[0].toUpperCase() + task.title.slice(1);
}

/* What the levels are, where the model is not one of EPITOME's levels. */
export const OTHER_LEVELS =
  "The levels are the labels of the data that the model learnt from. Its makers can tell you what they stand for.";

export const SAYS = {
  connecting: "Connecting to the server …",
  reading: "The model is reading …",
  empty: "Nothing to judge yet: write an answer.",
  blank: "Nothing to judge yet: there are only spaces so far.",
  seekerMissing: "Nothing to judge yet: the post you are answering is missing. The model reads both.",
  locked: "The server asks for an access token, at the top of the page.",
  refusedToken: "The server does not accept this token.",
  gone: "The server does not answer. The page keeps trying.",
  broken: "The page failed in this browser. Reload it. If that does not help, use a newer browser.",
  changed:
    "The model's files have changed since the server started. The levels here still come from the earlier model. " +
    "Whoever runs the server can restart it.",
  unreadable: "The server sent something that this page does not understand. The next keystroke tries again.",
  unreadableModel: "The server sent something that this page does not understand. The page keeps trying.",
  noEvidence: "This model gives levels only. It does not mark the words that they come from.",
  seekerUnused: "This model reads your answer only, not this post.",
  seekerUsed: "The model reads your answer together with this post.",
  busy: (seconds) => `The server is busy. The page tries again in ${seconds} ${seconds === 1 ? "second" : "seconds"}.`,
  noModel: (message) => `The server does not describe its model: ${message.replace(/\.$/, "")}. The page keeps trying.`,
  noText: (what) => `${what} holds something that is no text. The next keystroke tries again.`,
  refused: (message) => `The server could not judge this answer: ${message.replace(/\.$/, "")}. The next keystroke tries again.`,
  tooLong: (what, most) => `${what} is too long: the server accepts at most ${most.toLocaleString("en")} characters.`,
  truncated: (what, model) => {
    const part = model.truncate === "head-tail" ? "the start and the end" : "the start";
    return `${what} is longer than the model reads. It read only ${part} (about ${model.max_tokens} words and parts of words).`;
  },
};
