/** A canvas that a worker draws: neither can a busy page delay the drawing, nor the drawing the page.
 * Where no worker may start (the policy of a proxy can forbid it), the page draws the canvas itself. */

import {startDrawing} from "./drawing_loop.js"

/** @import {Paint, Scene} from "./drawing_loop.js" */

/**
 * Some browsers report only later, by an error event, that the worker may not start.
 * @param {URL} url
 * @returns {Worker | null}
 */
function startWorker(url) {
  try {
    return new Worker(url, {type: "module"})
  } catch (error) {
    console.info("The page draws without a worker:", error)
    return null
  }
}

/** @template {Scene} S */
export class WorkerCanvas {
  /** Serial number of the newest change. */
  serial = 0
  /** Serial number of the newest change that is drawn. */
  drawn = 0
  /** Unix time (ms) at which it was drawn. */
  drawnAt = 0
  /** Frames drawn so far; counted in steps of up to 30. */
  frames = 0
  /** All that the canvas shows. @type {Partial<S>} */
  scene = {}
  /** @type {[number, () => void][]} */
  #waiting = []
  /** @type {Worker | null} */
  #worker = null
  /** @type {(serial: number, changes: Partial<S>) => void} */
  #send

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {URL} url of the module worker, which calls `serveCanvas(paint)`
   * @param {Paint<S>} paint
   */
  constructor(canvas, url, paint) {
    this.canvas = canvas
    this.paint = paint
    const worker = typeof canvas.transferControlToOffscreen === "function" ? startWorker(url) : null
    this.#send = worker == null ? this.#drawInPage() : this.#drawInWorker(worker)
  }

  /** @param {Worker} worker */
  #drawInWorker(worker) {
    this.#worker = worker
    const offscreen = this.canvas.transferControlToOffscreen()
    worker.onmessage = ({data}) => this.#onReport(data.serial, data.frames, data.at)
    worker.onerror = () => this.#replaceWorker()
    worker.postMessage({canvas: offscreen}, [offscreen])
    return (/** @type {number} */ serial, /** @type {Partial<S>} */ changes) => worker.postMessage({serial, changes})
  }

  #drawInPage() {
    return startDrawing(this.canvas, this.paint, (serial, frames, at) => this.#onReport(serial, frames, at))
  }

  /** Draw in the page what the worker had to draw: on another canvas, because a transferred one does not come back. */
  #replaceWorker() {
    this.#worker?.terminate()
    this.#worker = null
    const canvas = /** @type {HTMLCanvasElement} */ (this.canvas.cloneNode())
    this.canvas.replaceWith(canvas)
    this.canvas = canvas
    this.#send = this.#drawInPage()
    this.#send(this.serial, this.scene)
  }

  /**
   * Change the scene and have it drawn.
   * @param {Partial<S>} changes
   */
  update(changes) {
    Object.assign(this.scene, changes)
    this.#send(this.serial += 1, changes)
  }

  /**
   * Call this once all changes so far are drawn.
   * @param {() => void} callback
   */
  whenDrawn(callback) {
    if (this.drawn === this.serial) callback()
    else this.#waiting.push([this.serial, callback])
  }

  remove() {
    this.#worker?.terminate()
    this.canvas.remove()
  }

  /**
   * @param {number} serial
   * @param {number} frames
   * @param {number} at
   */
  #onReport(serial, frames, at) {
    if (serial !== this.drawn) this.drawnAt = at // not of a later frame, drawn because the scene moves
    this.drawn = serial
    this.frames = frames
    const due = this.#waiting.filter(([wanted]) => wanted <= serial)
    this.#waiting = this.#waiting.filter(([wanted]) => wanted > serial)
    for (const [, callback] of due) callback()
  }
}
