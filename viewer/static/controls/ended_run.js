/** What asks the run for something new is disabled by this one rule once the run has ended. The server refuses all that
 * edits or controls it, with the reason: see viewer/tab/commands.py. */

import {elements} from "../shared/dom.js"
import {subscribe} from "../shared/link.js"

const ASKS_THE_RUN = "button[data-image], button[data-slices]"

export function startEndedRun() {
  let isEnded = false
  subscribe("header", ({ended, status}) => {
    if (ended === isEnded) return
    isEnded = ended
    for (const element of elements(ASKS_THE_RUN)) {
      const button = /** @type {HTMLButtonElement} */ (element)
      button.dataset.title ??= button.title
      button.title = ended ? `The run has ended: ${status}` : button.dataset.title
      button.disabled = ended
    }
  })
}
