/** The worker's end of a WorkerCanvas. */

import {startDrawing} from "./drawing_loop.js"

/** @import {Paint, Scene} from "./drawing_loop.js" */

/**
 * Draw what the page sends on the canvas that it sends first.
 * @template {Scene} S
 * @param {Paint<S>} paint
 */
export function serveCanvas(paint) {
  /** @type {((serial: number, changes: Partial<S>) => void) | undefined} */
  let update
  addEventListener("message", ({data}) => {
    if (data.canvas == null) update?.(data.serial, data.changes)
    else update = startDrawing(data.canvas, paint, (serial, frames, at) => postMessage({serial, frames, at}))
  })
}
