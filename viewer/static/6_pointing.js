/* Pointing at a cloud: zoom, hover, click, box and lasso, and dragging a filter among others. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make, clamp, shown} = page
  const NEAR = 4

  const short = (value) => value == null || !isFinite(value) ? "–"
    : value == 0 ? "0" : Math.abs(value) < 0.01 || Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toPrecision(3)

  class PointedCloud extends page.Cloud {
    constructor(name, canvas) {
      super(name, canvas)
      canvas.addEventListener("pointermove", (event) => this.on_move(event))
      canvas.addEventListener("pointerleave", () => this.hover(null))
      canvas.addEventListener("pointerdown", (event) => this.on_down(event))
      canvas.addEventListener("pointerup", (event) => this.on_up(event))
      canvas.addEventListener("pointercancel", () => this.cancel())
      canvas.addEventListener("wheel", (event) => this.on_wheel(event), {passive: false})
      canvas.addEventListener("dblclick", () => this.whole())
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
      if (!adding) shown.pick([id])
      else shown.pick(shown.picked.includes(id) ? shown.picked.filter((other) => other != id) : [id, ...shown.picked])
    }

    /** Select what lies in the box or the lasso. */
    enclose(drag, adding) {
      const inside = shown.lasso ? in_path(drag.path) : in_box(drag.from, drag.to), at = this.positions()
      const ids = this.ids.filter((_, i) => inside(at[i]))
      if (ids.length || adding) shown.pick(adding ? [...new Set([...shown.picked, ...ids])] : ids)
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
      shown.pick([id])
      page.send("stage_set", {ids: [id, ...near.map((one) => one.id)], weights: near.map((one) => one.weight / total)})
    }

    paint_over(ctx, at) {
      const {drag} = this
      if (drag == null || !drag.moved) return
      const theme = page.theme()
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
      if (shown.lasso) drag.path.forEach((point, k) => k ? ctx.lineTo(...point) : ctx.moveTo(...point))
      else ctx.rect(...drag.from, drag.to[0] - drag.from[0], drag.to[1] - drag.from[1])
      ctx.globalAlpha = 0.16
      ctx.fill()
      ctx.globalAlpha = 0.9
      ctx.stroke()
      ctx.globalAlpha = 1
    }

    hover(i, event) {
      const id = i == null ? null : this.ids[i]
      if (id !== shown.hovered) {
        shown.hovered = id
        shown.draw_all()
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
      this.tiles ??= page.paint_atlas(this.atlas, this.data.colouring)
      const {canvas, w, h} = this.tiles, large = make("canvas", {class: "enlarged", width: 168, height: Math.round(168 * h / w)})
      const ctx = large.getContext("2d")
      ctx.imageSmoothingEnabled = this.smooth()
      ctx.drawImage(canvas, ...this.source(i), 0, 0, large.width, large.height)
      const rows = [make("b", {}, `${this.data.layer} · filter ${this.data.indices[i]}`), large,
                    line("mean |∇|", short(this.values[2 * i]), "gradient"),
                    line("Σ activation", short(this.values[2 * i + 1]), "activation")]
      const notes = [this.odd_word(this.odd[i]), shown.frozen.has(this.ids[i]) ? "frozen" : "", shown.staged.has(this.ids[i]) ? "staged for removal" : ""]
      for (const note of notes.filter(Boolean)) rows.push(make("small", {}, note))
      rows.push(make("small", {}, this.name == "coefficients" ? "click to select · drag it among others to set it to their mean" : "click to select · shift to select several"))
      return rows
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

  page.PointedCloud = PointedCloud
})()
