/** How strongly nodes move. The browser remembers it; there is no motion where the system asks for none. */

import {byId} from "./dom.js"
import {subscribe} from "./link.js"

const STORED = "revacnn-motion"
const MAX = 2
const reduced = matchMedia("(prefers-reduced-motion: reduce)")
/** @type {(() => void)[]} */
const callbacks = []
let level = reduced.matches ? 0 : Number(localStorage.getItem(STORED) ?? 1)
let motionless = false

/** The value of the slider, 0 to 2. */
export const motionLevel = () => level

/** Nodes rest where the user wants it so, and while nothing is being trained. */
export const isMoving = () => level > 0 && !motionless

/** @param {() => void} callback */
export function onMotionChange(callback) {
  callbacks.push(callback)
}

/** @param {number} value */
export function setMotion(value) {
  level = Math.min(MAX, Math.max(0, value))
  const slider = /** @type {HTMLInputElement} */ (byId("motion"))
  slider.value = String(level)
  slider.style.setProperty("--part", `${level / MAX * 100}%`)
  for (const callback of callbacks) callback()
}

export function startMotion() {
  setMotion(level)
  byId("motion").addEventListener("input", (event) => {
    setMotion(Number(/** @type {HTMLInputElement} */ (event.target).value))
    localStorage.setItem(STORED, String(level))
  })
  reduced.addEventListener("change", () => setMotion(reduced.matches ? 0 : 1))
  subscribe("header", (header) => {
    if (header.motionless === motionless) return
    motionless = header.motionless
    for (const callback of callbacks) callback()
  })
}
