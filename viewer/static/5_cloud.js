/* A cloud of thumbnails: where each filter stands, its way there, and how it is painted.
 *
 * `page.shown` is what all clouds of the panel share. For tests: `cloud.at(id)` tells where a filter
 * is on the screen, `cloud.ids`, `cloud.picked()` what is shown and selected. */
(function () {
  "use strict"
  const page = window.revacnn
  const TWEEN_MS = 600, LAGGING_MS = 100, LEAST_MOVE = 2, STEPS = 24
  const ODD = ["", "dead", "not finite", "identical to another"] // why a filter stands aside
  const ZERO = {coefficients: "all zero", gradients: "without gradient", activation_gradients: "without gradient"}
  const shown = page.shown = {picked: [], picked_at: 0, hovered: null, lasso: false, sort: "activation", staged: new Set(), frozen: new Set()}

  const clamp = page.clamp = (value, low, high) => Math.min(high, Math.max(low, value))
  const ease = (t) => 1 - (1 - t) ** 3
  const light = () => document.documentElement.dataset.theme == "light"
  page.theme = () => page.themes[light() ? "light" : "dark"]

  class Cloud {
    constructor(name, canvas) {
      Object.assign(this, {name, canvas, ids: [], n: 0, scale: 1, shift: [0, 0], before: new Map(), data: {}})
      this.ctx = canvas.getContext("2d")
      this.measure()
      new ResizeObserver(() => {
        this.measure()
        this.draw()
      }).observe(canvas)
    }

    /** New arrays from the server: set out from where everything stands now. */
    take(data, model) {
      const now = this.positions()
      this.before = new Map(this.ids.map((id, i) => [id, now[i]]))
      const other_layer = data.layer != this.data.layer
      this.data = data
      this.ids = Array.from(data.ids ?? [])
      this.n = this.ids.length
      this.row = new Map(this.ids.map((id, i) => [id, i]))
      for (const name of ["places", "odd", "amp", "values"]) this[name] = data[name] ?? []
      if (model.atlas !== this.atlas) {
        this.atlas = model.atlas
        this.tiles = null // painted when they are first seen
      }
      if (other_layer) {
        this.before.clear()
        this.whole(false)
      }
      this.began = page.motion > 0 && page.lag < LAGGING_MS && this.moves() ? performance.now() : 0
      this.draw()
    }

    /** Whether any filter has a visible way to go from where it stood before. */
    moves() {
      return this.ids.some((id, i) => {
        const from = this.before.get(id), to = this.target(i)
        return from != null && Math.hypot(to[0] - from[0], to[1] - from[1]) > LEAST_MOVE
      })
    }

    size() {
      return this.extent
    }
    /** Asking the page for a size has it laid out: not to be done for every filter. */
    measure() {
      this.extent = [this.canvas.clientWidth, this.canvas.clientHeight]
    }

    /** The pixels of a thumbnail. */
    side() {
      const [width, height] = this.size()
      return clamp(0.56 * Math.min(width, height) / Math.sqrt(Math.max(1, this.n)), 6, 44) * this.scale ** 0.8
    }

    /** Height (px) of the row of the odd ones. */
    aside() {
      return this.odd?.some?.((reason) => reason > 0) ? 40 : 0
    }

    /** Where filter i is to stand, in pixels. */
    target(i) {
      const [width, height] = this.size(), margin = Math.min(26, this.side() / this.scale ** 0.8 / 2 + 3)
      const [x, y] = [this.places[2 * i], this.places[2 * i + 1]]
      if (this.odd[i] > 0) return [width / 2 + x * (width / 2 - 16), height - 14]
      const below = this.aside(), mid = (height - below) / 2
      const px = width / 2 + x * (width / 2 - margin), py = mid - y * (mid - margin)
      return [this.shift[0] + px * this.scale, this.shift[1] + py * this.scale]
    }

    /** Where all stand now, on their way from where they were. */
    positions() {
      const t = this.began ? ease(clamp((performance.now() - this.began) / TWEEN_MS, 0, 1)) : 1
      const all = new Array(this.n)
      for (let i = 0; i < this.n; i++) {
        const to = this.target(i), from = t < 1 ? this.before.get(this.ids[i]) : null
        all[i] = from == null || !isFinite(from[0]) ? to : [from[0] + (to[0] - from[0]) * t, from[1] + (to[1] - from[1]) * t]
      }
      if (t >= 1) this.began = 0
      return all
    }

    /** Centre of a filter in the window's pixels, for tests. */
    at(id) {
      const i = this.row?.get(id), box = this.canvas.getBoundingClientRect()
      if (i == null) return null
      const [x, y] = this.positions()[i]
      return [box.left + x, box.top + y]
    }
    picked() {
      return shown.picked
    }

    draw() {
      if (this._waiting || this.extent[0] == 0) return // hidden
      this._waiting = true
      requestAnimationFrame(() => {
        this._waiting = false
        this.paint(this.ctx, devicePixelRatio)
        if (this.began) requestAnimationFrame(() => this.draw()) // every other frame is enough
      })
    }

    paint(ctx, ratio) {
      const [width, height] = this.size()
      if (this.canvas.width != width * ratio || this.canvas.height != height * ratio) {
        this.canvas.width = width * ratio
        this.canvas.height = height * ratio
      }
      ctx.setTransform(ratio, 0, 0, ratio, 0, 0)
      ctx.clearRect(0, 0, width, height)
      this.tiles ??= page.paint_atlas(this.atlas, this.data.colouring)
      if (!this.n || this.tiles == null || this.tiles.n != this.n) return
      const at = this.positions()
      ctx.imageSmoothingEnabled = this.smooth()
      this.paint_aside(ctx, width, height)
      for (const item of this.items(at)) this.tile(ctx, item.i, item.at, item.side, item.mine)
      this.paint_over(ctx, at)
    }

    /** Whether thumbnails have so many pixels that these need not be told apart. */
    smooth() {
      return this.tiles.w > 12
    }

    /** All thumbnails in the order in which they are painted: selected and hovered ones on top. */
    items(at) {
      const side = this.side(), chosen = new Set(shown.picked), below = [], above = []
      for (let i = 0; i < this.n; i++) {
        if (!isFinite(at[i][0])) continue
        const mine = chosen.has(this.ids[i]), hovered = this.ids[i] === shown.hovered
        if (mine || hovered) {
          const large = Math.max(side * this.growth(hovered, chosen.size), Math.min(24, side * 3))
          above.push({i, at: this.inside(at[i], large), side: large, mine})
        } else below.push({i, at: at[i], side: this.odd[i] ? Math.min(side, 22) : side, mine})
      }
      return [...below, ...above]
    }

    /** Where an enlarged thumbnail is not cut off by the edge of the view. */
    inside([x, y], side) {
      const [width, height] = this.size(), half = side / 2 + 1.5
      if (x < 0 || y < 0 || x > width || y > height) return [x, y]
      return [clamp(x, half, Math.max(half, width - half)), clamp(y, half, Math.max(half, height - half))]
    }

    /** How much larger a hovered or selected thumbnail is than the others. */
    growth(is_hovered, n_selected) {
      return is_hovered ? 1.7 : n_selected > 6 ? 1.15 : 1.4
    }

    /** Left, top, width and height of a thumbnail of this longer side. */
    box([x, y], side) {
      const {w, h} = this.tiles
      const wide = w >= h ? side : side * w / h, high = w >= h ? side * h / w : side
      return [x - wide / 2, y - high / 2, wide, high]
    }

    /** Where on the canvas of `tiles` the picture of filter i lies. */
    source(i) {
      const {across, w, h} = this.tiles
      return [i % across * w, Math.floor(i / across) * h, w, h]
    }

    /** The border of a filter: staged, selected, frozen, else the magnitude of its gradient. */
    border(i, mine) {
      const theme = page.theme(), removed = shown.staged.has(this.ids[i]), frozen = shown.frozen.has(this.ids[i])
      const width = mine ? 2 : removed || frozen ? 1.5 : 1
      const colour = removed ? theme.staged : mine ? theme.chosen : frozen ? theme.frozen
        : theme.colours[Math.min(STEPS - 1, this.amp[i] * STEPS | 0)]
      return {width, colour, removed}
    }

    tile(ctx, i, at, side, mine = false) {
      const theme = page.theme(), [left, top, wide, high] = this.box(at, side)
      ctx.drawImage(this.tiles.canvas, ...this.source(i), left, top, wide, high)
      const {width, colour, removed} = this.border(i, mine)
      if (mine) { // seen on a picture of whatever colour
        ctx.lineWidth = width + 2.5
        ctx.strokeStyle = light() ? "#ffffff" : "#0b1220"
        ctx.strokeRect(left - 0.5, top - 0.5, wide + 1, high + 1)
      }
      ctx.lineWidth = width
      ctx.strokeStyle = colour
      ctx.strokeRect(left - 0.5, top - 0.5, wide + 1, high + 1)
      if (removed) {
        ctx.globalAlpha = 0.35
        ctx.fillStyle = theme.staged
        ctx.fillRect(left, top, wide, high)
        ctx.globalAlpha = 1
      }
    }

    /** The line above the odd ones, and how many there are of which kind. */
    paint_aside(ctx, width, height) {
      if (!this.aside()) return
      const style = getComputedStyle(document.documentElement)
      ctx.strokeStyle = style.getPropertyValue("--line")
      ctx.lineWidth = 1
      ctx.beginPath()
      ctx.moveTo(4, height - 40.5)
      ctx.lineTo(width - 4, height - 40.5)
      ctx.stroke()
      ctx.fillStyle = style.getPropertyValue("--muted")
      ctx.font = `10px ${style.getPropertyValue("--font")}`
      ctx.textAlign = "right"
      ctx.fillText(this.aside_words(), width - 6, height - 30)
    }

    /** How many filters stand aside, by reason. */
    aside_words() {
      const counts = [0, 0, 0, 0]
      for (const reason of this.odd) counts[reason] += 1
      return [1, 2, 3].filter((k) => counts[k]).map((k) => `${counts[k]} ${k == 3 ? "identical" : this.odd_word(k)}`).join(" · ")
    }

    /** A reason for which filters stand aside, in words; what is zero here need not be dead. */
    odd_word(reason) {
      return reason == 1 && ZERO[this.name] || ODD[reason]
    }
  }

  page.Cloud = Cloud
})()
