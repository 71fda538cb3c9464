// A signed-in session: its access token, which is renewed before it expires.

/** Path of the token renewal on the development server. A real front end asks its identity provider. */
const RENEWAL = "token";

/** Share of a token's validity after which the token is renewed. */
const RENEW_AT = 0.75;

/** Milliseconds until the next attempt after a failed renewal. */
const TRY_AGAIN = 5_000;

export class Session {
  #token;
  #timer;
  #onRenewal;
  #ended = false;

  /** The time of the next renewal in milliseconds since the epoch; null if the token is not renewed. */
  nextRenewal = null;

  /**
   * @param {string} token empty for an API without authentication
   * @param {() => void} onRenewal called after each renewal
   */
  constructor(token, onRenewal) {
    this.#token = token;
    this.#onRenewal = onRenewal;
  }

  get token() {
    return this.#token;
  }

  /**
   * Exchange the token for a new token, and renew that token before it expires.
   *
   * The server sends the validity as a duration, because this machine's clock may be wrong.
   *
   * @returns {Promise<boolean | null>} true after a renewal; false if the server refused it; null if a retry follows
   */
  async renew() {
    clearTimeout(this.#timer);
    this.nextRenewal = null;
    if (!this.#token || this.#ended) return false;
    const headers = { Authorization: `Bearer ${this.#token}` };
    let response;
    try {
      response = await fetch(RENEWAL, { method: "POST", headers, cache: "no-store" });
    } catch {
      return this.#tryAgain();
    }
    if (response.status >= 500 || response.status === 429) return this.#tryAgain();
    if (!response.ok || this.#ended) return false;
    const { access_token: token, expires_in: seconds } = await response.json();
    this.#token = token;
    this.#renewIn(1000 * seconds * RENEW_AT);
    this.#onRenewal();
    return true;
  }

  /** Forget the token. */
  end() {
    this.#ended = true;
    this.#token = "";
    clearTimeout(this.#timer);
    this.nextRenewal = null;
  }

  #tryAgain() {
    this.#renewIn(TRY_AGAIN); // the old token may still be valid
    return null;
  }

  #renewIn(milliseconds) {
    if (this.#ended) return;
    this.nextRenewal = Date.now() + milliseconds;
    this.#timer = setTimeout(() => void this.renew(), milliseconds);
  }
}
