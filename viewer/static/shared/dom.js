/** Creating and finding elements. */

/** @typedef {string | number | boolean | null | undefined | ((event: any) => void)} Attribute */

const SVG = "http://www.w3.org/2000/svg"

/**
 * Return the element of this id, which the template holds.
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  return /** @type {T} */ (document.getElementById(id))
}

/**
 * Return all elements that a CSS selector matches.
 * @param {string} selector
 * @returns {NodeListOf<HTMLElement>}
 */
export function elements(selector) {
  return document.querySelectorAll(selector)
}

/**
 * Return all buttons that have a data attribute, such as `data-method`.
 * @param {string} attribute
 * @returns {NodeListOf<HTMLButtonElement>}
 */
export function buttonsWith(attribute) {
  return document.querySelectorAll(`button[data-${attribute}]`)
}

/**
 * Mark the pressed one among the buttons that share a data attribute.
 * @param {string} attribute
 * @param {string} value
 */
export function markPressedButton(attribute, value) {
  for (const button of buttonsWith(attribute)) {
    button.setAttribute("aria-pressed", String(button.dataset[attribute] === value))
  }
}

/**
 * Enable a button, or disable it with the reason as its tooltip. `aria-disabled` keeps the button
 * focusable, so that the reason can be read.
 * @param {HTMLElement} button
 * @param {string} reason empty where the button is enabled
 * @param {string} title of the enabled button
 */
export function setButtonState(button, reason, title) {
  button.setAttribute("aria-disabled", String(reason !== ""))
  button.title = reason || title
}

/**
 * Have an element that is no button act like one: Enter and the space bar click it, or do `action`.
 * @template {HTMLElement} T
 * @param {T} element
 * @param {string} label
 * @param {() => void} [action]
 */
export function actAsButton(element, label, action = () => element.click()) {
  element.setAttribute("role", "button")
  element.setAttribute("aria-label", label)
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return
    event.preventDefault()
    event.stopPropagation()
    action()
  })
  return element
}

/**
 * Call back when a button is clicked, unless `setButtonState` has disabled it.
 * @param {HTMLElement} button
 * @param {() => void} callback
 */
export function onEnabledClick(button, callback) {
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-disabled") !== "true") callback()
  })
}

/**
 * Create an element. Children are inserted as text, never as markup.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, Attribute>} [attributes] `onclick` and the like are event listeners
 * @param {...(Node | string | null | undefined)} children null and "" are left out
 * @returns {HTMLElementTagNameMap[T]}
 */
export function createElement(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value)
    else if (value === true) element.setAttribute(name, "")
    else if (value !== false && value != null) element.setAttribute(name, String(value))
  }
  for (const child of children) if (child != null && child !== "") element.append(child)
  return element
}

/**
 * Create an element of an SVG drawing.
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...Node} children
 */
export function createSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value))
  element.append(...children)
  return element
}

const TAB_STOPS = "button, input, select, textarea, a[href], [tabindex]"

/**
 * Replace the children of an element, whose new ones are drawn from newer data. The focus moves to the
 * new tab stop of the same `data-key`, with the selected part of its text. A tab stop without a key is found by its
 * place among all.
 * @param {HTMLElement} box
 * @param {...(Node | string)} children
 */
export function redrawChildren(box, ...children) {
  const active = document.activeElement, stops = [...box.querySelectorAll(TAB_STOPS)]
  const place = stops.findIndex((stop) => stop === active), key = stops[place]?.getAttribute("data-key")
  box.replaceChildren(...children)
  if (place < 0) return
  const drawn = [...box.querySelectorAll(TAB_STOPS)]
  const [start, end] = active instanceof HTMLInputElement ? [active.selectionStart, active.selectionEnd] : []
  const same = key == null ? drawn[place] : drawn.find((stop) => stop.getAttribute("data-key") === key)
  if (same instanceof HTMLElement) same.focus({preventScroll: true})
  if (same instanceof HTMLInputElement && start != null) same.setSelectionRange(start, end ?? start)
}

/**
 * Have a screen reader read a text.
 * @param {string} text
 */
export function announce(text) {
  byId("announcement").textContent = text
}
