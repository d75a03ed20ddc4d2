/** The link to the server: frames arrive, are shared out among the parts of the page, and are acknowledged once they are
 * painted, where the server waits for it; commands leave. `PageLink` in viewer/tab/page_link.py is the other end. */

import {decodeFrame} from "./frame.js"
import {recordPaint} from "./paint_times.js"

/** @import {WireArray} from "./frame.js" */
/** @import {Parts} from "./parts.js" */
/** @import {WorkerCanvas} from "./worker_canvas.js" */

export {averageLag} from "./paint_times.js"

/**
 * @typedef {object} PageLink the model that the server shares with the page
 * @property {[serial: number, bytes: ArrayBuffer] | null} frame
 * @property {number} seen serial number of the newest frame that is painted
 * @property {string} command
 * @property {boolean} visible
 * @property {string} theme
 * @property {number} width
 * @property {number} height
 * @property {number} beat counted up where no frame is sent
 * @property {Record<"frame" | "beat", {change: {connect: (callback: () => void) => void}}>} properties
 */

/** @typedef {(data: any, atlas: WireArray | undefined) => void} Draw */

/** @type {Map<string, Draw[]>} */
const subscribers = new Map()
/** @type {Map<string, {data: unknown, atlas?: WireArray}>} */
const newest = new Map()
/** @type {(() => void)[]} */
const frameCallbacks = []
/** @type {WorkerCanvas<any> | null} */
let slowCanvas = null
/** @type {PageLink | null} */
let link = null
let serial = 0
let received = 0
let isServerLost = false
/** @type {(() => void)[]} */
const beatCallbacks = []
/** @type {{sent: number, stamps: number[], confirm?: boolean}} */
let lastFrame = {sent: -1, stamps: []}

/**
 * Show what the model holds, and from now on all that it receives.
 * @param {PageLink} model
 */
export function connect(model) {
  link = model
  receive()
  model.properties.beat.change.connect(noteBeat)
  const channel = new MessageChannel()
  /** @type {(() => void)[]} */
  const painted = []
  channel.port1.onmessage = () => painted.shift()?.()
  model.properties.frame.change.connect(() => {
    const before = lastFrame.sent
    const arrived = Date.now()
    receive()
    if (lastFrame.sent === before) return // a chart or the reply to a command
    received += 1
    const frame = lastFrame
    requestAnimationFrame(() => {
      painted.push(() => acknowledge(frame, arrived))
      channel.port2.postMessage(null) // handled after this animation frame is painted
    })
  })
}

/** Tell the server that it may send: the first frame is drawn. */
export function acceptFrames() {
  if (link != null) link.seen = lastFrame.sent
}

/** How many frames have arrived that the page may have to acknowledge. */
export const receivedFrameCount = () => received

/**
 * A frame counts as painted only when this canvas, which draws in its own time, has drawn it, too.
 * @param {WorkerCanvas<any>} canvas
 */
export function acknowledgeFramesAfter(canvas) {
  slowCanvas = canvas
}

/**
 * @param {{sent: number, stamps: number[], confirm?: boolean}} frame
 * @param {number} arrived Unix time, ms
 */
function acknowledge({sent, stamps, confirm}, arrived) {
  const painted = Date.now()
  const finish = () => {
    if (link != null && confirm) link.seen = sent
    recordPaint(stamps, arrived, Math.max(painted, slowCanvas?.drawnAt ?? 0))
  }
  if (slowCanvas == null) finish()
  else slowCanvas.whenDrawn(finish)
}

function receive() {
  if (link?.frame == null) return
  const {parts, sent, stamps, confirm} = decodeFrame(link.frame[1])
  for (const {part, data, atlas} of parts) deliverPart(part, data, atlas)
  lastFrame = {sent, stamps, confirm}
  for (const callback of frameCallbacks) callback()
  noteBeat()
}

function noteBeat() {
  for (const callback of beatCallbacks) callback()
}

/**
 * Call this whenever the server has sent something.
 * @param {() => void} callback
 */
export function onServerMessage(callback) {
  beatCallbacks.push(callback)
}

/**
 * Send no commands for now: they would be carried out when nobody expects it.
 * @param {boolean} isLost
 */
export function setServerLost(isLost) {
  isServerLost = isLost
}

/**
 * Hand new data to whoever draws a part.
 * @param {string} part
 * @param {unknown} data
 * @param {WireArray} [atlas]
 */
export function deliverPart(part, data, atlas) {
  const known = {data, atlas: atlas ?? newest.get(part)?.atlas}
  newest.set(part, known)
  for (const draw of subscribers.get(part) ?? []) draw(data, known.atlas)
}

/**
 * Call `draw` with the data of a part whenever a frame brings some, and with its newest images.
 * @template {keyof Parts} K
 * @param {K} part
 * @param {(data: Parts[K], atlas: WireArray | undefined) => void} draw
 */
export function subscribe(part, draw) {
  subscribers.set(part, [...subscribers.get(part) ?? [], draw])
  const known = newest.get(part)
  if (known != null) draw(/** @type {Parts[K]} */ (known.data), known.atlas)
}

/**
 * @template {keyof Parts} K
 * @param {K} part
 * @returns {Parts[K] | undefined} its newest data
 */
export function latest(part) {
  return /** @type {Parts[K] | undefined} */ (newest.get(part)?.data)
}

/** @returns {Partial<Parts>} the newest data of all parts */
export function latestParts() {
  return Object.fromEntries([...newest].map(([part, {data}]) => [part, data]))
}

/**
 * Call this after all parts of a frame have been handed out.
 * @param {() => void} callback
 */
export function onFrame(callback) {
  frameCallbacks.push(callback)
}

/**
 * Send a command to the server; viewer/tab/commands.py lists them.
 * @param {string} name
 * @param {Record<string, unknown>} args
 */
export function sendCommand(name, args = {}) {
  if (link == null || isServerLost) return
  serial += 1 // so that the same command, sent again, is a change, too
  link.command = JSON.stringify({serial, name, args})
}

/**
 * Tell the server how the page is viewed.
 * @param {Partial<Pick<PageLink, "visible" | "theme" | "width" | "height">>} view
 */
export function reportView(view) {
  if (link != null) Object.assign(link, view)
}
