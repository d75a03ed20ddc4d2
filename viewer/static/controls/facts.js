/** Labeled values in a row, such as the loss in the header. */

import {createElement} from "../shared/dom.js"

/** @import {Fact} from "../shared/parts.js" */

/**
 * Draw facts. Elements are kept while the labels stay the same, because values change with every
 * batch.
 * @param {HTMLElement} box
 * @param {Fact[]} facts
 * @param {string} className of each fact
 */
export function drawFacts(box, facts, className) {
  const isSame = box.childElementCount === facts.length &&
    facts.every(({label}, i) => box.children[i].firstChild?.textContent === label)
  if (!isSame) box.replaceChildren(...facts.map((fact) => factElement(fact, className)))
  facts.forEach(({value, title = "", warn}, i) => {
    const fact = /** @type {HTMLElement} */ (box.children[i]), element = /** @type {HTMLElement} */ (fact.lastChild)
    if (fact.title !== title) fact.title = title
    if (element.textContent !== value) element.textContent = value
    element.dataset.warn = String(Boolean(warn))
  })
}

/**
 * @param {Fact} fact
 * @param {string} className
 */
function factElement({label, statistic, minor}, className) {
  return createElement("span", {class: className, "data-statistic": statistic, "data-minor": minor && "true"},
    createElement("span", {}, label), " ", createElement("b"))
}
