/* The panel of a layer: four views of thumbnails, the grid of maps, the input image.
 *
 * For tests: `revacnn.views[name]` are the clouds. Names are coefficients, gradients, activations,
 * activation_gradients and maps. */
(function () {
  "use strict"
  const page = window.revacnn
  const {byId, make, shown} = page
  const RESORT_MS = 4000
  const BAR = 3 // px; pictures have the same ground in both themes, and so have the bars on them
  const BARS = {ground: "rgb(6 12 24 / 75%)", gradient: "#ffb347", activation: "#8ad0ff"}
  const views = page.views = {}

  /** The grid of activation maps: the same tiles, in rows, by the chosen order. */
  class Grid extends page.PointedCloud {
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
      const column = shown.sort == "gradient" ? 0 : 1, order = [...this.ids.keys()]
      const value = (i) => shown.sort == "index" ? -this.data.indices[i] : this.values[2 * i + column]
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
    growth(is_hovered) {
      return is_hovered ? 1.3 : 1
    }
    target(i) {
      if (this.rank == null || this.rank.length != this.n) this.arrange()
      const x = this.rank[i] % this.columns, y = Math.floor(this.rank[i] / this.columns)
      return [this.shift[0] + (x + 0.5) * this.cell * this.scale, this.shift[1] + (y + 0.5) * this.cell * this.scale]
    }
    /** Each map is as bright as it can be: a bar tells what it is ordered by. */
    paint_over(ctx, at) {
      super.paint_over(ctx, at)
      const column = ["gradient", "activation"].indexOf(shown.sort), side = this.side()
      if (column < 0 || side < 16) return
      const values = this.ids.map((_, i) => this.values[2 * i + column]), largest = Math.max(...values.filter(isFinite))
      for (let i = 0; i < this.n; i++) {
        if (this.ids[i] === shown.hovered) continue // it is larger
        const [left, top] = [at[i][0] - side / 2, at[i][1] + side / 2 - BAR], long = values[i] > 0 ? side * values[i] / largest : 0
        ctx.fillStyle = BARS.ground
        ctx.fillRect(left, top, side, BAR)
        ctx.fillStyle = BARS[shown.sort]
        ctx.fillRect(left, top, Math.min(side, long), BAR)
      }
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

  /* ------------------------------------------------------------------------------- selection */

  const draw_all = shown.draw_all = () => {
    for (const view of Object.values(views)) view.draw()
  }

  /** Select these; shown at once, the server's answer confirms it. */
  shown.pick = (ids) => {
    if (!ids.length) return
    shown.picked = ids
    shown.picked_at = performance.now()
    draw_all()
    const {data, row} = views.coefficients ?? {}, first = row?.get(ids[0])
    if (first != null) page.show_chosen(data.layer, data.indices[first])
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
      if (views[name] == null) views[name] = new page.PointedCloud(name, box.querySelector("canvas"))
      const status = box.querySelector(".status")
      status.textContent = status.title = data.status ?? ""
      status.dataset.busy = Boolean(data.busy)
      box.dataset.empty = !(model.atlas?.shape?.[0] > 0)
      views[name].take(data, model)
      if (name != "activations") return
      if (views.maps == null) views.maps = new Grid("maps", byId("maps"))
      views.maps.take(data, model)
      byId("maps-status").textContent = data.draw ? "" : data.status
    }
  }

  page.drawers.input = (data, model) => {
    const canvas = byId("input"), tiles = page.paint_atlas(model.atlas, "grey")
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
    const own = performance.now() - shown.picked_at < 500 && String(shown.picked) != String(data.selected)
    if (!own) shown.picked = data.selected
    shown.staged = new Set(data.staged)
    shown.frozen = new Set(data.frozen ?? [])
    byId("freeze").textContent = data.freeze ?? "Freeze"
    byId("slices").hidden = !data.slices
    press("slices", data.slices)
    page.draw_findings(data.findings)
    for (const [id, why] of Object.entries(data.refused ?? {})) {
      byId(id).setAttribute("aria-disabled", String(Boolean(why)))
      byId(id).title = why || data.words[id]
    }
    draw_all()
  }

  /* -------------------------------------------------------------------------------- controls */

  addEventListener("DOMContentLoaded", () => {
    for (const button of document.querySelectorAll("button[data-pane], button[data-method], button[data-slices]")) {
      const command = ["pane", "method", "slices"].find((name) => button.dataset[name])
      button.addEventListener("click", () => page.send(command, {by: button.dataset[command]}))
    }
    for (const button of document.querySelectorAll("button[data-order]")) {
      button.addEventListener("click", () => {
        shown.sort = button.dataset.order
        press("order", shown.sort)
        views.maps?.resort()
      })
    }
    for (const button of document.querySelectorAll("button[data-shape]")) {
      button.addEventListener("click", () => {
        shown.lasso = button.dataset.shape == "lasso"
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
