import assert from "node:assert/strict"
import test from "node:test"

import {findBinding, keyOfCombination, keyTable, formatKey} from "../../viewer/static/controls/key_table.js"

/** Return a table whose actions record what they are called with, but for the key event. */
function recordedTable() {
  const calls = []
  const record = (name) => (...args) => calls.push([name, ...args.filter((arg) => arg?.shiftKey == null)])
  const actions = new Proxy({}, {get: (_, name) => record(name)})
  return {calls, table: keyTable(actions)}
}

/** Return the calls of a pressed key. */
function press(key, shiftKey = false) {
  const {calls, table} = recordedTable()
  findBinding(table, key)?.run({key, shiftKey})
  return calls
}

test("no key has two meanings", () => {
  const keys = Object.values(recordedTable().table).flat().flatMap((binding) => binding.keys)
  assert.equal(new Set(keys).size, keys.length)
})

test("a letter acts on filters, and with Shift on their layer", () => {
  assert.deepEqual(press("F"), [["send", "stage_layer_freeze_or_unfreeze"]])
  assert.deepEqual(press("D"), [["send", "stage_remove_layer"]])
  assert.deepEqual(press("i"), [["send", "stage_insert_layer", {option: "residual"}]])
  assert.deepEqual(press("I"), [["send", "stage_insert_layer", {option: "dirac"}]])
})

test("every binding runs something or is shown on the sheet, and what is shown is described", () => {
  for (const binding of Object.values(recordedTable().table).flat()) {
    assert.ok(binding.run != null || binding.label != null)
    assert.equal(binding.label == null, binding.description == null)
    assert.equal(binding.run == null, binding.keys.length === 0)
  }
})

test("letters work in either case, except where upper case has its own meaning", () => {
  assert.deepEqual(press("f"), [["click", "freeze"]])
  assert.deepEqual(press("M"), press("m"))
  assert.deepEqual(press("X"), [["clickRunControl", "stop"]])
  assert.deepEqual(press("x"), [["zoomBy", 1 / 1.6]])
})

test("arrows move the selection, the page keys by ten filters, and Shift selects several", () => {
  assert.deepEqual(press("ArrowDown"), [["send", "move_selection", {dx: 0, dy: 1}]])
  assert.deepEqual(press("PageUp"), [["send", "move_selection", {dx: 0, dy: -10}]])
  assert.deepEqual(press("ArrowUp", true), [["send", "extend_or_shrink_selection", {dy: -1}]])
  assert.deepEqual(press("PageDown", true), [["send", "extend_or_shrink_selection", {dy: 10}]])
  assert.deepEqual(press("ArrowLeft", true), [["send", "move_selection", {dx: -1, dy: 0}]])
})

test("Enter toggles the layer, with Shift the stage", () => {
  assert.deepEqual(press("Enter"), [["send", "toggle_layer_expanded"]])
  assert.deepEqual(press("Enter", true), [["send", "toggle_stage_layers_expanded"]])
  assert.deepEqual(press("b"), [["send", "close_block"]])
  assert.deepEqual(press("B", true), [["send", "open_block"]])
})

test("Escape discards what is staged, and A applies it", () => {
  assert.deepEqual(press("Escape"), [["send", "discard_staged"]])
  assert.deepEqual(press("a"), [["applyStaged"]])
})

test("the button that records had no key", () => {
  assert.deepEqual(press("R"), [["clickRunControl", "record"]])
  assert.deepEqual(press("r"), [["click", "reinitialize"]])
})

test("N opens the panel of several batches, and E finishes the epoch", () => {
  assert.deepEqual(press("n"), [["clickRunControl", "train"]])
  assert.deepEqual(press("e"), [["controlRun", "finish_epoch"]])
})

test("Ctrl Z undoes, and Ctrl Shift Z and Ctrl Y redo", () => {
  const combination = (key, shiftKey = false) => press(keyOfCombination({key, shiftKey}))
  assert.deepEqual(combination("z"), [["click", "undo"]])
  assert.deepEqual(combination("Z", true), [["click", "redo"]])
  assert.deepEqual(combination("y"), [["click", "redo"]])
  assert.equal(keyOfCombination({key: "f", shiftKey: false}), "")
})

test("with Ctrl, filters that are not neighbors are selected, and all of them", () => {
  const combination = (key) => press(keyOfCombination({key, shiftKey: false}))
  assert.deepEqual(combination("ArrowDown"), [["send", "move_primary", {dy: 1}]])
  assert.deepEqual(combination("ArrowUp"), [["send", "move_primary", {dy: -1}]])
  assert.deepEqual(combination(" "), [["send", "toggle_keep_primary_selected"]])
  assert.deepEqual(combination("a"), [["send", "select_all_filters"]])
  assert.equal(keyOfCombination({key: "ArrowLeft", shiftKey: false}), "") // the browser's own
})

test("space and arrows leave focused buttons and sliders alone", () => {
  const {table} = recordedTable()
  for (const key of [" ", "ArrowLeft", "Enter"]) assert.equal(findBinding(table, key).isFree, true)
  assert.equal(findBinding(table, "z").isFree, undefined)
})

test("other keys do nothing", () => {
  assert.deepEqual(press("q"), [])
  assert.deepEqual(press("Tab"), [])
})

test("a pressed key is written as the menus write it", () => {
  const written = (key, rest = {}) => formatKey({key, shiftKey: false, ctrlKey: false, metaKey: false, altKey: false, ...rest})
  assert.equal(written("i"), "I")
  assert.equal(written("I", {shiftKey: true}), "⇧ I")
  assert.equal(written("Enter"), "Enter")
  assert.equal(written("i", {ctrlKey: true}), "")
})
