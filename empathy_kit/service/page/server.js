/* One call of the server. Whatever goes wrong becomes a Problem that says what to do about it. */

const PATIENCE = 30000; // milliseconds without an answer, after which the server counts as gone
const LONGEST_WAIT = 60; // seconds

/* kind: "gone" (try again later), "busy" (after `wait` seconds), "locked" (a token is needed), "refused", "unreadable", or
   "broken" (the page itself failed). */
export class Problem extends Error {
  constructor(kind, { message = "", code = "", field = "", wait = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, code, field, wait });
  }
}

/* The parsed body of a good answer. Raises a Problem, or an AbortError where `signal` says that nobody waits any more. */
export async function call(path, { token, body, signal }) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const request = { headers, cache: "no-store", referrerPolicy: "no-referrer" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  }
  // By hand: browsers of 2023 have no AbortSignal.any.
  const ending = new AbortController();
  const end = () => ending.abort();
  signal.addEventListener("abort", end);
  const late = setTimeout(end, PATIENCE);
  request.signal = ending.signal;
  let response, content;
  try {
    response = await fetch(path, request);
    content = await response.text();
  } catch (error) {
    throw signal.aborted ? error : new Problem("gone");
  } finally {
    clearTimeout(late);
  }
  return read(response, parsed(content));
}

function read(response, content) {
  if (response.status === 401) throw new Problem("locked");
  const wait = response.headers.get("Retry-After");
  if (response.status === 429 || (response.status >= 500 && wait !== null)) {
    throw new Problem("busy", { wait: Math.min(Math.max(Math.ceil(Number(wait)) || 1, 1), LONGEST_WAIT) });
  }
  if (content === null) throw new Problem(response.status >= 502 ? "gone" : "unreadable"); // a proxy's own page
  if (!response.ok) throw new Problem("refused", content.error ?? {});
  return content;
}

function parsed(text) {
  try {
    const content = JSON.parse(text);
    return typeof content === "object" ? content : null;
  } catch {
    return null;
  }
}
