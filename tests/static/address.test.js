import assert from "node:assert/strict"
import test from "node:test"

import {withParameters} from "../../viewer/static/controls/address.js"

const ADDRESS = "http://127.0.0.1:5006/viewer?bokeh=1&run=old&batch=7"

test("parameters are set, those that are empty are removed, and others stay", () => {
  const parameters = {run: "new", layer: "features.0 & more", filter: "3", pane: "", batch: ""}
  const {searchParams} = new URL(withParameters(ADDRESS, parameters))
  assert.deepEqual(Object.fromEntries(searchParams), {bokeh: "1", run: "new", layer: "features.0 & more", filter: "3"})
})

test("an address that is up to date stays as it is", () => {
  const once = withParameters(ADDRESS, {run: "new", layer: "a/b", batch: ""})
  assert.equal(withParameters(once, {run: "new", layer: "a/b", batch: ""}), once)
})
