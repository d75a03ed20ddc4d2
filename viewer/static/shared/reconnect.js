/** When the server ends under the open page, the page waits for the next one and loads again. */

import {deliver, latest} from "./link.js"

const RETRY_MS = 1000
let waiting = false

/** Whether the page waits for a server. */
export const isWaitingForServer = () => waiting

export async function waitForServer() {
  if (waiting) return
  waiting = true
  deliver("header", {...latest("header"), kind: "gone", status: "Viewer server unreachable; reconnecting"})
  document.title = "Viewer unreachable"
  // A file of Bokeh's: a request for the page itself would make the new server build one.
  const script = /** @type {HTMLScriptElement} */ (document.querySelector('script[src*="/static/js/bokeh"]'))
  while (!await isReachable(script.src)) await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  location.reload()
}

/** @param {string} url */
async function isReachable(url) {
  try {
    const {ok, status} = await fetch(url, {method: "HEAD", cache: "no-store"})
    return ok || status === 403 // a new server with a token of its own: its page says what to do
  } catch (error) {
    if (error instanceof TypeError) return false // what fetch throws without a connection
    throw error
  }
}
