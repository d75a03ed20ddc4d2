/* Pointer, keyboard, zoom and headers of the network view. */
(function () {
  "use strict"
  const page = window.revacnn
  const MAX_ZOOM = 24
  const TITLE_PX = 6.3, SMALL_TITLE_PX = 4.9 // per letter of a stage's title
  const SETTLE_MS = 500 // after which nodes that set out are where they are to be
  let plot, model, drag = null, moved = false, pointer = null, settling = null

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value))
  const scientific = (value) => value == null || !isFinite(value) ? "–"
    : value == 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toPrecision(3)

  page.begin_network = () => {
    plot = page.byId("plot")
    model = Bokeh.documents[0].get_model_by_name("network")
    const size = () => {
      page.link.width = plot.clientWidth
      page.link.height = plot.clientHeight
    }
    let timer = null
    new ResizeObserver(() => {
      clearTimeout(timer)
      timer = setTimeout(size, 120)
    }).observe(plot)
    size()
    for (const range of [model.x_range, model.y_range]) range.change.connect(place)
    plot.addEventListener("pointermove", on_move)
    plot.addEventListener("pointerleave", () => {
      pointer = null
      hover(-1)
    })
    plot.addEventListener("pointerdown", on_down)
    plot.addEventListener("pointerup", on_up)
    plot.addEventListener("dblclick", on_double)
    plot.addEventListener("wheel", on_wheel, {passive: false})
    page.byId("zoom-out").addEventListener("click", whole)
    page.byId("search").addEventListener("input", on_search)
    page.byId("search").addEventListener("keydown", (event) => {
      if (event.key == "Enter" || event.key == "Escape") plot.focus()
    })
    place()
  }

  page.repaint = () => page.network?.renderer.plot_view.request_paint()

  /* ------------------------------------------------------------------------ zoom and pan */

  const view = () => {
    const {x_range: x, y_range: y} = model, full = page.parts.columns
    return {x0: x.start, x1: x.end, y0: y.end, y1: y.start, width: full?.width ?? 1, height: full?.height ?? 1}
  }
  const zoom = () => {
    const v = view()
    return v.width / (v.x1 - v.x0)
  }
  const to_screen = (x, y) => {
    const v = view()
    return [(x - v.x0) / (v.x1 - v.x0) * plot.clientWidth, (y - v.y0) / (v.y1 - v.y0) * plot.clientHeight]
  }

  /** Show the part of the layout that begins at (x0, y0), magnified. */
  function show(x0, y0, factor) {
    const v = view(), scale = clamp(factor, 1, MAX_ZOOM)
    const width = v.width / scale, height = v.height / scale
    const x = clamp(x0, 0, v.width - width), y = clamp(y0, 0, v.height - height)
    model.x_range.setv({start: x, end: x + width})
    model.y_range.setv({start: y + height, end: y})
    page.byId("zoom-out").hidden = scale < 1.001
  }
  const whole = page.whole = () => show(0, 0, 1)

  /** Magnify about the selected node, or about the middle. */
  page.zoom_by = (factor) => {
    const v = view(), scale = clamp(zoom() * factor, 1, MAX_ZOOM)
    const node = page.chosen >= 0 ? ["x", "y"].map((name) => page.network.value(name, page.chosen)) : null
    const [x, y] = node ?? [(v.x0 + v.x1) / 2, (v.y0 + v.y1) / 2]
    show(x - v.width / scale / 2, y - v.height / scale / 2, scale)
  }

  function on_wheel(event) {
    event.preventDefault()
    const v = view(), box = plot.getBoundingClientRect()
    const fx = (event.clientX - box.left) / box.width, fy = (event.clientY - box.top) / box.height
    const scale = clamp(zoom() * Math.exp(-event.deltaY * 0.0016), 1, MAX_ZOOM)
    show(v.x0 + fx * ((v.x1 - v.x0) - v.width / scale), v.y0 + fy * ((v.y1 - v.y0) - v.height / scale), scale)
  }

  /* ----------------------------------------------------------------------------- pointer */

  function hit(event) {
    const box = plot.getBoundingClientRect()
    return page.network?.hit(event.clientX - box.left, event.clientY - box.top) ?? -1
  }

  function on_down(event) {
    if (event.button != 0 || event.target.closest?.("button") != null) return
    const v = view()
    drag = {x: event.clientX, y: event.clientY, x0: v.x0, y0: v.y0}
    moved = false
  }

  function on_move(event) {
    pointer = event
    if (drag == null) {
      hover(event.target.closest?.("button, .column") ? -1 : hit(event), event)
      return
    }
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y
    if (!moved && Math.hypot(dx, dy) < 4) return
    moved = true
    hover(-1)
    plot.dataset.drag = zoom() > 1.001
    const v = view()
    show(drag.x0 - dx / plot.clientWidth * (v.x1 - v.x0), drag.y0 - dy / plot.clientHeight * (v.y1 - v.y0), zoom())
  }

  /** What was under the pointer may have moved away. A pointer that rests is told what is under it then. */
  function point_anew() {
    hover(-1)
    clearTimeout(settling)
    settling = setTimeout(() => {
      if (pointer != null && drag == null) on_move(pointer)
    }, SETTLE_MS)
  }

  function on_up(event) {
    const was_click = drag != null && !moved
    drag = null
    plot.dataset.drag = false
    if (!was_click || event.button != 0) return
    plot.focus({preventScroll: true})
    const node = hit(event)
    if (node >= 0) select(node)
  }

  function on_double(event) {
    const node = hit(event)
    if (node >= 0) page.send("open", {layer: page.network.value("layer", node)})
  }

  /** Ring and path of a node. */
  function choose(node) {
    if (node === page.chosen) return
    page.chosen = node
    page.flow?.draw()
    if (page.network != null) page.network.dirty = true
  }

  /** A filter was selected elsewhere: shown here, too, before the server's answer confirms it. */
  page.show_chosen = (name, index) => {
    const layer = page.parts.columns?.layers?.findIndex((one) => one.name == name) ?? -1, {network} = page
    for (let node = 0; layer >= 0 && network?.value("layer", node) != null; node++) {
      if (network.value("layer", node) != layer || network.value("first", node) > index || network.value("last", node) < index) continue
      choose(node)
      page.byId("filter").textContent = `filter ${index}`
      return
    }
  }

  function select(node) {
    page.also = []
    choose(node) // shown at once; the server's answer confirms it
    const value = (name) => page.network.value(name, node)
    page.send("select", {layer: value("layer"), first: value("first"), last: value("last")})
  }

  /* ----------------------------------------------------------------------------- tooltip */

  const STATES = ["", "dead: no activation for a while", "new", "staged for removal",
                  "goes together with what is staged", "frozen",
                  "did not exist yet"]

  /* A pointer that rests on a filter asks the training what would go together with it. */
  const REST_MS = 220
  let peeked = -1, resting = null
  function rest(node) {
    clearTimeout(resting)
    resting = setTimeout(() => {
      if (node == peeked || node < 0 && peeked < 0) return
      peeked = node
      if (node < 0) page.send("peek", {})
      else page.send("peek", {layer: page.network.value("layer", node), first: page.network.value("first", node)})
    }, REST_MS)
  }

  function hover(node, event) {
    const tip = page.byId("tip")
    if (node != page.hovered) rest(node)
    if (node != page.hovered && page.network != null) page.network.dirty = true
    page.hovered = node
    plot.dataset.over = node >= 0 ? "node" : ""
    tip.hidden = node < 0
    if (node < 0) return
    tip.replaceChildren(...describe(node))
    const right = event.clientX + 16 + tip.offsetWidth > innerWidth
    const x = right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16
    const y = clamp(event.clientY - tip.offsetHeight / 2, 8, innerHeight - tip.offsetHeight - 8)
    tip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`
  }
  page.refresh_tip = () => {
    if (page.hovered >= 0 && !page.byId("tip").hidden) page.byId("tip").replaceChildren(...describe(page.hovered))
  }

  function describe(node) {
    const value = (name) => page.network.value(name, node)
    const layer = page.parts.columns.layers[value("layer")]
    const first = value("first"), last = value("last"), many = last > first
    const line = (label, text, tone) => page.make("div", {"data-tone": tone}, label, page.make("span", {}, text))
    const rows = [page.make("b", {}, `${layer?.name} · ${many ? `filters ${first}–${last}` : `filter ${first}`}`)]
    rows.push(line(many ? "mean |∇|, their mean" : "mean |∇|", scientific(value("gradient")), "gradient"))
    rows.push(line("Σ activation", scientific(value("activation")), "activation"))
    const norm = value("weight_norm")
    if (norm != null && isFinite(norm)) rows.push(line("weight norm", scientific(norm), ""))
    const company = page.parts.selection?.company_text
    if (company && (node == peeked || node == page.chosen && peeked < 0)) {
      rows.push(page.make("small", {class: "company"}, company))
    }
    const state = STATES[value("state")]
    if (state) rows.push(page.make("small", {}, state))
    rows.push(page.make("small", {}, many ? "click to select · double click to open" : "click to select · Del to remove"))
    return rows
  }

  /* ------------------------------------------------------------------------------ search */

  function on_search(event) {
    const wanted = event.target.value.trim().toLowerCase()
    if (wanted == "") return
    const names = page.parts.columns?.layers?.map((layer) => layer.name.toLowerCase()) ?? []
    let found = names.indexOf(wanted)
    if (found < 0) found = names.findIndex((name) => name.includes(wanted))
    if (found >= 0) page.send("select", {layer: found, first: -1, last: -1})
  }

  /* ----------------------------------------------------------------------------- headers */

  function steer(layer, less) {
    const why = layer.refused
    const words = less ? `Remove the least active filter of ${layer.name}` : `Add a filter to ${layer.name}`
    return page.make("button", {
      class: less ? "less" : "more",
      title: why || words,
      "aria-label": why ? `${words}: not possible, ${why}` : words,
      "aria-disabled": why ? "true" : "false",
      onclick: () => {
        if (!why) page.send(less ? "stage_least" : "stage_add", {layer: layer.index})
      },
    }, less ? "−" : "+")
  }

  function header(layer, density) {
    const big = density == "roomy" && !layer.lane
    const title = page.make("b", {
      title: `${layer.name} · ${layer.filters} filters · double click to open or close`,
      onclick: () => page.send("select", {layer: layer.index, first: -1, last: -1}),
      ondblclick: () => page.send("open", {layer: layer.index}),
    }, big ? layer.label : String(layer.filters))
    // Beside a narrow branch there is room for its name only while it is pointed at, or current.
    const words = big ? `${layer.filters} filters · ${layer.kernel}` : layer.lane && density == "normal" ? layer.name : layer.label
    const size = page.make("span", {}, words)
    const element = page.make("div", {
      class: "column", "data-layer": layer.name, "data-density": density, "data-lane": String(layer.lane),
    }, title, size, page.make("div", {class: "steer"}, steer(layer, true), steer(layer, false)))
    return element
  }

  page.drawers.columns = (data) => {
    if (data.layers == null) return
    if (plot != null) point_anew()
    const stages = data.stages.map((stage) => page.make("div", {class: "stage"}, page.make("b", {
      ondblclick: () => page.send("open_stage", {layer: stage.layer})}, stage.name)))
    const headers = data.layers.map((layer) => header(layer, data.density))
    page.byId("columns").replaceChildren(...stages, ...headers)
    page.headers = headers
    page.stages = stages
    page.byId("layer-names").replaceChildren(...data.layers.map((layer) => page.make("option", {value: layer.name})))
    if (model != null) place()
    mark_current()
  }

  /** Put headers and stage frames where their columns are now. */
  function place() {
    const data = page.parts.columns
    if (plot == null || data?.layers == null || page.headers == null) return
    page.headers.forEach((element, i) => {
      const layer = data.layers[i], [at, y] = to_screen(layer.center, layer.top)
      const above = layer.lane ? y - 18 : layer.header_y ?? Math.max(data.stages.length > 0 ? data.stage_top + 3 : 2, y - 44)
      element.hidden = at < -20 || at > plot.clientWidth + 20
      const half = element.offsetWidth / 2 + 3 // never cut off at the sides while in view
      const x = element.hidden ? at : clamp(at, half, plot.clientWidth - half)
      element.style.transform = `translate(-50%, 0) translate(${x.toFixed(1)}px, ${above.toFixed(1)}px)`
    })
    page.stages.forEach((element, i) => {
      const stage = data.stages[i], [left] = to_screen(stage.left, 0), [right] = to_screen(stage.right, 0)
      element.style.transform = `translate(${left.toFixed(1)}px, ${data.stage_top}px)`
      element.style.width = `${(right - left).toFixed(1)}px`
      const room = (right - left + 4) / stage.name.length // a title may hang over its frame a little
      element.firstChild.hidden = room < SMALL_TITLE_PX
      element.firstChild.dataset.small = room < TITLE_PX
      element.firstChild.title = `${stage.path} · double click to open or close`
      element.style.height = `${plot.clientHeight - data.stage_top - 8}px`
    })
  }

  function mark_current() {
    const current = page.parts.selection?.layer
    page.headers?.forEach((element, i) => element.setAttribute("data-current", i === current))
  }

  page.drawers.strokes = () => page.flow?.draw(false)
  page.drawers.numbers = () => page.network?.tell?.()

  page.drawers.selection = (data) => {
    choose(data.node)
    page.also = data.also
    page.company = data.company
    if (page.network != null) page.network.dirty = true
    page.refresh_tip()
    if (page.network != null) page.network.dirty = true
    mark_current()
    if (data.text) page.say(data.text)
  }

  /** Where the nodes of a layer are on the screen, for tests. */
  page.nodes = (name) => {
    const layer = page.parts.columns?.layers?.findIndex((one) => one.name == name) ?? -1
    const {sx, sy} = page.network?.rest ?? {sx: [], sy: []}, box = plot.getBoundingClientRect(), found = []
    for (let i = 0; i < sx.length; i++) {
      if (page.network.value("layer", i) != layer) continue
      const value = (column) => page.network.value(column, i)
      found.push({node: i, index: value("first"), last: value("last"), state: value("state"),
                  x: box.left + sx[i], y: box.top + sy[i]})
    }
    return found
  }
})()
