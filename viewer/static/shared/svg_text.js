/** SVG as text. */

/** @type {Record<string, string>} */
const ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}

/** @param {unknown} text */
export function escapeXml(text) {
  return String(text).replace(/[&<>"]/g, (character) => ENTITIES[character])
}

/**
 * Write a length with two decimals at most.
 * @param {number} value
 */
export function px(value) {
  return String(Math.round(100 * value) / 100)
}

/**
 * Write an element; its attributes are escaped, its children are not.
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 * @param {...string} children
 */
export function svgElement(name, attributes, ...children) {
  const written = Object.entries(attributes).map(([key, value]) => ` ${key}="${escapeXml(value)}"`).join("")
  return children.length > 0 ? `<${name}${written}>${children.join("")}</${name}>` : `<${name}${written}/>`
}
