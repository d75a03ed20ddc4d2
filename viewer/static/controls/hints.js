/** The three hints of a first visit. Once dismissed, the server leaves them out of the page. */

import {byId} from "../shared/dom.js"

const SECONDS_TO_KEEP = 400 * 24 * 3600 // browsers keep no cookie for longer

/** A cookie, because it is sent to the viewer at every port of this machine. */
function remember() {
  document.cookie = `revacnn-hints=dismissed; path=/; max-age=${SECONDS_TO_KEEP}; samesite=lax`
}

export function startHints() {
  const hints = byId("hints")
  if (hints.hidden) remember() // for as long again
  byId("dismiss-hints").addEventListener("click", () => {
    remember()
    hints.hidden = true
    byId("plot").focus() // the button that had the focus is gone
  })
}
