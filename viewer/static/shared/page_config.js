/** What the server writes into the page once: see viewer/tab/page_assets.py. */

/**
 * @typedef {object} Palette colors of one theme, as viewer/rendering/palette.py defines them
 * @property {string[]} gradient_ramp of the gradient, weak to strong, #rrggbb
 * @property {[number, number, number][]} paths of the activation, weak to strong: hue, saturation and lightness
 * @property {string} dead
 * @property {string} frozen
 * @property {string} green
 * @property {string} orange
 * @property {string} red
 * @property {string} selected
 * @property {string} selected_path
 * @property {string} hover
 * @property {string} muted
 */

/** @typedef {Record<"normal" | "dead" | "new" | "staged" | "coupled" | "frozen" | "absent", number>} NodeStates */

/**
 * @typedef {object} PageConfig
 * @property {{dark: Palette, light: Palette}} palettes
 * @property {NodeStates} node_states how a node is drawn, as viewer/layout/columns.py numbers it
 * @property {Record<"none" | "zero" | "nonfinite" | "identical", number>} degenerate_kinds why a filter has no place
 * @property {number} dead_batches for how many batches a dead filter has had no activation
 */

/** @returns {PageConfig} */
function readConfig() {
  return JSON.parse(document.getElementById("page-config")?.textContent ?? "")
}

export const config = readConfig()
