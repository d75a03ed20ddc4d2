/** Two fingers on a touch screen: they zoom and move a view. */

/**
 * @typedef {object} PinchStep
 * @property {number} x of the middle between the fingers, px of the window
 * @property {number} y
 * @property {number} dx how far the middle has moved, px
 * @property {number} dy
 * @property {number} factor by which the fingers have moved apart
 */

/**
 * Call back when two fingers move. Call this before other listeners of the element are added.
 * @param {HTMLElement} element
 * @param {(step: PinchStep) => void} onPinch
 * @returns {() => boolean} whether two fingers are on the element
 */
export function startPinch(element, onPinch) {
  /** @type {Map<number, [x: number, y: number]>} by the id of the pointer, px of the window */
  const fingers = new Map()
  element.addEventListener("pointerdown", ({pointerType, pointerId, clientX, clientY}) => {
    if (pointerType === "touch") fingers.set(pointerId, [clientX, clientY])
  })
  element.addEventListener("pointermove", ({pointerId, clientX, clientY}) => {
    const before = fingers.get(pointerId)
    if (before == null) return
    fingers.set(pointerId, [clientX, clientY])
    const other = [...fingers].find(([id]) => id !== pointerId)?.[1]
    if (other != null) onPinch(pinchStep(other, before, [clientX, clientY]))
  })
  for (const end of ["pointerup", "pointercancel"]) {
    element.addEventListener(end, (event) => fingers.delete(/** @type {PointerEvent} */ (event).pointerId))
  }
  return () => fingers.size > 1
}

/**
 * Return what the move of one finger means.
 * @param {[number, number]} other where the finger is that rests
 * @param {[number, number]} before
 * @param {[number, number]} now
 * @returns {PinchStep}
 */
export function pinchStep(other, before, now) {
  const apart = (/** @type {[number, number]} */ [x, y]) => Math.max(1, Math.hypot(x - other[0], y - other[1]))
  return {
    x: (now[0] + other[0]) / 2, y: (now[1] + other[1]) / 2,
    dx: (now[0] - before[0]) / 2, dy: (now[1] - before[1]) / 2,
    factor: apart(now) / apart(before),
  }
}
