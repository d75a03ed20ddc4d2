/* The network view drawn with Bokeh's own glyphs, where ours cannot be used, or with ?plain=1.
 *
 * Stands in for the view of the moving nodes (`page.network`) and that of the paths (`page.flow`):
 * the same handles, made of the models' columns alone. The columns are written in place. */
(function () {
  "use strict"
  const page = window.revacnn
  const STEP_MS = 66 // Bokeh maps and indexes all nodes at every step
  const STEPS = 24, STATE = {normal: 0, dead: 1, fresh: 2, staged: 3, together: 4, frozen: 5, absent: 6}
  const RAMPS = {dark: ["#3e4e6a", "#6e5f6e", "#d6782c", "#fbb040", "#fff0cd"], light: ["#b0bcce", "#c4a082", "#de7826", "#c8500a", "#781e00"]}
  const MARKS = {dark: {dead: "#4b5a73", fresh: "#34d399", staged: "#f43f5e", frozen: "#7dd3fc", chosen: "#ffffff", path: "#5cb8ff"},
                 light: {dead: "#aab4c4", fresh: "#0f8a5f", staged: "#c81e43", frozen: "#0284c7", chosen: "#0f172a", path: "#1f6fb8"}}
  const theme = () => document.documentElement.dataset.theme == "light" ? "light" : "dark"

  function ramp(stops) {
    const part = (stop, c) => parseInt(stop.slice(1 + 2 * c, 3 + 2 * c), 16)
    return Array.from({length: STEPS}, (_, k) => {
      const at = k / (STEPS - 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2), share = at - low
      return `rgb(${[0, 1, 2].map((c) => Math.round(part(stops[low], c) * (1 - share) + part(stops[low + 1], c) * share))})`
    })
  }
  const colours = {dark: ramp(RAMPS.dark), light: ramp(RAMPS.light)}
  page.themes ??= Object.fromEntries(Object.keys(MARKS).map((name) => [name,
    {...MARKS[name], colours: colours[name], hover: name == "light" ? "rgba(15,23,42,.5)" : "rgba(255,255,255,.55)"}]))

  const model = (name) => Bokeh.documents[0].get_model_by_name(name)
  const column = (source, name) => source.data instanceof Map ? source.data.get(name) : source.data[name]
  const told = (part, name, n) => page.parts[part]?.[name]?.length == n ? page.parts[part] : {}

  class PlainNodes {
    constructor(plot, fixed, source) {
      Object.assign(this, {plot, fixed, source, dirty: true})
      this.renderer = {plot_view: {request_paint: () => { this.dirty = true }}}
      const loop = () => {
        page.frames += 1
        requestAnimationFrame(loop)
      }
      requestAnimationFrame(loop)
      setInterval(() => this.step(), STEP_MS)
    }

    /** Where the nodes are on the screen, at rest. */
    get rest() {
      const {x_range: x, y_range: y} = this.plot, box = page.byId("plot")
      const at = (value, from, to, length) => (value - from) / (to - from) * length
      const sx = Float32Array.from(column(this.fixed, "x"), (v) => at(v, x.start, x.end, box.clientWidth))
      const sy = Float32Array.from(column(this.fixed, "y"), (v) => at(v, y.end, y.start, box.clientHeight))
      const size = column(this.fixed, "size")
      return {sx, sy, size: {get: (i) => size[i]}}
    }

    value(name, i) {
      return (page.parts.numbers?.[name] ?? column(this.fixed, name))?.[i]
    }

    hit(x, y) {
      const {sx, sy, size} = this.rest, bar = column(this.fixed, "bar")
      let best = -1, nearest = Infinity
      for (let i = 0; i < sx.length; i++) {
        const dx = Math.abs(sx[i] - x), dy = Math.abs(sy[i] - y)
        if (dx > Math.max(bar[i], size.get(i)) / 2 + 4 || dy > size.get(i) / 2 + 3) continue
        const distance = bar[i] > 0 ? dy : dx * dx + dy * dy
        if (distance < nearest) [best, nearest] = [i, distance]
      }
      return best
    }

    /** Move and colour every node. */
    step() {
      const numbers = page.parts.numbers
      const moving = page.motion > 0 && !page.still && !document.hidden
      if (!moving && !this.dirty && numbers === this.numbers) return
      this.dirty = false
      this.numbers = numbers
      const x = column(this.source, "x"), y = column(this.source, "y"), n = x?.length ?? 0
      const {amp, state} = told("numbers", "amp", n)
      if (amp == null || column(this.fixed, "x").length != n) return
      const rest_x = column(this.fixed, "x"), rest_y = column(this.fixed, "y"), phase = column(this.fixed, "phase")
      const bar = column(this.fixed, "bar"), size = column(this.fixed, "size"), t = performance.now() / 1000
      for (let i = 0; i < n; i++) {
        const reach = moving ? page.motion * amp[i] * (bar[i] > 0 ? Math.min(6, 0.4 * bar[i]) : Math.max(1.2, size[i] * 0.375)) : 0
        x[i] = rest_x[i] + reach * Math.sin(23 * t + phase[i])
        y[i] = rest_y[i] + (bar[i] > 0 ? 0 : reach * Math.cos(27 * t + 1.7 * phase[i]))
      }
      this.colour(amp, state, n)
      this.source.change.emit()
    }

    colour(amp, state, n) {
      const [fill, line, alpha, line_alpha, width] = ["color", "line", "alpha", "line_alpha", "line_width"].map((name) => column(this.source, name))
      const marks = MARKS[theme()], steps = colours[theme()], company = new Set([...(page.company ?? []), ...(page.also ?? [])])
      const of = {[STATE.fresh]: marks.fresh, [STATE.staged]: marks.staged, [STATE.together]: marks.staged}
      for (let i = 0; i < n; i++) {
        const gone = state[i] == STATE.absent, dead = state[i] == STATE.dead, ringed = i == page.chosen || i == page.hovered || company.has(i)
        fill[i] = of[state[i]] ?? steps[Math.min(STEPS - 1, amp[i] * STEPS | 0)]
        line[i] = ringed ? marks.chosen : dead ? marks.dead : marks.frozen
        alpha[i] = gone || dead ? 0 : state[i] == STATE.together ? 0.4 : 1
        line_alpha[i] = gone ? 0 : ringed || dead || state[i] == STATE.frozen ? 1 : 0
        width[i] = i == page.chosen ? 2.5 : 1.2
      }
    }
  }

  class PlainPaths {
    constructor(fixed, source) {
      Object.assign(this, {fixed, source})
      source.properties.data.change.connect(() => this.draw()) // laid out anew
    }

    draw() {
      const [colour, alpha, width] = ["color", "line_alpha", "line_width"].map((name) => column(this.source, name))
      const n = alpha?.length ?? 0, {weight, staged} = told("strokes", "weight", n), marks = MARKS[theme()]
      const first = column(this.fixed, "first"), last = column(this.fixed, "last")
      if (weight == null || first.length != n) return
      for (let i = 0; i < n; i++) {
        const chosen = first[i] <= page.chosen && page.chosen <= last[i]
        colour[i] = chosen ? marks.chosen : staged[i] ? marks.staged : marks.path
        alpha[i] = chosen || staged[i] ? 1 : 0.15 + 0.45 * weight[i]
        width[i] = (chosen ? 1 : 0.4) + 3.4 * weight[i] * weight[i]
      }
      page.paths_drawn += 1
      this.source.change.emit()
    }
  }

  /** Begin, once Bokeh has made the models. */
  page.begin_plain = () => {
    const plot = Bokeh.documents[0]?.get_model_by_name("network")
    if (plot == null) {
      setTimeout(page.begin_plain, 50)
      return
    }
    page.motion ??= 1
    Object.assign(page, {frames: page.frames ?? 0, paths_drawn: page.paths_drawn ?? 0})
    page.network = new PlainNodes(plot, model("network_nodes"), model("plain_nodes"))
    page.flow = new PlainPaths(model("network_paths"), model("plain_paths"))
    page.attach()
    page.flow.draw()
  }
})()
