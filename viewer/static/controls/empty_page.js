/** The drawing on the page before there is a run: three layers of dots and the paths between them. */

import {byId, createSvg} from "../shared/dom.js"

const LAYERS = [{x: 20, filters: 4}, {x: 110, filters: 7}, {x: 200, filters: 5}]
const MIDDLE = 45, SPACING = 12, BEND = 45 // px of the drawing

/**
 * Return the y of filter i of n.
 * @param {number} i
 * @param {number} n
 */
const filterY = (i, n) => MIDDLE + (i - (n - 1) / 2) * SPACING

export function startEmptyPage() {
  const art = byId("hero-art")
  LAYERS.slice(1).forEach((to, k) => art.append(...paths(LAYERS[k], to)))
  for (const layer of LAYERS) art.append(...dots(layer))
}

/** @typedef {{x: number, filters: number}} ArtLayer */

/**
 * @param {ArtLayer} from
 * @param {ArtLayer} to
 */
function paths(from, to) {
  return Array.from({length: from.filters}, (_, i) => {
    const y0 = filterY(i, from.filters), y1 = MIDDLE + ((i + 0.5) / from.filters - 0.5) * to.filters * SPACING
    return createSvg("path", {
      d: `M${from.x},${y0} C${from.x + BEND},${y0} ${to.x - BEND},${y1} ${to.x},${y1}`, fill: "none", stroke: "var(--blue)",
      "stroke-width": 0.6 + (i * 7 % 4) * 0.7, opacity: 0.25 + (i * 5 % 4) * 0.13,
    })
  })
}

/** @param {ArtLayer} layer */
function dots({x, filters}) {
  return Array.from({length: filters}, (_, i) => createSvg("circle", {
    cx: x, cy: filterY(i, filters), r: 3.2,
    fill: i * 3 % 4 === 1 ? "var(--muted)" : "var(--orange)", opacity: 0.55 + (i * 5 % 4) * 0.15,
  }))
}
