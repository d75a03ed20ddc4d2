/** What asks the run for something new is disabled by this one rule while the run receives no requests: after its end, and
 * while it cannot be reached. What edits or controls it obeys `TabState.steering_refusal`, which includes this rule. */

import {elements, setButtonState} from "../shared/dom.js"
import {subscribe} from "../shared/link.js"

const ASKS_THE_RUN = "button[data-image], button[data-slices], #restart-ascent, #request-growth, #edit-input, #editor-restore"
const FIELDS = "#depth, #editor-file"

export function startDisablingRequests() {
  let shown = ""
  subscribe("header", ({request_refusal: refusal}) => {
    if (refusal === shown) return
    shown = refusal
    for (const element of elements(ASKS_THE_RUN)) {
      element.dataset.title ??= element.title
      setButtonState(element, refusal, element.dataset.title)
    }
    for (const element of elements(FIELDS)) {
      const field = /** @type {HTMLInputElement} */ (element)
      field.disabled = refusal !== ""
      field.title = refusal
    }
  })
}
