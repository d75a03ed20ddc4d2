/** Draws a scene on a canvas, frame after frame while it moves: in a worker, or in the page. */

/** @typedef {HTMLCanvasElement | OffscreenCanvas} AnyCanvas */
/** @typedef {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} Context */

/**
 * @typedef {object} Scene what every drawing needs to know
 * @property {number} width px
 * @property {number} height px
 * @property {number} ratio device pixels per px
 * @property {number} [framesLeft] set by the painter where it needs several frames for what has changed
 */

/**
 * Draws one frame on the canvas, which still shows the frame before.
 * @template {Scene} S
 * @callback Paint
 * @param {Context} ctx scaled to px
 * @param {S} scene
 * @param {number} now ms
 * @returns {boolean} whether the next frame will look different
 */

/**
 * @callback Report
 * @param {number} serial of the newest change that is drawn completely
 * @param {number} frames drawn so far
 * @param {number} at Unix time (ms) at which that was: the page may be too busy to receive the report soon
 */

/**
 * @param {AnyCanvas} canvas
 * @param {Context} ctx
 * @param {Scene} scene
 */
function fit(canvas, ctx, {width, height, ratio}) {
  const columns = Math.round(width * ratio)
  const rows = Math.round(height * ratio)
  if (canvas.width !== columns || canvas.height !== rows) { // setting either clears the canvas
    canvas.width = columns
    canvas.height = rows
  }
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0)
}

/**
 * @template {Scene} S
 * @param {AnyCanvas} canvas
 * @param {Paint<S>} paint
 * @param {Report} report
 * @returns {(serial: number, changes: Partial<S>) => void} to be called with what changes in the scene
 */
export function startDrawing(canvas, paint, report) {
  const ctx = /** @type {Context} */ (canvas.getContext("2d"))
  const scene = /** @type {S} */ ({})
  const channel = new MessageChannel()
  let newest = 0
  let drawn = 0
  let reported = 0
  let frames = 0
  let running = false
  channel.port1.onmessage = () => report(reported = drawn, frames, Date.now())

  /** @param {number} now */
  const drawFrame = (now) => {
    running = false // if painting fails, the next change starts it again
    fit(canvas, ctx, scene)
    running = paint(ctx, scene, now)
    if (!((scene.framesLeft ?? 0) > 0)) drawn = newest // more may change before this frame is painted
    frames += 1
    if (reported !== drawn || frames % 30 === 0) channel.port2.postMessage(null) // handled after this frame is painted
    if (running) requestAnimationFrame(drawFrame)
  }
  return (serial, changes) => {
    Object.assign(scene, changes)
    newest = serial
    if (running) return
    running = true
    requestAnimationFrame(drawFrame)
  }
}
