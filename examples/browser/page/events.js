// Server-sent events from the body of a fetch response. EventSource cannot send an Authorization header.

/** The stream ended, or could not be opened. */
export class Interrupted extends Error {
  /** @param {number} retryAfter milliseconds until the server accepts the next request */
  constructor(message, retryAfter = 0) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/**
 * Yields `{retry}` in milliseconds, `{comment}`, and events as `{type, data, id}`. Throws `Interrupted`.
 *
 * @param {ReadableStream<Uint8Array>} body
 */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { type: "message", data: [], id: "" };
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new Interrupted("the connection was lost");
      });
      if (done) return; // an event without its blank line is incomplete
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
      rest = lines.pop();
      for (const line of lines) {
        const [, name, text] = line.match(/^([^:]*):? ?(.*)$/s);
        if (line === "") {
          if (event.data.length) yield { ...event, data: event.data.join("\n") };
          event = { type: "message", data: [], id: event.id };
        } else if (name === "") yield { comment: text };
        else if (name === "data") event.data.push(text);
        else if (name === "event") event.type = text;
        else if (name === "id") event.id = text;
        else if (name === "retry" && /^\d+$/.test(text)) yield { retry: Number(text) };
      }
    }
  } finally {
    await reader.cancel().catch(() => {}); // a connection that was lost cannot be cancelled
  }
}
