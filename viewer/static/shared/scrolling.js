/** What scrolls is a tab stop while it holds more than it shows, so that keys scroll it in every browser. */

import {elements} from "./dom.js"

// All others that scroll hold buttons or fields, which are tab stops themselves.
const SCROLLED = "#records, #attribution, #preferred-image, #ranks-box, .hero pre"

export function startScrolling() {
  for (const element of elements(SCROLLED)) makeScrollableByKey(element)
}

/**
 * Make an element a tab stop whenever it scrolls. It needs a name.
 * @param {HTMLElement} element
 */
export function makeScrollableByKey(element) {
  const update = () => {
    const {scrollHeight, clientHeight, scrollWidth, clientWidth} = element
    if (scrollHeight > clientHeight || scrollWidth > clientWidth) element.tabIndex = 0
    else element.removeAttribute("tabindex")
  }
  new ResizeObserver(update).observe(element)
  new MutationObserver(update).observe(element, {childList: true, subtree: true})
}
