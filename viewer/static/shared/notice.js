/** A short message over the page: why what was pressed or typed did nothing. */

import {announce, byId} from "./dom.js"

const SHOWN_MS = 6000
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer

/**
 * Show a reason for some seconds.
 * @param {string} reason nothing is shown if it is ""
 */
export function showNotice(reason) {
  if (reason === "") return
  hideNotice()
  const notice = byId("notice")
  notice.textContent = reason
  notice.showPopover() // in front of a menu that is open
  announce(reason)
  timer = setTimeout(hideNotice, SHOWN_MS)
}

export function hideNotice() {
  clearTimeout(timer)
  if (byId("notice").matches(":popover-open")) byId("notice").hidePopover()
}
