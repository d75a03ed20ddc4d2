/** A drawing context that writes SVG: it takes what the painters of canvases call, so that one painter serves both. */

import {px, svgElement} from "./svg_text.js"

/** @typedef {{lineWidth: number, strokeStyle: string, fillStyle: string, globalAlpha: number, lineCap: string, dash: readonly number[]}} Style */

export class SvgContext {
  lineWidth = 1
  strokeStyle = "#000"
  fillStyle = "#000"
  globalAlpha = 1
  lineCap = "butt"
  /** @type {readonly number[]} */
  #dash = []
  /** @type {Style[]} */
  #saved = []
  /** @type {string[]} commands of the path */
  #path = []
  /** @type {string[]} */
  #elements = []

  /** The elements drawn so far. */
  get svg() {
    return this.#elements.join("\n")
  }

  save() {
    const {lineWidth, strokeStyle, fillStyle, globalAlpha, lineCap} = this
    this.#saved.push({lineWidth, strokeStyle, fillStyle, globalAlpha, lineCap, dash: this.#dash})
  }

  restore() {
    const {dash, ...style} = this.#saved.pop() ?? {dash: []}
    Object.assign(this, style)
    this.#dash = dash
  }

  /** @param {readonly number[]} dash */
  setLineDash(dash) {
    this.#dash = [...dash]
  }

  /** Nothing lies below: there is nothing to clear. */
  clearRect() {}

  /** Painters clip to what they repaint. A drawing is painted as a whole. */
  clip() {}

  beginPath() {
    this.#path = []
  }

  closePath() {
    this.#path.push("Z")
  }

  /** @param {number} x @param {number} y */
  moveTo(x, y) {
    this.#add("M", x, y)
  }

  /** @param {number} x @param {number} y */
  lineTo(x, y) {
    this.#add("L", x, y)
  }

  /** @param {...number} points two control points, and where the curve ends */
  bezierCurveTo(...points) {
    this.#add("C", ...points)
  }

  /** @param {...number} points one control point, and where the curve ends */
  quadraticCurveTo(...points) {
    this.#add("Q", ...points)
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  rect(x, y, width, height) {
    this.#add("M", x, y)
    this.#path.push(`h${px(width)}v${px(height)}h${px(-width)}Z`)
  }

  /**
   * Add an arc; a line leads to it, as on a canvas.
   * @param {number} x
   * @param {number} y
   * @param {number} radius
   * @param {number} from angle
   * @param {number} to angle, larger than `from`
   */
  arc(x, y, radius, from, to) {
    const at = (/** @type {number} */ angle) =>
      /** @type {const} */ ([x + radius * Math.cos(angle), y + radius * Math.sin(angle)])
    this.#add(this.#path.length > 0 ? "L" : "M", ...at(from))
    const halves = to - from > Math.PI ? [(from + to) / 2, to] : [to] // SVG has no arc that is a whole circle
    for (const angle of halves) this.#path.push(`A${px(radius)} ${px(radius)} 0 0 1 ${at(angle).map(px).join(" ")}`)
  }

  /** @param {number} x @param {number} y @param {number} width @param {number} height */
  fillRect(x, y, width, height) {
    this.#elements.push(svgElement("rect", {x: px(x), y: px(y), width: px(width), height: px(height), ...this.#fill()}))
  }

  fill() {
    if (this.#path.length > 0) this.#elements.push(svgElement("path", {d: this.#path.join(""), ...this.#fill()}))
  }

  stroke() {
    if (this.#path.length === 0) return
    /** @type {Record<string, string | number>} */
    const dash = this.#dash.length > 0 ? {"stroke-dasharray": this.#dash.map(px).join(" ")} : {}
    this.#elements.push(svgElement("path", {
      d: this.#path.join(""), fill: "none", stroke: this.strokeStyle, "stroke-width": px(this.lineWidth),
      ...this.lineCap === "butt" ? {} : {"stroke-linecap": this.lineCap}, ...dash, ...this.#opacity(),
    }))
  }

  #fill() {
    return {fill: this.fillStyle, ...this.#opacity()}
  }

  /** @returns {Record<string, string | number>} */
  #opacity() {
    return this.globalAlpha === 1 ? {} : {opacity: px(this.globalAlpha)}
  }

  /** @param {string} command @param {...number} numbers */
  #add(command, ...numbers) {
    this.#path.push(command + numbers.map(px).join(" "))
  }
}
