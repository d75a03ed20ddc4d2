/** Counts what the page does in a second, and shows it. */

import {byId} from "./dom.js"
import {receivedFrameCount} from "./link.js"

let frames = 0

/** Animation frames so far. */
export const animationFrameCount = () => frames

function count() {
  frames += 1
  requestAnimationFrame(count)
}

/** @param {() => boolean} isReady whether there is anything to be counted */
export function startFrameRate(isReady) {
  count()
  let before = {frames, received: receivedFrameCount()}
  setInterval(() => {
    if (document.hidden) return
    const now = {frames, received: receivedFrameCount()}
    byId("rate").textContent = isReady() ? `${now.received - before.received} Hz · ${now.frames - before.frames} fps` : ""
    before = now
  }, 1000)
}
