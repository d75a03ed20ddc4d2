/* The panel of a layer: four views of thumbnails, the grid of maps, the input image.
 *
 * For tests: `revacnn.views[name]` are the clouds; `cloud.at(id)` tells where a filter is on the
 * screen, `cloud.ids`, `cloud.picked()` what is shown and selected. Names are coefficients, gradients,
 * activations, activation_gradients and maps. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make} = page
  const TWEEN_MS = 600, RESORT_MS = 4000, LEAST_MOVE = 2, STEPS = 24, NEAR = 4, ODD = ["", "dead", "not finite", "identical to another"]
  const views = page.views = {}
  let picked = [], picked_at = 0, hovered = null, lasso = false, sort = "activation"

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value))
  const ease = (t) => 1 - (1 - t) ** 3
  const light = () => document.documentElement.dataset.theme == "light"
  const short = (value) => value == null || !isFinite(value) ? "–"
    : value == 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toPrecision(3)

  /* --------------------------------------------------------------------------------- colours */

  /* Stops of the ramps, level 0 to 255. In both themes pictures are seen on their own ground. */
  const RAMPS = {
    grey: [[14, 17, 23], [126, 128, 132], [246, 247, 250]],
    warm: [[32, 22, 56], [120, 84, 110], [134, 132, 136], [226, 150, 70], [255, 236, 196]],
    blue: [[6, 12, 24], [20, 58, 110], [52, 130, 210], [150, 208, 255], [244, 250, 255]],
    diverging: [[64, 160, 255], [24, 62, 116], [10, 14, 24], [140, 74, 14], [255, 176, 66]],
  }
  const tables = {}
  for (const [name, stops] of Object.entries(RAMPS)) {
    const table = tables[name] = new Uint8ClampedArray(3 * 256)
    for (let level = 0; level < 256; level++) {
      const at = level / 255 * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at)), part = at - low
      for (let c = 0; c < 3; c++) table[3 * level + c] = stops[low][c] * (1 - part) + stops[low + 1][c] * part
    }
  }

  /** All tiles of an atlas side by side on one canvas. */
  function paint_atlas(atlas, colouring) {
    const [n, h, w] = atlas?.shape ?? [0]
    if (!n) return null
    const across = Math.ceil(Math.sqrt(n)), canvas = document.createElement("canvas")
    canvas.width = across * w
    canvas.height = Math.ceil(n / across) * h
    const ctx = canvas.getContext("2d"), picture = ctx.createImageData(canvas.width, canvas.height)
    const out = picture.data, rgb = atlas.shape.length == 4, table = tables[colouring] ?? tables.grey
    let from = 0
    for (let i = 0; i < n; i++) {
      const x0 = i % across * w, y0 = Math.floor(i / across) * h
      for (let y = 0; y < h; y++) {
        let to = 4 * ((y0 + y) * canvas.width + x0)
        for (let x = 0; x < w; x++, to += 4) {
          if (rgb) for (let c = 0; c < 3; c++) out[to + c] = atlas[from++]
          else {
            const level = 3 * atlas[from++]
            for (let c = 0; c < 3; c++) out[to + c] = table[level + c]
          }
          out[to + 3] = 255
        }
      }
    }
    ctx.putImageData(picture, 0, 0)
    return {canvas, across, w, h, n}
  }

  /* ---------------------------------------------------------------------------------- clouds */

  class Cloud {
    constructor(name, canvas) {
      Object.assign(this, {name, canvas, ids: [], n: 0, scale: 1, shift: [0, 0], before: new Map(), data: {}})
      this.ctx = canvas.getContext("2d")
      new ResizeObserver(() => this.draw()).observe(canvas)
      canvas.addEventListener("pointermove", (event) => this.on_move(event))
      canvas.addEventListener("pointerleave", () => this.hover(null))
      canvas.addEventListener("pointerdown", (event) => this.on_down(event))
      canvas.addEventListener("pointerup", (event) => this.on_up(event))
      canvas.addEventListener("pointercancel", () => this.cancel())
      canvas.addEventListener("wheel", (event) => this.on_wheel(event), {passive: false})
      canvas.addEventListener("dblclick", () => this.whole())
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
      this.began = page.motion > 0 && this.moves() ? performance.now() : 0
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
      const {clientWidth: width, clientHeight: height} = this.canvas
      return [width, height]
    }

    /** The pixels of a thumbnail. */
    side() {
      const [width, height] = this.size()
      return clamp(0.62 * Math.min(width, height) / Math.sqrt(Math.max(1, this.n)), 6, 44) * this.scale ** 0.8
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
      return picked
    }

    draw() {
      if (this._waiting || this.canvas.offsetParent == null) return
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
      this.tiles ??= paint_atlas(this.atlas, this.data.colouring)
      if (!this.n || this.tiles == null || this.tiles.n != this.n) return
      const at = this.positions(), side = this.side(), chosen = new Set(picked), last = []
      ctx.imageSmoothingEnabled = this.tiles.w > 12
      this.paint_aside(ctx, width, height)
      for (let i = 0; i < this.n; i++) {
        if (!isFinite(at[i][0])) continue
        if (chosen.has(this.ids[i]) || this.ids[i] === hovered) last.push(i)
        else this.tile(ctx, i, at[i], this.odd[i] ? Math.min(side, 22) : side)
      }
      for (const i of last) {
        const mine = chosen.has(this.ids[i]), grow = this.growth(this.ids[i] === hovered, chosen.size)
        this.tile(ctx, i, at[i], Math.max(side * grow, Math.min(24, side * 3)), mine)
      }
      this.paint_drag(ctx, at)
    }

    /** How much larger a hovered or selected thumbnail is than the others. */
    growth(is_hovered, n_selected) {
      return is_hovered ? 1.7 : n_selected > 6 ? 1.15 : 1.4
    }

    tile(ctx, i, [x, y], side, mine = false) {
      const {canvas, across, w, h} = this.tiles, theme = page.themes[light() ? "light" : "dark"]
      const wide = w >= h ? side : side * w / h, high = w >= h ? side * h / w : side
      const left = x - wide / 2, top = y - high / 2
      ctx.drawImage(canvas, i % across * w, Math.floor(i / across) * h, w, h, left, top, wide, high)
      const removed = staged.has(this.ids[i]), id_frozen = frozen.has(this.ids[i])
      ctx.lineWidth = mine ? 2 : removed || id_frozen ? 1.5 : 1
      ctx.strokeStyle = removed ? theme.staged : mine ? theme.chosen : id_frozen ? theme.frozen
        : theme.colours[Math.min(STEPS - 1, this.amp[i] * STEPS | 0)]
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
      const style = getComputedStyle(document.documentElement), counts = [0, 0, 0, 0]
      for (const reason of this.odd) counts[reason] += 1
      const words = [1, 2, 3].filter((k) => counts[k]).map((k) => `${counts[k]} ${k == 3 ? "identical" : ODD[k]}`)
      ctx.strokeStyle = style.getPropertyValue("--line")
      ctx.lineWidth = 1
      ctx.beginPath()
      ctx.moveTo(4, height - 40.5)
      ctx.lineTo(width - 4, height - 40.5)
      ctx.stroke()
      ctx.fillStyle = style.getPropertyValue("--muted")
      ctx.font = `10px ${style.getPropertyValue("--font")}`
      ctx.textAlign = "right"
      ctx.fillText(words.join(" · "), width - 6, height - 30)
    }

    /* Zooming: the wheel, about the pointer. */
    on_wheel(event) {
      event.preventDefault()
      const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top
      const scale = clamp(this.scale * Math.exp(-event.deltaY * 0.0016), 1, 24), part = scale / this.scale
      const [width, height] = this.size()
      this.shift = [clamp(x - (x - this.shift[0]) * part, width * (1 - scale), 0),
                    clamp(y - (y - this.shift[1]) * part, height * (1 - scale), 0)]
      this.scale = scale
      this.draw()
    }
    whole(draw = true) {
      this.scale = 1
      this.shift = [0, 0]
      if (draw) this.draw()
    }

    /* Pointing */
    hit(event) {
      const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top
      const at = this.positions(), half = Math.max(5, this.side() / 2)
      let best = -1, nearest = Infinity
      for (let i = 0; i < this.n; i++) {
        const dx = at[i][0] - x, dy = at[i][1] - y, distance = dx * dx + dy * dy
        if (Math.max(Math.abs(dx), Math.abs(dy)) <= half && distance < nearest) [best, nearest] = [i, distance]
      }
      return best
    }

    on_down(event) {
      if (event.button != 0) return
      const i = this.hit(event), box = this.canvas.getBoundingClientRect()
      const from = [event.clientX - box.left, event.clientY - box.top]
      const moves = this.name == "coefficients" && i >= 0 && this.odd[i] == 0
      this.drag = {from, to: from, path: [from], i, kind: moves ? "set" : "select", moved: false}
      this.canvas.setPointerCapture(event.pointerId)
      page.drag = this
    }

    on_move(event) {
      if (this.drag == null) {
        const i = this.hit(event)
        this.canvas.style.cursor = i >= 0 ? "pointer" : "crosshair"
        this.hover(i >= 0 ? i : null, event)
        return
      }
      const box = this.canvas.getBoundingClientRect()
      this.drag.to = [event.clientX - box.left, event.clientY - box.top]
      this.drag.path.push(this.drag.to)
      const [dx, dy] = [this.drag.to[0] - this.drag.from[0], this.drag.to[1] - this.drag.from[1]]
      if (!this.drag.moved && Math.hypot(dx, dy) < 5) return
      this.drag.moved = true
      this.hover(null)
      this.draw()
    }

    on_up(event) {
      const {drag} = this
      this.drag = page.drag = null
      if (drag == null) return
      const adding = event.shiftKey || event.ctrlKey || event.metaKey
      if (!drag.moved) {
        if (drag.i >= 0) this.click(this.ids[drag.i], adding)
      } else if (drag.kind == "set") this.drop(drag)
      else this.enclose(drag, adding)
      this.draw()
    }

    cancel() {
      this.drag = page.drag = null
      this.draw()
    }

    click(id, adding) {
      if (!adding) pick([id])
      else pick(picked.includes(id) ? picked.filter((other) => other != id) : [id, ...picked])
    }

    /** Select what lies in the box or the lasso. */
    enclose(drag, adding) {
      const inside = lasso ? in_path(drag.path) : in_box(drag.from, drag.to), at = this.positions()
      const ids = this.ids.filter((_, i) => inside(at[i]))
      if (ids.length || adding) pick(adding ? [...new Set([...picked, ...ids])] : ids)
    }

    /** The nearest to a point, with weights of inverse distance. */
    nearest([x, y], but) {
      const at = this.positions()
      return this.ids.map((id, i) => ({id, i, distance: Math.hypot(at[i][0] - x, at[i][1] - y)}))
        .filter((one) => one.i != but && this.odd[one.i] == 0 && isFinite(one.distance))
        .sort((a, b) => a.distance - b.distance).slice(0, NEAR)
        .map((one) => ({...one, weight: 1 / (one.distance + 2)}))
    }

    /** A filter was dropped: stage it to become the mean of those around it. */
    drop(drag) {
      const [width, height] = this.size(), [x, y] = drag.to
      if (x < 0 || y < 0 || x > width || y > height) return
      const near = this.nearest(drag.to, drag.i)
      if (!near.length) return
      const total = near.reduce((sum, one) => sum + one.weight, 0)
      const id = this.ids[drag.i]
      pick([id])
      page.send("stage_set", {ids: [id, ...near.map((one) => one.id)], weights: near.map((one) => one.weight / total)})
    }

    paint_drag(ctx, at) {
      const {drag} = this
      if (drag == null || !drag.moved) return
      const theme = page.themes[light() ? "light" : "dark"]
      ctx.strokeStyle = theme.chosen
      ctx.fillStyle = theme.hover
      ctx.lineWidth = 1
      ctx.beginPath()
      if (drag.kind == "set") {
        for (const one of this.nearest(drag.to, drag.i)) {
          ctx.moveTo(...drag.to)
          ctx.lineTo(...at[one.i])
        }
        ctx.stroke()
        for (const one of this.nearest(drag.to, drag.i)) this.tile(ctx, one.i, at[one.i], this.side() * 1.25, true)
        this.tile(ctx, drag.i, drag.to, this.side() * 1.55, true)
        return
      }
      if (lasso) drag.path.forEach((point, k) => k ? ctx.lineTo(...point) : ctx.moveTo(...point))
      else ctx.rect(...drag.from, drag.to[0] - drag.from[0], drag.to[1] - drag.from[1])
      ctx.globalAlpha = 0.16
      ctx.fill()
      ctx.globalAlpha = 0.9
      ctx.stroke()
      ctx.globalAlpha = 1
    }

    hover(i, event) {
      const id = i == null ? null : this.ids[i]
      if (id !== hovered) {
        hovered = id
        draw_all()
      }
      const tip = byId("tip")
      if (i == null) {
        if (tip.dataset.of == "layer") {
          tip.hidden = true
          delete tip.dataset.of
        }
        return
      }
      tip.dataset.of = "layer"
      tip.hidden = false
      tip.replaceChildren(...this.describe(i))
      const x = event.clientX - 18 - tip.offsetWidth < 8 ? event.clientX + 18 : event.clientX - 18 - tip.offsetWidth
      const y = clamp(event.clientY - tip.offsetHeight / 2, 8, innerHeight - tip.offsetHeight - 8)
      tip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`
    }

    describe(i) {
      const line = (label, text, tone) => make("div", {"data-tone": tone}, label, make("span", {}, text))
      this.tiles ??= paint_atlas(this.atlas, this.data.colouring)
      const {canvas, across, w, h} = this.tiles, large = make("canvas", {class: "enlarged", width: 168, height: Math.round(168 * h / w)})
      const ctx = large.getContext("2d")
      ctx.imageSmoothingEnabled = w > 12
      ctx.drawImage(canvas, i % across * w, Math.floor(i / across) * h, w, h, 0, 0, large.width, large.height)
      const rows = [make("b", {}, `${this.data.layer} · filter ${this.data.indices[i]}`), large,
                    line("mean |∇|", short(this.values[2 * i]), "gradient"),
                    line("Σ activation", short(this.values[2 * i + 1]), "activation")]
      const notes = [ODD[this.odd[i]], frozen.has(this.ids[i]) ? "frozen" : "", staged.has(this.ids[i]) ? "staged for removal" : ""]
      for (const note of notes.filter(Boolean)) rows.push(make("small", {}, note))
      rows.push(make("small", {}, this.name == "coefficients" ? "click to select · drag it among others to set it to their mean" : "click to select · shift to select several"))
      return rows
    }
  }

  /** The grid of activation maps: the same tiles, in rows, by the chosen order. */
  class Grid extends Cloud {
    /** New data reorders the grid every few seconds, not with every batch. */
    take(data, model) {
      const image = page.parts.input?.title
      if (data.layer != this.data.layer || image != this.image || performance.now() - (this.sorted ?? 0) > RESORT_MS) this.rank = null
      this.image = image
      super.take(data, model)
    }
    arrange() {
      const [width, height] = this.size(), n = Math.max(1, this.n)
      let columns = Math.ceil(Math.sqrt(n * width / Math.max(1, height)))
      while (columns < n && Math.ceil(n / columns) * width / columns > height) columns += 1
      this.columns = columns
      this.cell = Math.min(width / columns, 104)
      if (this.rank?.length == this.n) return
      this.sorted = performance.now()
      const column = sort == "gradient" ? 0 : 1, order = [...this.ids.keys()]
      const value = (i) => sort == "index" ? -this.data.indices[i] : this.values[2 * i + column]
      order.sort((a, b) => value(b) - value(a) || this.data.indices[a] - this.data.indices[b])
      this.rank = new Array(this.n)
      order.forEach((i, rank) => this.rank[i] = rank)
    }
    side() {
      this.arrange()
      return (this.cell - (this.cell > 16 ? 4 : 1.5)) * this.scale
    }
    aside() {
      return 0
    }
    growth() {
      return 1
    }
    target(i) {
      if (this.rank == null || this.rank.length != this.n) this.arrange()
      const x = this.rank[i] % this.columns, y = Math.floor(this.rank[i] / this.columns)
      return [this.shift[0] + (x + 0.5) * this.cell * this.scale, this.shift[1] + (y + 0.5) * this.cell * this.scale]
    }
    resort() {
      const now = this.positions()
      this.before = new Map(this.ids.map((id, i) => [id, now[i]]))
      this.rank = null
      this.arrange()
      this.began = page.motion > 0 ? performance.now() : 0
      this.draw()
    }
  }

  const in_box = (a, b) => ([x, y]) =>
    x >= Math.min(a[0], b[0]) && x <= Math.max(a[0], b[0]) && y >= Math.min(a[1], b[1]) && y <= Math.max(a[1], b[1])

  /** Whether a point lies in a closed path: the even-odd rule. */
  const in_path = (path) => ([x, y]) => {
    let inside = false
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [[xi, yi], [xj, yj]] = [path[i], path[j]]
      if ((yi > y) != (yj > y) && x < (xj - xi) * (y - yi) / (yj - yi) + xi) inside = !inside
    }
    return inside
  }

  /* ------------------------------------------------------------------------------- selection */

  let staged = new Set(), frozen = new Set()
  const draw_all = () => {
    for (const view of Object.values(views)) view.draw()
  }

  /** Select these; shown at once, the server's answer confirms it. */
  function pick(ids) {
    if (!ids.length) return
    picked = ids
    picked_at = performance.now()
    draw_all()
    page.send("pick", {ids})
  }

  const repaint = page.repaint
  page.repaint = () => {
    repaint?.()
    draw_all()
  }

  /* ------------------------------------------------------------------------------- the parts */

  for (const name of ["coefficients", "gradients", "activations", "activation_gradients"]) {
    page.drawers[`view-${name}`] = (data, model) => {
      const box = document.querySelector(`[data-view="${name}"]`)
      if (views[name] == null) views[name] = new Cloud(name, box.querySelector("canvas"))
      const status = box.querySelector(".status")
      status.textContent = status.title = data.status ?? ""
      status.dataset.busy = Boolean(data.busy)
      views[name].take(data, model)
      if (name != "activations") return
      if (views.maps == null) views.maps = new Grid("maps", byId("maps"))
      views.maps.take(data, model)
      byId("maps-status").textContent = data.draw ? "" : data.status
    }
  }

  page.drawers.input = (data, model) => {
    const canvas = byId("input"), tiles = paint_atlas(model.atlas, "grey")
    byId("input-title").textContent = data.title ?? ""
    byId("input-label").textContent = [data.label, data.waiting ? "the next one is on its way" : ""].filter(Boolean).join(" · ")
    if (tiles == null) return
    canvas.width = tiles.w
    canvas.height = tiles.h
    canvas.dataset.small = tiles.w < 100
    canvas.getContext("2d").drawImage(tiles.canvas, 0, 0)
  }

  const press = (attribute, value) => {
    for (const button of document.querySelectorAll(`button[data-${attribute}]`)) {
      button.setAttribute("aria-pressed", String(button.dataset[attribute] == value))
    }
  }

  page.drawers.panel = (data) => {
    const pane = byId("inspector")
    if (pane.dataset.pane != data.pane) {
      pane.dataset.pane = data.pane
      requestAnimationFrame(() => {
        draw_all()
        dispatchEvent(new Event("resize"))
      })
    }
    press("pane", data.pane)
    press("method", data.method)
    const own = performance.now() - picked_at < 500 && String(picked) != String(data.selected)
    if (!own) picked = data.selected
    staged = new Set(data.staged)
    frozen = new Set(data.frozen ?? [])
    byId("freeze").textContent = data.freeze ?? "Freeze"
    for (const [id, why] of Object.entries(data.refused ?? {})) {
      byId(id).setAttribute("aria-disabled", String(Boolean(why)))
      byId(id).title = why || data.words[id]
    }
    draw_all()
  }

  /* --------------------------------------------------------------------------------- exports */

  function save(blob, name) {
    const link = make("a", {href: URL.createObjectURL(blob), download: name})
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 1000)
  }

  /** A view as a picture, on the ground of the page, in twice the screen's resolution. */
  function save_picture(view) {
    const [width, height] = view.size(), ratio = 2 * devicePixelRatio
    const sheet = make("canvas", {width: width * ratio, height: height * ratio}), ctx = sheet.getContext("2d")
    const screen = {canvas: view.canvas}
    view.canvas = {clientWidth: width, clientHeight: height, width: width * ratio, height: height * ratio}
    view.paint(ctx, ratio)
    view.canvas = screen.canvas
    ctx.setTransform(1, 0, 0, 1, 0, 0)
    ctx.globalCompositeOperation = "destination-over"
    ctx.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card")
    ctx.fillRect(0, 0, sheet.width, sheet.height)
    sheet.toBlob((blob) => save(blob, `${file_name(view)}.png`))
  }

  const file_name = (view) => `${view.data.layer}-${view.name}-step${view.data.step}`

  /** What a view shows, as a table. */
  page.table = (view) => {
    const lines = ["filter,id,x,y,odd,mean_abs_gradient,activation"]
    view.ids.forEach((id, i) => lines.push([view.data.indices[i], id, view.places[2 * i], view.places[2 * i + 1],
      ODD[view.odd[i]], view.values[2 * i], view.values[2 * i + 1]].join(",")))
    return lines.join("\n") + "\n"
  }

  /* -------------------------------------------------------------------------------- controls */

  addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("button[data-pane], button[data-method]")) {
      const command = button.dataset.pane ? "pane" : "method"
      button.addEventListener("click", () => page.send(command, {by: button.dataset[command]}))
    }
    for (const button of document.querySelectorAll("button[data-order]")) {
      button.addEventListener("click", () => {
        sort = button.dataset.order
        press("order", sort)
        views.maps?.resort()
      })
    }
    for (const button of document.querySelectorAll("button[data-shape]")) {
      button.addEventListener("click", () => {
        lasso = button.dataset.shape == "lasso"
        press("shape", button.dataset.shape)
      })
    }
    byId("anew").addEventListener("click", () => page.send("anew", {}))
    for (const [id, by] of [["image-before", {dx: -1}], ["image-after", {dx: 1}], ["image-batch", {by: "batch"}]]) {
      byId(id).addEventListener("click", () => page.send("image", by))
    }
    for (const id of ["freeze", "merge", "reinitialize"]) {
      byId(id).addEventListener("click", (event) => {
        if (event.currentTarget.getAttribute("aria-disabled") != "true") page.send(`stage_${id}`, {})
      })
    }
    for (const button of document.querySelectorAll("button[data-save]")) {
      button.addEventListener("click", () => {
        const view = views[button.closest("[data-view]").dataset.view]
        if (view == null || !view.n) return
        if (button.dataset.save == "png") save_picture(view)
        else save(new Blob([page.table(view)], {type: "text/csv"}), `${file_name(view)}.csv`)
      })
    }
    for (const title of document.querySelectorAll(".view h3")) {
      title.addEventListener("click", () => {
        const box = title.closest(".view"), grid = box.parentElement
        grid.dataset.only = grid.dataset.only == box.dataset.view ? "" : box.dataset.view
        draw_all()
      })
    }
    document.addEventListener("keydown", (event) => {
      if (event.key == "Escape" && page.drag != null) {
        page.drag.cancel()
        event.stopImmediatePropagation()
      }
    }, true)
  })
})()
