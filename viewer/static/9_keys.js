/* Every key of the page in one table: what is pressed is looked up in it, and "?" shows it. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make} = page

  const send = (command, args = {}) => () => page.send(command, args)
  const press = (id) => () => byId(id).click() // does nothing where the button is disabled
  const free = () => [null, document.body, byId("plot")].includes(document.activeElement)

  const look = (rows) => () => {
    const {recorded, live, at} = page.parts.timeline ?? {}
    if (recorded > 1) page.send("time", {at: Math.max(0, (live ? recorded - 1 : at) + rows)})
  }
  const move = (dx, dy) => (event) => page.send("move", {dx, dy: dy * (event.shiftKey ? 10 : 1)})
  const running = (by) => () => {
    if (page.parts.controls?.available) page.send("control", {by})
  }

  /* [keys, as they are written on the sheet, what they do, does it]; only free ones need the network
   * in focus, because buttons and sliders have a use of their own for them. */
  const KEYS = {
    "Network": [
      ["ArrowUp", "", "", move(0, -1), "free"], ["ArrowDown", "", "", move(0, 1), "free"],
      ["ArrowLeft", "", "", move(-1, 0), "free"], ["ArrowRight", "← → ↑ ↓", "select another layer or filter; ⇧ ten at once", move(1, 0), "free"],
      ["Enter", "Enter", "open the layer into its filters, or close it", (event) => page.send(event.shiftKey ? "open_stage" : "open", {}), "free"],
      ["", "⇧ Enter", "open or close its whole stage"],
      ["/", "/", "find a layer by name", () => byId("search").focus()],
      ["z", "", "", () => page.zoom_by(1.6)], ["x", "Z  X", "zoom in, out", () => page.zoom_by(1 / 1.6)],
      ["0", "0", "show the whole network", () => page.whole()],
    ],
    "Selected filters": [
      ["Delete Backspace", "Del", "stage their removal, or take it back", send("stage_remove")],
      ["+ Insert", "+", "stage a new filter for the layer", send("stage_add")],
      ["-", "−", "stage the removal of the layer's least active", send("stage_least")],
      ["s", "S", "split", press("split")], ["f", "F", "freeze, unfreeze", press("freeze")],
      ["m", "M", "merge", press("merge")], ["r", "R", "re-initialise", press("reinitialize")],
    ],
    "Staged changes": [
      ["a", "A", "apply", () => document.querySelector("#staging button.apply:not(:disabled)")?.click()],
      ["Escape", "Esc", "take all of them back", send("unstage")],
      ["u", "U", "undo the last edit of the training", press("undo")],
    ],
    "Training": [
      [" ", "Space", "pause before the next batch, resume", () => running(page.parts.controls?.paused ? "resume" : "pause")(), "free"],
      [".", ".", "train one batch", press("step")],
      ["c", "C", "save a checkpoint", running("checkpoint")],
      ["w", "W", "learning rates and weight decay", () => page.parts.controls?.available && byId("rates").click()],
      ["X", "⇧ X", "stop, with a checkpoint (twice)", () => page.parts.controls?.available && byId("stop").click()],
    ],
    "Time": [
      ["[", "", "", look(-1)], ["]", "[  ]", "step back, forward in what was recorded", look(1)],
      ["p", "P", "play, halt", press("play")], ["l", "L", "return to live", send("live")],
    ],
    "Page": [
      ["1", "", "", send("pane", {by: "layer"})], ["2", "", "", send("pane", {by: "maps"})],
      ["3", "", "", send("pane", {by: "looks"})], ["4", "1  2  3  4", "layer, maps, looks for, statistics", send("pane", {by: "statistics"})],
      ["j", "", "", () => page.set_motion(page.motion - 0.25)], ["k", "J  K", "less, more motion", () => page.set_motion(page.motion + 0.25)],
      ["t", "T", "dark or light", press("theme")],
      ["?", "?", "this sheet", () => sheet()],
    ],
  }
  const ACTIONS = new Map(Object.values(KEYS).flat().flatMap(([keys, , , run, where]) =>
    (keys == " " ? [" "] : keys.split(" ")).map((key) => [key, {run, where}])))

  function on_key(event) {
    const at = document.activeElement
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(at?.tagName ?? "") && at.type != "range"
    if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return
    if (typing) {
      if (event.key == "Escape") at.blur()
      return
    }
    const action = ACTIONS.get(event.key) ?? ACTIONS.get(event.key.toLowerCase())
    if (action?.run == null || action.where == "free" && !free()) return
    event.preventDefault()
    if (event.key == "Escape") {
      const panel = byId("rates-panel")
      if (!panel.hidden) return byId("rates").click()
    }
    action.run(event)
  }

  /** Show all keys. Escape closes it, as every dialog. */
  function sheet() {
    const groups = Object.entries(KEYS).map(([title, keys]) => make("section", {}, make("h3", {}, title),
      make("dl", {}, ...keys.filter(([, written]) => written).flatMap(([, written, words]) => [
        make("dt", {}, ...written.split(" ").filter(Boolean).flatMap((key) => [make("kbd", {}, key), " "])),
        make("dd", {}, words)]))))
    const box = byId("keys")
    box.replaceChildren(make("h2", {}, "Keys"), make("div", {class: "groups"}, ...groups))
    box.showModal()
  }

  addEventListener("DOMContentLoaded", () => {
    document.addEventListener("keydown", on_key)
    byId("help").addEventListener("click", sheet)
    byId("keys").addEventListener("click", (event) => event.target == byId("keys") && byId("keys").close())
  })
})()
