/** What asks the run for something new is disabled by this one rule while the run receives no requests: after its end, and
 * while it cannot be reached. What edits or controls it obeys `TabState.steering_refusal`, which includes this rule. */

import {elements} from "../shared/dom.js"
import {subscribe} from "../shared/link.js"

const ASKS_THE_RUN = "button[data-image], button[data-slices]"

export function startUnreceivedRequests() {
  let shown = ""
  subscribe("header", ({request_refusal: refusal}) => {
    if (refusal === shown) return
    shown = refusal
    for (const element of elements(ASKS_THE_RUN)) {
      const button = /** @type {HTMLButtonElement} */ (element)
      button.dataset.title ??= button.title
      button.title = refusal || button.dataset.title
      button.disabled = refusal !== ""
    }
  })
}
