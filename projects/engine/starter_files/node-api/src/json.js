import { RequestError } from "./errors.js";

const MAX_BYTES = 64 * 1024;

/**
 * The body of a request, parsed. Throws RequestError when it is not JSON, or too much of it.
 * @param {import("node:http").IncomingMessage} request
 * @returns {Promise<unknown>}
 */
export async function readJson(request) {
  if (!/^application\/json\b/i.test(request.headers["content-type"] ?? "")) {
    throw new RequestError(415, "not_json", 'Send JSON, with the header "Content-Type: application/json".');
  }
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MAX_BYTES) {
      // Nobody reads the rest, so the connection cannot be used again.
      throw new RequestError(413, "too_large", `Send at most ${MAX_BYTES} bytes.`, { Connection: "close" });
    }
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    throw new RequestError(400, "malformed", "The body is not well-formed JSON.");
  }
}

/**
 * @param {import("node:http").ServerResponse} response
 * @param {number} status
 * @param {unknown} [body] none for an answer without one
 * @param {Record<string, string>} [headers]
 */
export function sendJson(response, status, body, headers = {}) {
  if (body === undefined) {
    response.writeHead(status, headers).end();
    return;
  }
  const text = `${JSON.stringify(body)}\n`;
  response
    .writeHead(status, {
      "Content-Type": "application/json; charset=utf-8",
      "Content-Length": Buffer.byteLength(text),
      "X-Content-Type-Options": "nosniff",
      ...headers,
    })
    .end(text);
}
