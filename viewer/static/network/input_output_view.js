/** The ends of the network: the input with its channels on the left, the outputs with their scores on the right. */

import {createElement, byId} from "../shared/dom.js"
import {subscribe} from "../shared/link.js"
import {shortenMiddle} from "../shared/long_name.js"
import {clamp} from "../shared/math.js"
import {onThemeChange} from "../shared/theme.js"
import {context2d, paintAtlas, tileBox} from "../layer/tile_atlas.js"
import {formatPercent} from "../layer/prediction.js"
import {drawSignal} from "./signal.js"

/** @import {EndsData, OutputRow, WireArray} from "../shared/parts.js" */
/** @import {TileAtlas} from "../layer/tile_atlas.js" */
/** @import {Viewport} from "./viewport.js" */

const SMALL = 64 // pixels; smaller images show theirs
const NARROW = 120 // px: less space on the left has two buttons in a row
const EDGE = 10 // px beside the border of the view
const TOOLS_GAP = 8 // px below the picture
const LIST_GAP = 12 // px below the last output
const DENSE = 16 // px: outputs that are less apart have smaller letters
const DENSEST = 13 // px: those have no bars
const LOW = 0.005 // probabilities that are rounded to 0 %
const CHANNEL_SIZE = [3.5, 9] // px: diameter of a node without and with the largest sum

export class InputOutputView {
  /** @type {EndsData | null} */
  #data = null
  /** @type {WireArray | undefined} */
  #atlas
  /** @type {HTMLElement[]} */
  #channels = []
  /** @type {HTMLElement[]} */
  #rows = []

  /** @param {Viewport} viewport */
  constructor(viewport) {
    this.viewport = viewport
    subscribe("ends", (data, atlas) => this.#draw(data, atlas))
    onThemeChange(() => this.#drawPicture())
  }

  /**
   * @param {EndsData} data
   * @param {WireArray | undefined} atlas
   */
  #draw(data, atlas) {
    this.#data = data.input == null ? null : data
    this.#atlas = atlas
    byId("ends").hidden = this.#data == null
    if (this.#data == null) return
    this.#drawInput(this.#data)
    this.#drawOutput(this.#data)
    this.#drawPicture()
    this.place()
    shortenNames(this.#rows.flatMap((row) => [.../** @type {NodeListOf<HTMLElement>} */ (row.querySelectorAll(".name"))]))
  }

  /** @param {EndsData} data */
  #drawInput({input, channels, left}) {
    byId("network-input-steps").dataset.narrow = String(left < NARROW)
    setText("network-input-title", input.title)
    setText("network-input-size", input.subtitle)
    setText("network-input-source", input.source ?? "")
    setText("network-input-note", input.note)
    byId("network-input-picture").title = input.slice ?? ""
    byId("network-input-tools").hidden = input.source == null && input.note === ""
    byId("network-input-steps").hidden = !input.choosable
    this.#channels = channels.map(({name, text}) => createElement("i", {
      class: "channel", role: "img", title: `${name}: ${text}`, "aria-label": `${name}: ${text}`,
    }))
    byId("network-channels").replaceChildren(...this.#channels)
  }

  /** @param {EndsData} data */
  #drawOutput({output, rows, has_words: isWide, output_y: outputY}) {
    byId("network-outputs").dataset.wide = String(isWide)
    const pitch = outputY.length > 1 ? outputY[1] - outputY[0] : DENSE
    byId("network-outputs").dataset.dense = String(pitch < DENSE)
    const hasBars = pitch >= DENSEST
    byId("network-outputs").dataset.bars = String(hasBars)
    setText("network-output-title", output.title)
    setText("network-output-size", output.subtitle)
    setText("network-output-note", output.note)
    const shapes = (output.shapes ?? []).map((shape) => createElement("div", {class: "output shape", title: output.details ?? ""},
      createElement("i"), createElement("b", {}, shape)))
    this.#rows = rows.length > 0 ? rows.map((row) => outputRow(row, isWide, hasBars, output.of_maps)) : shapes.slice(0, 1)
    byId("network-outputs").replaceChildren(...this.#rows)
    const others = rows.length > 0 ? [] : (output.shapes ?? []).slice(1).map((shape) => createElement("div", {}, shape))
    const facts = output.loss.map(({label, value, title}) => createElement("div", {title}, label, createElement("b", {}, value)))
    if (facts.length > 0) facts.unshift(createElement("div", {class: "head"}, "loss"))
    byId("network-output-facts").replaceChildren(
      ...output.more ? [createElement("div", {class: "more"}, output.more)] : [], ...others, ...facts)
  }

  #drawPicture() {
    const canvas = /** @type {HTMLCanvasElement} */ (byId("network-input-picture"))
    const tiles = paintAtlas(this.#atlas, "gray"), {signal, generated} = this.#data ?? {}
    canvas.hidden = tiles == null && !(signal != null && signal.length > 0)
    const hasGenerated = generated != null && tiles != null && tiles.count > 1
    byId("network-generated").hidden = !hasGenerated
    if (tiles != null) {
      drawTile(canvas, tiles, 0)
      if (hasGenerated) drawTile(/** @type {HTMLCanvasElement} */ (byId("network-generated-picture")), tiles, 1)
    } else if (signal != null && signal.length > 0) drawSignal(canvas, signal)
  }

  /** Put everything where it is in view. */
  place() {
    const data = this.#data
    if (data == null) return
    const {viewport} = this, {layoutWidth} = viewport
    this.#placeTitle("network-input", data.input_x + data.left / 2, data.header_y)
    this.#placeTitle("network-output", layoutWidth - data.right / 2, data.header_y)
    const [left, , right, bottom] = this.#placePicture("network-input-picture", data.picture)
    if (data.generated != null) {
      const [start, , end, below] = this.#placePicture("network-generated-picture", data.generated)
      place(byId("network-generated-name"), (start + end) / 2, below + TOOLS_GAP / 2)
    }
    const middle = Math.max((left + right) / 2, left + byId("network-input-steps").offsetWidth / 2 - EDGE + 1) // in the view, beside a small picture, too
    place(byId("network-input-tools"), middle, bottom + TOOLS_GAP)
    hideCut([byId("network-input-source"), byId("network-input-note")], viewport.height - bottom - TOOLS_GAP)
    this.#channels.forEach((node, i) => {
      const [x, y] = viewport.toScreen(data.channel_x, data.channel_y[i]), [least, most] = CHANNEL_SIZE
      const size = least + (most - least) * (data.channels[i].weight ?? 0)
      node.style.width = node.style.height = `${size.toFixed(1)}px`
      place(node, x, y - size / 2)
    })
    this.#placeOutputs(data)
  }

  /**
   * Return the edges on the screen.
   * @param {string} id
   * @param {[number, number, number, number]} edges left, top, right, bottom
   */
  #placePicture(id, edges) {
    const [left, top] = this.viewport.toScreen(edges[0], edges[1]), [right, bottom] = this.viewport.toScreen(edges[2], edges[3])
    const {style} = byId(id)
    style.transform = `translate(${left.toFixed(1)}px, ${top.toFixed(1)}px)`
    style.width = `${(right - left).toFixed(1)}px`
    style.height = `${(bottom - top).toFixed(1)}px`
    return [left, top, right, bottom]
  }

  /** @param {EndsData} data */
  #placeOutputs({output_x: outputX, output_y: outputY}) {
    const room = this.viewport.layoutWidth - outputX - EDGE
    let lowest = 0
    this.#rows.forEach((row, i) => {
      const [x, y] = this.viewport.toScreen(outputX, outputY[i])
      row.style.transform = `translate(${(x - 4).toFixed(1)}px, -50%) translateY(${y.toFixed(1)}px)`
      row.style.width = `${room + 4}px`
      lowest = Math.max(lowest, y)
    })
    const [x] = this.viewport.toScreen(outputX, 0), facts = byId("network-output-facts")
    facts.style.transform = `translate(${(x + 9).toFixed(1)}px, ${(lowest + LIST_GAP).toFixed(1)}px)`
    facts.style.width = `${room - 9}px`
    facts.hidden = this.#rows.length === 0
    hideCut(/** @type {HTMLElement[]} */ ([...facts.children]), this.viewport.height - lowest - LIST_GAP)
    const below = facts.hidden ? this.viewport.height / 2 : lowest + LIST_GAP + facts.offsetHeight + LIST_GAP
    const note = byId("network-output-note")
    note.style.width = `${room}px`
    const hasRoom = below + note.offsetHeight < this.viewport.height
    const [, highest] = this.viewport.toScreen(0, outputY[0] ?? 0), y = hasRoom ? below : highest - note.offsetHeight - LIST_GAP
    note.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`
  }

  /**
   * @param {string} id
   * @param {number} x of the layout
   * @param {number} y px
   */
  #placeTitle(id, x, y) {
    const [screenX] = this.viewport.toScreen(x, 0), head = byId(`${id}-head`), {width} = this.viewport
    const half = head.offsetWidth / 2 + 3, isInView = screenX > 0 && screenX < width // then it is not cut off at the sides
    place(head, isInView ? clamp(screenX, half, width - half) : screenX, y)
  }
}

/**
 * Hide the lines that the lower edge of the view would cut through.
 * @param {HTMLElement[]} lines
 * @param {number} room px, from the top of what they are in
 */
function hideCut(lines, room) {
  const ends = lines.map(({offsetTop, offsetHeight}) => offsetTop + offsetHeight)
  lines.forEach(({style}, i) => { style.visibility = ends[i] > room ? "hidden" : "visible" })
}

/**
 * Leave the middle out of names that have no room. All of them is said on hover.
 * @param {HTMLElement[]} names
 */
function shortenNames(names) {
  const cut = names.filter(({scrollWidth, clientWidth}) => scrollWidth > clientWidth)
  const rooms = cut.map((name) => [name.clientWidth, getComputedStyle(name).font])
  const context = context2d(document.createElement("canvas"))
  for (const [i, name] of cut.entries()) {
    const [room, font] = rooms[i]
    context.font = String(font)
    name.textContent = shortenMiddle(name.textContent ?? "", (text) => context.measureText(text).width <= Number(room))
  }
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {TileAtlas} tiles
 * @param {number} i
 */
function drawTile(canvas, tiles, i) {
  canvas.width = tiles.width
  canvas.height = tiles.height
  canvas.dataset.small = String(Math.max(tiles.width, tiles.height) < SMALL)
  context2d(canvas).drawImage(tiles.canvas, ...tileBox(tiles, i), 0, 0, tiles.width, tiles.height)
}

/**
 * Put an element centered below a point.
 * @param {HTMLElement} element
 * @param {number} x px
 * @param {number} y px
 */
function place(element, x, y) {
  element.style.transform = `translate(-50%, 0) translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`
}

/**
 * @param {string} id
 * @param {string} text
 */
function setText(id, text) {
  const element = byId(id)
  element.textContent = text
  element.hidden = text === ""
}

/**
 * A class with its probability. Where there is room, a mark says whether the network predicts it and
 * whether it is the truth.
 * @param {OutputRow} row
 * @param {boolean} isWide
 * @param {boolean} hasBars
 * @param {boolean} [isMean] whether the probability is the mean over all positions of a map
 */
function outputRow({name, probability, predicted, true: isTrue}, isWide, hasBars, isMean = false) {
  const facts = [predicted && "predicted", isTrue && "truth", isMean && "on average over its map"].filter(Boolean).join(", ")
  const label = `${name} ${formatPercent(probability)}${facts && `, ${facts}`}`
  const mark = predicted ? isTrue == null ? "" : isTrue ? "✓" : "✗" : isTrue ? "truth" : ""
  const level = createElement("span", {class: "level", hidden: !hasBars}, createElement("i", {}))
  const filled = /** @type {HTMLElement} */ (level.firstChild)
  filled.style.width = `${(100 * probability).toFixed(1)}%`
  return createElement("div", {
    class: "output", role: "img", title: label, "aria-label": label,
    "data-predicted": String(predicted), "data-true": String(isTrue === true), "data-wrong": String(predicted && isTrue === false),
  }, createElement("i"), createElement("span", {class: "name"}, name), isWide && mark ? createElement("small", {}, mark) : null,
  createElement("span", {class: "share"}, isWide || facts || probability >= LOW ? formatPercent(probability) : ""), level)
}
