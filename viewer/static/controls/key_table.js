/** Every key of the page in one table: pressed keys are looked up in it, and the key sheet shows it. */

/** @typedef {(event: {key: string, shiftKey: boolean}) => void} KeyHandler */

/**
 * @typedef {object} KeyBinding
 * @property {string[]} keys as `KeyboardEvent.key` names them; none: only shown on the sheet
 * @property {KeyHandler} [run]
 * @property {string} [label] the keys as the sheet shows them, separated by spaces; none: not shown
 * @property {string} [description]
 * @property {boolean} [isFree] runs only while no button or slider has the focus, which use such keys themselves
 */

/**
 * @typedef {object} KeyActions what the keys do; see `startKeyboard`
 * @property {(name: string, args?: Record<string, unknown>) => void} send
 * @property {(id: string) => void} click
 * @property {(factor: number) => void} zoomBy
 * @property {() => void} showWholeNetwork
 * @property {() => void} toggleLayerTable
 * @property {() => void} focusSearch
 * @property {() => void} applyStaged
 * @property {() => void} togglePause
 * @property {(action: string) => void} controlRun
 * @property {(id: string) => void} clickRunControl
 * @property {(rows: number) => void} stepMoment
 * @property {(change: number) => void} changeMotion
 * @property {() => void} setToMean
 * @property {() => void} openLayerMenu
 * @property {() => void} openStageMenu
 * @property {() => void} showKeys
 */

const ZOOM = 1.6
const MOTION = 0.25
const FAST = 10 // filters, with the page keys
const WITH_CTRL = ["ArrowUp", "ArrowDown", " ", "a"]

/**
 * Return the key bindings by the headings of the key sheet.
 * @param {KeyActions} actions
 * @returns {Record<string, KeyBinding[]>}
 */
export function keyTable(actions) {
  return {
    "Network": networkKeys(actions),
    "Selected filters": filterKeys(actions),
    "Selected layer": layerKeys(actions),
    "Staged changes": stagingKeys(actions),
    "Training": trainingKeys(actions),
    "Time": timeKeys(actions),
    "Chart with the focus": CHART_KEYS,
    "Page": pageKeys(actions),
  }
}

/**
 * Return what a key does: as it is typed, else its lower case.
 * @param {Record<string, KeyBinding[]>} table
 * @param {string} key
 */
export function findBinding(table, key) {
  const bindings = Object.values(table).flat().filter(({run}) => run != null)
  return bindings.find(({keys}) => keys.includes(key)) ?? bindings.find(({keys}) => keys.includes(key.toLowerCase()))
}

/**
 * Return how the page writes a pressed key, such as `F` or `⇧ F`; "" with Ctrl, ⌘ or Alt.
 * @param {{key: string, shiftKey: boolean, ctrlKey: boolean, metaKey: boolean, altKey: boolean}} event
 */
export function formatKey({key, shiftKey, ctrlKey, metaKey, altKey}) {
  if (ctrlKey || metaKey || altKey) return ""
  return `${shiftKey ? "⇧ " : ""}${key.length === 1 ? key.toUpperCase() : key}`
}

/**
 * Return the key that stands for a combination with Ctrl or ⌘; "" if the page has none.
 * @param {{key: string, shiftKey: boolean}} event
 */
export function keyOfCombination({key, shiftKey}) {
  if (WITH_CTRL.includes(key)) return `Ctrl ${key}`
  const letter = key.toLowerCase()
  if (letter === "z") return shiftKey ? "y" : "u"
  return letter === "y" && !shiftKey ? "y" : ""
}

// Handled in charts/chart_zoom.js, where the focus is.
/** @type {KeyBinding[]} */
const CHART_KEYS = [
  {keys: [], label: "+ −", description: "zoom in, zoom out"},
  {keys: [], label: "← →", description: "move to earlier, to later"},
  {keys: [], label: "0", description: "show all of the curves"},
]

/** @type {(actions: KeyActions) => KeyBinding[]} */
function networkKeys({send, focusSearch, zoomBy, showWholeNetwork, toggleLayerTable}) {
  /** @type {(dy: number) => KeyHandler} */
  const moveFilter = (dy) => ({shiftKey}) => shiftKey ? send("extend_or_shrink_selection", {dy}) : send("move_selection", {dx: 0, dy})
  /** @type {(dx: number) => KeyHandler} */
  const moveLayer = (dx) => () => send("move_selection", {dx, dy: 0})
  return [
    {keys: ["ArrowUp"], run: moveFilter(-1), isFree: true},
    {keys: ["ArrowDown"], run: moveFilter(1), isFree: true},
    {keys: ["ArrowLeft"], run: moveLayer(-1), isFree: true},
    {keys: ["ArrowRight"], run: moveLayer(1), isFree: true, label: "← → ↑ ↓", description: "select another layer or filter"},
    {keys: ["PageUp"], run: moveFilter(-FAST), isFree: true},
    {keys: ["PageDown"], run: moveFilter(FAST), isFree: true, label: "PgUp PgDn", description: "move by ten filters"},
    ...severalKeys({send}),
    {keys: ["Enter"], run: ({shiftKey}) => send(shiftKey ? "toggle_stage_layers_expanded" : "toggle_layer_expanded"), isFree: true,
     label: "Enter", description: "open the block, expand the layer into its filters, or collapse it"},
    {keys: [], label: "⇧ Enter", description: "expand or collapse the whole stage"},
    {keys: ["b"], run: () => send("close_block"), label: "B", description: "close the block around the selected layer"},
    {keys: ["B"], run: () => send("open_block"), label: "⇧ B", description: "open the block of the selected layer"},
    {keys: ["/"], run: focusSearch, label: "/", description: "find a layer by name"},
    {keys: ["z"], run: () => zoomBy(ZOOM)},
    {keys: ["x"], run: () => zoomBy(1 / ZOOM), label: "Z X", description: "zoom in, zoom out"},
    {keys: ["0"], run: showWholeNetwork, label: "0", description: "show the whole network"},
    {keys: ["g"], run: toggleLayerTable, label: "G", description: "table of layers, or the network"},
  ]
}

/** @type {(actions: Pick<KeyActions, "send">) => KeyBinding[]} */
function severalKeys({send}) {
  return [
    {keys: [], label: "⇧ ↑ ↓", description: "select several filters; also a box, or clicks with ⇧"},
    {keys: ["Ctrl ArrowUp"], run: () => send("move_primary", {dy: -1}), isFree: true},
    {keys: ["Ctrl ArrowDown"], run: () => send("move_primary", {dy: 1}), isFree: true,
     label: "Ctrl ↑ ↓", description: "select another one as well, not those between"},
    {keys: ["Ctrl  "], run: () => send("toggle_keep_primary_selected"), isFree: true,
     label: "Ctrl Space", description: "keep it selected while going on"},
    {keys: ["Ctrl a"], run: () => send("select_all_filters"), label: "Ctrl A", description: "select all filters of the layer"},
  ]
}

/** @type {(actions: KeyActions) => KeyBinding[]} */
function filterKeys({send, click, setToMean}) {
  return [
    {keys: ["Delete", "Backspace"], run: () => send("toggle_staged_removal"), label: "Del", description: "stage their removal, or discard it"},
    {keys: ["+", "Insert"], run: () => send("stage_add"), label: "+", description: "stage a new filter for the layer"},
    {keys: ["-"], run: () => send("stage_remove_least_active_filter"), label: "−", description: "stage the removal of the least active filter"},
    {keys: ["s"], run: () => click("split"), label: "S", description: "split"},
    {keys: ["f"], run: () => click("freeze"), label: "F", description: "freeze, unfreeze"},
    {keys: ["m"], run: () => click("merge"), label: "M", description: "merge"},
    {keys: ["r"], run: () => click("reinitialize"), label: "R", description: "reinitialize"},
    {keys: ["v"], run: setToMean, label: "V", description: "set the one selected last to the mean of the others"},
  ]
}

/** @type {(actions: KeyActions) => KeyBinding[]} */
function layerKeys({send, openLayerMenu, openStageMenu}) {
  return [
    {keys: ["o"], run: openLayerMenu, label: "O", description: "menu of the layer"},
    {keys: ["O"], run: openStageMenu, label: "⇧ O", description: "menu of the block that the layer is in"},
    {keys: ["i"], run: () => send("stage_insert_layer", {option: "residual"}), label: "I", description: "insert a residual block after it"},
    {keys: ["I"], run: () => send("stage_insert_layer", {option: "dirac"}), label: "⇧ I", description: "insert a convolution after it"},
    {keys: ["F"], run: () => send("stage_layer_freeze_or_unfreeze"), label: "⇧ F", description: "freeze, unfreeze the layer"},
    {keys: ["D"], run: () => send("stage_remove_layer"), label: "⇧ D", description: "remove the layer"},
  ]
}

/** @type {(actions: KeyActions) => KeyBinding[]} */
function stagingKeys({send, click, applyStaged}) {
  return [
    {keys: ["a"], run: applyStaged, label: "A", description: "apply the staged changes"},
    {keys: ["Escape"], run: () => send("discard_staged"), label: "Esc", description: "discard the staged changes"},
    {keys: ["u"], run: () => click("undo"), label: "U", description: "undo the last edit; also Ctrl Z"},
    {keys: ["y"], run: () => click("redo"), label: "Y", description: "redo the edit that was undone last; also Ctrl ⇧ Z"},
  ]
}

/** @type {(actions: KeyActions) => KeyBinding[]} */
function trainingKeys({click, togglePause, controlRun, clickRunControl}) {
  return [
    {keys: [" "], run: togglePause, isFree: true, label: "Space", description: "pause before the next batch, resume"},
    {keys: ["."], run: () => click("step"), label: ".", description: "train one batch"},
    {keys: ["n"], run: () => clickRunControl("train"), label: "N", description: "train several batches, then pause"},
    {keys: ["e"], run: () => controlRun("finish_epoch"), label: "E", description: "train to the end of the epoch, then pause"},
    {keys: ["c"], run: () => controlRun("checkpoint"), label: "C", description: "save a checkpoint"},
    {keys: ["R"], run: () => clickRunControl("record"), label: "⇧ R", description: "record every batch to a file, end the recording"},
    {keys: ["w"], run: () => clickRunControl("rates"), label: "W", description: "learning rates and weight decay"},
    {keys: ["X"], run: () => clickRunControl("stop"), label: "⇧ X", description: "save a checkpoint and stop (press twice)"},
  ]
}

/** @type {(actions: KeyActions) => KeyBinding[]} */
function timeKeys({send, click, stepMoment}) {
  return [
    {keys: ["["], run: () => stepMoment(-1)},
    {keys: ["]"], run: () => stepMoment(1), label: "[ ]", description: "step to an earlier, to a later batch"},
    {keys: ["p"], run: () => click("play"), label: "P", description: "play the run from the shown batch, or from its beginning; stop"},
    {keys: ["l"], run: () => send("go_live"), label: "L", description: "return to the newest batch"},
  ]
}

/** @type {(actions: KeyActions) => KeyBinding[]} */
function pageKeys({send, click, changeMotion, showKeys}) {
  /** @type {(option: string) => KeyHandler} */
  const pane = (option) => () => send("set_pane", {option})
  return [
    {keys: ["1"], run: pane("layer")},
    {keys: ["2"], run: pane("maps")},
    {keys: ["3"], run: pane("inspection")},
    {keys: ["4"], run: pane("statistics")},
    {keys: ["5"], run: pane("histograms")},
    {keys: ["6"], run: pane("classes"), label: "1 – 6", description: "layer, maps, what activates the filter, statistics, histograms, classes"},
    {keys: ["j"], run: () => changeMotion(-MOTION)},
    {keys: ["k"], run: () => changeMotion(MOTION), label: "J K", description: "less, more motion"},
    {keys: ["t"], run: () => click("theme"), label: "T", description: "dark or light"},
    {keys: ["?"], run: showKeys, label: "?", description: "show this sheet"},
  ]
}
