import assert from "node:assert/strict"
import test from "node:test"

import {editTickBackground} from "../../viewer/static/controls/edit_ticks.js"

test("each edit has a tick where the thumb is at that moment", () => {
  const ticks = editTickBackground([0, 0.5, 1]).split(", ")
  assert.match(ticks[0], /calc\(0\.0% \+ 5\.0px\)/)
  assert.match(ticks[1], /calc\(50\.0% \+ 0\.0px\)/)
  assert.match(ticks[2], /calc\(100\.0% \+ -5\.0px\)/)
})

test("without edits there are no ticks", () => assert.equal(editTickBackground([]), ""))
