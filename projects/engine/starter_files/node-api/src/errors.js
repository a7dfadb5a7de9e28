/** What is wrong with a request. Its `code` is for programs, its message for people. */
export class RequestError extends Error {
  /**
   * @param {number} status the HTTP status to answer with
   * @param {string} code
   * @param {string} message what is wrong and what to do
   * @param {Record<string, string>} [headers] to send along
   */
  constructor(status, code, message, headers = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}
