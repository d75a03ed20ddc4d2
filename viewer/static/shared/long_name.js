/** A long name, whose middle is left out where there is no room. Where the server knows the room, it does the same: see
 * viewer/rendering/layer_names.py. */

import {createElement} from "./dom.js"

const END_LENGTH = 12 // characters at most that are always shown

/**
 * Return a name without as much of its middle as does not fit.
 * @param {string} name
 * @param {(text: string) => boolean} fits
 */
export function shortenMiddle(name, fits) {
  let shown = name
  for (let length = name.length - 1; length > 1 && !fits(shown); length--) {
    const begin = name.slice(0, Math.ceil(length / 2)).trimEnd(), end = name.slice(name.length - Math.floor(length / 2)).trimStart()
    shown = `${begin}…${end}`
  }
  return shown
}

/**
 * Write a name into an element of the class "long-name". Its text stays complete, for a screen reader.
 * @param {HTMLElement} element
 * @param {string} name
 */
export function drawLongName(element, name) {
  if (element.textContent === name) return
  element.replaceChildren(...splitName(name).map((part) => createElement("span", {}, part)))
}

/**
 * Return the beginning, which may be cut off, and the end of a name: its last parts, or a piece of a long part.
 * @param {string} name
 */
export function splitName(name) {
  const earliest = Math.max(0, name.length - END_LENGTH)
  const dot = earliest > 0 ? name.indexOf(".", earliest - 1) : -1
  const cut = dot >= 0 ? dot + 1 : earliest
  return [name.slice(0, cut), name.slice(cut)]
}
