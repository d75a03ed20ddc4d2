/* The link between page and server, and the drawing of the network view. Written by hand for
 * Bokeh 3.9: no TypeScript, no node, no bundler; Bokeh serves this file after its own.
 * Private names of Bokeh used here are listed in viewer/bokeh_compat.py. */
(function () {
  "use strict"
  const {Model} = Bokeh.require("model")
  const {ModelEvent} = Bokeh.require("core/bokeh_events")
  const {register_models} = Bokeh.require("base")
  const page = window.revacnn ??= {}

  /* -------------------------------------------------------------------- page <-> server links */

  class Command extends ModelEvent {
    constructor(command, args) {
      super()
      this.command = command
      this.args = args
    }
    get event_values() {
      return {...super.event_values, command: this.command, args: this.args}
    }
    static {
      this.prototype.event_name = "revacnn_command"
    }
  }

  class PageLink extends Model {
    static __module__ = "revacnn_glyphs"
    static __name__ = "PageLink"
    static {
      this.define(({Any, Bool, Int, Str}) => ({
        plain: [Bool, false],
        frame: [Any, null],
        seen: [Int, -1],
        visible: [Bool, true],
        theme: [Str, "dark"],
        width: [Int, 0],
        height: [Int, 0],
      }))
    }
    initialize() {
      super.initialize()
      page.link = this
      this._sent = 0
      this._take()
      if (this.plain) page.begin_plain?.()
      const channel = new MessageChannel(), painted = []
      channel.port1.onmessage = () => painted.shift()()
      this.connect(this.properties.frame.change, () => {
        const known = this._sent, received = Date.now()
        this._take()
        if (this._sent == known) return // a chart, or in answer to a command: of no credit
        const {_sent: sent, _stamps: stamps} = this
        page.on_sent?.()
        requestAnimationFrame(() => {
          painted.push(() => this._painted(sent, stamps, received))
          channel.port2.postMessage(null) // after this frame is painted
        })
      })
    }
    /** The page is painted; the nodes are drawn in their own time, which may have been before. Painted, not merely
     * received: an answer is the credit for the next frame. */
    _painted(sent, stamps, received) {
      const at = Date.now(), {nodes} = page.network ?? {}
      const done = () => {
        this.seen = sent
        page.on_painted?.(stamps, received, Math.max(at, nodes?.drawn_at ?? 0))
      }
      if (nodes == null) done()
      else nodes.when_drawn(done)
    }
    /** Hand every part of the page what is new of it. */
    _take() {
      if (this.frame == null) return
      const {parts, sent, stamps} = unpack(this.frame)
      for (const {part, data, atlas} of parts) page.draw?.(part, data, atlas)
      if (sent == this._sent) return
      this._sent = sent
      this._stamps = stamps
    }
    /** The first frame has been drawn, and the server may be told. */
    begin() {
      this.seen = this._sent
    }
    command(name, args = {}) {
      this.trigger_event(new Command(name, args))
    }
  }

  /* A frame, as viewer/rendering/frame_codec.py packs it. The arrays are views of its bytes. */
  const TYPES = {f4: Float32Array, f8: Float64Array, u1: Uint8Array, i4: Int32Array}

  function unpack(bytes) {
    const length = new DataView(bytes).getUint32(0, true), begin = 4 + length
    const head = new TextDecoder().decode(new Uint8Array(bytes, 4, length))
    return JSON.parse(head, (_, value) => {
      if (value?.$array == null) return value
      const [type, from, shape] = value.$array, size = shape.reduce((n, of) => n * of, 1)
      return Object.assign(new TYPES[type](bytes, begin + from, size), {shape})
    })
  }

  register_models({PageLink})
})()

/* A Bokeh in which this cannot be drawn gets the plain drawing: see static/2_plain.js. */
try {
  draw_network()
} catch (error) {
  console.warn("The network is drawn plainly:", error)
}

function draw_network() {
  "use strict"
  const {Scatter, ScatterView} = Bokeh.require("models/glyphs/scatter")
  const {register_models} = Bokeh.require("base")
  const page = window.revacnn ??= {}
  Object.assign(page, {motion: page.motion ?? 1, frames: 0, paths_drawn: 0})

  const STEPS = 24
  const THEMES = {
    dark: {
      ramp: [[62, 78, 106], [110, 95, 110], [214, 120, 44], [251, 176, 64], [255, 240, 205]],
      dead: "#4b5a73", fresh: "#34d399", staged: "#f43f5e", frozen: "#7dd3fc", chosen: "#ffffff",
      hover: "rgba(255,255,255,.55)",
    },
    light: {
      ramp: [[176, 188, 206], [196, 160, 130], [222, 120, 38], [200, 80, 10], [120, 30, 0]],
      dead: "#aab4c4", fresh: "#0f8a5f", staged: "#c81e43", frozen: "#0284c7", chosen: "#0f172a",
      hover: "rgba(15,23,42,.5)",
    },
  }
  for (const theme of Object.values(THEMES)) theme.colours = ramp(theme.ramp)
  page.themes = THEMES

  function ramp(stops) {
    return Array.from({length: STEPS}, (_, k) => {
      const at = k / (STEPS - 1) * (stops.length - 1)
      const low = Math.min(Math.floor(at), stops.length - 2), share = at - low
      const mix = (c) => Math.round(stops[low][c] * (1 - share) + stops[low + 1][c] * share)
      return `rgb(${mix(0)},${mix(1)},${mix(2)})`
    })
  }

  /** Nodes stand still where the person wants it so, and while nothing is being trained. */
  const moving = () => page.motion > 0 && !page.still

  const theme_name = () => document.documentElement.dataset.theme == "light" ? "light" : "dark"

  function column(view, name) {
    const {data} = view.renderer.data_source.get_value()
    return data instanceof Map ? data.get(name) : data[name]
  }

  function layer_over(element) {
    const canvas = document.createElement("canvas")
    canvas.style.cssText = "position:absolute;left:0;top:0;width:100%;height:100%"
    element.append(canvas)
    return canvas
  }

  /** What changes with every snapshot, as the page was told last; none of another layout. */
  const NOTHING = {}, NONE = []
  function told(part, name, length) {
    const numbers = page.parts?.[part] ?? NOTHING
    return numbers[name]?.length == length ? numbers : NOTHING
  }

  /* ------------------------------------------------------------------------------- the nodes */

  /** The nodes lie on a canvas of their own, above Bokeh's, which `static/2_nodes.js` draws. */
  class JitterScatterView extends ScatterView {
    connect_signals() {
      super.connect_signals()
      if (this.model !== this.renderer.model.glyph) return // a view for selection or hovering
      page.network = this
      this._told = {}
      const loop = () => {
        if (this._removed) return
        page.frames += 1
        this.tell()
        this._frame = requestAnimationFrame(loop)
      }
      this._frame = requestAnimationFrame(loop)
      page.attach?.()
    }

    remove() {
      this._removed = true
      cancelAnimationFrame(this._frame)
      this.nodes?.remove()
      super.remove()
    }

    /** When the network was laid out anew, nodes set out from where they were, by their keys. */
    _tween() {
      const keys = column(this, "key"), known = this._keys
      this._keys = keys
      if (known == null || keys === known || this.rest == null || page.motion == 0) return null
      const {sx: from_x, sy: from_y, size} = this.rest, now = new Set(keys), before = new Map(), gone = []
      for (let i = 0; i < known.length; i++) {
        before.set(known[i], i)
        if (!now.has(known[i]) && gone.length < 512) gone.push([from_x[i], from_y[i], size.get(i)])
      }
      if (gone.length >= known.length) return null // none stays
      const at = (values) => Float32Array.from(keys, (key) => before.has(key) ? values(before.get(key)) : NaN)
      return {x: at((i) => from_x[i]), y: at((i) => from_y[i]), size: at((i) => size.get(i)), gone}
    }

    /** Amplitude and state of every node; all still and normal before the first numbers. */
    _numbers(n) {
      const {amp, state} = told("numbers", "amp", n)
      if (amp != null) return {amp, state}
      if (this._still?.length != n) this._still = new Uint8Array(n)
      return {amp: this._still, state: this._still}
    }

    /** Bokeh has mapped the places. */
    _paint(_ctx, _indices, data) {
      const {sx, sy, size} = {...this, ...data}, {canvas_view} = this.renderer.plot_view
      const {width, height} = canvas_view.bbox, zoom = this._zoom()
      const key = [sx, sy, width, height, zoom]
      if (this._key?.every((value, i) => value === key[i])) return
      this._key = key
      const tween = this._tween()
      this.rest = {sx, sy, size}
      this.nodes ??= new page.Nodes(layer_over(canvas_view.overlays_el))
      this.tell({
        width, height, zoom, tween, ratio: canvas_view.pixel_ratio, x: new Float32Array(sx), y: new Float32Array(sy),
        size: Float32Array.from(sx, (_, i) => size.get(i)), bar: column(this, "bar"), phase: column(this, "phase"),
      })
    }

    /** Have drawn what has changed since it was told last; with new places, all in one piece. */
    tell(news = {}) {
      if (this.nodes == null) return
      const n = column(this, "x").length
      if (n != this.rest.sx.length) { // laid out anew, which Bokeh is going to paint
        if (n == 0) this._empty()
        return
      }
      for (const [name, value] of Object.entries(this._look(n))) {
        if (value === this._told[name]) continue
        this._told[name] = value
        news[name] = ArrayBuffer.isView(value) ? value.slice() : value // not all of the frame it lies in
      }
      if (Object.keys(news).length > 0) this.nodes.tell(news)
    }

    _look(n) {
      return {
        ...this._numbers(n), theme: THEMES[theme_name()], motion: moving() ? page.motion : 0,
        chosen: page.chosen, hovered: page.hovered, also: page.also ?? NONE, company: page.company ?? NONE,
      }
    }

    /** There is no network any more; Bokeh does not paint what is empty. */
    _empty() {
      this.rest = {sx: [], sy: [], size: {get: () => 0}}
      this._key = this._keys = null
      const none = new Float32Array(0)
      this.nodes.tell({x: none, y: none, size: none, bar: none, phase: none, amp: none, state: none, tween: null})
    }

    /** Nodes grow with zooming in, half as fast as the distances between them. */
    _zoom() {
      const {x_range} = this.renderer.plot_view.model
      const {width} = this.renderer.plot_view.frame.bbox
      return Math.max(1, width / Math.abs(x_range.end - x_range.start)) ** 0.85
    }

    /** The node under a point of the plot (px), -1 if none is near. */
    hit(x, y) {
      if (this.rest == null) return -1
      const {sx, sy, size} = this.rest, bar = column(this, "bar"), zoom = this._zoom()
      let best = -1, nearest = Infinity
      for (let i = 0; i < sx.length; i++) {
        const across = Math.max(bar[i] / 2 * zoom, size.get(i) / 2 * zoom) + 4
        const down = size.get(i) / 2 * zoom + 3
        const dx = Math.abs(sx[i] - x), dy = Math.abs(sy[i] - y)
        if (dx > across || dy > down) continue
        const distance = bar[i] > 0 ? dy : dx * dx + dy * dy
        if (distance < nearest) [best, nearest] = [i, distance]
      }
      return best
    }

    /** A value of node i. */
    value(name, i) {
      return (page.parts.numbers?.[name] ?? column(this, name))?.[i]
    }
  }

  class JitterScatter extends Scatter {
    static __module__ = "revacnn_glyphs"
    static __name__ = "JitterScatter"
    static {
      this.prototype.default_view = JitterScatterView
    }
  }

  /* ------------------------------------------------------------------------------- the paths */

  /** The paths lie on a canvas of their own, below Bokeh's, which `static/2_paths.js` draws. */
  class FlowPathsView extends ScatterView {
    _start() {
      page.flow = this
      this.paths = new page.Paths(layer_over(this.renderer.plot_view.canvas_view.underlays_el))
    }

    /** Have the paths drawn as they are now; with their places, where those are new. New weights alone need not be shown
     * as a whole. */
    draw(whole = true) {
      if (this._place == null) return
      const news = {...(this._placed ? {} : this._place), ...this._look(), left: Infinity}
      this.paths.tell(whole || !this._placed ? {...news, whole: true} : news)
      this._placed = true
      this.paths.when_drawn(() => page.paths_drawn += 1)
    }

    /** Thickness and marks: 2 staged, 1 of the selected node. */
    _look() {
      const n = this._place.x.length, {weight, staged} = told("strokes", "weight", n)
      const first = column(this, "first"), last = column(this, "last"), mark = new Uint8Array(n)
      for (let i = 0; i < n; i++) {
        mark[i] = first[i] <= page.chosen && page.chosen <= last[i] ? 1 : staged?.[i] ? 2 : 0
      }
      return {mark, weight: weight ?? new Float32Array(n), light: theme_name() == "light", ...this._starts(mark)}
    }

    /** Those of the selected node begin at it, not amid all that they stand for. */
    _starts(mark) {
      const marked = mark.includes(1)
      if (!marked && !this._moved) return {}
      this._moved = marked
      const x = this._place.x.slice(), y = this._place.y.slice(), {xscale, yscale} = this.renderer
      const at = ["x", "y"].map((name) => page.network?.value(name, page.chosen))
      for (let i = 0; marked && at[0] != null && i < mark.length; i++) {
        if (mark[i] == 1) [x[i], y[i]] = [xscale.compute(at[0]), yscale.compute(at[1])]
      }
      return {x, y}
    }

    remove() {
      this.paths?.remove()
      super.remove()
    }

    /** Bokeh has mapped the places: paths are drawn when those, or the theme, have changed. */
    _paint(_ctx, _indices, data) {
      if (this.paths == null) this._start()
      const {sx, sy, size} = {...this, ...data}
      const {plot_view, xscale, yscale} = this.renderer
      const {canvas_view, frame} = plot_view, {x_range, y_range} = plot_view.model
      const {width, height} = canvas_view.bbox
      const key = [column(this, "x1"), width, height, theme_name(), x_range.start, x_range.end,
                   y_range.start, y_range.end]
      if (this._key != null && key.every((value, i) => value === this._key[i])) return
      this._key = key
      this._placed = false
      this._place = {
        width, height,
        scale: sx.length > 0 ? size.get(0) : 1,
        ratio: canvas_view.pixel_ratio,
        zoom: frame.bbox.width / Math.abs(x_range.end - x_range.start),
        x: new Float32Array(sx),
        y: new Float32Array(sy),
        x1: new Float32Array(xscale.v_compute(column(this, "x1"))),
        y1: new Float32Array(yscale.v_compute(column(this, "y1"))),
        middle: yscale.compute((y_range.start + y_range.end) / 2),
        box: [frame.bbox.x, frame.bbox.y, frame.bbox.width, frame.bbox.height],
      }
      this.draw()
    }
  }

  class FlowPaths extends Scatter {
    static __module__ = "revacnn_glyphs"
    static __name__ = "FlowPaths"
    static {
      this.prototype.default_view = FlowPathsView
    }
  }

  register_models({JitterScatter, FlowPaths})
}
