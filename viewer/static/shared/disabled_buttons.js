/** A button with `aria-disabled` does nothing, and says why: its title, which neither a touch screen nor a key shows. */

import {showNotice, hideNotice} from "./notice.js"

export function startDisabledButtons() {
  document.addEventListener("click", onClick, {capture: true}) // before what the button does
}

/** @param {MouseEvent} event */
function onClick(event) {
  const button = event.target instanceof Element ? event.target.closest("[aria-disabled]") : null
  if (button?.getAttribute("aria-disabled") !== "true") {
    hideNotice() // of an earlier click
    return
  }
  event.preventDefault()
  event.stopPropagation()
  showNotice(/** @type {HTMLElement} */ (button).title)
}
