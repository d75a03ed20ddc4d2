/** The page says so when its server is silent or has ended, and goes on by itself when it is back.
 *
 * The server sends at least a beat twice a second (viewer/tab/page.py). After a pause of the server, what it sends arrives
 * again. After a cut of the network or with a new server, it does not: then the page loads again. */

import {deliverPart, latest, onServerMessage, setServerLost} from "./link.js"
import {SilenceMeter} from "./silence_meter.js"

/** @import {HeaderData} from "./parts.js" */

const CHECK_MS = 250
const SILENT_MS = 2500
const RETRY_MS = 1000
const ANSWER_MS = 2000 // for the server to answer, and for its messages to arrive again once it answers
const EFFECT = "This has no effect on the training."

const meter = new SilenceMeter(SILENT_MS)
let waiting = false
let probing = false
/** @type {{before: HeaderData | undefined, shown: HeaderData, title: string} | null} */
let lost = null

/** Whether the page waits for a server that has ended. */
export const isWaitingForServer = () => waiting

/** Watch whether the server goes on sending. */
export function startServerWatch() {
  onServerMessage(() => {
    meter.reset()
    if (!waiting) showBack()
  })
  setInterval(() => {
    if (!waiting && meter.check(performance.now(), !document.hidden)) void waitForMessages()
  }, CHECK_MS)
}

/** Call this when the connection is lost. */
export async function waitForServer() {
  if (waiting) return
  waiting = true
  showLost("Viewer server unreachable; reconnecting", "is unreachable", "The page loads again when it is back.")
  while (!await isReachable()) await pause(RETRY_MS)
  location.reload()
}

/** The server is silent: once it answers, its messages must arrive again, or else this connection is of no use any more. */
async function waitForMessages() {
  showLost("Viewer server does not respond", "has not responded", "")
  if (probing) return
  probing = true
  while (lost != null && !waiting) {
    await pause(RETRY_MS)
    if (lost == null || waiting || !await isReachable()) continue
    await pause(ANSWER_MS)
    if (lost != null && !waiting && !document.hidden) location.reload()
  }
  probing = false
}

/** @param {number} ms */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Whether a server answers, with whatever: a page that needs another token says so when it is loaded. */
async function isReachable() {
  // A file of Bokeh's: a request for the page itself would make the new server build one.
  const script = /** @type {HTMLScriptElement} */ (document.querySelector('script[src*="/static/js/bokeh"]'))
  try {
    const reply = await fetch(script.src, {method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS)})
    return reply.status < 500
  } catch (error) {
    if (error instanceof TypeError || error instanceof DOMException) return false // no connection, or no answer in time
    throw error
  }
}

/**
 * @param {string} status for the header
 * @param {string} what the server does
 * @param {string} next what will happen
 */
function showLost(status, what, next) {
  if (lost?.shown.status === status) return
  const {before, title} = lost ?? {before: latest("header"), title: document.title}
  const since = new Date().toLocaleTimeString([], {hourCycle: "h23"})
  const problem = ["The viewer server", what, `since ${since}. The page shows the state of that moment.`, next, EFFECT]
  const shown = /** @type {HeaderData} */ ({
    ...before, kind: "gone", status, motionless: true, server_problem: problem.filter((part) => part !== "").join(" "),
  })
  lost = {before, shown, title}
  setServerLost(true)
  deliverPart("header", shown)
  document.title = "Viewer unreachable"
}

function showBack() {
  if (lost == null) return
  const {before, shown, title} = lost
  lost = null
  setServerLost(false)
  if (latest("header") === shown && before != null) deliverPart("header", before)
  if (document.title === "Viewer unreachable") document.title = title
}
